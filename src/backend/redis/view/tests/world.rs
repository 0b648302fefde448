//! The model: Redis with a few clients, and one node.
//!
//! Redis has one session for each client at most, and a queue of announcements in the order of its
//! changes. The node receives those of clients with sockets, or more. Reads and comparisons take what there is when they are answered, and arrive at any later
//! time. Announcements are lost only with a gap, or come once more.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{LEFT, Session, end, node, record, session, set};
use crate::backend::redis::pubsub::message::Announcement;
use crate::backend::redis::view::{Comparison, Input, ProbeOutcome, Step, Suspects, View};
use crate::session::{ClientId, DestroyReason, Generation, Record};

pub(super) const CLIENTS: usize = 2;

/// What happens next. Numbers choose a client, or one of those that are under way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
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

#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    Set(usize, u64),
    End(usize, DestroyReason),
}

/// What the node receives beside announcements of clients with sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receives {
    Nothing,
    Ends,
    All,
}

/// A session in Redis, and what the node has emitted of it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) client: usize,
    pub(super) session: Session,
    pub(super) version: u64,
    pub(super) ended: bool,
    pub(super) emitted: Vec<u64>,
    pub(super) end_emitted: bool,
    /// The node was told of the end.
    pub(super) end_told: bool,
    /// Sockets of the node were notified of it, or began with it, since they last came.
    pub(super) seen: bool,
    /// A failover brought it back.
    pub(super) back: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) live: Option<usize>,
    /// What vanished and was not announced.
    pub(super) vanished: Option<usize>,
    pub(super) watchers: usize,
    /// First reads that are under way: what they found.
    pub(super) begins: VecDeque<(Step, Option<Record>)>,
    /// It had no socket at some time, and what is emitted then is not remembered.
    pub(super) left: bool,
}

pub(super) struct World {
    pub(super) view: View,
    receives: Receives,
    pub(super) now: Instant,
    pub(super) ids: Vec<ClientId>,
    pub(super) clients: Vec<Client>,
    pub(super) lives: Vec<Life>,
    pub(super) queue: VecDeque<Message>,
    pub(super) delivered: Vec<Message>,
    pub(super) reads: Vec<Record>,
    pub(super) comparisons: Vec<(usize, Step, Option<Record>)>,
    /// Announcements were lost, and the node has yet to notice.
    pub(super) gap: bool,
    pub(super) lost: bool,
    pub(super) compared: bool,
}

impl World {
    pub(super) fn new(receives: Receives) -> Self {
        let mut world = Self {
            view: View::new(node()),
            receives,
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

    pub(super) fn stored(&self, client: usize) -> Option<Record> {
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
            end_told: false,
            seen: false,
            back: false,
        });
        self.clients[client].live = Some(life);
        self.announce(Message::Set(life, version));
    }

    /// To the node, if it is to receive it.
    fn announce(&mut self, message: Message) {
        let (Message::Set(life, _) | Message::End(life, _)) = message;
        let watches = self.clients[self.lives[life].client].watchers > 0;
        let is_end = matches!(message, Message::End(..));
        if watches || self.receives == Receives::All || (is_end && self.receives == Receives::Ends)
        {
            self.lives[life].end_told |= is_end;
            self.queue.push_back(message);
        }
    }

    fn end(&mut self, client: usize, reason: DestroyReason) -> Option<u64> {
        let life = self.clients[client].live.take()?;
        self.lives[life].ended = true;
        self.announce(Message::End(life, reason));
        Some(self.lives[life].version)
    }

    /// The first that finds a record gone announces that.
    pub(super) fn probe(&mut self, client: usize) -> ProbeOutcome {
        if self.clients[client].live.is_some() {
            return ProbeOutcome::Alive(LEFT);
        }
        match self.clients[client].vanished.take() {
            Some(life) => {
                self.announce(Message::End(life, DestroyReason::Expired));
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
        life.end_told = false;
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

    pub(super) fn apply(&mut self, input: Input<'_>) {
        for event in self.view.apply(self.now, input).emit {
            self.check(&event);
        }
    }

    fn announcement(&self, said: Message) -> Announcement {
        let (Message::Set(life, _) | Message::End(life, _)) = said;
        let Life { client, session, .. } = self.lives[life];
        match said {
            Message::Set(_, version) => set(self.ids[client], session, version),
            Message::End(_, reason) => end(self.ids[client], session, reason),
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
        if !self.view.differs(&self.ids[client], since, found.map(state)) {
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

    pub(super) fn step(&mut self, event: Event) {
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
                    self.announce(Message::Set(life, self.lives[life].version));
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
            Event::Read(client) => {
                let client = client % CLIENTS;
                if self.view.follows(&self.ids[client]) {
                    self.reads.extend(self.stored(client));
                }
            }
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
                let begins = (self.view.step(), self.stored(client));
                self.clients[client].begins.push_back(begins);
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
        let Some((since, found)) = self.clients[client].begins.pop_front() else { return };
        self.apply(Input::FirstRead(self.ids[client], found.as_ref(), since));
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

    /// All that is under way arrives, and nothing new happens.
    pub(super) fn settle(&mut self) {
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
}

/// What a comparison looks at first.
fn state(record: &Record) -> (Generation, u64) {
    (record.generation, record.version)
}
