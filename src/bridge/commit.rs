//! The commit of a request's changes, and updates under the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::lease_guard::LeaseGuard;
use super::options::Seal;
use super::overwritten::Overwritten;
use super::own_ends;
use super::unit_of_work::{Outcome, UnitOfWork};
use super::write;
use crate::backend::{Create, Created, DestroyTarget, Loaded};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record, SessionData};

/// Commits a unit of work. `cookie` is how long the request's cookie still lives, if that is known,
/// and `may_renew` whether an unchanged session may be renewed.
pub(super) async fn commit(
    core: &Core,
    client: ClientId,
    unit: &UnitOfWork,
    cookie: Option<Duration>,
    may_renew: bool,
) -> Result<Outcome> {
    let Some(base) = &unit.base else { return commit_new(core, client, unit, None).await };
    let ended_here = own_ends::take(base);
    if unit.destroy || ended_here {
        return Box::pin(commit_end(core, client, base, unit, ended_here)).await;
    }
    if unit.leaves(base) {
        let renews = may_renew && core.options.lifetime.renews(base, cookie);
        if !unit.save && !renews {
            return Ok(Outcome::Unchanged);
        }
        return match core.backend.touch(&client, base.generation).await {
            Ok(Some(record)) => {
                Ok(Outcome::Stored { own: unit.owns(&record), record: Arc::new(record) })
            }
            Ok(None) => Ok(Outcome::Gone { client, ended: false }),
            // The request only read, and has what it asked for.
            Err(error) if !unit.save => {
                core.counters.errors.add(1);
                tracing::warn!(%error, "a session was not renewed");
                Ok(Outcome::Unchanged)
            }
            Err(error) => Err(error),
        };
    }
    commit_change(core, client, base, unit, None).await
}

/// Reads, changes and writes a unit's session under the lease. Returns the unit as it was
/// written, too. An error of `change` means that nothing is written.
pub(super) async fn update<R>(
    core: &Core,
    client: ClientId,
    unit: &UnitOfWork,
    change: impl FnOnce(&mut SessionData) -> Result<R>,
) -> Result<(R, UnitOfWork, Outcome)> {
    let mut unit = unit.clone();
    if unit.superseded && !unit.seals() {
        return Err(Error::ended());
    }
    let ended_here = unit.base.as_deref().is_some_and(own_ends::has_ended);
    if unit.destroy || ended_here {
        unit.data = unit.next_data();
    }
    if let Some(base) = unit.base.take_if(|_| unit.destroy || ended_here) {
        let result = change(&mut unit.data)?;
        let ended_here = own_ends::take(&base);
        // The session ends first: the update is the new one's.
        let end = UnitOfWork { destroy: true, ..UnitOfWork::default() };
        let outcome = Box::pin(commit_end(core, client, &base, &end, ended_here)).await?;
        let next = match &outcome {
            Outcome::Gone { client, .. } => *client,
            _ => client,
        };
        unit = UnitOfWork { destroy: false, holds: None, ..unit };
        return Ok(match commit_new(core, next, &unit, None).await? {
            Outcome::Unchanged => (result, unit, outcome),
            created => (result, unit, created),
        });
    }
    let lease = LeaseGuard::acquire(core, client).await?;
    let (mut unit, overwritten) = rebase(core, unit, lease.record()).await?;
    let result = match change(&mut unit.data) {
        Ok(result) => result,
        Err(error) => {
            // What it found may have been left by another caller and not be stored yet.
            lease.settled().await?;
            return Err(error);
        }
    };
    let outcome = match &unit.base {
        None => {
            lease.begin_own_write().await?;
            commit_new(core, client, &unit, Some(&lease)).await?
        }
        Some(base) => {
            if unit.leaves(base) {
                lease.settled().await?;
                Outcome::Unchanged
            } else {
                commit_change(core, client, base, &unit, Some(&lease)).await?
            }
        }
    };
    if matches!(outcome, Outcome::Stored { .. }) {
        overwritten.note(&core.counters);
    }
    Ok((result, unit, outcome))
}

/// Ends what the unit loaded, and begins what it holds now.
async fn commit_end(
    core: &Core,
    client: ClientId,
    base: &Record,
    unit: &UnitOfWork,
    ended_here: bool,
) -> Result<Outcome> {
    let target = DestroyTarget::Generation(client, base.generation);
    let ended = ended_here || core.backend.destroy(target).await?;
    if !ended && is_superseded(core, base).await? {
        // Sealed meanwhile: a logout without effect must not look like one.
        return Err(Error::ended());
    }
    // Sockets and cached pages may still know the client of a sealed session: what begins
    // now is none of theirs, whichever of several requests ended it.
    let client = if base.sealed { ClientId::generate() } else { client };
    let next = UnitOfWork {
        data: unit.next_data(),
        max_age: unit.max_age,
        new_id: unit.new_id,
        ..UnitOfWork::default()
    };
    match commit_new(core, client, &next, None).await? {
        Outcome::Unchanged => Ok(Outcome::Gone { client, ended }),
        outcome => Ok(outcome),
    }
}

