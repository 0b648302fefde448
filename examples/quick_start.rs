//! The smallest application: one session for HTTP and Socket.IO.
//!
//! Run it: cargo run --example quick_start
//! Try it: curl -c jar -b jar localhost:3000   (again and again)

use std::convert::Infallible;
use std::time::Duration;

use axum::{Json, Router, routing::get};
use axum_io_session::socket::attach;
use axum_io_session::{Error, Session, SessionBridge, SocketSessionExt as _, bridge_session};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;

async fn index(session: Session) -> Result<Json<Value>, Error> {
    session
        .update(|data| {
            let visits = data.get::<u64>("visits")?.unwrap_or(0) + 1;
            data.insert("visits", visits)
        })
        .await?;
    Ok(Json(json!({ "ok": true, "session": session.data() })))
}

async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("session:get", |socket: SocketRef, ack: AckSender| async move {
        let missing = json!({ "ok": false, "error": "missing-session" });
        let answer = socket
            .with_session_or(missing, |session| async move {
                json!({ "ok": true, "session": session.data() })
            })
            .await;
        let _ = ack.send(&answer.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    });
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .cookie_name("app.sid")
        // Keep keys stable and secret, or sessions end with the process.
        .signing_keys(["replace me by 32 or more random bytes"])
        .max_age(Duration::from_secs(24 * 60 * 60))
        .build()
        .await?;
    bridge.on_session_set(|event| async move { println!("{event:?}") });
    bridge.on_session_destroy(|event| async move { println!("{event:?}") });

    let (socket_layer, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));

    let app = Router::new().route("/", get(index));
    let app = bridge_session(app, socket_layer, &bridge);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service()).await?;
    Ok(())
}
