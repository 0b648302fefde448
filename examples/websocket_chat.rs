//! A chat on plain WebSockets. A logout in another tab closes the connection, with a reason.
//!
//! Run it: cargo run --example websocket_chat --features ws
//! Try it: open http://localhost:3000 in two tabs, log in, and log out in one

use axum::Router;
use axum::extract::State;
use axum::extract::ws::Message;
use axum::response::{Html, Response};
use axum::routing::{any, get, post};
use axum::serve::ListenerExt as _;
use axum_io_session::web::ws::{SessionSocket, SessionUpgrade};
use axum_io_session::{Error, Session, SessionBridge};
use tokio::sync::broadcast;

type Room = broadcast::Sender<String>;

async fn login(session: Session) -> Result<(), Error> {
    // Check a password or a second factor here.
    session.insert("user", "Ada")?;
    session.rotate()
}

async fn logout(session: Session) -> Result<(), Error> {
    session.destroy()
}

async fn chat(upgrade: SessionUpgrade, State(room): State<Room>) -> Response {
    upgrade.require_session().on_upgrade(async |socket| {
        // An error says that the session or the connection is gone.
        let _ = talk(socket, room).await;
    })
}

async fn talk(socket: SessionSocket, room: Room) -> Result<(), Error> {
    let mut said = room.subscribe();
    loop {
        tokio::select! {
            message = socket.recv() => {
                let Some(Ok(message)) = message else { return Ok(()) };
                let Message::Text(text) = message else { continue };
                let line = socket.try_with_session(async |session| {
                    let count = session.get::<u64>("said")?.unwrap_or(0) + 1;
                    session.insert("said", count)?;
                    let user = session.get::<String>("user")?.unwrap_or_default();
                    Ok::<_, Error>(format!("{user} ({count}): {text}"))
                });
                // An error says that nobody is there.
                let _ = room.send(line.await?);
            }
            line = said.recv() => match line {
                Ok(line) => socket.send(Message::text(line)).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        }
    }
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Chat</title>
<button id="login">Log in as Ada</button> <button id="logout">Log out</button>
<form id="say"><input name="text" aria-label="Message" required><button>Say</button></form>
<p id="state" role="status">connecting</p>
<ol id="said"></ol>
<script>
"use strict";
const state = (text) => { document.getElementById("state").textContent = text; };
let socket;
function open() {
  socket?.close();
  const mine = socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[^/]*$/, "chat"));
  mine.onopen = () => state("connected");
  mine.onmessage = (event) => {
    document.getElementById("said").appendChild(document.createElement("li")).textContent = event.data;
  };
  mine.onclose = (event) => {
    if (mine !== socket) return;
    state(`closed: ${event.code} ${event.reason}`);
    // Another node, or this one in a moment. Without a session there is nothing to come back to.
    if (event.code === 1001 || event.code === 1013) setTimeout(open, 1000);
  };
}
open();
for (const id of ["login", "logout"]) {
  document.getElementById(id).addEventListener("click", async () => {
    if ((await fetch(id, { method: "POST" })).ok && id === "login") open();
  });
}
document.getElementById("say").addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(event.target.text.value);
  event.target.reset();
});
</script>
</html>
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        .build()
        .await?;
    let app = Router::new()
        .route("/", get(Html(PAGE)))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/chat", any(chat))
        .with_state(broadcast::channel(64).0)
        .layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    // Without TCP_NODELAY small messages wait up to 40 ms for a delayed acknowledgement.
    let listener = listener.tap_io(|io| _ = io.set_nodelay(true));
    axum::serve(listener, app.into_make_service()).await?;
    Ok(())
}
