//! A live page by Server-Sent Events, without a socket: it ends with its session, also at a logout in
//! another tab.
//!
//! Run it: cargo run --example live
//! Try it: open http://localhost:3000 in two tabs, log in, and log out in one; or
//!         curl -c jar -X POST localhost:3000/login && curl -b jar -N localhost:3000/live

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, Response};
use axum::routing::{get, post};
use axum_io_session::{Error, Session, SessionBridge};
use futures_util::StreamExt as _;
use tokio::time::{Instant, interval};
use tokio_stream::wrappers::IntervalStream;

async fn login(session: Session) -> Result<(), Error> {
    // Check a password or a second factor here.
    session.insert("user", "Ada")?;
    session.rotate()
}

async fn logout(session: Session) -> Result<(), Error> {
    session.destroy()
}

/// Counts seconds for whoever is logged in.
async fn live(session: Session) -> Result<Response, Error> {
    let user = session.get::<String>("user")?.unwrap_or_else(|| "nobody".into());
    let begun = Instant::now();
    let ticks = IntervalStream::new(interval(Duration::from_secs(1))).map(move |now| {
        let seconds = now.duration_since(begun).as_secs();
        Ok::<_, Infallible>(Event::default().data(format!("{user} is here for {seconds} s")))
    });
    Ok(session.until_end(Sse::new(ticks).keep_alive(KeepAlive::default())))
}

/// `EventSource` connects again by itself, with the cookies that the browser has by then. After a login in
/// this tab it had no session that could end, so the page asks for a new stream.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Live</title>
<button id="login">Log in as Ada</button> <button id="logout">Log out</button>
<p id="live" role="status">connecting</p>
<p id="last"></p>
<script>
"use strict";
const show = (id, text) => { document.getElementById(id).textContent = text; };
let source;
function open() {
  source?.close();
  source = new EventSource("live");
  source.onmessage = (event) => show("live", event.data);
  source.addEventListener("sessionDestroy", (event) => {
    show("last", "The session is over: " + JSON.parse(event.data).reason);
  });
}
open();
for (const id of ["login", "logout"]) {
  document.getElementById(id).addEventListener("click", async () => {
    if ((await fetch(id, { method: "POST" })).ok && id === "login") open();
  });
}
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
        .route("/live", get(live))
        .layer(bridge.layer());
    let leaving = bridge.clone();
    let signal = async move {
        let _ = tokio::signal::ctrl_c().await;
        // The server waits for its streams.
        leaving.close_connections();
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service()).with_graceful_shutdown(signal).await?;
    bridge.shutdown().await;
    Ok(())
}
