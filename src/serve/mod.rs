//! A server for the application, with the limits that a public one needs.
//!
//! [`serve`](serve()) is used as `axum::serve` is, and differs where sessions and Socket.IO need it:
//!
//! | | |
//! |---|---|
//! | `TCP_NODELAY` | is set on each connection that is a [`TcpStream`](tokio::net::TcpStream), whatever listener it comes from |
//! | fallbacks | are made once, so that a Socket.IO layer around one has one engine, and long polling works |
//! | [`ConnectInfo`](axum::extract::ConnectInfo) | is there without a make-service |
//! | slow and idle clients | are closed: [`header_timeout`](Serve::header_timeout), [`idle_timeout`](Serve::idle_timeout) |
//! | stopping | ends in time, whatever clients do: [`shutdown_timeout`](Serve::shutdown_timeout) |
//!
//! It speaks HTTP/1.1 with upgrades; HTTP/2 is the balancer's.

mod connection;
mod connections;
mod io;
mod limits;
mod run;
mod service;

use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;

use limits::Limits;
use run::Server;

use crate::bridge::SessionBridge;

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves an application: `serve(listener, app).await`.
///
/// A failure to accept does not end it: axum's listeners log it and try again, after a second if the
/// process has no file descriptors left.
///
/// ```no_run
/// # async fn start(app: axum::Router, signal: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum_io_session::serve(listener, app).with_graceful_shutdown(signal).await
/// # }
/// ```
pub fn serve<L>(listener: L, app: Router) -> Serve<L>
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
{
    Serve {
        listener,
        app,
        limits: Limits::default(),
        shutdown: limits::SHUTDOWN,
        signal: None,
        bridge: None,
    }
}

/// A server that has not begun. Await it. Dropping the future that it becomes ends all connections.
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L> {
    listener: L,
    app: Router,
    limits: Limits,
    shutdown: Duration,
    signal: Option<Signal>,
    bridge: Option<SessionBridge>,
}

impl<L> Serve<L> {
    /// How long a client may take to send a header, from its first byte or, on a new connection, from the
    /// begin of that. Default 30 seconds.
    pub fn header_timeout(mut self, limit: Duration) -> Self {
        self.limits.header = limit;
        self
    }

    /// How long a connection may be idle between two requests. Default 75 seconds: more than balancers
    /// keep theirs, so that they close first. Upgraded connections are never idle.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.limits.idle = limit;
        self
    }

    /// How long what runs may take once the server stops. Default 10 seconds.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.shutdown = limit;
        self
    }

    /// Stops when `signal` completes: no more connections are accepted, and idle ones are closed.
    ///
    /// Requests may finish and upgraded connections may end, within
    /// [`shutdown_timeout`](Self::shutdown_timeout); what is left then is aborted. A client that has sent half
    /// a header or half a body is given up as soon as nothing comes for one to two seconds.
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }
}

impl<L> Serve<L> {
    /// Stops the bridge too: at the signal it is [drained](SessionBridge::drain) while the server goes on, and
    /// after the server's end it is [shut down](SessionBridge::shutdown).
    ///
    /// ```no_run
    /// # use axum_io_session::SessionBridge;
    /// # async fn start(bridge: SessionBridge, app: axum::Router) -> std::io::Result<()> {
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// # async fn signal() {}
    /// axum_io_session::serve(listener, app).with_bridge(&bridge).with_graceful_shutdown(signal()).await
    /// # }
    /// ```
    pub fn with_bridge(mut self, bridge: &SessionBridge) -> Self {
        self.bridge = Some(bridge.clone());
        self
    }
}

impl<L> Serve<L>
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
{
    async fn run(self) -> std::io::Result<()> {
        let mut server = Server::new(self.app, self.limits);
        let signal = self.signal.unwrap_or_else(|| Box::pin(pending()));
        let bridge = self.bridge;
        let drained = async {
            if let Some(bridge) = &bridge {
                bridge.drain().await;
            }
        };
        server.accept(self.listener, signal, drained).await;
        server.stop(self.shutdown).await;
        if let Some(bridge) = &bridge {
            bridge.shutdown().await;
        }
        Ok(())
    }
}

impl<L> IntoFuture for Serve<L>
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
{
    type Output = std::io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<L> fmt::Debug for Serve<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("limits", &self.limits)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}
