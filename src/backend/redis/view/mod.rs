//! What this node believes about sessions.

pub(super) mod suspects;
pub(super) mod tombstones;
pub(super) mod tracker;
