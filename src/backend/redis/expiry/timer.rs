//! Ends that no writer tells: expiry, eviction, and whatever others do to our keys.
//!
//! Redis drops a record whose time is over when somebody looks, or much later. So this node looks
//! at the sessions of its own sockets at their very end, and one of all nodes sweeps the rest.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::redis::context::Shared;
use crate::backend::redis::expiry::probe::{Found, TOGETHER};
use crate::backend::redis::hints::Only;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason};

/// Sessions that could not be looked at are looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);

impl Shared {
    /// Looks at several sessions at once. Returns what each is.
    pub(crate) async fn look_at(
        &self,
        clients: impl Iterator<Item = (ClientId, DestroyReason)>,
    ) -> Result<Vec<(ClientId, Found)>> {
        let looks = clients.map(async |(client, reason)| {
            self.look(&client, reason).await.map(|found| (client, found))
        });
        futures_util::future::try_join_all(looks).await
    }

    /// Takes the ended ones off the list and puts the others off.
    pub(crate) async fn tidy(&self, looked: &[(ClientId, Found)]) -> Result<()> {
        let mut later = Vec::new();
        let mut over = Vec::new();
        let mut pointers = Vec::new();
        for (client, found) in looked {
            match found {
                Found::Alive(left) => later.push((*client, *left, Only::Always)),
                Found::Told(id) => {
                    over.push(*client);
                    pointers.push(*id);
                }
                Found::Gone | Found::Nameless => over.push(*client),
            }
        }
        let pointers = pointers.into_iter().map(|id| self.unpoint(id));
        futures_util::try_join!(
            self.index(later),
            self.unindex(&over),
            futures_util::future::try_join_all(pointers),
        )?;
        Ok(())
    }
}

/// Looks at the sessions of this node's own sockets when their time is over, for ever.
pub(crate) async fn end_own(shared: Arc<Shared>) {
    loop {
        let due = shared.watched.due(TOGETHER).await;
        let asked: Vec<_> = due
            .into_iter()
            .filter(|client| shared.watched.known(client).is_some())
            .map(|client| (client, DestroyReason::Expired))
            .collect();
        let looked = match shared.look_at(asked.iter().copied()).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::debug!(%error, "sessions could not be looked at and will be again");
                for (client, _) in &asked {
                    shared.watched.look_in(client, AGAIN);
                }
                continue;
            }
        };
        for (client, found) in &looked {
            match found {
                Found::Alive(left) => shared.watched.look_in(client, *left),
                // The announcement is on its way; if it gets lost the audit finds out.
                Found::Told(_) => {}
                // It was, and may be lost.
                Found::Gone | Found::Nameless => shared.doubt.about(client),
            }
        }
        let over: Vec<_> =
            looked.into_iter().filter(|(_, f)| matches!(f, Found::Told(_))).collect();
        if let Err(error) = shared.tidy(&over).await {
            tracing::debug!(%error, "ended sessions were not tidied up; the sweep will do it");
        }
    }
}
