pub(crate) mod suspects;
pub(crate) mod tombstones;
pub(crate) mod tracker;
