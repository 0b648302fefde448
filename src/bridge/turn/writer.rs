//! Writing what the callers of one round left, together.

use std::sync::Arc;

use tokio::time::Instant;

use super::line::{Shared, Turn, outcome};
use super::round::{Caller, Content, fail_all, succeed_all};
use crate::backend::{Commit, Committed};
use crate::bridge::group::interrupted;
use crate::error::{Error, Result};
use crate::session::{MaxAge, Record, SessionData};

/// Leaves what a caller made of the session to be written with what others leave, and returns the
/// session as it was stored.
///
/// A change is written even if the future is dropped.
pub(in crate::bridge) async fn share(
    turn: &Turn,
    data: SessionData,
    max_age: MaxAge,
) -> Result<Arc<Record>> {
    let round = turn.shared();
    // It fails alone, before it is a part of what others write.
    data.encode(round.writers.max_payload)?;
    let (stored, begins) = turn.leave(Content { data, max_age })?;
    if begins {
        round.writers.spawn(Writer { round: round.clone(), done: false }.run());
    }
    outcome(stored).await
}

/// Writes what was left until there is nothing more, and ends the round if nobody runs in it.
struct Writer {
    round: Shared,
    /// There is nothing more.
    done: bool,
}

impl Drop for Writer {
    /// A backend that panics leaves no round behind whose callers would wait for ever.
    fn drop(&mut self) {
        if !self.done {
            self.fail(Vec::new(), interrupted());
        }
    }
}

/// What is to be written, and for whom.
struct Batch {
    commit: Commit,
    callers: Vec<Caller>,
}

impl Writer {
    async fn run(mut self) {
        self.write_all().await;
        self.done = true;
    }

    async fn write_all(&self) {
        let writers = self.round.writers.clone();
        let mut begun = Instant::now();
        while let Some(Batch { commit, callers }) = self.next() {
            let released = commit.release;
            match writers.backend.commit(commit).await {
                Ok(Committed::Written(record)) => {
                    writers.counters.commits.add(1);
                    begun = Instant::now();
                    let record = Arc::new(record);
                    self.round.with(|round| round.stored = Some(record.clone()));
                    if released {
                        self.round.finish(true);
                    }
                    succeed_all(callers, &record);
                    if released {
                        return;
                    }
                }
                Ok(Committed::Conflict(newest)) => {
                    writers.counters.conflicts.add(1);
                    if begun.elapsed() >= writers.limit {
                        return self.fail(callers, Error::always_slower());
                    }
                    self.again(callers, newest);
                }
                Ok(Committed::Ended) => return self.fail(callers, Error::ended()),
                Ok(Committed::LeaseLost) => {
                    writers.counters.leases_lost.add(1);
                    return self.fail(callers, Error::lease_lost());
                }
                Err(error) => return self.fail(callers, error),
            }
        }
    }

    /// The next batch. `None` if there is none: then this is over.
    fn next(&self) -> Option<Batch> {
        loop {
            let next = self.round.with(|round| {
                let callers = std::mem::take(&mut round.batch);
                let (stored, latest) = (round.stored.clone()?, round.latest.clone()?);
                if std::mem::take(&mut round.dirty) {
                    let commit = Commit {
                        client: stored.client_id,
                        generation: stored.generation,
                        version: (!self.round.writers.overwrite).then_some(stored.version),
                        data: latest.data,
                        max_age: latest.max_age,
                        lease: Some(round.lease),
                        release: round.closing,
                        new_id: None,
                        stamp: stored.stamp.clone(),
                    };
                    return Some(Next::Write(Batch { commit, callers }));
                }
                if !callers.is_empty() {
                    return Some(Next::Tell(callers, stored));
                }
                round.writing = false;
                Some(Next::Nothing { over: round.closing })
            });
            match next?? {
                Next::Write(batch) => return Some(batch),
                // They changed nothing, and what they read is stored by now.
                Next::Tell(callers, stored) => succeed_all(callers, &stored),
                Next::Nothing { over } => {
                    if over {
                        self.round.finish(false);
                    }
                    return None;
                }
            }
        }
    }

    /// Puts a batch back, on top of what another writer made of the session.
    fn again(&self, mut callers: Vec<Caller>, newest: Record) {
        self.round.with(|round| {
            round.rebase(newest);
            callers.append(&mut round.batch);
            round.batch = callers;
            round.dirty = true;
        });
    }

    fn fail(&self, mut callers: Vec<Caller>, error: Error) {
        let over = self.round.with(|round| {
            callers.append(&mut round.fail(&error));
            round.writing = false;
            round.closing
        });
        if over == Some(true) {
            self.round.finish(false);
        }
        fail_all(callers, error);
    }
}

/// What there is to do for a round.
enum Next {
    Write(Batch),
    Tell(Vec<Caller>, Arc<Record>),
    Nothing { over: bool },
}
