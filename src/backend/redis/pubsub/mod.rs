//! Messages between nodes, and what Redis itself says about keys.

pub(super) mod interest;
pub(super) mod keyspace_events;
pub(super) mod message;
pub(super) mod subscriber;
