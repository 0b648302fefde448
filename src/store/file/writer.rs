//! The one thread that writes.

use std::sync::{Arc, Mutex, PoisonError};

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::super::{StoreResult, StoredSession, now_ms};
use super::tables::Tables;
use crate::error::{Error, ErrorKind};
use crate::session::SessionId;

/// Changes that wait for the thread; later callers wait for room.
const QUEUE: usize = 1024;
/// Changes that one transaction takes: they share its flush to the disk.
const GROUP: usize = 256;
/// Long expired records that one transaction drops.
const PURGE: usize = 16;
/// How long an expired record waits for a cleanup before it is dropped.
const GRACE_MS: u64 = 24 * 60 * 60 * 1000;

/// A change of the file.
#[derive(Debug)]
pub(super) enum Change {
    Set(SessionId, Box<StoredSession>),
    Touch(SessionId, u64, u64),
    Destroy(SessionId),
}

/// What a change met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// No live record.
    New,
    /// A record.
    Found,
    /// Nothing, and it did nothing.
    Missing,
}

struct Job {
    change: Change,
    done: oneshot::Sender<Result<Done, Arc<redb::Error>>>,
}

/// Sends changes to the thread. The thread ends after the last change once this is closed or
/// dropped.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("session-file".into()).spawn(move || {
            work(&database, queue);
            // The file is free for the next before anybody hears of the end.
            drop(database);
            let _ = end.send(());
        })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), ended: tokio::sync::Mutex::new(Some(ended)) })
    }

    pub(super) async fn write(&self, change: Change) -> StoreResult<Done> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed = || Error::new(ErrorKind::Unavailable, "the session file is closed");
        let (done, result) = oneshot::channel();
        let Some(jobs) = jobs else { return Err(closed().into()) };
        jobs.send(Job { change, done }).await.map_err(|_| closed())?;
        Ok(result.await.map_err(|_| closed())??)
    }

    pub(super) async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(ended) = self.ended.lock().await.take() {
            // An error says the same: the thread is gone.
            let _ = ended.await;
        }
    }
}

fn work(database: &Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        match commit(database, &group) {
            Ok(results) => {
                for (job, result) in group.into_iter().zip(results) {
                    // The caller may be gone; the change is still made.
                    let _ = job.done.send(Ok(result));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for job in group {
                    let _ = job.done.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Makes a group of changes in one transaction: all of them or none.
fn commit(database: &Database, group: &[Job]) -> Result<Vec<Done>, redb::Error> {
    let now = now_ms();
    let transaction = database.begin_write()?;
    let mut results = Vec::with_capacity(group.len());
    {
        let mut tables = Tables::open(&transaction)?;
        for job in group {
            results.push(apply(&mut tables, &job.change, now)?);
        }
        tables.purge(now.saturating_sub(GRACE_MS), PURGE)?;
    }
    transaction.commit()?;
    Ok(results)
}

fn apply(tables: &mut Tables<'_>, change: &Change, now: u64) -> Result<Done, redb::Error> {
    let met = |found: bool| if found { Done::Found } else { Done::Missing };
    Ok(match change {
        Change::Set(id, session) => {
            let json = serde_json::to_vec(session)
                .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
            match tables.set(id, session, &json)? {
                Some(expires_at) if expires_at > now => Done::Found,
                _ => Done::New,
            }
        }
        Change::Touch(id, at, ttl) => met(tables.touch(id, *at, *ttl)?),
        Change::Destroy(id) => met(tables.destroy(id.as_str())?),
    })
}
