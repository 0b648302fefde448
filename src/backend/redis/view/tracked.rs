//! One client with a socket on this node, and what the node knows of its sessions.

use std::time::Duration;

use tokio::time::Instant;

use super::step::Step;
use crate::backend::SessionSnapshot;
use crate::session::{ClientId, Generation, Record, SessionId};

/// The state of a session that sockets go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionVersion {
    pub(crate) generation: Generation,
    pub(crate) session: SessionId,
    pub(crate) version: u64,
}

/// A state of a session that was announced, read or written.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) client: ClientId,
    pub(super) generation: Generation,
    pub(super) session: SessionId,
    pub(super) version: u64,
    pub(super) sealed: bool,
    /// Used only for a generation that is not known yet.
    pub(super) created: Instant,
    pub(super) left: Duration,
}

impl State {
    pub(super) fn of(record: &Record, now: Instant) -> Self {
        Self {
            client: record.client_id,
            generation: record.generation,
            session: record.session_id,
            version: record.version,
            sealed: record.sealed,
            created: now.checked_sub(record.age).unwrap_or(now),
            left: record.remaining,
        }
    }
}

/// Where a state comes from: which of two generations is newer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Announcement,
    /// A read, or the answer to a write.
    Read,
    /// The read that a new socket begins with.
    FirstRead,
}

/// What becomes of an announced change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) emit: bool,
    /// Something before it was missed, or this is older than what is known.
    pub(super) suspect: bool,
}

/// A session whose end sockets have yet to be notified of.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: Generation,
    pub(super) id: SessionId,
    /// The version that all sockets of the client were notified of, or began with; 0 for none.
    pub(super) seen: u64,
    /// The version up to which changes were emitted; 0 for none.
    pub(super) emitted: u64,
    /// A comparison found it; what is announced before its own announcements is older.
    pub(super) compared: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tracked {
    pub(super) watchers: usize,
    /// Whether the first of them has read what it begins with.
    pub(super) begun: bool,
    /// The newest state.
    pub(super) known: Option<SessionSnapshot>,
    /// The generation that was announced last. `known` is of another one while a read or a write
    /// is ahead of the announcements.
    pub(super) announced: Option<Generation>,
    /// The generation that `known` was of until a read showed a newer one.
    pub(super) past: Option<Generation>,
    /// One, except between the begin of a session and the late end of the one before.
    pub(super) sessions: Vec<Session>,
    /// When to probe the session. Lazy: a write that moves the end only moves this if it comes
    /// earlier; else the probe finds a live session and postpones this.
    pub(super) deadline: Option<Instant>,
    /// When anything above changed last.
    pub(super) changed: Step,
}

impl Tracked {
    pub(super) fn session(&mut self, generation: Generation) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.generation == generation)
    }

    /// Whether a state of another generation than the known one is older than that.
    fn is_older(&self, known: Generation, state: &State, source: Source) -> bool {
        match source {
            Source::Announcement => self.announced != Some(known),
            Source::Read => [self.announced, self.past].contains(&Some(state.generation)),
            Source::FirstRead => false,
        }
    }

    /// Takes over a state. `false` if it is older than what is known.
    pub(super) fn learn(&mut self, state: &State, source: Source) -> bool {
        let same = self.known.filter(|known| known.generation == state.generation);
        let older = match (self.known, same) {
            (_, Some(known)) => known.version > state.version,
            (Some(known), None) => self.is_older(known.generation, state, source),
            (None, None) => false,
        };
        if older {
            return false;
        }
        self.past = match (source, same, self.known) {
            (Source::Announcement, ..) => None,
            (_, None, Some(before)) => Some(before.generation),
            _ => self.past,
        };
        self.set_known(state);
        true
    }

    pub(super) fn set_known(&mut self, state: &State) {
        let same = self.known.filter(|known| known.generation == state.generation);
        self.known = Some(SessionSnapshot {
            session_id: state.session,
            generation: state.generation,
            sealed: state.sealed,
            created: same.map_or(state.created, |known| known.created),
            version: state.version,
        });
    }

    /// An announced change, of this version unless it is a notice.
    pub(super) fn announce(&mut self, state: &State, is_change: bool) -> Verdict {
        self.announced = Some(state.generation);
        let alone = self.sessions.iter().all(|other| other.generation == state.generation);
        if let Some(session) = self.session(state.generation) {
            session.compared = false;
            let emit = !is_change || state.version > session.emitted;
            if emit && is_change {
                session.emitted = state.version;
                session.seen = session.seen.max(state.version);
                session.id = state.session;
            }
            return Verdict { emit, suspect: false };
        }
        if self.sessions.iter().any(|session| session.compared) {
            return Verdict { emit: false, suspect: true };
        }
        let emitted = if is_change { state.version } else { 0 };
        self.sessions.push(Session {
            generation: state.generation,
            id: state.session,
            seen: state.version,
            emitted,
            compared: false,
        });
        Verdict { emit: true, suspect: !alone }
    }
}
