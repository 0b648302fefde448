#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
//! One session for HTTP (axum) and Socket.IO (socketioxide).

pub mod backend;
mod error;
pub mod session;
pub mod store;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use session::{
    ClientId, DestroyReason, MaxAge, NodeId, SessionData, SessionEvent, SessionId, generate_uid,
};
