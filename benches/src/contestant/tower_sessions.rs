//! tower-sessions with its Redis store.

use std::convert::Infallible;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, HttpExtension, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use tower_sessions::session::Error;
use tower_sessions::{Expiry, Session, SessionManagerLayer, cookie::time::Duration};
use tower_sessions_redis_store::RedisStore;

use crate::by_hand::plain;
use crate::commands::pool;
use crate::{Counter, Failure};

pub(crate) async fn router(url: &str) -> Result<Router, Failure> {
    let store = RedisStore::new(pool(url).await?);
    let expiry = Expiry::OnInactivity(Duration::days(30));
    let sessions = SessionManagerLayer::new(store.clone()).with_secure(false).with_expiry(expiry);
    let store = Arc::new(store);
    let (sockets, io) = SocketIo::new_layer();
    // The library has sessions for requests only: a socket loads its own each time. Events are added
    // in a middleware, before the client hears that it is connected.
    let events = async move |socket: SocketRef, HttpExtension(session): HttpExtension<Session>| {
        let id = session.id();
        let store = store.clone();
        socket.on("session:inc", move |ack: AckSender| {
            let session = Session::new(id, store.clone(), Some(expiry));
            async move {
                let n = add_one(&session).await.unwrap_or(0);
                let saved = session.save().await.is_ok();
                let _ = ack.send(&Counter { n: if saved { n } else { 0 } });
            }
        });
        Ok::<(), Infallible>(())
    };
    io.ns("/", (async |_: SocketRef| {}).with(events));
    Ok(Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/write", post(write))
        .route("/logout", post(logout))
        .layer(sockets)
        .layer(sessions))
}

async fn add_one(session: &Session) -> Result<u64, Error> {
    let n = session.get::<u64>("n").await?.unwrap_or(0) + 1;
    session.insert("n", n).await?;
    Ok(n)
}

async fn read(session: Session) -> Result<Json<Counter>, String> {
    let n = session.get("n").await.map_err(|error| error.to_string())?;
    Ok(Json(Counter { n: n.unwrap_or(0) }))
}

async fn write(session: Session) -> Result<Json<Counter>, String> {
    let n = add_one(&session).await.map_err(|error| error.to_string())?;
    Ok(Json(Counter { n }))
}

async fn logout(session: Session) -> Result<Json<Counter>, String> {
    session.flush().await.map_err(|error| error.to_string())?;
    Ok(Json(Counter { n: 0 }))
}
