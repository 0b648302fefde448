//! The view without Redis: single cases here, random interleavings in `model`.

mod checks;
mod model;
mod world;

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::{Comparison, Input, ProbeOutcome, Suspects, View};
use crate::backend::BackendEvent;
use crate::backend::redis::pubsub::message::Announcement;
use crate::session::{
    ClientId, DestroyReason, Generation, MaxAge, NodeId, Record, SessionData, SessionDestroy,
    SessionEvent, SessionId, SessionSet, Stamp,
};

pub(super) const LEFT: Duration = Duration::from_secs(60);

/// A session: its generation and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) generation: Generation,
    pub(super) id: SessionId,
}

pub(super) fn session(number: u64) -> Session {
    Session { generation: Generation::from_number(number), id: SessionId::generate() }
}

pub(super) fn record(client: ClientId, session: Session, version: u64) -> Record {
    Record {
        session_id: session.id,
        client_id: client,
        generation: session.generation,
        sealed: false,
        previous: Vec::new(),
        version,
        data: SessionData::new(),
        max_age: MaxAge::Default,
        age: Duration::ZERO,
        ttl: LEFT,
        remaining: LEFT,
        stamp: Stamp::default(),
    }
}

/// The node that does all.
fn node() -> NodeId {
    static NODE: LazyLock<NodeId> = LazyLock::new(NodeId::random);
    NODE.clone()
}

pub(super) fn set(client: ClientId, session: Session, version: u64) -> Announcement {
    let new = version == 1;
    let set = SessionSet::new(client, session.id, new, new, node());
    let event = BackendEvent {
        generation: Some(session.generation),
        version: Some(version),
        ..BackendEvent::plain(SessionEvent::Set(set))
    };
    Announcement { event, version, left: LEFT }
}

pub(super) fn end(client: ClientId, session: Session, reason: DestroyReason) -> Announcement {
    let end = SessionDestroy::new(client, session.id, reason, node());
    let event = BackendEvent::end(end, Some(session.generation));
    Announcement { event, version: 0, left: Duration::ZERO }
}

/// A view of one client that has a socket, and all that it emitted.
struct Node {
    view: View,
    client: ClientId,
    now: Instant,
    emitted: Vec<String>,
}

impl Node {
    /// A socket came and began with this.
    fn new(begins: Option<(Session, u64)>) -> Self {
        let (view, client) = (View::new(node()), ClientId::generate());
        let mut node = Self { view, client, now: Instant::now(), emitted: Vec::new() };
        node.apply(Input::Watched(client));
        let record = begins.map(|(session, version)| record(client, session, version));
        node.apply(Input::FirstRead(client, record.as_ref(), node.view.step()));
        node
    }

    fn apply(&mut self, input: Input<'_>) {
        for event in self.view.apply(self.now, input).emit {
            let generation = event.generation.map(Generation::number).unwrap_or_default();
            self.emitted.push(match &event.event {
                SessionEvent::Set(_) => {
                    format!("set {generation} v{}", event.version.unwrap_or_default())
                }
                SessionEvent::Destroy(end) => format!("{} {generation}", end.reason.as_str()),
                SessionEvent::Gap(_) => "gap".to_owned(),
                SessionEvent::Cleanup(_) => "cleanup".to_owned(),
            });
        }
    }

    fn set(&mut self, session: Session, version: u64) {
        self.apply(Input::Announced(set(self.client, session, version)));
    }

    fn end(&mut self, session: Session, reason: DestroyReason) {
        self.apply(Input::Announced(end(self.client, session, reason)));
    }

    fn read(&mut self, session: Session, version: u64) {
        self.apply(Input::Read(&record(self.client, session, version)));
    }

    fn compare(&mut self, found: Option<(Session, u64)>) {
        let record = found.map(|(session, version)| record(self.client, session, version));
        let since = self.view.step();
        self.apply(Input::Compared(Comparison {
            client: self.client,
            since,
            record: record.as_ref(),
            announced: None,
        }));
    }

    fn differs(&self, found: Option<(Session, u64)>) -> bool {
        let found = found.map(|(session, version)| (session.generation, version));
        self.view.differs(&self.client, self.view.step(), found)
    }

    fn known(&self) -> Option<(Generation, u64)> {
        let known = self.view.cached_session(&self.client)?;
        Some((known.generation, known.version))
    }
}

fn of(session: Session, version: u64) -> Option<(Generation, u64)> {
    Some((session.generation, version))
}

