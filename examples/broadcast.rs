//! A chat over several nodes: a line sent to one node reaches the sockets of all.
//!
//! The bridge shares the sessions; socketioxide's own Redis adapter, beside it, broadcasts the chat.
//! Session messages need no adapter: each node sends them to its own sockets.
//!
//! Redis 7 or later: redis-server
//! Two nodes:        cargo run --example broadcast -- 3000
//!                   cargo run --example broadcast -- 3001
//! Try it:           open http://localhost:3000 and http://localhost:3001 side by side, or
//!                   curl -c jar -X POST localhost:3000/login/ann
//!                   curl -b jar -X POST localhost:3001/say/hello

use std::error::Error as StdError;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::Html;
use axum::{Router, routing};
use axum_io_session::socket::attach;
use axum_io_session::{Error, Session, SessionBridge, SocketSessionExt as _, bridge_session};
use serde_json::json;
use socketioxide::SocketIo;
use socketioxide::adapter::{Adapter, Emitter};
use socketioxide::extract::{AckSender, Data, SocketRef, State as SocketState};
use socketioxide::handler::ConnectHandler as _;
use socketioxide_redis::drivers::fred::fred_client;
use socketioxide_redis::{FredAdapter, RedisAdapterConfig, RedisAdapterCtr};

use fred_client::clients::SubscriberClient;
use fred_client::prelude::{Builder, Config, EventInterface as _, PubsubInterface as _};
use fred_client::types::RespVersion;
use fred_client::types::config::ReconnectPolicy;
use tokio::sync::broadcast::error::RecvError;

/// Sends to the sockets of all nodes. While Redis is unreachable this fails after the client's
/// timeout and no socket gets the message, not even this node's own.
async fn tell_all<A: Adapter>(io: &SocketIo<A>, node: &str, from: &str, text: &str) -> bool {
    let said = json!({ "from": from, "text": text, "node": node });
    match io.emit("said", &said).await {
        Ok(()) => true,
        Err(error) => {
            eprintln!("not sent: {error}");
            false
        }
    }
}

/// Generic over the adapter: the same handlers work with any.
async fn events<A: Adapter>(socket: SocketRef<A>) -> Result<(), Error> {
    socket.on("say", say::<A>);
    Ok(())
}

async fn say<A: Adapter>(
    socket: SocketRef<A>,
    io: SocketIo<A>,
    SocketState(Node(node)): SocketState<Node>,
    Data(text): Data<String>,
    ack: AckSender<A>,
) {
    let user = socket.with_session_or(None, |session| async move {
        session.get::<String>("user").ok().flatten()
    });
    // The lease is released before the message goes out, so slow delivery blocks no other caller.
    let answer = match user.await {
        Ok(Some(user)) if tell_all(&io, &node, &user, &text).await => "sent",
        Ok(Some(_)) | Err(_) => "try again later",
        Ok(None) => "log in first",
    };
    // The client may be gone.
    let _ = ack.send(answer);
}

/// With a distributed adapter `io.ns` needs the concrete type.
type Io = SocketIo<FredAdapter<Emitter>>;

#[derive(Clone)]
struct Node(String);

async fn login(session: Session, Path(user): Path<String>) -> Result<&'static str, Error> {
    session.insert("user", user)?;
    session.rotate()?;
    Ok("logged in\n")
}

async fn say_over_http(
    State((io, Node(node))): State<(Io, Node)>,
    session: Session,
    Path(text): Path<String>,
) -> Result<(StatusCode, &'static str), Error> {
    Ok(match session.get::<String>("user")? {
        Some(user) if tell_all(&io, &node, &user, &text).await => (StatusCode::OK, "sent\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "try again later\n"),
        None => (StatusCode::UNAUTHORIZED, "log in first\n"),
    })
}

/// The adapter's own connection to Redis. It survives a restart of Redis.
async fn adapter(
    url: &str,
) -> Result<RedisAdapterCtr<socketioxide_redis::drivers::fred::FredDriver>, Box<dyn StdError>> {
    let mut config = Config::from_url(url)?;
    // The driver uses sharded channels, which need this protocol.
    config.version = RespVersion::RESP3;
    let client = Builder::from_config(config)
        // Without a policy the client never reconnects; without a timeout a command never fails.
        .set_policy(ReconnectPolicy::new_exponential(0, 100, 5_000, 2))
        .with_performance_config(|options| {
            options.default_command_timeout = Duration::from_secs(2);
            // A burst of more messages loses some.
            options.broadcast_channel_capacity = 4096;
        })
        .build_subscriber_client()?;
    // Applications that share a Redis need different prefixes.
    let config = RedisAdapterConfig::new().with_prefix("chat");
    let adapter = RedisAdapterCtr::new_with_fred_config(client.clone(), config).await?;
    tokio::spawn(subscribe_again(client));
    Ok(adapter)
}

/// Neither the driver nor Redis restores the subscriptions of a lost connection. The client's own
/// `manage_subscriptions` does not help: it also sends `SUBSCRIBE` without a channel, and takes the
/// error for the answer to the next command.
async fn subscribe_again(client: SubscriberClient) {
    let mut connections = client.reconnect_rx();
    while !matches!(connections.recv().await, Err(RecvError::Closed)) {
        for channel in client.tracked_shard_channels() {
            if let Err(error) = client.ssubscribe(channel).await {
                // The connection is lost again; the next one is subscribed by this loop as well.
                eprintln!("not subscribed: {error}");
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "3000".into());
    let redis = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let node = Node(format!("node-{}", listener.local_addr()?.port()));

    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        .node_id(&node.0)
        .redis(redis.as_str())
        .build()
        .await?;
    let (socket_layer, io) = SocketIo::builder()
        .with_state(node.clone())
        .with_adapter::<FredAdapter<_>>(adapter(&redis).await?)
        .build_layer();
    // A future, unlike with a local adapter: it subscribes.
    io.ns("/", (async |_: SocketRef<_>| {}).with(events).with(attach)).await?;

    let script = ([(CONTENT_TYPE, "text/javascript")], include_str!("node/socket.io.min.js"));
    let app = Router::new()
        .route("/", routing::get(Html(include_str!("broadcast.html"))))
        .route("/client.js", routing::get(script))
        .route("/login/{user}", routing::post(login))
        .route("/say/{text}", routing::post(say_over_http))
        .with_state((io, node));
    let app = bridge_session(app, socket_layer, &bridge);
    println!("listening on http://{}", listener.local_addr()?);
    axum_io_session::serve(listener, app).await?;
    Ok(())
}
