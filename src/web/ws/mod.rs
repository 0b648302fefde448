//! Plain WebSockets, those of [`axum::extract::ws`], that belong to the session of their handshake.
//!
//! Take [`SessionUpgrade`] in place of `WebSocketUpgrade`:
//!
//! ```
//! use axum::extract::ws::Message;
//! use axum::response::Response;
//! use axum_io_session::web::ws::{SessionSocket, SessionUpgrade};
//!
//! async fn chat(upgrade: SessionUpgrade) -> Response {
//!     upgrade.require_session().on_upgrade(async |socket: SessionSocket| {
//!         while let Some(Ok(Message::Text(text))) = socket.recv().await {
//!             let stored = socket.with_session(async |session| session.insert("last", text.as_str()));
//!             if stored.await.is_err() || socket.send(Message::Text(text.clone())).await.is_err() {
//!                 return;
//!             }
//!         }
//!     })
//! }
//! # let _: axum::Router = axum::Router::new().route("/chat", axum::routing::any(chat));
//! ```
//!
//! At the session's end on any node, at a sealing by another request, and at a shutdown the connection is
//! closed with a code and a reason ([`CloseCodes`]), whatever its handler does meanwhile. What
//! [`on_destroy`](crate::bridge::SessionBridgeBuilder::on_destroy),
//! [`on_rotate`](crate::bridge::SessionBridgeBuilder::on_rotate) and
//! [`socket_pairing`](crate::bridge::SessionBridgeBuilder::socket_pairing) say of sockets holds for them,
//! the grace included. The session layer refuses upgrades of other origins with 403.

mod close;
mod socket;
mod task;
mod upgrade;

pub use close::CloseCodes;
pub use socket::{SessionSocket, SocketEvents};
pub use upgrade::SessionUpgrade;