#[test]
fn a_read_that_was_answered_before_the_end_and_arrives_after_it_leaves_nothing_known() {
    let (first, second) = (session(1), session(2));
    let mut node = Node::new(Some((first, 1)));
    node.end(first, DestroyReason::Destroyed);
    node.read(first, 1);
    assert_eq!(node.known(), None);
    node.set(second, 1);
    node.end(second, DestroyReason::Destroyed);
    // Also after the end of the next one.
    node.read(first, 1);
    assert_eq!(node.known(), None);
    node.read(second, 1);
    assert_eq!(node.known(), None);
}

#[test]
fn what_is_known_of_a_session_that_has_ended_is_found_by_comparing() {
    let first = session(1);
    let mut node = Node::new(None);
    // Its end is lost.
    node.read(first, 1);
    assert_eq!(node.known(), of(first, 1));
    assert!(node.differs(None));
    node.compare(None);
    assert_eq!(node.known(), None);
    assert_eq!(node.emitted, ["reconciled 1"]);
}

#[test]
fn an_end_that_a_comparison_found_is_not_emitted_again_after_the_next_session_has_begun() {
    let (first, second) = (session(1), session(2));
    let mut node = Node::new(Some((first, 1)));
    node.compare(Some((second, 3)));
    assert_eq!(node.emitted, ["reconciled 1", "set 2 v3"]);
    // What was announced arrives after all.
    node.end(first, DestroyReason::Destroyed);
    for version in 1..=3 {
        node.set(second, version);
    }
    assert_eq!(node.emitted.len(), 2, "{:?}", node.emitted);
    node.set(second, 4);
    assert_eq!(node.emitted[2], "set 2 v4");
    assert_eq!(node.known(), of(second, 4));
}

#[test]
fn a_session_between_two_that_a_comparison_saw_does_not_take_over_when_it_is_announced_late() {
    let (first, second, third) = (session(1), session(2), session(3));
    let mut node = Node::new(Some((first, 1)));
    node.compare(Some((third, 1)));
    node.end(first, DestroyReason::Destroyed);
    node.set(second, 1);
    assert_eq!(node.known(), of(third, 1));
    node.end(second, DestroyReason::Expired);
    node.set(third, 1);
    assert_eq!(node.known(), of(third, 1));
    assert_eq!(node.emitted, ["reconciled 1", "set 3 v1", "expired 2"]);
}

#[test]
fn a_session_whose_end_was_emitted_is_back_after_a_failover() {
    let first = session(1);
    let mut node = Node::new(Some((first, 2)));
    node.end(first, DestroyReason::Destroyed);
    node.apply(Input::Gap);
    assert!(node.differs(Some((first, 2))));
    node.compare(Some((first, 2)));
    assert_eq!(node.known(), of(first, 2));
    node.end(first, DestroyReason::Expired);
    assert_eq!(node.emitted, ["destroyed 1", "gap", "set 1 v2", "expired 1"]);
}

#[test]
fn changes_that_a_failover_lost_are_emitted_as_a_change_back() {
    let first = session(1);
    let mut node = Node::new(Some((first, 1)));
    node.set(first, 2);
    assert!(node.differs(Some((first, 1))));
    node.compare(Some((first, 1)));
    assert_eq!(node.known(), of(first, 1));
    node.set(first, 2);
    assert_eq!(node.emitted, ["set 1 v2", "set 1 v1", "set 1 v2"]);
}

#[test]
fn a_comparison_that_was_overtaken_is_made_again() {
    let (first, second) = (session(1), session(2));
    let mut node = Node::new(Some((first, 1)));
    let (since, old) = (node.view.step(), record(node.client, first, 1));
    node.end(first, DestroyReason::Destroyed);
    node.set(second, 1);
    let client = node.client;
    node.apply(Input::Compared(Comparison { client, since, record: Some(&old), announced: None }));
    assert_eq!(node.known(), of(second, 1));
    assert_eq!(node.emitted, ["destroyed 1", "set 2 v1"]);
    assert_eq!(node.view.take_suspects(), Suspects::Some([client].into()));
}

#[test]
fn an_own_write_is_known_at_once_and_reads_do_not_go_back_behind_it() {
    let (first, sealed) = (session(1), session(2));
    let mut node = Node::new(Some((first, 3)));
    node.read(first, 4);
    node.read(first, 3);
    assert_eq!(node.known(), of(first, 4));
    node.read(sealed, 5);
    assert_eq!(node.known(), of(sealed, 5));
    node.read(first, 4);
    node.set(first, 4);
    assert_eq!(node.known(), of(sealed, 5));
    node.end(first, DestroyReason::Sealed);
    node.set(sealed, 5);
    assert_eq!(node.known(), of(sealed, 5));
    assert_eq!(node.emitted, ["set 1 v4", "sealed 1", "set 2 v5"]);
}

