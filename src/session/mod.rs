//! The domain: ids, data, records, lifetimes and events. Pure, with no I/O, clock or runtime.

mod data;
mod event;
mod id;
mod lifetime;
mod max_age;
mod node;
mod record;

pub use data::{Changes, MAX_DEPTH, Map, SessionData};
pub use event::{
    Cleanup, DestroyReason, Gap, SessionDestroy, SessionEnd, SessionEvent, SessionSet,
};
pub use id::{ClientId, InvalidId, SessionId, generate_uid};
pub use lifetime::{Lifetime, Renewal};
pub use max_age::{MAX_AGE_RANGE, MaxAge};
pub use node::NodeId;
pub use record::{Generation, PreviousId, Record, Stamp};
