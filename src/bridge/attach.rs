//! Attaching sockets, and detaching them.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::attachment::Attachment;
use super::core::Core;
use crate::backend::SessionSnapshot;
use crate::session::SessionEvent;

/// Keeps a socket attached; dropping it detaches the socket.
pub(crate) struct AttachmentGuard {
    core: Arc<Core>,
    attachment: Arc<Attachment>,
}

impl AttachmentGuard {
    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The session that the socket may see now.
    pub(crate) fn session(&self) -> Option<SessionSnapshot> {
        let known = self.core.backend.cached_session(&self.attachment.client())?;
        self.attachment.can_see_snapshot(&known).then_some(known)
    }

    /// The events that the connection may see from now on, until it is detached.
    #[cfg(feature = "ws")]
    pub(crate) fn events(&self) -> tokio::sync::mpsc::Receiver<SessionEvent> {
        self.attachment.listen()
    }

    /// Calls `handler` with each event that the socket may see, until it is detached.
    pub(crate) fn listen<F, Fut>(&self, mut handler: F)
    where
        F: FnMut(SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut events = self.attachment.listen();
        self.core.spawn(async move {
            while let Some(event) = events.recv().await {
                let call = AssertUnwindSafe(async { handler(event).await });
                if call.catch_unwind().await.is_err() {
                    tracing::error!("a socket's session event handler panicked");
                }
            }
        });
    }
}

impl fmt::Debug for AttachmentGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attachment.fmt(f)
    }
}

impl Drop for AttachmentGuard {
    fn drop(&mut self) {
        detach(&self.core, &self.attachment);
    }
}

/// Attaches a socket. The client has to be watched already; detaching ends that, also if this
/// returns `None`: then the session that the socket was to begin with ended while it came, and
/// the event of its end may have passed before the socket could get it.
pub(super) fn attach_socket(core: &Arc<Core>, attachment: Attachment) -> Option<AttachmentGuard> {
    let attachment = Arc::new(attachment);
    core.sockets.add(attachment.clone());
    core.counters.sockets_attached.add(1);
    let guard = AttachmentGuard { core: core.clone(), attachment };
    if core.leaving.is_cancelled() {
        guard.attachment.sink().shut_down();
    }
    // After that, so that nothing falls in between.
    let known = core.backend.cached_session(&guard.attachment.client());
    match (&known, guard.attachment.session()) {
        (Some(known), Some((generation, _))) if known.generation == generation => {
            guard.attachment.begin(known);
        }
        (_, Some(_)) => return None,
        (Some(known), None) if guard.attachment.can_see_snapshot(known) => {
            guard.attachment.begin(known);
        }
        _ => {}
    }
    Some(guard)
}

/// Detaches a socket, once.
fn detach(core: &Core, attachment: &Attachment) {
    if core.sockets.remove(attachment) {
        core.backend.unwatch(&attachment.client());
        attachment.end_listeners();
        core.counters.sockets_detached.add(1);
    }
}

/// Detaches sockets that are gone although something of the application's keeps them, and
/// with them their guard, in memory.
pub(super) fn detach_closed_sockets(core: &Core) {
    for attachment in core.sockets.all() {
        if !attachment.sink().is_open() {
            detach(core, &attachment);
        }
    }
}
