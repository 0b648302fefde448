//! Handlers with a session: one writer at a time, over all sockets, updates and nodes.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::attachment::Attachment;
use super::context::SessionContext;
use super::core::Core;
use super::lease_guard::{LeaseGuard, disconnected};
use super::own_ends::{self, Ended};
use super::stats::Counters;
use super::unit_of_work::UnitOfWork;
use super::write;
use crate::backend::{DestroyTarget, Loaded};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Generation, SessionId};

/// How long a socket's call waits for the announcement of a session that it found already: as long as
/// a message may take that is on its way.
const ANNOUNCEMENT_LIMIT: Duration = Duration::from_secs(1);

/// Whose session a handler wants.
#[derive(Clone, Copy)]
pub(crate) enum LeaseRequest<'a> {
    /// The one that this socket may see, as long as the socket is there.
    Socket(&'a Attachment),
    /// This one of this client.
    Session(ClientId, Generation),
}

impl LeaseRequest<'_> {
    /// Waits for the lease; `None` if there is no session that the caller may see.
    async fn lease<'a>(&self, core: &'a Core) -> Result<Option<LeaseGuard<'a>>> {
        let client = match self {
            Self::Socket(socket) => socket.client(),
            Self::Session(client, _) => *client,
        };
        let mut limit = None;
        loop {
            let lease = LeaseGuard::acquire(core, client).await?;
            let Some(record) = lease.record() else { return Ok(None) };
            let found = record.generation;
            let sees = match self {
                Self::Socket(socket) => socket.can_see_record(record),
                Self::Session(_, wanted) => found == *wanted,
            };
            if sees {
                return Ok(Some(lease));
            }
            let Self::Socket(socket) = self else { return Ok(None) };
            // Whether the socket follows from its session into this one is said by an announcement,
            // which the read has overtaken. Nobody waits for the lease meanwhile.
            drop(lease);
            let limit = *limit.get_or_insert_with(|| Instant::now() + ANNOUNCEMENT_LIMIT);
            if !socket.catches_up(found, limit).await {
                return Ok(None);
            }
        }
    }

    fn socket(&self) -> Option<&Attachment> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Session(..) => None,
        }
    }
}

/// What came of a request: the handler's own result is kept apart from ours.
pub(crate) enum LeasedOutcome<T> {
    Done(T),
    Missing,
}

/// Runs a handler under the lease and writes what it left, if `keep` says so.
pub(crate) async fn run_leased<F, Fut>(
    core: &Core,
    request: LeaseRequest<'_>,
    handler: F,
    keep: impl FnOnce(&Fut::Output) -> bool,
) -> Result<LeasedOutcome<Fut::Output>>
where
    F: FnOnce(SessionContext) -> Fut,
    Fut: Future,
{
    let lease = request.lease(core).await?;
    let Some((lease, record)) = lease.as_ref().and_then(|lease| Some((lease, lease.record()?)))
    else {
        return Ok(LeasedOutcome::Missing);
    };
    let context = SessionContext::new(record, lease.lost().clone());
    // Also if the handler panics or is dropped: what it kept is worth nothing then.
    let discard = Discard(&context, &core.counters);
    let work = async { handler(context.clone()).await };
    let result = lease.run(request.socket(), work).await?;
    if request.socket().is_some_and(|socket| !socket.sink().is_open()) {
        return Err(disconnected());
    }
    std::mem::forget(discard);
    let left = context.close();
    if !keep(&result) {
        core.counters.handlers_discarded.add(1);
        // What it found may have been left by another caller and not be stored yet.
        counted(core, lease.settled().await)?;
        return Ok(LeasedOutcome::Done(result));
    }
    if left.destroyed {
        counted(core, lease.in_time())?;
        counted(core, lease.begin_own_write().await)?;
        let target = DestroyTarget::Leased(record.client_id, record.generation, lease.lease());
        return match counted(core, core.backend.destroy(target).await)? {
            true => {
                lease.released();
                own_ends::note(Ended::Session { id: record.session_id, sealed: record.sealed });
                Ok(LeasedOutcome::Done(result))
            }
            false => Err(Error::ended()),
        };
    }
    let unit = UnitOfWork {
        data: left.data,
        max_age: (left.max_age != record.max_age).then_some(left.max_age),
        ..UnitOfWork::new(record.clone(), record.session_id)
    };
    if unit.leaves(record) {
        counted(core, lease.settled().await)?;
    } else {
        counted(core, lease.in_time())?;
        counted(core, write::write(core, record, &unit, || unit.changes(), Some(lease)).await)?;
    }
    Ok(LeasedOutcome::Done(result))
}

/// [`run_leased`] with the session that has this id.
pub(super) async fn run_by_id<F, Fut>(
    core: &Core,
    session: &SessionId,
    handler: F,
    keep: impl FnOnce(&Fut::Output) -> bool,
) -> Result<Fut::Output>
where
    F: FnOnce(SessionContext) -> Fut,
    Fut: Future,
{
    let record = match core.backend.load(std::slice::from_ref(session), None).await? {
        Loaded::Found(record) => record,
        Loaded::Missing { .. } => return Err(Error::missing()),
    };
    let request = LeaseRequest::Session(record.client_id, record.generation);
    match run_leased(core, request, handler, keep).await? {
        LeasedOutcome::Done(result) => Ok(result),
        LeasedOutcome::Missing => Err(Error::missing()),
    }
}

/// Counts a lease that was lost before its holder wrote.
fn counted<T>(core: &Core, written: Result<T>) -> Result<T> {
    written.inspect_err(|error| {
        if error.kind() == ErrorKind::LeaseLost {
            core.counters.leases_lost.add(1);
        }
    })
}

/// Closes a context whose handler did not come to its end.
struct Discard<'a>(&'a SessionContext, &'a Counters);

impl Drop for Discard<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.1.handlers_discarded.add(1);
    }
}
