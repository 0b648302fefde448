//! Plain writes that meet: those of one session on this node are written together.
//!
//! A write that met another one would meet the next one too, as long as many write the same session:
//! each would send the whole session again for every one that was faster. So the first that meets
//! another hands its changes to a task, and so do those that come while that task is there: it
//! applies all that wait to the newest session and writes that once.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::group::{Answer, Writers, fail_all, interrupted};
use super::overwritten::Overwritten;
use crate::backend::{Commit, Committed, lease_queue};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, ClientId, Generation, MaxAge, Record, SessionData};

/// The changes of one writer.
pub(super) struct Entry {
    /// What it read.
    pub(super) read: SessionData,
    pub(super) changes: Changes,
    pub(super) max_age: Option<MaxAge>,
}

struct Waiting {
    entry: Entry,
    since: Instant,
    done: Answer<Arc<Record>>,
}

/// Writers of one session; a task writes as long as there is an entry for it.
struct Group {
    generation: Generation,
    waiting: Vec<Waiting>,
}

/// The groups of all sessions that many write at once.
pub(super) struct Combiner {
    writers: Arc<Writers>,
    groups: Mutex<HashMap<ClientId, Group>>,
    /// How many there are: usually none, and then nobody has to look.
    count: AtomicUsize,
}

impl Combiner {
    pub(super) fn new(writers: Arc<Writers>) -> Self {
        Self { writers, groups: Mutex::default(), count: AtomicUsize::new(0) }
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<ClientId, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that several write together now.
    pub(super) fn len(&self) -> usize {
        self.groups().len()
    }

    /// Whether others write this session together now.
    pub(super) fn is_busy(&self, client: &ClientId, generation: Generation) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self.groups().get(client).is_some_and(|group| group.generation == generation)
    }

    /// Writes together with others. `newest` is what the writer met; without it there has to be a
    /// group already. `None` if there is none that it may join.
    ///
    /// A change is written even if the future is dropped.
    pub(super) async fn write(
        self: &Arc<Self>,
        client: ClientId,
        generation: Generation,
        entry: Entry,
        newest: Option<Record>,
    ) -> Option<Result<Arc<Record>>> {
        let (done, written) = oneshot::channel();
        let limit = self.writers.queue_limit;
        {
            let mut groups = self.groups();
            let waiting = Waiting { entry, since: Instant::now(), done };
            match (groups.entry(client), newest) {
                (hash_map::Entry::Occupied(mut group), _) => {
                    let group = group.get_mut();
                    // Another session of the client begins or ends.
                    if group.generation != generation {
                        return None;
                    }
                    if group.waiting.len() >= limit {
                        return Some(Err(lease_queue::busy(limit)));
                    }
                    group.waiting.push(waiting);
                }
                (hash_map::Entry::Vacant(place), Some(newest)) => {
                    place.insert(Group { generation, waiting: vec![waiting] });
                    self.count.fetch_add(1, Ordering::Relaxed);
                    let writer = Writer { combiner: self.clone(), client, done: false };
                    self.writers.spawn(writer.run(newest));
                }
                (hash_map::Entry::Vacant(_), None) => return None,
            }
        }
        Some(written.await.unwrap_or_else(|_| Err(interrupted())))
    }
}

/// Writes what waits in one group until nothing does.
struct Writer {
    combiner: Arc<Combiner>,
    client: ClientId,
    /// The group has ended, and there may be another one.
    done: bool,
}

impl Writer {
    async fn run(mut self, mut newest: Record) {
        while let Some(mut batch) = self.next() {
            // Several together may be too large, and each by itself is not.
            if self.write(&mut newest, &mut batch).await == Wrote::TooLarge {
                for one in batch {
                    self.write(&mut newest, &mut vec![one]).await;
                }
            }
        }
        self.done = true;
    }

    /// All that wait now. With the last of them the group ends.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut groups = self.combiner.groups();
        let waiting = std::mem::take(&mut groups.get_mut(&self.client)?.waiting);
        if waiting.is_empty() {
            self.end(&mut groups);
            return None;
        }
        Some(waiting)
    }

    fn end(&self, groups: &mut HashMap<ClientId, Group>) {
        if groups.remove(&self.client).is_some() {
            self.combiner.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Writes a batch as one, until it is written or can't be. Empties it, unless it is too large and
    /// can be divided.
    async fn write(&self, newest: &mut Record, batch: &mut Vec<Waiting>) -> Wrote {
        let writers = &self.combiner.writers;
        loop {
            let (commit, overwritten) = commit_of(newest, batch);
            match writers.backend.commit(commit).await {
                Ok(Committed::Written(record)) => {
                    writers.counters.commits.add(1);
                    for overwritten in overwritten {
                        overwritten.note(&writers.counters);
                    }
                    *newest = record;
                    let record = Arc::new(newest.clone());
                    for caller in batch.drain(..) {
                        // A caller that is gone does not mind.
                        let _ = caller.done.send(Ok(record.clone()));
                    }
                    return Wrote::All;
                }
                Ok(Committed::Conflict(other)) => {
                    writers.counters.conflicts.add(1);
                    *newest = other;
                    for late in batch.extract_if(.., |one| one.since.elapsed() >= writers.limit) {
                        let _ = late.done.send(Err(Error::always_slower()));
                    }
                    if batch.is_empty() {
                        return Wrote::All;
                    }
                }
                Ok(_) => return fail(batch, Error::ended()),
                Err(error) if error.kind() == ErrorKind::PayloadTooLarge && batch.len() > 1 => {
                    return Wrote::TooLarge;
                }
                Err(error) => return fail(batch, error),
            }
        }
    }
}

impl Drop for Writer {
    /// A backend that panics leaves no group behind which others would join and wait in for ever.
    fn drop(&mut self) {
        if !self.done {
            self.end(&mut self.combiner.groups());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Wrote {
    /// All of them, or those that are not have been told.
    All,
    TooLarge,
}

fn commit_of(newest: &Record, batch: &[Waiting]) -> (Commit, Vec<Overwritten>) {
    let (mut data, mut max_age) = (newest.data.clone(), newest.max_age);
    let mut overwritten = Vec::with_capacity(batch.len());
    for Waiting { entry, .. } in batch {
        overwritten.push(Overwritten::between(&entry.changes, &entry.read, &data));
        data.apply(&entry.changes);
        max_age = entry.max_age.unwrap_or(max_age);
    }
    let commit = Commit {
        client: newest.client_id,
        generation: newest.generation,
        version: Some(newest.version),
        data,
        max_age,
        lease: None,
        release: false,
        new_id: None,
        stamp: newest.stamp.clone(),
    };
    (commit, overwritten)
}

fn fail(batch: &mut Vec<Waiting>, error: Error) -> Wrote {
    fail_all(batch.drain(..).map(|caller| caller.done), error);
    Wrote::All
}
