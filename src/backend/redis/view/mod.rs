//! Everything that one node believes about sessions: a state machine without I/O, clock or task.
//!
//! Announcements, reads, probes and comparisons arrive in any order that connections give them; they
//! may be late, duplicated or lost. [`View::apply`] takes one at a time and says what to do:
//! which events to emit, and which of the tasks around the view has work. So each end is emitted
//! once, changes of a session in their order, and nothing stays known that has ended.
//!
//! A session, as one node sees it:
//!
//! ```text
//!   unknown --- a read, a write, an announcement ---> known
//!
//!   known ----- its end is announced ---------------> ended (a tombstone)
//!         ----- its deadline passes ----------------> probed
//!         ----- a lag, a reconnect, an audit -------> suspect
//!
//!   probed ---- alive ------------------------------> known, with a new deadline
//!          ---- ended just now ---------------------> (the announcement follows)
//!          ---- gone -------------------------------> suspect
//!
//!   suspect --- Redis has the same -----------------> known
//!           --- Redis has a newer version ----------> known, and a change is emitted
//!           --- Redis does not have it -------------> ended, emitted as `Reconciled`
//!
//!   ended ----- what was read or announced before --> ended
//!         ----- Redis has it: a failover -----------> known, and emitted as a change
//! ```
//!
//! Only clients with a socket on this node are tracked. Of others it receives nothing, or ends alone, which it
//! remembers.
//!
//! *Which of two sessions is newer.* Announcements are ordered, answers are not. An end is final: its
//! tombstone refuses all that was read or announced before. A read may be ahead of the announcements;
//! what is announced before its own session is announced is older then. Of two reads that are both
//! ahead the last wins, until an announcement decides.
//!
//! *Comparing.* A comparison counts only if nothing of the client has changed here since its read was
//! sent ([`View::step`]). Then Redis is right: sessions that it does not have are over, and one whose
//! end was emitted is back.

mod comparison;
mod input;
mod probes;
pub(crate) mod shared;
mod step;
mod suspects;
#[cfg(test)]
mod tests;
mod tombstones;
mod tracked;
mod tracker;

use tokio::time::Instant;

use crate::backend::redis::pubsub::message::Announcement;
use crate::backend::{BackendEvent, SessionSnapshot};
use crate::session::{ClientId, DestroyReason, Gap, Generation, NodeId, Record, SessionEvent};
use comparison::{missed_end, missed_set};
use probes::Probes;
use tombstones::Tombstones;
use tracked::State;
use tracker::Tracker;

pub(crate) use input::{Actions, Comparison, Input};
pub(crate) use probes::{DueProbes, ProbeOutcome};
pub(crate) use step::Step;
pub(crate) use suspects::Suspects;
pub(crate) use tracked::SessionVersion;

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    /// This node, for events of its own.
    node: NodeId,
    step: Step,
    tracker: Tracker,
    tombstones: Tombstones,
    suspects: Suspects,
    /// When all were suspected last.
    all_suspected: Step,
    probes: Probes,
}

