//! Turns: callers that want one client's session run one after the other.
//!
//! They line up on this node first ([`line`]); the first gets the client's lease from the backend
//! and begins a [`round`]. Callers that wait when it is done run in the same round, on what those
//! before them left in memory, and all that they left is written together ([`writer`]). Then the
//! lease goes back, and the next round stands in line behind those of other nodes.
//!
//! A caller hears of success once the write that holds its change is done. A write that fails fails
//! all whose changes it holds, and all who built on them.

mod line;
mod places;
mod round;
mod writer;

pub(super) use line::{Turn, Turns};
pub(super) use writer::share;
