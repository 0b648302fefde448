//! One lease of a client, and what the callers that share it made of the session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Acquired, LeaseToken};
use crate::bridge::group::{self, Answer};
use crate::error::{Error, Result};
use crate::session::{MaxAge, Record, SessionData, Stamp};

/// How long the callers of one node may begin on one lease: what they build on was read with it, and a
/// session that others have ended since then fails them all.
const ROUND: Duration = Duration::from_millis(10);

/// Who waits for a write.
#[derive(Debug)]
pub(super) struct Caller {
    done: Answer<Arc<Record>>,
    /// What it left, if it changed anything.
    left: Option<Content>,
}

impl Caller {
    pub(super) fn new(left: Option<Content>) -> (Self, oneshot::Receiver<Result<Arc<Record>>>) {
        let (done, written) = oneshot::channel();
        (Self { done, left }, written)
    }

    /// Its change is stored, and this is what the session is now. It is given the session as it left
    /// it: that is what its request shows. If others went on from there, its version is an older one,
    /// so that a later write of the same request is merged into what they made of it.
    fn succeed(self, stored: &Arc<Record>) {
        let record = match self.left.filter(|left| !left.is_of(stored)) {
            Some(Content { data, max_age }) => Arc::new(Record {
                data,
                max_age,
                version: stored.version.saturating_sub(1),
                stamp: Stamp::default(),
                ..Record::clone(stored)
            }),
            None => stored.clone(),
        };
        // A caller that is gone does not mind.
        let _ = self.done.send(Ok(record));
    }
}

/// What was left is stored.
pub(super) fn succeed_all(callers: Vec<Caller>, stored: &Arc<Record>) {
    for caller in callers {
        caller.succeed(stored);
    }
}

/// What a caller that has its turn may change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) data: SessionData,
    pub(super) max_age: MaxAge,
}

impl From<&Record> for Content {
    fn from(record: &Record) -> Self {
        Self { data: record.data.clone(), max_age: record.max_age }
    }
}

impl Content {
    fn is_of(&self, record: &Record) -> bool {
        self.data == record.data && self.max_age == record.max_age
    }

    /// This, with what leads from `old` to `new`.
    pub(super) fn rebased(&self, old: &Self, new: &Self) -> Self {
        let mut data = self.data.clone();
        data.apply(&old.data.changes_to(&new.data));
        let max_age = if new.max_age == old.max_age { self.max_age } else { new.max_age };
        Self { data, max_age }
    }
}

/// A lease, and what was made of the session since it was granted.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) lease: LeaseToken,
    pub(super) length: Duration,
    begun: Instant,
    renewed: Instant,
    /// Callers that may still begin: those that waited when the first one was done.
    left: Option<usize>,
    /// The session as it is stored, as far as this round knows.
    pub(super) stored: Option<Arc<Record>>,
    /// What the last caller left: the next one builds on it.
    pub(super) latest: Option<Content>,
    /// Grows when `latest` changes by others than the one who has its turn.
    pub(super) rebases: u64,
    /// Whose changes `latest` holds and `stored` does not.
    pub(super) batch: Vec<Caller>,
    /// Whether somebody in `batch` changed anything.
    pub(super) dirty: bool,
    /// A task writes.
    pub(super) writing: bool,
    /// Nobody has its turn any more, and nobody will in this round.
    pub(super) closing: bool,
    /// Why nobody may build on `latest`.
    failed: Option<Error>,
    /// Somebody wrote by itself: `stored` and `latest` are old.
    pub(super) outdated: bool,
    /// Cancelled when the lease is lost.
    pub(super) lost: CancellationToken,
}

impl Round {
    pub(super) fn new(acquired: Acquired) -> Self {
        let now = Instant::now();
        Self {
            lease: acquired.lease,
            length: acquired.length,
            begun: now,
            renewed: now,
            left: None,
            latest: acquired.record.as_ref().map(Content::from),
            stored: acquired.record.map(Arc::new),
            rebases: 0,
            batch: Vec::new(),
            dirty: false,
            writing: false,
            closing: false,
            failed: None,
            outdated: false,
            lost: CancellationToken::new(),
        }
    }

    /// Whether one of those who wait may have its turn in this round.
    pub(super) fn admits(&self, waiting: usize) -> bool {
        self.failed.is_none()
            && !self.outdated
            && !self.lost.is_cancelled()
            && self.left.unwrap_or(waiting) > 0
            && self.begun.elapsed() < ROUND
            && self.renewed.elapsed() < self.length / 2
    }

    /// One of those who wait has its turn.
    pub(super) fn admitted(&mut self, waiting: usize) {
        self.left = Some(self.left.unwrap_or(waiting).saturating_sub(1));
    }

    /// The session with what the callers before left.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        let (stored, latest) = (self.stored.as_ref()?, self.latest.as_ref()?);
        if latest.is_of(stored) {
            return Some(stored.clone());
        }
        let Content { data, max_age } = latest.clone();
        Some(Arc::new(Record { data, max_age, ..Record::clone(stored) }))
    }

    /// The lease was extended to its full length just now. Returns when it runs out.
    pub(super) fn renewed(&mut self) -> Instant {
        self.renewed = Instant::now();
        self.renewed + self.length
    }

    pub(super) fn since_renewal(&self) -> Duration {
        self.renewed.elapsed()
    }

    /// Whether something is not stored yet.
    pub(super) fn is_unsettled(&self) -> bool {
        self.writing || !self.batch.is_empty()
    }

    /// Notes what a caller made of what it was given.
    pub(super) fn change(&mut self, given: &Content, left: Content, rebases: u64) {
        let latest = match &self.latest {
            // A write met somebody else's, and what it found is not what this caller was given.
            Some(latest) if rebases != self.rebases => latest.rebased(given, &left),
            _ => left,
        };
        self.latest = Some(latest);
        self.dirty = true;
    }

    /// What is stored is another writer's: all that was not stored goes on top of it.
    pub(super) fn rebase(&mut self, newest: Record) {
        if let (Some(stored), Some(latest)) = (&self.stored, &self.latest) {
            let newest = Content::from(&newest);
            self.latest = Some(newest.rebased(&Content::from(&**stored), latest));
        }
        self.stored = Some(Arc::new(newest));
        self.rebases += 1;
    }

    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.without_source()),
            None => Ok(()),
        }
    }

    /// From now on nobody may build on what is here. Returns those that did, to be told.
    pub(super) fn fail(&mut self, error: &Error) -> Vec<Caller> {
        self.failed.get_or_insert_with(|| error.without_source());
        self.lost.cancel();
        self.dirty = false;
        std::mem::take(&mut self.batch)
    }
}

/// Says to all who wait why nothing was written.
pub(super) fn fail_all(callers: Vec<Caller>, error: Error) {
    group::fail_all(callers.into_iter().map(|caller| caller.done), error);
}
