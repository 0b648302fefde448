//! This crate, with its defaults.

use std::convert::Infallible;

use axum::routing::{get, post};
use axum::{Json, Router};
use axum_io_session::bridge::SessionBridgeBuilder;
use axum_io_session::socket::attach;
use axum_io_session::{Error, Session, SocketSessionExt as _, bridge_session};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;

use crate::by_hand::plain;
use crate::{Counter, Failure};

/// Sessions where this bridge has them.
pub(crate) async fn router(builder: SessionBridgeBuilder) -> Result<Router, Failure> {
    let keys = ["the same 32 bytes or more for each node"];
    let bridge = builder.signing_keys(keys).build().await?;
    let (sockets, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let routes = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/write", post(write))
        .route("/update", post(update))
        .route("/logout", post(logout));
    Ok(bridge_session(routes, sockets, &bridge))
}

async fn read(session: Session) -> Result<Json<Counter>, Error> {
    Ok(Json(Counter { n: session.get("n")?.unwrap_or(0) }))
}

async fn write(session: Session) -> Result<Json<Counter>, Error> {
    let n = session.get("n")?.unwrap_or(0) + 1;
    session.insert("n", n)?;
    Ok(Json(Counter { n }))
}

async fn update(session: Session) -> Result<Json<Counter>, Error> {
    let n = session
        .update(|data| {
            let n = data.get("n")?.unwrap_or(0) + 1;
            data.insert("n", n)?;
            Ok::<u64, Error>(n)
        })
        .await?;
    Ok(Json(Counter { n }))
}

async fn logout(session: Session) -> Result<Json<Counter>, Error> {
    session.destroy()?;
    Ok(Json(Counter { n: 0 }))
}

async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("session:inc", |socket: SocketRef, ack: AckSender| async move {
        let added = socket
            .with_session(|session| async move {
                let n = session.get("n")?.unwrap_or(0) + 1;
                session.insert("n", n)?;
                Ok::<u64, Error>(n)
            })
            .await
            .and_then(|added| added);
        let _ = ack.send(&Counter { n: added.unwrap_or(0) });
    });
    Ok(())
}
