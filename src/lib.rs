#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The first definition of a link wins: the README's paths become links of this documentation.
#![doc = include_str!("../docs/guide/rustdoc-links.md")]
#![doc = ""]
#![doc = include_str!("../README.md")]
//!
//! ## Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `redis` | yes | [`backend::redis`]: several nodes share sessions through Redis or Valkey |
//! | `socketio` | yes | [`socket`]: Socket.IO by socketioxide; without it HTTP, streams and plain WebSockets are left |
//! | `serve` | yes | [`serve()`]: a server for the application, with limits and a shutdown that ends in time |
//! | `redis-tls` | | `rediss://` URLs: Redis over TLS, by rustls |
//! | `file-store` | | [`store::FileStore`]: sessions of one node in a file that survives restarts |
//! | `monitor` | | [`monitor`]: routes for operators, with health, metrics and a dashboard |
//! | `ws` | | [`web::ws`]: axum's own WebSockets, with the session of their handshake |
//! | `conformance` | | [`store::conformance`] and [`backend::conformance`]: suites for authors of a store or a backend |

pub mod backend;
pub mod bridge;
mod error;
pub mod guide;
#[cfg(feature = "monitor")]
#[cfg_attr(docsrs, doc(cfg(feature = "monitor")))]
pub mod monitor;
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub mod serve;
pub mod session;
#[cfg(feature = "socketio")]
#[cfg_attr(docsrs, doc(cfg(feature = "socketio")))]
pub mod socket;
pub mod store;
pub mod web;

pub use bridge::{SessionBridge, SessionContext};
pub use error::{BoxError, Error, ErrorKind, Result};
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub use serve::serve;
pub use session::{
    ClientId, DestroyReason, MaxAge, NodeId, Renewal, SessionData, SessionEnd, SessionEvent,
    SessionId, generate_uid,
};
#[cfg(feature = "socketio")]
pub use socket::{SocketSessionExt, bridge_session};
pub use web::Session;
