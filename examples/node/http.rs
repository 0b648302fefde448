//! The HTTP routes.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_io_session::{Result, Session, SessionBridge, SessionData};
use serde_json::{Value, json};

/// Headers of the page and its files: only scripts of this node run, and no other page may frame it.
const FILE_HEADERS: [(HeaderName, &str); 2] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

pub(crate) fn routes() -> Router<SessionBridge> {
    Router::new()
        .route("/", get(|| file("text/html", include_str!("page.html"))))
        .route("/page.js", get(|| file("text/javascript", include_str!("page.js"))))
        .route("/page.css", get(|| file("text/css", include_str!("page.css"))))
        .route("/client.js", get(client_script))
        .route("/session", get(read))
        .route("/session/inc", post(increment))
        .route("/session/set", post(set))
        .route("/session/merge", post(merge))
        .route("/session/regenerate", post(regenerate))
        .route("/session/renew", post(renew))
        .route("/login", post(login))
        .route("/logout", post(logout))
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    (FILE_HEADERS, [(CONTENT_TYPE, format!("{kind}; charset=utf-8"))], text)
}

async fn client_script() -> impl IntoResponse {
    let kept = [(CACHE_CONTROL, "max-age=3600")];
    (kept, file("text/javascript", include_str!("socket.io.min.js")).await)
}

async fn read(State(bridge): State<SessionBridge>, session: Session) -> Json<Value> {
    answer(&bridge, &session)
}

async fn increment(State(bridge): State<SessionBridge>, session: Session) -> Result<Json<Value>> {
    session.update(add_one).await?;
    Ok(answer(&bridge, &session))
}

/// Adds 1 to `n`; sets it to 1 if it is no number.
pub(crate) fn add_one(data: &mut SessionData) -> Result<f64> {
    let n = data.value("n").and_then(Value::as_f64).unwrap_or(0.0) + 1.0;
    // Whole numbers stay whole in JSON.
    if n.fract() == 0.0 && n.abs() < 9e15 {
        data.insert("n", n as i64)?;
    } else {
        data.insert("n", n)?;
    }
    Ok(n)
}

async fn set(
    State(bridge): State<SessionBridge>,
    session: Session,
    body: Bytes,
) -> Result<Response> {
    let data = match object(&body) {
        Ok(data) => data,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    session.replace(data)?;
    // Saved here, so that the answer can name the new session.
    session.save().await?;
    Ok(answer(&bridge, &session).into_response())
}

async fn merge(
    State(bridge): State<SessionBridge>,
    session: Session,
    body: Bytes,
) -> Result<Response> {
    if let Err(refusal) = insert_all(&session, &body)? {
        return Ok(refusal.into_response());
    }
    // Committed after the handler: parallel requests keep each other's keys.
    Ok(answer(&bridge, &session).into_response())
}

async fn regenerate(State(bridge): State<SessionBridge>, session: Session) -> Result<Json<Value>> {
    session.rotate()?;
    session.save().await?;
    Ok(answer(&bridge, &session))
}

async fn renew(State(bridge): State<SessionBridge>, session: Session) -> Result<Json<Value>> {
    if !session.is_new() {
        session.renew_id()?;
        session.save().await?;
    }
    Ok(answer(&bridge, &session))
}

/// A login seals the session, also in the browser's first request.
async fn login(
    State(bridge): State<SessionBridge>,
    session: Session,
    body: Bytes,
) -> Result<Response> {
    if let Err(refusal) = insert_all(&session, &body)? {
        return Ok(refusal.into_response());
    }
    session.rotate()?;
    // Saved here, so that the answer can name the new session.
    session.save().await?;
    Ok(answer(&bridge, &session).into_response())
}

async fn logout(session: Session) -> Result<Json<Value>> {
    session.destroy()?;
    Ok(Json(json!({ "ok": true })))
}

pub(crate) fn answer(bridge: &SessionBridge, session: &Session) -> Json<Value> {
    let data = session.data();
    let shown = if session.is_new() && data.is_empty() { Value::Null } else { data.into() };
    Json(json!({
        "clientId": session.client_id(),
        "sessionId": session.id(),
        "session": shown,
        "node": bridge.node(),
    }))
}

/// Sets the keys of the body's object.
fn insert_all(session: &Session, body: &[u8]) -> Result<std::result::Result<(), Refusal>> {
    let data = match object(body) {
        Ok(data) => data,
        Err(refusal) => return Ok(Err(refusal)),
    };
    for (key, value) in data.as_map() {
        session.insert(key.clone(), value)?;
    }
    Ok(Ok(()))
}

type Refusal = (StatusCode, String);

fn object(body: &[u8]) -> std::result::Result<SessionData, Refusal> {
    let refuse = |text: String| (StatusCode::BAD_REQUEST, text);
    let text = std::str::from_utf8(body).map_err(|error| refuse(error.to_string()))?;
    SessionData::from_json(text).map_err(|error| refuse(error.to_string()))
}