impl View {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            step: Step::default(),
            tracker: Tracker::default(),
            tombstones: Tombstones::default(),
            suspects: Suspects::default(),
            all_suspected: Step::default(),
            probes: Probes::default(),
        }
    }

    /// Takes an input, and returns what follows from it. `now` never goes backwards.
    pub(crate) fn apply(&mut self, now: Instant, input: Input<'_>) -> Actions {
        self.step.0 += 1;
        let mut actions = Actions::default();
        let (deadline, probe) = (self.tracker.next_deadline(), self.probes.next());
        match input {
            Input::Announced(announcement) => self.announced(now, announcement, &mut actions),
            Input::Read(record) => self.read(now, record),
            Input::Missing(client) => {
                // Its end was missed, or nobody has announced it.
                if self.tracker.known(&client).is_some() {
                    let Self { tombstones, probes, step, .. } = self;
                    let is_over =
                        |client: &ClientId, since| tombstones.is_over_since(client, since);
                    probes.add_missing((now, *step), &client, is_over);
                }
            }
            Input::Watched(client) => self.tracker.add(&client, self.step),
            Input::FirstRead(client, record, since) => {
                self.first_read(now, &client, (record, since), &mut actions);
            }
            Input::Unwatched(client) => self.tracker.remove(&client),
            Input::KeyspaceEvent(client, reason) => self.keyspace_event(now, &client, reason),
            Input::ProbeRequested(client, reason) => {
                if self.tracker.has_sessions(&client) {
                    self.probes.add((now, self.step), &client, reason);
                }
            }
            Input::Probed(client, outcome) => self.probed(now, &client, outcome, &mut actions),
            Input::ProbeFailed(client, again) => self.tracker.postpone(now, &client, again),
            Input::Gap => {
                let gap = SessionEvent::Gap(Gap::new(self.node.clone()));
                actions.emit.push(BackendEvent::plain(gap));
                self.suspect_all(&mut actions);
            }
            Input::CompareAll => self.suspect_all(&mut actions),
            Input::Compared(comparison) => self.compared(now, &comparison, &mut actions),
        }
        let earlier = |before: Option<Instant>, after: Option<Instant>| {
            after.is_some_and(|after| before.is_none_or(|before| after < before))
        };
        actions.timer = earlier(deadline, self.tracker.next_deadline());
        actions.probe = earlier(probe, self.probes.next());
        actions
    }

    // ---- inputs ------------------------------------------------------------------------------

    fn announced(&mut self, now: Instant, announcement: Announcement, actions: &mut Actions) {
        let Announcement { event, version, left } = announcement;
        match (&event.event, event.generation) {
            (SessionEvent::Set(set), Some(generation)) => {
                if self.tombstones.contains(&set.client_id, generation) {
                    // A comparison found the end before this arrived.
                    return;
                }
                self.tombstones.on_session(&set.client_id);
                let state = State {
                    client: set.client_id,
                    generation,
                    session: set.session_id,
                    version,
                    sealed: event.sealed,
                    created: now,
                    left,
                };
                let is_change = event.version.is_some();
                let verdict = self.tracker.on_announced(now, self.step, &state, is_change);
                if verdict.suspect {
                    self.suspect(&set.client_id, actions);
                }
                if !verdict.emit {
                    return;
                }
            }
            (SessionEvent::Destroy(end), Some(generation)) => {
                let client = end.client_id;
                let is_last = self.tracker.on_end(&client, generation, self.step);
                // What is to be probed was noticed before, and there is nothing more to come.
                let awaits = end.reason != DestroyReason::Expired && !self.probes.has(&client);
                if !self.tombstones.add((now, self.step), &client, generation, awaits) {
                    return;
                }
                if !is_last {
                    self.tombstones.on_session(&client);
                }
            }
            _ => {}
        }
        actions.emit.push(event);
    }

    fn read(&mut self, now: Instant, record: &Record) {
        if !self.tombstones.contains(&record.client_id, record.generation) {
            self.tracker.on_read(now, self.step, &State::of(record, now));
        }
    }

    fn first_read(
        &mut self,
        now: Instant,
        client: &ClientId,
        (record, since): (Option<&Record>, Step),
        actions: &mut Actions,
    ) {
        let ended = |record: &Record| self.tombstones.contains(client, record.generation);
        let state = record.filter(|record| !ended(record)).map(|record| State::of(record, now));
        // A comparison of all came in between: it knew nothing of what this read, so it could not
        // find that this ended while nobody listened.
        let missed = since < self.all_suspected;
        self.tracker.on_first_read(now, self.step, client, state.as_ref());
        // A record that has ended was read before that, or is back after a failover.
        if missed || (record.is_some() && state.is_none()) {
            self.suspect(client, actions);
        }
    }

    fn keyspace_event(&mut self, now: Instant, client: &ClientId, reason: DestroyReason) {
        let Self { tombstones, probes, step, .. } = self;
        let at = (now, *step);
        match reason {
            DestroyReason::Expired if tombstones.is_just_over(now, client) => {}
            DestroyReason::Expired => {
                let is_over = |client: &ClientId, since| tombstones.is_over_since(client, since);
                probes.add_expired(at, client, is_over);
            }
            // Announced by the script that did it.
            _ if tombstones.take_event(now, client) => {}
            reason => probes.add(at, client, reason),
        }
    }

    fn probed(
        &mut self,
        now: Instant,
        client: &ClientId,
        outcome: ProbeOutcome,
        actions: &mut Actions,
    ) {
        match outcome {
            ProbeOutcome::Alive(left) => self.tracker.postpone(now, client, left),
            // The announcement is on its way; if it gets lost the audit finds out.
            ProbeOutcome::Expired(_) => {}
            // It was, and may be lost.
            ProbeOutcome::AlreadyAnnounced | ProbeOutcome::Unknown => self.suspect(client, actions),
        }
    }

    fn compared(&mut self, now: Instant, comparison: &Comparison<'_>, actions: &mut Actions) {
        let Comparison { client, since, record, announced } = comparison;
        let Some(changed) = self.tracker.changed(client) else { return };
        if changed > *since {
            // What was read may be older than what is known by now.
            self.suspect(client, actions);
            return;
        }
        let current = record.map(|record| record.generation);
        for (generation, id) in self.tracker.take_others(client, current, *announced, self.step) {
            if self.tombstones.add((now, self.step), client, generation, false) {
                actions.emit.push(missed_end(&self.node, client, (generation, id), *record));
            }
        }
        let Some(record) = record else { return };
        self.tombstones.remove(client, record.generation);
        if let Some(begins) = self.tracker.catch_up(now, &State::of(record, now)) {
            actions.emit.push(missed_set(&self.node, record, begins));
        }
    }

    fn suspect(&mut self, client: &ClientId, actions: &mut Actions) {
        self.suspects.add(client);
        actions.reconcile = true;
    }

    fn suspect_all(&mut self, actions: &mut Actions) {
        self.all_suspected = self.step;
        self.suspects.add_all();
        actions.reconcile = true;
    }

    // ---- what there is to do -----------------------------------------------------------------

    /// When the first session may be over.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.tracker.next_deadline()
    }

    /// Takes up to `limit` clients whose session may be over. Each is to be answered by
    /// [`Input::Probed`] or [`Input::ProbeFailed`].
    pub(crate) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<ClientId> {
        self.tracker.due(now, limit)
    }

    /// When the first probe is due that something else than a deadline asks for.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.probes.next()
    }

    /// Takes those probes.
    pub(crate) fn take_probes(&mut self, now: Instant) -> DueProbes {
        let Self { tombstones, probes, .. } = self;
        probes.take(now, |client, since| tombstones.is_over_since(client, since))
    }

    /// Takes the clients that are to be compared.
    pub(crate) fn take_suspects(&mut self) -> Suspects {
        self.suspects.take()
    }

    // ---- what is known -----------------------------------------------------------------------

    /// The step of the last input. What is read from here on is newer than what is known now.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// The session of a client with a socket here, as far as this node knows.
    pub(crate) fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.tracker.known(client)
    }

    /// The session that a client with a socket here has, or had last: to name it if nothing is left
    /// of it in Redis.
    pub(crate) fn last_session(&self, client: &ClientId) -> Option<SessionVersion> {
        self.tracker.last(client)
    }

    /// Whether announcements of this client have arrived since before its first socket began. What was
    /// read earlier may be of a session whose end was not announced to this node.
    pub(crate) fn follows(&self, client: &ClientId) -> bool {
        self.tracker.changed(client).is_some()
    }

    /// Whether a record that was asked for at `since` (its generation and version) differs from what is
    /// known.
    pub(crate) fn differs(
        &self,
        client: &ClientId,
        since: Step,
        record: Option<(Generation, u64)>,
    ) -> bool {
        let fresh = self.tracker.changed(client).is_some_and(|changed| changed <= since);
        self.tracker.differs(client, record, fresh)
    }

    /// Clients with a socket here.
    pub(crate) fn clients(&self) -> Vec<ClientId> {
        self.tracker.clients()
    }

    /// Entries by table.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("watched", self.tracker.len()), ("probes", self.probes.len())]
    }
}
