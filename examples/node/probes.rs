//! Routes for tests: they show internals, or misbehave on purpose.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_io_session::{Error, ErrorKind, Result, Session, SessionBridge, SessionId};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{add_one, answer};
use crate::stop_signal;

pub(crate) fn routes() -> Router<SessionBridge> {
    Router::new()
        .route("/probe/events", get(events))
        .route("/probe/slow", post(slow))
        .route("/probe/hold", post(hold))
        .route("/probe/waiting", get(waiting))
        .route("/probe/tasks", get(tasks))
        .route("/probe/destroy/{session}", post(destroy))
        .route("/probe/cleanup", post(cleanup))
}

/// All events of the bridge, as JSON lines.
async fn events(
    State(bridge): State<SessionBridge>,
) -> Sse<impl Stream<Item = std::result::Result<Event, Infallible>>> {
    // Subscribed before the answer begins: a client that has read the first line misses no event.
    let mut events = bridge.events();
    events.ready().await;
    let events = events.map(|item| match item {
        Ok(event) => serde_json::to_string(&event).unwrap_or_default(),
        Err(missed) => json!({ "event": "lagged", "missed": missed.0 }).to_string(),
    });
    let begin = stream::iter([json!({ "event": "listening" }).to_string()]);
    let lines = begin.chain(events).map(|line| Ok(Event::default().data(line)));
    // An open answer keeps the server from ending.
    Sse::new(lines.take_until(stop_signal()))
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    ms: u64,
}

/// Requests that wait in `slow` or `hold`, their sessions read.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Wait {
    async fn over(&self) {
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                WAITING.fetch_sub(1, Ordering::SeqCst);
            }
        }
        WAITING.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted;
        tokio::time::sleep(Duration::from_millis(self.ms.min(60_000))).await;
    }
}

async fn waiting() -> Json<usize> {
    Json(WAITING.load(Ordering::SeqCst))
}

/// Tasks of the process that have not ended.
async fn tasks() -> Json<usize> {
    Json(tokio::runtime::Handle::current().metrics().num_alive_tasks())
}

/// Adds one in the request's own view of the session, long after it was read, and commits at the
/// end.
async fn slow(
    State(bridge): State<SessionBridge>,
    Query(wait): Query<Wait>,
    session: Session,
) -> Result<Json<Value>> {
    let n = session.get::<i64>("n")?.unwrap_or(0);
    wait.over().await;
    session.insert("n", n + 1)?;
    Ok(answer(&bridge, &session))
}

/// Holds the session's lease, then adds one.
async fn hold(
    State(bridge): State<SessionBridge>,
    Query(wait): Query<Wait>,
    session: Session,
) -> Result<Json<f64>> {
    let id =
        session.id().ok_or_else(|| Error::new(ErrorKind::SessionMissing, "nothing to hold"))?;
    let n = bridge
        .with_session(&id, |session| async move {
            wait.over().await;
            add_one(&mut *session.data_mut()?)
        })
        .await??;
    Ok(Json(n))
}

/// Ends any session by its id.
async fn destroy(
    State(bridge): State<SessionBridge>,
    Path(session): Path<String>,
) -> Result<Json<bool>> {
    let invalid = |error| Error::new(ErrorKind::InvalidData, "no session id").with_source(error);
    let session = SessionId::parse(&session).map_err(invalid)?;
    Ok(Json(bridge.destroy_by_id(&session).await?))
}

async fn cleanup(State(bridge): State<SessionBridge>) -> Result<Json<u64>> {
    Ok(Json(bridge.cleanup().await?))
}
