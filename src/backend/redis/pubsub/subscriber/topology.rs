//! Where a cluster is listened to.

use std::collections::HashSet;

use fred::prelude::*;

/// What is subscribed in a cluster by now.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// Where announcements are received. Only ever one server: on two, each would come twice.
    pub(super) home: Option<Server>,
    /// The subscription there is known to work.
    pub(super) works: bool,
    /// Where none came although it was subscribed.
    pub(super) unresponsive: Option<Server>,
    /// Primaries whose keys are watched, while this node sweeps.
    pub(super) watched: HashSet<Server>,
    /// Connections that survived may have subscriptions that they should not have any more.
    pub(super) stale_subscriptions: bool,
}

impl Topology {
    /// A connection is new: nothing is subscribed on it.
    pub(super) fn is_new(&mut self, server: &Server) {
        self.watched.remove(server);
        if self.home.as_ref() == Some(server) {
            self.works = false;
        }
    }

    /// Any connection may be new.
    pub(super) fn all_new(&mut self) {
        self.watched.clear();
        self.works = false;
    }

    /// Where to hear announcements from now on: where it was, as long as that is there, for the
    /// subscription may have survived.
    pub(super) fn settle(&mut self, servers: &[Server]) -> Option<Server> {
        let before = self.home.take();
        let moves = before.as_ref().is_some_and(|home| !servers.contains(home));
        // Its connection may come back as it was.
        self.stale_subscriptions |= moves;
        let stays = before.filter(|_| !moves);
        self.works &= stays.is_some();
        let others = || servers.iter().find(|server| self.unresponsive.as_ref() != Some(server));
        self.home = stays.or_else(|| others().or(servers.first()).cloned());
        self.home.clone()
    }

    /// Nothing comes from there. It has to be left before another takes its place.
    pub(super) fn gave_up(&mut self) {
        *self =
            Self { unresponsive: self.home.take(), stale_subscriptions: true, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(ports: &[u16]) -> Vec<Server> {
        ports.iter().map(|port| Server::new("127.0.0.1", *port)).collect()
    }

    #[test]
    fn announcements_are_heard_where_they_were_as_long_as_that_is_there() {
        let mut topology = Topology { works: true, ..Topology::default() };
        topology.home = servers(&[2]).pop();
        let home = topology.settle(&servers(&[1, 2, 3]));
        assert_eq!((home, topology.works), (servers(&[2]).pop(), true));
        topology.is_new(&servers(&[2])[0]);
        assert!(!topology.works, "a new connection has no subscription");
        topology.works = true;
        let home = topology.settle(&servers(&[3, 4]));
        assert_eq!((home, topology.works), (servers(&[3]).pop(), false));
        assert_eq!(topology.settle(&[]), None);
    }

    #[test]
    fn a_server_from_which_nothing_comes_is_taken_only_if_there_is_no_other() {
        let mut topology = Topology::default();
        topology.settle(&servers(&[1, 2]));
        topology.gave_up();
        assert_eq!(topology.settle(&servers(&[1, 2])), servers(&[2]).pop());
        topology.gave_up();
        assert_eq!(topology.settle(&servers(&[2])), servers(&[2]).pop());
    }
}
