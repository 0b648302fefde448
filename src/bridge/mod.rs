//! The bridge: one handle for sessions, from HTTP, sockets and plain code.

mod access;
mod authority;
mod builder;
mod cleanup;
mod context;
mod dispatch;
mod engines;
mod events;
mod handle;
mod handshake;
mod heartbeat;
mod options;
mod origin;
mod outage;
mod own_ends;
mod sockets;
mod stats;
mod unit_of_work;
mod with_session;

pub use builder::SessionBridgeBuilder;
pub use context::{SessionContext, SessionMut};
pub use events::{Lagged, SessionEvents};
pub use handle::SessionBridge;
pub use handshake::Handshake;
pub use options::{
    ClientCookie, OnConflict, OnDestroy, OnRotate, SameSite, Seal, Secure, SocketMessages,
    SocketPairing,
};
pub use outage::WhenUnavailable;
pub use stats::Stats;

pub(crate) use engines::{EngineConnection, EngineRequest};
pub(crate) use options::Options;
pub(crate) use origin::RequestOrigin;
pub(crate) use outage::whole_seconds;
pub(crate) use own_ends::OwnEnds;
pub(crate) use sockets::{Attachment, AttachmentGuard, SinkError, SocketSink};
pub(crate) use stats::Anomaly;
pub(crate) use unit_of_work::{Outcome, Unit, WantsId};
pub(crate) use with_session::{Call, Ran};
