//! The Socket.IO events.

use std::time::Duration;

use axum_io_session::bridge::Handshake;
use axum_io_session::socket::SocketContext;
use axum_io_session::{Error, ErrorKind, Result, SocketSessionExt as _};
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::socket::Socket;
use std::future::Future;

use crate::http::add_one;

/// Adds the events to a new socket.
pub(crate) fn add_events(socket: &SocketRef, probes: bool) {
    // Names the node that holds the socket; needs no session.
    socket.on("node", |socket: SocketRef, ack: AckSender| async move {
        // The client may be gone.
        let _ = ack.send(&node(&socket));
    });
    socket.on("session:get", |socket: SocketRef, ack: AckSender| async move {
        reply(&socket, ack, |session| async move { Ok(answer(&session)) }).await;
    });
    socket.on("session:inc", |socket: SocketRef, ack: AckSender| async move {
        reply(&socket, ack, |session| async move {
            add_one(&mut *session.data_mut()?)?;
            Ok(answer(&session))
        })
        .await;
    });
    socket.on(
        "session:set",
        |socket: SocketRef, TryData(payload): TryData<Value>, ack: AckSender| async move {
            reply(&socket, ack, |session| async move {
                match payload {
                    Ok(Value::Null) => session.destroy(),
                    Ok(data) => session.replace(data)?,
                    Err(error) => {
                        return Err(Error::new(
                            ErrorKind::InvalidData,
                            "send a JSON object or null",
                        )
                        .with_source(error));
                    }
                }
                Ok(answer(&session))
            })
            .await;
        },
    );
    socket.on("session:destroy", |socket: SocketRef, ack: AckSender| async move {
        reply(&socket, ack, |session| async move {
            session.destroy();
            Ok(answer(&session))
        })
        .await;
    });
    if probes {
        add_probes(socket);
    }
}

/// Events that misbehave on purpose.
fn add_probes(socket: &SocketRef) {
    socket.on("session:throw", |socket: SocketRef, ack: AckSender| async move {
        reply(&socket, ack, |session| async move {
            session.insert("n", -1)?;
            Err(Error::new(ErrorKind::Handler, "thrown on purpose"))
        })
        .await;
    });
    socket.on("session:panic", |socket: SocketRef, _ack: AckSender| async move {
        let _ = socket
            .with_session(|session| async move {
                let _ = session.insert("n", -1);
                panic!("a panic on purpose");
            })
            .await;
    });
    socket.on("session:nested", |socket: SocketRef, ack: AckSender| async move {
        reply(&socket, ack, |session| async move {
            add_one(&mut *session.data_mut()?)?;
            session
                .socket()
                .try_with_session(|inner| async move {
                    add_one(&mut *inner.data_mut()?)?;
                    Ok::<_, Error>(())
                })
                .await?;
            Ok(answer(&session))
        })
        .await;
    });
    socket.on(
        "session:slow",
        |socket: SocketRef, TryData(wait): TryData<u64>, ack: AckSender| async move {
            let wait = Duration::from_millis(wait.unwrap_or(1000).min(60_000));
            reply(&socket, ack, |session| async move {
                let n = session.get::<i64>("n")?.unwrap_or(0);
                tokio::time::sleep(wait).await;
                session.insert("n", n + 1)?;
                Ok(answer(&session))
            })
            .await;
        },
    );
}

/// Runs a handler and acknowledges its result, if the client asked for an acknowledgement.
async fn reply<F, Fut>(socket: &SocketRef, ack: AckSender, handler: F)
where
    F: FnOnce(SocketContext) -> Fut + Send,
    Fut: Future<Output = Result<Value>> + Send,
{
    let answer =
        socket.try_with_session(handler).await.unwrap_or_else(|error| match error.kind() {
            ErrorKind::SessionMissing => json!({ "ok": false, "error": "missing-session" }),
            _ => json!({ "ok": false, "error": error.to_string() }),
        });
    // The client may be gone, or may not have asked for an answer.
    let _ = ack.send(&answer);
}

fn answer(session: &SocketContext) -> Value {
    json!({
        "ok": true,
        "clientId": session.client_id(),
        "sessionId": session.session_id(),
        "session": session.data(),
        "node": node(session.socket()),
    })
}

fn node(socket: &Socket) -> Value {
    let handshake = socket.req_parts().extensions.get::<Handshake>();
    handshake.map_or(Value::Null, |handshake| handshake.bridge().node().as_str().into())
}
