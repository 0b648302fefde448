//! Messages between nodes, and what Redis itself says about keys.

pub(super) mod cluster;
pub(super) mod keyspace_events;
pub(super) mod message;
pub(super) mod subscribe;
pub(super) mod subscriber;
