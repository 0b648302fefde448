//! Random interleavings of what Redis does with what arrives of it, against a simple model.
//!
//! The model is Redis: one session for each client at most, and a queue of announcements in the
//! order of its changes. Reads and comparisons take what there is when they are answered, and arrive
//! at any later time. Announcements are lost only with a gap, or come once more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{LEFT, Session, end, node, record, session, set};
use crate::backend::BackendEvent;
use crate::backend::redis::pubsub::message::Announcement;
use crate::backend::redis::view::{Comparison, Input, ProbeOutcome, Step, Suspects, View};
use crate::session::{ClientId, DestroyReason, Generation, Record, SessionEvent};

const CLIENTS: usize = 2;

/// What happens next. Numbers choose a client, or one of those that are under way.
#[derive(Debug, Clone, Copy)]
enum Event {
    Begin(usize),
    Write(usize),
    Seal(usize),
    End(usize),
    /// A record vanishes, and nobody announces it.
    Vanish(usize),
    /// Redis goes back to a state in which a session that has ended lives.
    Failover(usize),
    Deliver(usize),
    Duplicate(usize),
    /// The next announcements get lost.
    Lose(usize),
    Gap,
    Read(usize),
    ReadArrives(usize),
    Watch(usize),
    Watched(usize),
    Unwatch(usize),
    Compare(usize),
    Compared(usize),
    Keyspace(usize),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let any = 0..8usize;
    let event = prop_oneof![
        4 => any.clone().prop_map(Event::Begin),
        4 => any.clone().prop_map(Event::Write),
        2 => any.clone().prop_map(Event::Seal),
        3 => any.clone().prop_map(Event::End),
        1 => any.clone().prop_map(Event::Vanish),
        1 => any.clone().prop_map(Event::Failover),
        10 => (1..4usize).prop_map(Event::Deliver),
        2 => any.clone().prop_map(Event::Duplicate),
        1 => (1..4usize).prop_map(Event::Lose),
        1 => Just(Event::Gap),
        4 => any.clone().prop_map(Event::Read),
        4 => any.clone().prop_map(Event::ReadArrives),
        1 => any.clone().prop_map(Event::Watch),
        1 => any.clone().prop_map(Event::Watched),
        1 => any.clone().prop_map(Event::Unwatch),
        2 => any.clone().prop_map(Event::Compare),
        2 => any.clone().prop_map(Event::Compared),
        1 => any.prop_map(Event::Keyspace),
        2 => (1..100u64).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 1..80)
}

#[derive(Debug, Clone, Copy)]
enum Said {
    Set(usize, u64),
    End(usize, DestroyReason),
}

/// A session in Redis, and what the node has emitted of it.
#[derive(Debug)]
struct Life {
    client: usize,
    session: Session,
    version: u64,
    ended: bool,
    emitted: Vec<u64>,
    end_emitted: bool,
    /// Sockets of the node were notified of it, or began with it, since they last came.
    seen: bool,
    /// A failover brought it back.
    back: bool,
}

#[derive(Debug, Default)]
struct Client {
    live: Option<usize>,
    /// What vanished and was not announced.
    vanished: Option<usize>,
    watchers: usize,
    /// First reads that are under way: what they found.
    begins: VecDeque<Option<Record>>,
    /// It had no socket at some time, and what is emitted then is not remembered.
    left: bool,
}

