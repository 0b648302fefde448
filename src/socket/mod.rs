//! Sessions on sockets: the connect middleware, and methods on every socket.
//!
//! Give each namespace the [`attach`] middleware, and sockets have sessions:
//!
//! ```
//! use std::convert::Infallible;
//! use axum_io_session::socket::{attach, SocketSessionExt as _};
//! use socketioxide::{SocketIo, extract::{AckSender, SocketRef}, handler::ConnectHandler as _};
//!
//! async fn events(socket: SocketRef) -> Result<(), Infallible> {
//!     socket.on("visits", |socket: SocketRef, ack: AckSender| async move {
//!         let visits = socket
//!             .with_session_or(0, |session| async move {
//!                 session.get::<u64>("visits").ok().flatten().unwrap_or(0)
//!             })
//!             .await;
//!         let _ = ack.send(&visits.unwrap_or_default());
//!     });
//!     Ok(())
//! }
//!
//! let (layer, io) = SocketIo::new_layer();
//! io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
//! # let _ = layer;
//! ```
//!
//! The last middleware given runs first. Events are added in a middleware on purpose:
//! socketioxide starts a connect handler after the client knows that it is connected, and the
//! client's first event may come before the handler has added what is to take it.
//!
//! Nothing of this can be half-forgotten: without the middleware, or without the session layer
//! around Socket.IO, sockets connect and each method is a
//! [`NotAttached`](crate::ErrorKind::NotAttached) error that says which of the two is missing.

mod attach;
mod context;
mod ext;
mod router;
mod sink;

pub use attach::{AttachError, attach};
pub use context::SocketContext;
pub use ext::{ClientSession, SocketSessionExt};
pub use router::{BelowSockets, bridge_session};
