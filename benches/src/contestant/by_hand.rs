//! Sessions without a library: a cookie with a random id, and a place for the counter.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, State as SocketState};
use socketioxide::handler::ConnectHandler as _;
use uuid::Uuid;

use crate::{Counter, Failure};

/// How long a session lives after its last write, in milliseconds: 30 days, as with the others.
pub(crate) const LIFE: i64 = 30 * 24 * 60 * 60 * 1000;

/// Where the counters are.
pub(crate) trait Place: Clone + Send + Sync + 'static {
    fn create(&self, id: Uuid) -> impl Future<Output = Result<(), Failure>> + Send;
    /// `None`: there is no such session.
    fn read(&self, id: Uuid) -> impl Future<Output = Result<Option<u64>, Failure>> + Send;
    /// The counter with one added. `None`: there is no such session.
    fn add_one(&self, id: Uuid) -> impl Future<Output = Result<Option<u64>, Failure>> + Send;
    fn remove(&self, id: Uuid) -> impl Future<Output = Result<(), Failure>> + Send;
}

pub(crate) fn router<P: Place>(place: P) -> Router {
    let (layer, io) = SocketIo::builder().with_state(place.clone()).build_layer();
    // In a middleware: a connect handler runs after the client hears that it is connected, and its
    // first event could come too early.
    io.ns("/", (async |_: SocketRef| {}).with(events::<P>));
    Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read::<P>))
        .route("/write", post(write::<P>))
        .route("/logout", post(logout::<P>))
        .with_state(place)
        .layer(layer)
}

pub(crate) async fn plain() -> Json<Counter> {
    Json(Counter { n: 0 })
}

async fn read<P: Place>(State(place): State<P>, headers: HeaderMap) -> Result<Response, Failed> {
    let n = match session_id(&headers) {
        Some(id) => place.read(id).await?.unwrap_or(0),
        None => 0,
    };
    Ok(Json(Counter { n }).into_response())
}

async fn write<P: Place>(State(place): State<P>, headers: HeaderMap) -> Result<Response, Failed> {
    if let Some(id) = session_id(&headers)
        && let Some(n) = place.add_one(id).await?
    {
        return Ok(Json(Counter { n }).into_response());
    }
    let id = Uuid::new_v4();
    place.create(id).await?;
    let cookie = format!("sid={}; Path=/; HttpOnly; SameSite=Lax", id.simple());
    Ok(([(SET_COOKIE, cookie)], Json(Counter { n: 1 })).into_response())
}

async fn logout<P: Place>(State(place): State<P>, headers: HeaderMap) -> Result<Response, Failed> {
    if let Some(id) = session_id(&headers) {
        place.remove(id).await?;
    }
    let cookie = "sid=; Path=/; Max-Age=0";
    Ok(([(SET_COOKIE, cookie)], Json(Counter { n: 0 })).into_response())
}

async fn events<P: Place>(socket: SocketRef) -> Result<(), Infallible> {
    let id = session_id(&socket.req_parts().headers);
    socket.on(
        "session:inc",
        move |ack: AckSender, SocketState(place): SocketState<P>| async move {
            let n = match id {
                Some(id) => place.add_one(id).await.ok().flatten(),
                None => None,
            };
            // Zero is no answer to an increment: the client counts it as an error.
            let _ = ack.send(&Counter { n: n.unwrap_or(0) });
        },
    );
    Ok(())
}

/// The id in the session cookie, if it has the form of one.
fn session_id(headers: &HeaderMap) -> Option<Uuid> {
    headers.get_all(COOKIE).iter().find_map(|header| {
        let cookies = header.to_str().ok()?.split(';');
        let id = cookies.filter_map(|cookie| cookie.trim().strip_prefix("sid=")).next()?;
        Uuid::try_parse(id).ok()
    })
}

struct Failed(Failure);

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.0.to_string()).into_response()
    }
}
