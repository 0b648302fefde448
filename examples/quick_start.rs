//! The quick start of the README: one session for HTTP and Socket.IO.
//!
//! Run it: cargo run --example quick_start
//! Try it: curl -c jar -b jar localhost:3000   (several times)

use std::convert::Infallible;

use axum::{Json, Router, routing::get};
use axum_io_session::socket::attach;
use axum_io_session::{Error, Session, SessionBridge, SocketSessionExt as _, bridge_session};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;

// HTTP: the session is an extractor. `update` is read-change-write, one writer at a time.
async fn index(session: Session) -> Result<Json<Value>, Error> {
    session
        .update(|data| {
            let visits = data.get::<u64>("visits")?.unwrap_or(0) + 1;
            data.insert("visits", visits)
        })
        .await?;
    Ok(Json(json!({ "session": session.data() })))
}

// Socket.IO: the same session, on every socket of the browser.
async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("session:get", async |socket: SocketRef, ack: AckSender| {
        let missing = json!({ "error": "missing-session" });
        let answer = socket.with_session_or(missing, async |session| json!(session.data())).await;
        let _ = ack.send(&answer.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    });
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .signing_keys(["32 or more random bytes, secret and the same at each start"])
        .build()
        .await?;
    let (socket_layer, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));

    let app = bridge_session(Router::new().route("/", get(index)), socket_layer, &bridge);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app).await?;
    Ok(())
}
