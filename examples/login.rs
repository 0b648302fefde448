//! Login and logout. The login seals the session, so that no cookie or socket from before opens it;
//! an absolute limit bounds how long a login lasts.
//!
//! Run it: cargo run --example login
//! Try it: open http://localhost:3000 in two tabs, or
//!         curl -c jar -X POST localhost:3000/login/ada && curl -b jar localhost:3000/me

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Path;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_io_session::socket::attach;
use axum_io_session::{
    Error, Renewal, Session, SessionBridge, SocketSessionExt as _, bridge_session,
};
use serde::{Deserialize, Serialize};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;

/// What the session holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visit {
    user: Option<String>,
    basket: Vec<String>,
}

async fn login(session: Session, Path(user): Path<String>) -> Result<Json<Visit>, Error> {
    // Check a password or a second factor here.
    let mut visit: Visit = session.deserialize()?;
    visit.user = Some(user);
    session.replace(&visit)?;
    // The basket stays. The id changes, and sockets from before the login don't see the session.
    session.rotate()?;
    Ok(Json(visit))
}

async fn me(session: Session) -> Result<Json<Visit>, (StatusCode, String)> {
    let visit: Visit =
        session.deserialize().map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    match visit.user {
        Some(_) => Ok(Json(visit)),
        None => Err((StatusCode::UNAUTHORIZED, "log in first".into())),
    }
}

async fn logout(session: Session) -> Result<(), Error> {
    session.destroy()
}

async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("who", |socket: SocketRef, ack: AckSender| async move {
        let user = socket.with_session_or(None, |session| async move {
            session.get::<String>("user").ok().flatten()
        });
        let user = user.await.ok().flatten();
        // The client may be gone.
        let _ = ack.send(&user);
    });
    Ok(())
}

/// Only sockets whose handshake carried its cookie see a sealed session, so the page reconnects
/// once it has the answer to the login. It also reconnects a socket that the server disconnected
/// because another tab logged in or out: the Socket.IO client does not do that by itself.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Login</title>
<button id="login">Log in as Ada</button> <button id="logout">Log out</button>
<p id="state" role="status">connecting</p>
<script src="client.js"></script>
<script>
"use strict";
const socket = io();
socket.on("connect", async () => {
  const user = await socket.timeout(5000).emitWithAck("who");
  document.getElementById("state").textContent = user ? `The socket sees ${user}` : "Nobody is logged in";
});
socket.on("disconnect", (reason) => {
  if (reason === "io server disconnect") socket.connect();
});
for (const [id, path] of [["login", "login/Ada"], ["logout", "logout"]]) {
  document.getElementById(id).addEventListener("click", async () => {
    const answer = await fetch(path, { method: "POST" });
    if (answer.ok) socket.disconnect().connect();
  });
}
</script>
</html>
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        // An hour since the last change, and twelve in all.
        .max_age(Duration::from_secs(60 * 60))
        .absolute_max_age(Duration::from_secs(12 * 60 * 60))
        .renewal(Renewal::PastHalf)
        .build()
        .await?;
    let (socket_layer, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));

    let script = ([(CONTENT_TYPE, "text/javascript")], include_str!("node/socket.io.min.js"));
    let app = Router::new()
        .route("/", get(Html(PAGE)))
        .route("/client.js", get(script))
        .route("/login/{user}", post(login))
        .route("/me", get(me))
        .route("/logout", post(logout));
    let app = bridge_session(app, socket_layer, &bridge);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app).await?;
    Ok(())
}
