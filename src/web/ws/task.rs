//! The life of a connection.

use std::future::Future;
use std::sync::Arc;

use axum::extract::ws::{WebSocket, close_code};

use super::close::{self, CloseCodes, frame};
use super::socket::{SessionSocket, Shared};
use crate::web::Session;

/// Attaches a connection whose handshake was answered, and runs its handler. The session has been
/// committed by now.
pub(super) async fn run<F, Fut>(
    socket: WebSocket,
    session: Session,
    codes: CloseCodes,
    required: bool,
    handler: F,
) where
    F: FnOnce(SessionSocket) -> Fut,
    Fut: Future<Output = ()>,
{
    let connection = match session.follow().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "a WebSocket was closed: its session can't be followed");
            return close::close(socket, frame(codes.unavailable, "unavailable")).await;
        }
    };
    let bridge = session.bridge().clone();
    // It holds the session's data.
    drop(session);
    if connection.signal().closed().is_cancelled() {
        return close::close(socket, codes.of_end(&connection.signal().last())).await;
    }
    if required && connection.session_id().is_none() {
        return close::close(socket, frame(codes.refused, "session-missing")).await;
    }
    let shared = Arc::new(Shared::new(socket, connection));
    let closer = close_in_time(shared.clone(), codes);
    bridge.run_connection(handler(SessionSocket::new(shared)), closer).await;
}

/// Closes the connection when the bridge wants it, or when its handle is gone. Does not depend on the
/// handler, which may be busy with something else.
async fn close_in_time(shared: Arc<Shared>, codes: CloseCodes) {
    let signal = shared.signal();
    let frame = tokio::select! {
        biased;
        () = signal.closed().cancelled() => codes.of_end(&signal.last()),
        () = shared.dropped().cancelled() => frame(close_code::NORMAL, ""),
    };
    if let Some(socket) = shared.take() {
        close::close(socket, frame).await;
    }
}
