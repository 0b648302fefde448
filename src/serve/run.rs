//! Accepting, serving, and stopping.

use std::any::Any;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::connections::Connections;
use super::io::Io;
use super::limits::{Limits, STALLED};
use super::service::App;

/// How long connections that were aborted may take to be gone.
const ABORTED: Duration = Duration::from_secs(2);

/// How many connections that wait to be accepted are still taken when the server stops.
const BACKLOG: usize = 1024;

/// A server and all its connections. Dropping it ends them.
pub(super) struct Server {
    app: Router,
    limits: Limits,
    builder: http1::Builder,
    connections: Connections,
    accepted: u64,
    tasks: TaskTracker,
    /// Answers are the last ones of their connections.
    leaving: Arc<AtomicBool>,
    /// Connections end with what they do now.
    stopping: CancellationToken,
    /// Connections end.
    aborted: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Server {
    pub(super) fn new(app: Router, limits: Limits) -> Self {
        Self {
            // A fallback that is a handler becomes a service here; otherwise each request makes one, with
            // all layers around it, and a layer of Socket.IO makes an engine each time.
            app: app.with_state(()),
            limits,
            builder: http1::Builder::new(),
            connections: Connections::default(),
            accepted: 0,
            tasks: TaskTracker::new(),
            leaving: Arc::default(),
            stopping: CancellationToken::new(),
            aborted: CancellationToken::new(),
        }
    }

    /// Accepts until `drained` is over. `leaving` says when that begins.
    pub(super) async fn accept<L>(
        &mut self,
        mut listener: L,
        leaving: impl Future<Output = ()>,
        drained: impl Future<Output = ()>,
    ) where
        L: Listener,
        L::Addr: Clone + Sync + 'static,
    {
        let flag = self.leaving.clone();
        let mut stop = pin!(async {
            leaving.await;
            flag.store(true, Ordering::Relaxed);
            drained.await;
        });
        loop {
            tokio::select! {
                (io, client) = listener.accept() => self.serve::<L>(io, client),
                () = &mut stop => break,
            }
        }
        // The system has told these clients that they are connected. Closing the listener would reset
        // them.
        for _ in 0..BACKLOG {
            let Some((io, client)) = listener.accept().now_or_never() else { break };
            self.serve::<L>(io, client);
        }
    }

    fn serve<L>(&mut self, mut io: L::Io, client: L::Addr)
    where
        L: Listener,
        L::Addr: Clone + Sync + 'static,
    {
        set_nodelay(&mut io);
        self.accepted += 1;
        let entry = self.connections.enter(self.accepted);
        let connection = entry.connection().clone();
        let app = App {
            router: self.app.clone(),
            client: ConnectInfo(client),
            connection: connection.clone(),
            leaving: self.leaving.clone(),
        };
        let io = TokioIo::new(Io::new(io, entry, self.tasks.token()));
        let http = self.builder.serve_connection(io, app).with_upgrades();
        let limits = self.limits;
        let (stopping, aborted) = (self.stopping.clone(), self.aborted.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = until_over(http, &connection, &limits, &stopping) => {}
                () = aborted.cancelled() => {}
            }
        });
    }

    /// Lets the connections finish, for so long.
    pub(super) async fn stop(&self, limit: Duration) {
        self.leaving.store(true, Ordering::Relaxed);
        self.stopping.cancel();
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_ok() {
            return;
        }
        let left = self.connections.len();
        tracing::warn!("{left} connections are still open {limit:?} after the server stopped");
        self.abort();
        if timeout(ABORTED, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections that were aborted are still held");
        }
    }

    fn abort(&self) {
        self.aborted.cancel();
        self.connections.abort_all();
    }
}

/// What hyper makes of a connection.
trait Http: Future<Output = hyper::Result<()>> {
    fn finish(self: std::pin::Pin<&mut Self>);
}

impl<I, S> Http for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S::ResBody: hyper::body::Body + 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection until it ends or is upgraded, or its client has no time left.
async fn until_over(
    http: impl Http,
    connection: &Connection,
    limits: &Limits,
    stopping: &CancellationToken,
) {
    let mut http = pin!(http);
    let mut check = pin!(sleep(connection.time_left(limits)));
    // How much had come at the last check, once the server stops.
    let mut seen = None;
    loop {
        tokio::select! {
            ended = &mut http => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            () = stopping.cancelled(), if seen.is_none() => {
                // One that has just been accepted may have a request on its way, and hyper would close it.
                if connection.reads() > 0 {
                    http.as_mut().finish();
                }
                seen = Some(connection.reads());
                check.as_mut().reset(Instant::now() + STALLED);
            }
            () = &mut check => {
                let next = if let Some(seen) = &mut seen {
                    let before = std::mem::replace(seen, connection.reads());
                    if *seen == before && connection.waits_for_client() {
                        tracing::debug!("a client sent half a request and no more");
                        return;
                    }
                    STALLED
                } else {
                    connection.time_left(limits)
                };
                if next.is_zero() {
                    tracing::debug!("a client took too long for its next request");
                    return;
                }
                check.as_mut().reset(Instant::now() + next);
            }
        }
    }
}

/// Without it an event and its acknowledgement, two small writes, take the 40 ms of a delayed
/// acknowledgement of TCP's.
fn set_nodelay<I: 'static>(io: &mut I) {
    if let Some(stream) = (io as &mut dyn Any).downcast_mut::<TcpStream>()
        && let Err(error) = stream.set_nodelay(true)
    {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}