#[test]
fn a_change_that_comes_twice_is_emitted_once_and_a_notice_each_time() {
    let first = session(1);
    let mut node = Node::new(Some((first, 1)));
    let notice = |client| {
        let mut notice = set(client, first, 2);
        notice.event.version = None;
        notice
    };
    for version in [1, 1, 2, 1, 2] {
        node.set(first, version);
    }
    node.apply(Input::Announced(notice(node.client)));
    node.apply(Input::Announced(notice(node.client)));
    assert_eq!(node.emitted, ["set 1 v1", "set 1 v2", "set 1 v0", "set 1 v0"]);
}

#[test]
fn sockets_that_come_at_once_and_begin_with_the_same_session_differ_in_nothing() {
    let first = session(1);
    let mut node = Node::new(None);
    let other = ClientId::generate();
    let begins = record(other, first, 2);
    node.apply(Input::Watched(other));
    node.apply(Input::Watched(other));
    let differs =
        |node: &Node| node.view.differs(&other, node.view.step(), Some((first.generation, 2)));
    assert!(!differs(&node), "each reads for itself");
    node.apply(Input::FirstRead(other, Some(&begins), node.view.step()));
    node.apply(Input::FirstRead(other, Some(&begins), node.view.step()));
    assert!(!differs(&node));
}

#[test]
fn a_session_that_only_a_later_socket_saw_is_emitted_to_the_others_by_a_comparison() {
    let first = session(1);
    let mut node = Node::new(None);
    let client = node.client;
    let begins = record(client, first, 1);
    node.apply(Input::Watched(client));
    node.apply(Input::FirstRead(client, Some(&begins), node.view.step()));
    // Its announcement is lost.
    node.apply(Input::Gap);
    assert!(node.differs(Some((first, 1))));
    node.compare(Some((first, 1)));
    assert_eq!(node.emitted, ["gap", "set 1 v1"]);
    assert!(!node.differs(Some((first, 1))));
}

#[test]
fn a_later_socket_that_read_before_a_comparison_of_all_is_compared_again() {
    let first = session(1);
    let mut node = Node::new(None);
    let client = node.client;
    node.apply(Input::Watched(client));
    let (since, begins) = (node.view.step(), record(client, first, 1));
    // Begin and end of the session are lost, and what is compared is what was known: none.
    node.apply(Input::Gap);
    node.view.take_suspects();
    assert!(!node.differs(None));
    node.apply(Input::FirstRead(client, Some(&begins), since));
    assert_eq!(node.view.take_suspects(), Suspects::Some([client].into()));
    node.compare(None);
    assert_eq!(
        (node.emitted, node.view.cached_session(&client)),
        (vec!["gap".into(), "reconciled 1".into()], None)
    );
}

#[test]
fn a_living_session_is_probed_again_at_its_end_and_one_that_is_gone_is_compared() {
    let first = session(1);
    let mut node = Node::new(Some((first, 1)));
    let client = node.client;
    assert!(node.view.take_due(node.now, 10).is_empty());
    node.now = node.view.next_deadline().unwrap_or(node.now);
    assert_eq!(node.view.take_due(node.now, 10), [client]);
    node.apply(Input::Probed(client, ProbeOutcome::Alive(LEFT)));
    assert!(node.view.next_deadline().is_some_and(|at| at >= node.now + LEFT));
    assert_eq!(node.view.take_suspects(), Suspects::default());
    node.apply(Input::Probed(client, ProbeOutcome::AlreadyAnnounced));
    assert_eq!(node.view.take_suspects(), Suspects::Some([client].into()));
    assert!(node.emitted.is_empty() && node.known() == of(first, 1));
}

#[test]
fn nothing_is_kept_of_a_client_that_left() {
    let mut node = Node::new(Some((session(1), 1)));
    let client = node.client;
    node.apply(Input::Unwatched(client));
    assert_eq!((node.known(), node.view.next_deadline()), (None, None));
    node.read(session(2), 1);
    assert_eq!(node.known(), None);
    assert!(node.view.tracker.is_consistent() && node.view.clients().is_empty());
}

#[test]
fn what_redis_says_of_keys_is_probed_unless_its_end_was_announced() {
    let first = session(1);
    let mut node = Node::new(Some((first, 1)));
    let client = node.client;
    node.apply(Input::KeyspaceEvent(client, DestroyReason::External));
    node.now = node.view.next_probe().unwrap_or(node.now);
    assert_eq!(node.view.take_probes(node.now).probes, [(client, DestroyReason::External)]);
    node.end(first, DestroyReason::External);
    node.apply(Input::KeyspaceEvent(client, DestroyReason::External));
    node.apply(Input::ProbeRequested(client, DestroyReason::External));
    node.apply(Input::Missing(client));
    assert_eq!(node.view.next_probe(), None);
}
