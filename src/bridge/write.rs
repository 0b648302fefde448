//! Writing to a session that others write to.

use std::sync::Arc;

use tokio::time::Instant;

use super::combine::Entry;
use super::core::Core;
use super::lease_guard::LeaseGuard;
use super::options::OnConflict;
use super::overwritten::Overwritten;
use super::turn;
use super::unit_of_work::{UnitOfWork, WantsId};
use crate::backend::{Commit, Committed, NewId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, Record};

/// Writes until it fits. `changes` are what a conflict with another writer leaves to do again.
pub(super) async fn write(
    core: &Core,
    base: &Record,
    unit: &UnitOfWork,
    changes: impl Fn() -> Changes,
    lease: Option<&LeaseGuard<'_>>,
) -> Result<Arc<Record>> {
    let policy = core.options.on_conflict;
    let overwrite = policy == OnConflict::Overwrite;
    // A new id is one writer's own; and so is a conflict that is an error.
    let shares = (policy == OnConflict::Merge || overwrite) && unit.new_id.is_none();
    if let Some(lease) = lease {
        if shares && lease.is_shared() {
            return turn::share(lease, unit.data.clone(), unit.max_age()).await;
        }
        lease.begin_own_write().await?;
    }
    let combines = shares && !overwrite && lease.is_none();
    let combine = |newest| {
        let entry = Entry { read: base.data.clone(), changes: changes(), max_age: unit.max_age };
        Box::pin(core.combiner.write(base.client_id, base.generation, entry, newest))
    };
    if combines
        && core.combiner.is_busy(&base.client_id, base.generation)
        && let Some(written) = combine(None).await
    {
        return written;
    }
    let commit = |version, stamp, data, max_age| Commit {
        client: base.client_id,
        generation: base.generation,
        version,
        data,
        max_age,
        lease: lease.map(|lease| lease.lease()),
        release: lease.is_some(),
        new_id: unit.new_id.map(|wants| match wants {
            WantsId::Renew => NewId::Renew { from: unit.holds.unwrap_or(base.session_id) },
            WantsId::Seal => NewId::Seal,
        }),
        stamp,
    };
    let version = (!overwrite).then_some(base.version);
    let mut next = commit(version, base.stamp.clone(), unit.data.clone(), unit.max_age());
    let mut overwritten = Overwritten::default();
    let deadline = Instant::now() + core.options.acquire_timeout;
    loop {
        match core.backend.commit(next).await? {
            Committed::Written(record) => {
                core.counters.commits.add(1);
                overwritten.note(&core.counters);
                if let Some(lease) = lease {
                    lease.released();
                }
                return Ok(Arc::new(record));
            }
            Committed::Ended => return Err(Error::ended()),
            Committed::LeaseLost => return Err(Error::lease_lost()),
            Committed::Conflict(newest) => {
                core.counters.conflicts.add(1);
                if policy == OnConflict::Error {
                    return Err(conflict("load it again and repeat the change"));
                }
                if combines && let Some(written) = combine(Some(newest.clone())).await {
                    return written;
                }
                let changes = changes();
                overwritten = Overwritten::check(policy, &changes, &base.data, &newest.data)?;
                if Instant::now() >= deadline {
                    return Err(Error::always_slower());
                }
                let mut data = newest.data;
                data.apply(&changes);
                let max_age = unit.max_age.unwrap_or(newest.max_age);
                next = commit(Some(newest.version), newest.stamp, data, max_age);
            }
        }
    }
}

fn conflict(advice: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, advice)
}
