//! Listening to the events of all clients only while somebody wants them: without listeners a node
//! receives those of the sessions of its own sockets, and nothing else.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use crate::backend::Backend;

/// Without a listener for this long a node leaves. Also the time that an application has to add its
/// listeners after the start without missing an event.
const LINGER: Duration = Duration::from_secs(5);

/// Between tries to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Has the backend bring the events of all clients while there are listeners, until the bridge is gone.
pub(super) async fn follow_audience(core: Weak<Core>) {
    let Some(mut listeners) = core.upgrade().map(|core| core.events.listeners()) else { return };
    // An error says that the bridge is gone.
    while listeners.wait_for(|count| *count == 0).await.is_ok() {
        let comes = listeners.wait_for(|count| *count > 0);
        if tokio::time::timeout(LINGER, comes).await.is_ok() {
            continue;
        }
        let Some(backend) = set_all(&core, false) else { return };
        // Who comes from here on sees that not all arrive, and waits.
        if *listeners.borrow() == 0 {
            if let Err(error) = backend.listen_to_all(false).await {
                tracing::debug!(%error, "the node goes on listening to all sessions");
            }
            if listeners.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            while let Err(error) = backend.listen_to_all(true).await {
                tracing::warn!(%error, "listening to all sessions failed; trying on");
                tokio::time::sleep(PAUSE).await;
            }
        }
        if set_all(&core, true).is_none() {
            return;
        }
    }
}

/// Says whether all events arrive.
fn set_all(core: &Weak<Core>, all: bool) -> Option<Arc<dyn Backend>> {
    let core = core.upgrade()?;
    core.events.set_all(all);
    Some(core.backend.clone())
}