struct World {
    view: View,
    now: Instant,
    ids: Vec<ClientId>,
    clients: Vec<Client>,
    lives: Vec<Life>,
    queue: VecDeque<Said>,
    delivered: Vec<Said>,
    reads: Vec<Record>,
    comparisons: Vec<(usize, Step, Option<Record>)>,
    /// Announcements were lost, and the node has yet to notice.
    gap: bool,
    lost: bool,
    compared: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            view: View::new(node()),
            now: Instant::now(),
            ids: (0..CLIENTS).map(|_| ClientId::generate()).collect(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            lives: Vec::new(),
            queue: VecDeque::new(),
            delivered: Vec::new(),
            reads: Vec::new(),
            comparisons: Vec::new(),
            gap: false,
            lost: false,
            compared: false,
        };
        // One has a socket from the start on.
        world.clients[1].left = true;
        world.step(Event::Watch(0));
        world.step(Event::Watched(0));
        world
    }

    // ---- Redis ---------------------------------------------------------------------------------

    fn stored(&self, client: usize) -> Option<Record> {
        let life = &self.lives[self.clients[client].live?];
        Some(record(self.ids[client], life.session, life.version))
    }

    fn begin(&mut self, client: usize, version: u64) {
        let life = self.lives.len();
        self.lives.push(Life {
            client,
            session: session(u64::try_from(life).unwrap_or(0)),
            version,
            ended: false,
            emitted: Vec::new(),
            end_emitted: false,
            seen: false,
            back: false,
        });
        self.clients[client].live = Some(life);
        self.queue.push_back(Said::Set(life, version));
    }

    fn end(&mut self, client: usize, reason: DestroyReason) -> Option<u64> {
        let life = self.clients[client].live.take()?;
        self.lives[life].ended = true;
        self.queue.push_back(Said::End(life, reason));
        Some(self.lives[life].version)
    }

    /// Whoever finds a record gone announces that, once.
    fn probe(&mut self, client: usize) -> ProbeOutcome {
        if self.clients[client].live.is_some() {
            return ProbeOutcome::Alive(LEFT);
        }
        match self.clients[client].vanished.take() {
            Some(life) => {
                self.queue.push_back(Said::End(life, DestroyReason::Expired));
                ProbeOutcome::Expired(Some(self.lives[life].session.id))
            }
            None => ProbeOutcome::AlreadyAnnounced,
        }
    }

    /// The last session of a client lives again, a write behind if `back`.
    fn failover(&mut self, client: usize) {
        let last = self.lives.iter().rposition(|life| life.client == client);
        let Some(last) = last.filter(|_| self.clients[client].live.is_none()) else { return };
        self.clients[client].live = Some(last);
        self.clients[client].vanished = None;
        let life = &mut self.lives[last];
        life.ended = false;
        life.end_emitted = false;
        life.back = true;
        life.version = (life.version - 1).max(1);
        life.emitted.clear();
        // Connections are lost, with all that was on its way.
        self.queue.clear();
        self.delivered.clear();
        self.reads.clear();
        self.comparisons.clear();
        for client in 0..CLIENTS {
            for _ in 0..self.clients[client].begins.len() {
                self.unwatch(client);
            }
            self.clients[client].begins.clear();
        }
        self.lost = true;
        self.gap = false;
        self.apply(Input::Gap);
    }

    // ---- the node ------------------------------------------------------------------------------

    fn apply(&mut self, input: Input<'_>) {
        for event in self.view.apply(self.now, input).emit {
            self.check(&event);
        }
    }

    /// An event of a session that is what the model says, in its order, and not twice.
    fn check(&mut self, event: &BackendEvent) {
        let number = event.generation.map(Generation::number);
        let life = number.and_then(|number| usize::try_from(number).ok());
        let Some(life) = life.map(|life| &mut self.lives[life]) else { return };
        match &event.event {
            SessionEvent::Set(_) => {
                let version = event.version.unwrap_or_default();
                assert!(!life.end_emitted, "a change after the end: {event:?}");
                assert!(version <= life.version || life.back, "a change that never was: {event:?}");
                let client = &self.clients[life.client];
                let tracked = client.watchers > 0 && !client.left && !life.back;
                if let Some(last) = life.emitted.last() {
                    assert!(!tracked || version > *last, "twice, or backwards: {event:?}");
                }
                life.emitted.push(version);
                life.seen |= client.watchers > 0;
            }
            SessionEvent::Destroy(_) => {
                assert!(life.ended, "the end of a session that lives: {event:?}");
                assert!(!life.end_emitted, "an end came twice: {event:?}");
                life.end_emitted = true;
            }
            _ => {}
        }
    }

    fn announcement(&self, said: Said) -> Announcement {
        let (Said::Set(life, _) | Said::End(life, _)) = said;
        let Life { client, session, .. } = self.lives[life];
        match said {
            Said::Set(_, version) => set(self.ids[client], session, version),
            Said::End(_, reason) => end(self.ids[client], session, reason),
        }
    }

    fn deliver(&mut self) {
        let Some(said) = self.queue.pop_front() else { return };
        self.delivered.push(said);
        self.apply(Input::Announced(self.announcement(said)));
    }

    fn unwatch(&mut self, client: usize) {
        self.apply(Input::Unwatched(self.ids[client]));
        self.clients[client].watchers -= 1;
        if self.clients[client].watchers == 0 {
            self.clients[client].left = true;
            let of_client = self.lives.iter_mut().filter(|life| life.client == client);
            of_client.for_each(|life| life.seen = false);
        }
    }

    fn compare(&mut self, client: usize, since: Step, found: Option<&Record>) {
        if !self.view.differs(&self.ids[client], since, found) {
            return;
        }
        self.compared = true;
        // The read that counts, and a probe if there is nothing.
        let (since, found) = (self.view.step(), self.stored(client));
        let mut announced = None;
        if found.is_none()
            && let ProbeOutcome::Expired(id) = self.probe(client)
        {
            announced = id;
        }
        self.comparisons.push((client, since, found.clone()));
        let client = self.ids[client];
        self.apply(Input::Compared(Comparison {
            client,
            since,
            record: found.as_ref(),
            announced,
        }));
    }

    fn step(&mut self, event: Event) {
        let pick = |number: usize, len: usize| (len > 0).then(|| number % len);
        match event {
            Event::Begin(client) => {
                let client = client % CLIENTS;
                if self.clients[client].live.is_none() {
                    self.probe(client);
                    self.begin(client, 1);
                }
            }
            Event::Write(client) => {
                if let Some(life) = self.clients[client % CLIENTS].live {
                    self.lives[life].version += 1;
                    self.queue.push_back(Said::Set(life, self.lives[life].version));
                }
            }
            Event::Seal(client) => {
                if let Some(version) = self.end(client % CLIENTS, DestroyReason::Sealed) {
                    self.begin(client % CLIENTS, version + 1);
                }
            }
            Event::End(client) => {
                self.end(client % CLIENTS, DestroyReason::Destroyed);
            }
            Event::Vanish(client) => {
                let client = &mut self.clients[client % CLIENTS];
                if let Some(life) = client.live.take() {
                    self.lives[life].ended = true;
                    client.vanished = Some(life);
                }
            }
            Event::Failover(client) => self.failover(client % CLIENTS),
            Event::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Event::Duplicate(number) => {
                if let Some(at) = pick(number, self.delivered.len()) {
                    self.apply(Input::Announced(self.announcement(self.delivered[at])));
                }
            }
            Event::Lose(count) => {
                let count = count.min(self.queue.len());
                self.queue.drain(..count);
                self.gap |= count > 0;
                self.lost |= count > 0;
            }
            Event::Gap => self.notice_gap(),
            Event::Read(client) => self.reads.extend(self.stored(client % CLIENTS)),
            Event::ReadArrives(number) => {
                if let Some(at) = pick(number, self.reads.len()) {
                    let record = self.reads.swap_remove(at);
                    self.apply(Input::Read(&record));
                }
            }
            Event::Watch(client) => {
                let client = client % CLIENTS;
                self.apply(Input::Watched(self.ids[client]));
                self.clients[client].watchers += 1;
                let found = self.stored(client);
                self.clients[client].begins.push_back(found);
            }
            Event::Watched(client) => self.begins(client % CLIENTS),
            Event::Unwatch(client) => {
                let client = client % CLIENTS;
                if self.clients[client].watchers > self.clients[client].begins.len() {
                    self.unwatch(client);
                }
            }
            Event::Compare(client) => {
                let (client, since) = (client % CLIENTS, self.view.step());
                let found = self.stored(client);
                self.comparisons.push((client, since, found));
            }
            Event::Compared(number) => {
                // As old as it may be: what counts is whether anything changed since.
                if let Some(at) = pick(number, self.comparisons.len()) {
                    let (client, since, found) = self.comparisons.swap_remove(at);
                    self.compared = true;
                    let client = self.ids[client];
                    let record = found.as_ref();
                    let announced = None;
                    let comparison = Comparison { client, since, record, announced };
                    self.apply(Input::Compared(comparison));
                }
            }
            Event::Keyspace(client) => {
                let client = self.ids[client % CLIENTS];
                self.apply(Input::KeyspaceEvent(client, DestroyReason::External));
            }
            Event::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
        }
        self.check_known();
    }

    fn begins(&mut self, client: usize) {
        let Some(found) = self.clients[client].begins.pop_front() else { return };
        self.apply(Input::FirstRead(self.ids[client], found.as_ref()));
        if let Some(record) = found {
            let life = usize::try_from(record.generation.number()).unwrap_or(0);
            self.lives[life].seen = true;
        }
    }

    fn notice_gap(&mut self) {
        self.gap = false;
        self.apply(Input::Gap);
    }

    /// Time passes: deadlines, probes and comparisons.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        let probes = self.view.take_probes(self.now).probes;
        for (id, _) in probes {
            let client = self.ids.iter().position(|one| *one == id).unwrap_or(0);
            self.probe(client);
        }
        for id in self.view.take_due(self.now, 10) {
            let client = self.ids.iter().position(|one| *one == id).unwrap_or(0);
            let outcome = self.probe(client);
            self.apply(Input::Probed(id, outcome));
        }
        let suspects = match self.view.take_suspects() {
            Suspects::All => self.view.clients(),
            Suspects::Some(some) => some.into_iter().collect(),
        };
        for id in suspects {
            let client = self.ids.iter().position(|one| *one == id).unwrap_or(0);
            let (since, found) = (self.view.step(), self.stored(client));
            self.compare(client, since, found.as_ref());
        }
    }

    /// What is known has not ended as far as events say.
    fn check_known(&self) {
        assert!(self.view.tracker.is_consistent());
        for id in &self.ids {
            if let Some(known) = self.view.cached_session(id) {
                let life = usize::try_from(known.generation.number()).unwrap_or(0);
                assert!(!self.lives[life].end_emitted, "known after its end: {known:?}");
            }
        }
    }

    /// All that is under way arrives, and nothing new happens.
    fn settle(&mut self) {
        for _ in 0..20 {
            while !self.queue.is_empty() {
                self.deliver();
            }
            while let Some(record) = self.reads.pop() {
                self.apply(Input::Read(&record));
            }
            (0..CLIENTS).for_each(|client| {
                while !self.clients[client].begins.is_empty() {
                    self.begins(client);
                }
            });
            if std::mem::take(&mut self.gap) {
                self.apply(Input::Gap);
            }
            let steps = self.view.step();
            self.wait(Duration::from_secs(1));
            if self.queue.is_empty() && self.view.step() == steps {
                self.check_known();
                return;
            }
        }
        panic!("comparing does not end");
    }

    /// What a node with sockets knows is what there is.
    fn check_all_known(&self) {
        for (client, id) in self.ids.iter().enumerate() {
            if self.clients[client].watchers == 0 {
                continue;
            }
            let known = self.view.cached_session(id).map(|known| (known.session_id, known.version));
            let there = self.stored(client).map(|record| (record.session_id, record.version));
            assert_eq!(known, there, "client {client}");
        }
    }

    fn check_all_emitted(&self) {
        for life in &self.lives {
            let client = &self.clients[life.client];
            if life.back {
                continue;
            }
            if life.ended && (life.seen || !self.lost) {
                assert!(life.end_emitted, "an end was not emitted: {life:?}");
            }
            if client.left || client.watchers == 0 {
                continue;
            }
            if !self.lost && !self.compared {
                let first = life.emitted.first().copied().unwrap_or(life.version);
                let all: Vec<_> = (first..=life.version).collect();
                assert_eq!(life.emitted, all, "changes were left out: {life:?}");
            }
            if !life.ended && !life.seen {
                panic!("sockets were not notified of what there is: {life:?}");
            }
        }
    }
}

fn run(events: &[Event]) {
    let mut world = World::new();
    for event in events {
        world.step(*event);
    }
    world.settle();
    let pending = world.clients.iter().any(|client| client.vanished.is_some());
    if !pending && !world.lost {
        world.check_all_known();
    }
    // The audit finds the rest, and nothing else.
    let before: Vec<_> = world.lives.iter().map(|life| life.emitted.len()).collect();
    world.apply(Input::CompareAll);
    world.settle();
    world.check_all_known();
    let after: Vec<_> = world.lives.iter().map(|life| life.emitted.len()).collect();
    assert!(world.lost || before == after, "the audit emitted a change that was not missed");
    for client in 0..CLIENTS {
        world.probe(client);
    }
    world.settle();
    world.check_all_emitted();
    let versions: HashMap<_, _> = world.lives.iter().map(|l| (l.session.id, l.version)).collect();
    assert_eq!(versions.len(), world.lives.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_change_and_each_end_is_emitted_once_in_order_and_nothing_that_ended_stays_known(
        events in events(),
    ) {
        run(&events);
    }
}
