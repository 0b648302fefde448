//! When something happened, as the view counts.

/// A point in the sequence of inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step(pub(super) u64);
