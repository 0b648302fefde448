//! A node to try everything on: a page, HTTP routes and Socket.IO events that share one session.
//!
//! Run it:          cargo run --example node
//! Try it:          curl -c jar -b jar -X POST localhost:3000/session/inc
//! Or in a browser: open http://localhost:3000 in two tabs
//! With a store that survives restarts:
//!                  cargo run --example node -- --store file:sessions.redb --keys "$(openssl rand -hex 32)"
//! Two nodes:       export SESSION_KEYS=$(openssl rand -hex 32)
//!                  cargo run --example node -- --redis redis://127.0.0.1:6379
//!                  and the same with --port 3001

mod args;
mod http;
mod probes;
mod sockets;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, IntoFuture as _};
use std::time::Duration;

use args::{Args, Store};
use axum::extract::DefaultBodyLimit;
use axum_io_session::bridge::SocketMessages;
use axum_io_session::socket::attach;
use axum_io_session::store::FileStore;
use axum_io_session::{SessionBridge, bridge_session, monitor};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long requests at the address for operators may take once the node has stopped.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// The largest body and message that the node accepts.
const MEGABYTE: usize = 1_000_000;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    if let Err(error) = run().await {
        eprintln!("error: {error}");
        let mut cause = error.source();
        while let Some(inner) = cause {
            eprintln!("  because: {inner}");
            cause = inner.source();
        }
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse()?;
    let bridge = bridge(&args).await?;

    let (socket_layer, io) = SocketIo::builder()
        // For polling, and for websockets, whose own default is 64 MB.
        .max_payload(MEGABYTE as u64)
        .ws_max_message_size(MEGABYTE)
        .ws_max_frame_size(MEGABYTE)
        // A polling client fetches packets at intervals. A burst of changes fills the default buffer
        // of 128 packets, and answers that find it full are lost.
        .max_buffer_size(1024)
        // Ends connections that never connect a socket.
        .connect_timeout(Duration::from_secs(10))
        .build_layer();
    let probes = args.probes;
    // A middleware runs before the client is notified that it is connected, so its first event
    // can't come too early. The last middleware given runs first.
    let add_events = async move |socket: SocketRef| {
        sockets::add_events(&socket, probes);
        Ok::<(), Infallible>(())
    };
    io.ns("/", connected.with(add_events).with(attach));

    let listener = TcpListener::bind((args.host.as_str(), args.port)).await?;
    let admin = match &args.admin {
        Some(address) => Some(TcpListener::bind(address.as_str()).await?),
        None => None,
    };
    let mut app = http::routes();
    // Figures are not public.
    let inside = admin.is_none() && listener.local_addr()?.ip().is_loopback();
    app =
        app.merge(if inside { monitor::router(&bridge) } else { monitor::health_router(&bridge) });
    if probes {
        app = app.merge(probes::routes());
    }
    let app = app.layer(DefaultBodyLimit::max(MEGABYTE)).with_state(bridge.clone());
    let app = bridge_session(app, socket_layer, &bridge);

    // Caught before the address is printed: from then on the process may be asked to stop.
    let stopped = stop_signal();
    let stop_admin = CancellationToken::new();
    let admin = admin.map(|listener| {
        let (app, stop) = (monitor::router(&bridge), stop_admin.clone());
        let serve = axum_io_session::serve(listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .shutdown_timeout(ADMIN_DRAIN);
        tokio::spawn(serve.into_future())
    });
    println!("listening on http://{}", listener.local_addr()?);
    axum_io_session::serve(listener, app)
        .with_bridge(&bridge)
        .with_graceful_shutdown(stopped)
        .await?;
    stop_admin.cancel();
    if let Some(admin) = admin {
        admin.await??;
    }
    Ok(())
}

/// The middlewares do everything.
async fn connected(_socket: SocketRef) {}

async fn bridge(args: &Args) -> axum_io_session::Result<SessionBridge> {
    let mut builder = SessionBridge::builder()
        .cookie_name(&args.key)
        .signing_keys(&args.keys)
        .allow_weak_keys(args.allow_weak_keys)
        .max_age(args.max_age)
        .max_payload(MEGABYTE)
        .lease_duration(args.lease)
        .retry_after(args.retry_after)
        .drain_window(args.drain)
        .when_unavailable(args.when_away)
        .trusted_proxies(args.trusted_proxies)
        .socket_pairing(args.pairing)
        .on_destroy(args.on_destroy)
        .on_rotate(args.on_rotate)
        .seal(args.seal)
        .allowed_origins(&args.origins)
        .messages(
            SocketMessages::default()
                .set(Some("session:set"))
                .destroy(Some("session:destroy"))
                .moving(Some("session:move"))
                .include_ids(true),
        );
    if let Some(node) = &args.node {
        builder = builder.node_id(node);
    }
    match &args.store {
        Store::Live => builder.build().await,
        Store::Redis(redis) => builder.redis(redis.clone()).build().await,
        Store::File(path) => builder.store(FileStore::open(path).await?).build().await,
    }
}

/// Completes at SIGTERM or Ctrl-C. The signals are caught from the call on, not from the first poll.
fn stop_signal() -> impl Future<Output = ()> + Send {
    let caught = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async move {
        let [terminate, interrupt] = caught.map(|caught| async move {
            match caught {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        });
        tokio::select! {
            () = terminate => {}
            () = interrupt => {}
        }
    }
}
