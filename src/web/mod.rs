//! Sessions over HTTP: the tower layer, cookies, extractors and rejections.
//!
//! Put the layer outside everything that uses sessions, the Socket.IO layer included:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> axum_io_session::Result<()> {
//! use axum::{Router, routing::get};
//! use axum_io_session::{Session, SessionBridge};
//!
//! async fn visits(session: Session) -> axum_io_session::Result<String> {
//!     let visits = session.update(|data| {
//!         let visits = data.get::<u64>("visits")?.unwrap_or(0) + 1;
//!         data.insert("visits", visits)?;
//!         Ok(visits)
//!     }).await?;
//!     Ok(format!("{visits} visits"))
//! }
//!
//! let bridge = SessionBridge::builder().build().await?;
//! let app: Router = Router::new().route("/", get(visits)).layer(bridge.layer());
//! # bridge.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod admission;
mod answer;
mod body;
mod caching;
mod cookies;
mod extract;
mod layer;
mod list;
mod proxy;
mod rejection;
mod request;
mod session;
mod signing;
#[cfg(feature = "ws")]
#[cfg_attr(docsrs, doc(cfg(feature = "ws")))]
pub mod ws;

pub use body::SessionBody;
pub use layer::{SessionLayer, SessionService};
pub use session::{Cancellation, Session};
