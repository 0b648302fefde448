//! The bridge: one handle for sessions, from HTTP, sockets and plain code.

mod access;
mod attachments;
mod builder;
mod cleaner;
mod context;
mod core;
mod events;
mod fanout;
mod handshake;
mod leased;
mod nodes;
mod options;
mod outage;
mod stats;
mod unit;

pub use builder::SessionBridgeBuilder;
pub use context::{SessionContext, SessionMut};
pub use core::SessionBridge;
pub use events::{Lagged, SessionEvents};
pub use handshake::Handshake;
pub use options::{OnConflict, OnDestroy, SameSite, Secure, SocketMessages, SocketPairing};
pub use outage::WhenUnavailable;
pub use stats::Stats;

pub(crate) use attachments::{Attachment, AttachmentGuard, Pairing, SinkError, SocketSink};
pub(crate) use leased::{Call, Ran};
pub(crate) use options::Options;
pub(crate) use outage::whole_seconds;
pub(crate) use stats::Anomaly;
pub(crate) use unit::{Outcome, Unit};
