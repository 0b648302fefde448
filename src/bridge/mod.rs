//! The bridge: one handle for sessions, from HTTP, sockets and plain code.

// What Socket.IO alone uses is all over this module, in places that are clearer without conditions.
#![cfg_attr(not(feature = "socketio"), allow(dead_code, unused_imports))]

mod access;
mod attach;
mod attachment;
mod audience;
mod authority;
mod builder;
mod cleanup;
mod combine;
mod commit;
mod connection;
mod context;
mod core;
mod delivery;
mod dispatch;
mod drain;
mod engines;
mod events;
mod group;
mod handle;
mod handshake;
mod heartbeat;
mod lease_guard;
mod options;
mod origin;
mod outage;
mod overwritten;
mod own_ends;
mod reconcile;
mod sockets;
mod start;
mod stats;
mod turn;
mod unit_of_work;
mod watch;
mod with_session;
mod write;

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

pub(crate) use attach::AttachmentGuard;
pub(crate) use attachment::{Attachment, Message, SinkError, SocketSink};
#[cfg(feature = "ws")]
pub(crate) use connection::Signal;
pub(crate) use connection::{Connection, Seen};
pub(crate) use engines::{EngineConnection, EngineRequest};
pub(crate) use options::Options;
pub(crate) use origin::RequestOrigin;
pub(crate) use outage::whole_seconds;
pub(crate) use own_ends::OwnEnds;
pub(crate) use stats::Anomaly;
pub(crate) use unit_of_work::{Outcome, UnitOfWork, WantsId};
pub(crate) use watch::Watch;
pub(crate) use with_session::{LeaseRequest, LeasedOutcome, run_leased};
