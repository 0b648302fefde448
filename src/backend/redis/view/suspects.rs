//! Clients of which this node may have missed something, until they are compared with Redis.

use std::collections::HashSet;

use crate::session::ClientId;

/// Above this many suspects, all are compared.
const LIMIT: usize = 1024;

/// Clients whose state here may be stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// Each that has a socket here: messages got lost.
    All,
    /// These.
    Some(HashSet<ClientId>),
}

impl Default for Suspects {
    fn default() -> Self {
        Self::Some(HashSet::new())
    }
}

impl Suspects {
    pub(super) fn add(&mut self, client: &ClientId) {
        if let Self::Some(clients) = self {
            clients.insert(*client);
            if clients.len() > LIMIT {
                *self = Self::All;
            }
        }
    }

    pub(super) fn add_all(&mut self) {
        *self = Self::All;
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_suspects_are_kept_apart_from_all() {
        let mut suspects = Suspects::default();
        let client = ClientId::generate();
        suspects.add(&client);
        suspects.add(&client);
        assert_eq!(suspects.take(), Suspects::Some(HashSet::from([client])));
        assert_eq!(suspects.take(), Suspects::default());
        suspects.add_all();
        suspects.add(&client);
        assert_eq!(suspects.take(), Suspects::All);
        (0..=LIMIT).for_each(|_| suspects.add(&ClientId::generate()));
        assert_eq!(suspects.take(), Suspects::All);
    }
}
