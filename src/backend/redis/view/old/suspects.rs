//! What this node may have missed, until it has looked.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::session::ClientId;

/// So many clients in doubt are as good as all.
const SOME: usize = 1024;

/// Clients whose sockets may go by a state that is not the last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doubtful {
    /// Each that has a socket here: messages got lost.
    All,
    /// These.
    Some(HashSet<ClientId>),
}

/// Doubts that wait to be looked into.
#[derive(Debug)]
pub(crate) struct Doubt {
    doubtful: Mutex<Doubtful>,
    raised: Notify,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { doubtful: Mutex::new(Doubtful::Some(HashSet::new())), raised: Notify::new() }
    }
}

impl Doubt {
    fn lock(&self) -> MutexGuard<'_, Doubtful> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Anything may have been missed.
    pub(crate) fn all(&self) {
        *self.lock() = Doubtful::All;
        self.raised.notify_one();
    }

    /// Something of this client may have been missed.
    pub(crate) fn about(&self, client: &ClientId) {
        let mut doubtful = self.lock();
        if let Doubtful::Some(clients) = &mut *doubtful {
            clients.insert(*client);
            if clients.len() > SOME {
                *doubtful = Doubtful::All;
            }
        }
        drop(doubtful);
        self.raised.notify_one();
    }

    /// Waits for a doubt.
    pub(crate) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// Takes all doubts.
    pub(crate) fn take(&self) -> Doubtful {
        std::mem::replace(&mut *self.lock(), Doubtful::Some(HashSet::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_about_some_are_kept_apart_from_doubts_about_all() {
        let doubt = Doubt::default();
        let client = ClientId::generate();
        doubt.about(&client);
        doubt.about(&client);
        assert_eq!(doubt.take(), Doubtful::Some(HashSet::from([client])));
        assert_eq!(doubt.take(), Doubtful::Some(HashSet::new()));
        doubt.all();
        doubt.about(&client);
        assert_eq!(doubt.take(), Doubtful::All);
        (0..=SOME).for_each(|_| doubt.about(&ClientId::generate()));
        assert_eq!(doubt.take(), Doubtful::All);
    }
}
