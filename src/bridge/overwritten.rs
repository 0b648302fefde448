//! What a write replaces although others changed it since its writer read it.

use super::options::OnConflict;
use super::stats::Counters;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, SessionData};

/// The keys that a write sets although others changed them since its writer read them.
#[derive(Default)]
pub(super) struct Overwritten(Vec<String>);

impl Overwritten {
    /// What changes to `read` overwrite in `newest`.
    ///
    /// A key counts also if both made the same of it: two requests that add 1 to a number write the
    /// same value, and one of them is lost.
    pub(super) fn between(changes: &Changes, read: &SessionData, newest: &SessionData) -> Self {
        let differs = |key: &&str| read.value(key) != newest.value(key);
        Self(changes.iter().map(|(key, _)| key).filter(differs).map(str::to_owned).collect())
    }

    /// The same, as an error if that is what it is to be.
    pub(super) fn check(
        policy: OnConflict,
        changes: &Changes,
        read: &SessionData,
        newest: &SessionData,
    ) -> Result<Self> {
        let overwritten = Self::between(changes, read, newest);
        if policy == OnConflict::Detect && !overwritten.0.is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "both set the same key; load it again and repeat the change, or use `update`",
            ));
        }
        Ok(overwritten)
    }

    /// Counts a write that was made.
    pub(super) fn note(&self, counters: &Counters) {
        if !self.0.is_empty() {
            counters.overwrites.add(1);
            tracing::debug!(
                keys = ?self.0,
                "a write replaced what another one had set since the session was read; use `update` for values that depend on their old ones"
            );
        }
    }
}