/// Creates a session for a unit that loaded none, if it has data.
async fn commit_new(
    core: &Core,
    client: ClientId,
    unit: &UnitOfWork,
    lease: Option<&LeaseGuard<'_>>,
) -> Result<Outcome> {
    // A request that asks something of a session that lives on under another id gets an error;
    // only a login with data of its own can begin a session of its own.
    if unit.superseded && unit.asks() && (!unit.seals() || unit.data.is_empty()) {
        return Err(Error::ended());
    }
    if unit.data.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    // Boxed, as all that is rare: every request's future has room for what is not.
    Box::pin(create(core, client, unit, unit.age, lease)).await
}

/// Writes to what the unit loaded.
async fn commit_change(
    core: &Core,
    client: ClientId,
    base: &Record,
    unit: &UnitOfWork,
    lease: Option<&LeaseGuard<'_>>,
) -> Result<Outcome> {
    match write::write(core, base, unit, || unit.changes(), lease).await {
        Ok(record) => Ok(Outcome::Stored { own: unit.owns(&record), record }),
        // Another request sealed it first. This one asked for the same, and whichever answer
        // the browser keeps has to be good: a sealed session of its own.
        Err(error)
            if error.kind() == ErrorKind::SessionEnded
                && unit.seals()
                && is_superseded(core, base).await? =>
        {
            Box::pin(create(core, client, unit, base.age, None)).await
        }
        Err(error) => Err(error),
    }
}

/// Whether a session that has ended was sealed, and so lives on under another id.
async fn is_superseded(core: &Core, base: &Record) -> Result<bool> {
    let ids = [base.session_id];
    let now = core.backend.load(&ids, Some(&base.client_id)).await?;
    Ok(matches!(now, Loaded::Missing { superseded: true }))
}

/// Creates the unit's session: for its client, or, if that one has a session that may not be
/// joined, for a new client.
async fn create(
    core: &Core,
    mut client: ClientId,
    unit: &UnitOfWork,
    age: Duration,
    mut lease: Option<&LeaseGuard<'_>>,
) -> Result<Outcome> {
    let sealed = unit.seals() || core.options.seal == Seal::FromStart;
    let begun = Instant::now();
    loop {
        let create = Create {
            client,
            data: unit.data.clone(),
            max_age: unit.max_age(),
            sealed,
            join: if sealed { Duration::ZERO } else { core.options.join_window },
            age,
        };
        let existing = match core.backend.create(create).await? {
            Created::New(record) => {
                core.counters.created.add(1);
                return Ok(Outcome::Stored { record: Arc::new(record), own: true });
            }
            Created::Exists(existing) => Arc::new(existing),
            Created::Occupied => {
                core.counters.own_ways.add(1);
                client = ClientId::generate();
                lease = None;
                continue;
            }
        };
        // Another request was first, and this one's data joins that session.
        let mut joined = UnitOfWork::new(existing.clone(), existing.session_id);
        let nothing = SessionData::new();
        let changes = nothing.changes_to(&unit.data);
        let overwritten =
            Overwritten::check(core.options.on_conflict, &changes, &nothing, &existing.data)?;
        joined.data.apply(&changes);
        joined.max_age = unit.max_age;
        match write::write(core, &existing, &joined, || changes.clone(), lease).await {
            Ok(record) => {
                overwritten.note(&core.counters);
                return Ok(Outcome::Stored { record, own: true });
            }
            // It ended, or was sealed, before this one could join: begin again.
            Err(error) if error.kind() == ErrorKind::SessionEnded => {
                if begun.elapsed() > core.options.acquire_timeout {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The unit's changes on top of the newest record.
async fn rebase(
    core: &Core,
    unit: UnitOfWork,
    newest: Option<&Arc<Record>>,
) -> Result<(UnitOfWork, Overwritten)> {
    let seals = unit.seals() || core.options.seal == Seal::FromStart;
    let newest = match (&unit.base, newest) {
        (Some(base), Some(newest)) if base.generation == newest.generation => newest,
        (Some(base), _) => {
            if unit.seals() && is_superseded(core, base).await? {
                let age = base.age;
                let unit = UnitOfWork { base: None, holds: None, superseded: true, age, ..unit };
                return Ok((unit, Overwritten::default()));
            }
            return Err(Error::ended());
        }
        (None, Some(newest)) if !seals && newest.is_joinable(core.options.join_window) => newest,
        // A session that is not this request's: without its cookie it stays closed.
        (None, _) => return Ok((unit, Overwritten::default())),
    };
    let changes = unit.changes();
    let read = unit.base.as_ref().map(|base| base.data.clone()).unwrap_or_default();
    let overwritten = Overwritten::check(core.options.on_conflict, &changes, &read, &newest.data)?;
    let mut data = newest.data.clone();
    data.apply(&changes);
    Ok((UnitOfWork { base: Some(newest.clone()), data, ..unit }, overwritten))
}
