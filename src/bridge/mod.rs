//! The bridge: one handle for sessions, from HTTP, sockets and plain code.

mod access;
mod attachments;
mod authority;
mod builder;
mod cleaner;
mod context;
mod core;
mod engines;
mod events;
mod fanout;
mod handshake;
mod leased;
mod nodes;
mod options;
mod origin;
mod outage;
mod own_ends;
mod stats;
mod unit;

pub use builder::SessionBridgeBuilder;
pub use context::{SessionContext, SessionMut};
pub use core::SessionBridge;
pub use events::{Lagged, SessionEvents};
pub use handshake::Handshake;
pub use options::{
    ClientCookie, OnConflict, OnDestroy, OnRotate, SameSite, Seal, Secure, SocketMessages,
    SocketPairing,
};
pub use outage::WhenUnavailable;
pub use stats::Stats;

pub(crate) use attachments::{Attachment, AttachmentGuard, SinkError, SocketSink};
pub(crate) use engines::{EngineConnection, EngineRequest};
pub(crate) use leased::{Call, Ran};
pub(crate) use options::Options;
pub(crate) use origin::RequestOrigin;
pub(crate) use outage::whole_seconds;
pub(crate) use own_ends::OwnEnds;
pub(crate) use stats::Anomaly;
pub(crate) use unit::{Outcome, Unit, WantsId};
