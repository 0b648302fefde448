//! Writing to a session that others write to.

use std::sync::Arc;

use tokio::time::Instant;

use super::core::Core;
use super::lease_guard::LeaseGuard;
use super::options::OnConflict;
use super::unit_of_work::{UnitOfWork, WantsId};
use crate::backend::{Commit, Committed, NewId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, Record, SessionData};

/// Writes until it fits. `changes` are what a conflict with another writer leaves to do again.
pub(super) async fn write(
    core: &Core,
    base: &Record,
    unit: &UnitOfWork,
    changes: impl Fn() -> Changes,
    lease: Option<&LeaseGuard<'_>>,
) -> Result<Arc<Record>> {
    let overwrite = core.options.on_conflict == OnConflict::Overwrite;
    let commit = |version, stamp, data, max_age| Commit {
        client: base.client_id,
        generation: base.generation,
        version,
        data,
        max_age,
        lease: lease.map(LeaseGuard::lease),
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
                overwritten.note(core);
                if let Some(lease) = lease {
                    lease.released();
                }
                return Ok(Arc::new(record));
            }
            Committed::Ended => return Err(Error::ended()),
            Committed::LeaseLost => return Err(Error::lease_lost()),
            Committed::Conflict(newest) => {
                core.counters.conflicts.add(1);
                if core.options.on_conflict == OnConflict::Error {
                    return Err(conflict("load it again and repeat the change"));
                }
                let changes = changes();
                overwritten = Overwritten::check(core, &changes, &base.data, &newest)?;
                if Instant::now() >= deadline {
                    return Err(conflict(
                        "other writers were always faster; use `update` for busy sessions",
                    ));
                }
                let mut data = newest.data;
                data.apply(&changes);
                let max_age = unit.max_age.unwrap_or(newest.max_age);
                next = commit(Some(newest.version), newest.stamp, data, max_age);
            }
        }
    }
}

/// The keys that a write sets although others changed them since its writer read them.
#[derive(Default)]
pub(super) struct Overwritten(Vec<String>);

impl Overwritten {
    /// What changes to `read` overwrite in `newest`.
    ///
    /// A key counts also if both made the same of it: two requests that add 1 to a number write the
    /// same value, and one of them is lost.
    pub(super) fn check(
        core: &Core,
        changes: &Changes,
        read: &SessionData,
        newest: &Record,
    ) -> Result<Self> {
        let differs = |key: &&str| read.value(key) != newest.data.value(key);
        let keys: Vec<String> =
            changes.iter().map(|(key, _)| key).filter(differs).map(str::to_owned).collect();
        if core.options.on_conflict == OnConflict::Detect && !keys.is_empty() {
            return Err(conflict(
                "both set the same key; load it again and repeat the change, or use `update`",
            ));
        }
        Ok(Self(keys))
    }

    /// Counts a write that was made.
    pub(super) fn note(&self, core: &Core) {
        if !self.0.is_empty() {
            core.counters.overwrites.add(1);
            tracing::debug!(
                keys = ?self.0,
                "a write replaced what another one had set since the session was read; use `update` for values that depend on their old ones"
            );
        }
    }
}

fn conflict(advice: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, advice)
}
