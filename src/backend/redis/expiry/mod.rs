//! Expiry, eviction and external deletion: ends of sessions that no script of ours causes.

pub(super) mod probe;
pub(super) mod sweeper;
pub(super) mod timer;
