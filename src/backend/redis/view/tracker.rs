//! All clients with a socket on this node, and when their sessions may be over.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::step::Step;
use super::tracked::{Session, SessionVersion, Source, State, Tracked, Verdict};
use crate::backend::SessionSnapshot;
use crate::session::{ClientId, Generation, SessionId};

/// Deadlines are this much later than Redis counts: it keeps whole milliseconds, and an answer has
/// its latency.
const MARGIN: Duration = Duration::from_millis(2);

/// All tracked clients.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    clients: HashMap<ClientId, Tracked>,
    deadlines: BTreeSet<(Instant, ClientId)>,
}

impl Tracker {
    pub(super) fn add(&mut self, client: &ClientId, step: Step) {
        let tracked = self.clients.entry(*client).or_default();
        if tracked.watchers == 0 {
            tracked.changed = step;
        }
        tracked.watchers += 1;
    }

    pub(super) fn remove(&mut self, client: &ClientId) {
        let Some(tracked) = self.clients.get_mut(client) else { return };
        tracked.watchers = tracked.watchers.saturating_sub(1);
        if tracked.watchers == 0 {
            self.clear_deadline(client);
            self.clients.remove(client);
        }
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn known(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.clients.get(client)?.known
    }

    /// Since when nothing of the client has changed; `None` if no socket of it has begun.
    pub(super) fn changed(&self, client: &ClientId) -> Option<Step> {
        self.clients.get(client).filter(|tracked| tracked.begun).map(|tracked| tracked.changed)
    }

    /// Whether there is a session whose end sockets have yet to be notified of.
    pub(super) fn has_sessions(&self, client: &ClientId) -> bool {
        self.clients.get(client).is_some_and(|tracked| !tracked.sessions.is_empty())
    }

    /// The session that the client has, or had last.
    pub(super) fn last(&self, client: &ClientId) -> Option<SessionVersion> {
        let tracked = self.clients.get(client)?;
        let last = tracked.sessions.last().map(|session| SessionVersion {
            generation: session.generation,
            session: session.id,
            version: session.seen,
        });
        last.or_else(|| {
            tracked.known.map(|known| SessionVersion {
                generation: known.generation,
                session: known.session_id,
                version: known.version,
            })
        })
    }

    // ---- states ------------------------------------------------------------------------------

    /// A record was read or written.
    pub(super) fn on_read(&mut self, now: Instant, step: Step, state: &State) {
        self.learn(now, step, state, Source::Read);
    }

    /// A new socket begins with this session, or with none.
    pub(super) fn on_first_read(
        &mut self,
        now: Instant,
        step: Step,
        client: &ClientId,
        state: Option<&State>,
    ) {
        if let Some(state) = state {
            self.learn(now, step, state, Source::FirstRead);
        }
        let Some(tracked) = self.clients.get_mut(client) else { return };
        let Some(state) = state else {
            tracked.begun = true;
            return;
        };
        // Sockets that were here before did not see it.
        let seen = if std::mem::replace(&mut tracked.begun, true) { 0 } else { state.version };
        match tracked.session(state.generation) {
            Some(session) => session.seen = session.seen.max(seen),
            None => {
                tracked.changed = step;
                tracked.sessions.push(Session {
                    generation: state.generation,
                    id: state.session,
                    seen,
                    emitted: 0,
                    compared: false,
                });
            }
        }
    }

    /// A change was announced, or a notice.
    pub(super) fn on_announced(
        &mut self,
        now: Instant,
        step: Step,
        state: &State,
        is_change: bool,
    ) -> Verdict {
        self.learn(now, step, state, Source::Announcement);
        let Some(tracked) = self.clients.get_mut(&state.client) else {
            return Verdict { emit: true, suspect: false };
        };
        tracked.changed = step;
        tracked.announce(state, is_change)
    }

    fn learn(&mut self, now: Instant, step: Step, state: &State, source: Source) {
        let Some(tracked) = self.clients.get_mut(&state.client) else { return };
        let before = tracked.known.map(|known| (known.generation, known.version));
        if !tracked.learn(state, source) {
            return;
        }
        if before != Some((state.generation, state.version)) {
            tracked.changed = step;
        }
        let deadline = now + state.left + MARGIN;
        if tracked.deadline.is_none_or(|at| deadline < at) {
            self.set_deadline(&state.client, deadline);
        }
    }

    /// A session has ended. `true` if the client has no other that is known of.
    pub(super) fn on_end(&mut self, client: &ClientId, generation: Generation, step: Step) -> bool {
        let Some(tracked) = self.clients.get_mut(client) else { return true };
        tracked.changed = step;
        tracked.sessions.retain(|session| session.generation != generation);
        tracked.known = tracked.known.filter(|known| known.generation != generation);
        let none = tracked.known.is_none();
        if none {
            self.clear_deadline(client);
        }
        none
    }

    // ---- comparing ---------------------------------------------------------------------------

    /// Whether Redis has something else than what is known here. `fresh` says that nothing has
    /// changed here since the record was asked for.
    pub(super) fn differs(
        &self,
        client: &ClientId,
        record: Option<(Generation, u64)>,
        fresh: bool,
    ) -> bool {
        // Sockets that are about to begin read for themselves.
        let tracked = self.clients.get(client).filter(|tracked| tracked.begun);
        let Some(tracked) = tracked else { return false };
        let Some((generation, version)) = record else {
            return !tracked.sessions.is_empty() || tracked.known.is_some();
        };
        let [session] = &*tracked.sessions else { return true };
        let generations = [Some(session.generation), tracked.known.map(|known| known.generation)];
        if generations != [Some(generation); 2] {
            return true;
        }
        // Else announcements arrive, and bring the rest.
        let ahead = tracked.known.is_some_and(|known| known.version > version);
        fresh && (session.seen != version || ahead)
    }

    /// Removes the client's sessions that are not of this generation, and returns them. The one
    /// with the id `announced` stays, as its end is about to be announced.
    pub(super) fn take_others(
        &mut self,
        client: &ClientId,
        current: Option<Generation>,
        announced: Option<SessionId>,
        step: Step,
    ) -> Vec<(Generation, SessionId)> {
        let Some(tracked) = self.clients.get_mut(client) else { return Vec::new() };
        tracked.changed = step;
        let stays = |generation, id| Some(generation) == current || Some(id) == announced;
        let mut gone = Vec::new();
        tracked.sessions.retain(|session| {
            let stays = stays(session.generation, session.id);
            if !stays {
                gone.push((session.generation, session.id));
            }
            stays
        });
        if let Some(known) = tracked.known
            && !stays(known.generation, known.session_id)
        {
            // Sockets may have come to it without an event.
            if gone.iter().all(|(generation, _)| *generation != known.generation) {
                gone.push((known.generation, known.session_id));
            }
            tracked.known = None;
            self.clear_deadline(client);
        }
        gone
    }

    /// Takes over a record that is known to be the newest state. Whether sockets have to be
    /// notified of it, and then whether it begins a session for them.
    pub(super) fn catch_up(&mut self, now: Instant, state: &State) -> Option<bool> {
        let tracked = self.clients.get_mut(&state.client)?;
        tracked.set_known(state);
        let notify = match tracked.session(state.generation) {
            Some(session) => {
                let differs = session.seen != state.version;
                let begins = session.seen == 0;
                session.id = state.session;
                if differs {
                    (session.seen, session.emitted) = (state.version, state.version);
                }
                differs.then_some(begins)
            }
            None => {
                tracked.sessions.push(Session {
                    generation: state.generation,
                    id: state.session,
                    seen: state.version,
                    emitted: state.version,
                    compared: tracked.announced != Some(state.generation),
                });
                Some(true)
            }
        };
        self.set_deadline(&state.client, now + state.left + MARGIN);
        notify
    }

    // ---- deadlines ---------------------------------------------------------------------------

    /// Probes a client's session later.
    pub(super) fn postpone(&mut self, now: Instant, client: &ClientId, by: Duration) {
        if self.known(client).is_some() {
            self.set_deadline(client, now + by + MARGIN);
        }
    }

    /// When the first session may be over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes up to `limit` clients whose session may be over.
    pub(super) fn due(&mut self, now: Instant, limit: usize) -> Vec<ClientId> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, client)) = self.deadlines.first().copied()
            && at <= now
        {
            self.clear_deadline(&client);
            due.push(client);
        }
        due
    }

    fn set_deadline(&mut self, client: &ClientId, at: Instant) {
        self.clear_deadline(client);
        if let Some(tracked) = self.clients.get_mut(client) {
            tracked.deadline = Some(at);
            self.deadlines.insert((at, *client));
        }
    }

    fn clear_deadline(&mut self, client: &ClientId) {
        if let Some(at) = self.clients.get_mut(client).and_then(|tracked| tracked.deadline.take()) {
            self.deadlines.remove(&(at, *client));
        }
    }

    /// Whether each deadline is of a client that is tracked, and nothing is left of others.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let deadlines: BTreeSet<_> = self
            .clients
            .iter()
            .filter_map(|(client, tracked)| Some((tracked.deadline?, *client)))
            .collect();
        deadlines == self.deadlines && self.clients.values().all(|tracked| tracked.watchers > 0)
    }
}
