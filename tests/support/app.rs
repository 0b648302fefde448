//! An application with a route for each thing that a request can do to its session.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::routing::{get, post};
use axum_io_session::session::Map;
use axum_io_session::{ClientId, MaxAge, Result, Session, SessionBridge, SessionData, SessionId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub fn app(bridge: &SessionBridge) -> Router {
    Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route("/client", get(|client: ClientId| async move { client.as_str().to_owned() }))
        .route("/id", get(id))
        .route("/read", get(read))
        .route("/merge", post(merge))
        .route("/merge-slowly", post(merge_slowly))
        .route("/replace", post(replace))
        .route("/inc", post(increment))
        .route("/fail", post(fail))
        .route("/rotate", post(rotate))
        .route("/login", post(login))
        .route("/seal", post(seal))
        .route("/renew-id", post(renew_id))
        .route("/merge-and-renew-id", post(merge_and_renew_id))
        .route("/logout", post(|session: Session| async move { session.destroy() }))
        .route("/swap", post(swap))
        .route("/save", post(save))
        .route("/cached", post(cached))
        .route("/age/{seconds}", post(age))
        .route("/browser", post(browser))
        .route("/panic", post(panics))
        .layer(bridge.layer())
}

/// A request that has loaded its session stands here until it is told to go on.
#[derive(Clone)]
pub struct Gate {
    loaded: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self { loaded: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) }
    }

    /// For a handler: says that it is here, and waits until it may go on.
    pub async fn stop(&self) {
        self.loaded.add_permits(1);
        self.go.acquire().await.unwrap().forget();
    }

    /// Waits until a request stands here.
    pub async fn reached(&self) {
        let reached = tokio::time::timeout(super::LIMIT, self.loaded.acquire()).await;
        reached.expect("a request loads its session").unwrap().forget();
    }

    /// Lets one request go on.
    pub fn open(&self) {
        self.go.add_permits(1);
    }
}

/// `POST /`: merges the body, but not before the gate opens.
pub fn gated(bridge: &SessionBridge) -> (Router, Gate) {
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |session: Session, body: String| {
        inside.stop().await;
        apply(&session, &body)
    };
    (Router::new().route("/", post(handler)).layer(bridge.layer()), gate)
}

async fn id(id: Option<SessionId>) -> String {
    id.map(|id| id.as_str().to_owned()).unwrap_or_default()
}

pub fn show(session: &Session) -> String {
    let value = json!({
        "client": session.client_id(), "id": session.id(), "new": session.is_new(),
        "sealed": session.is_sealed(),
        "data": session.data(),
    });
    value.to_string()
}

async fn read(session: Session) -> String {
    show(&session)
}

pub fn apply(session: &Session, body: &str) -> Result<()> {
    let data: Map = SessionData::from_json(body)?.as_map().clone();
    for (key, value) in data {
        if value == Value::Null {
            session.remove(&key)?;
        } else {
            session.insert(key, value)?;
        }
    }
    Ok(())
}

async fn merge(session: Session, body: String) -> Result<String> {
    apply(&session, &body)?;
    Ok(show(&session))
}

/// Others get their turn between the load and the change.
async fn merge_slowly(session: Session, body: String) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(30)).await;
    apply(&session, &body)
}

async fn replace(session: Session, body: String) -> Result<()> {
    let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    session.replace(value)
}

async fn increment(session: Session) -> Result<String> {
    session
        .update(|data| {
            let n = data.get::<i64>("n")?.unwrap_or(0) + 1;
            data.insert("n", n)
        })
        .await?;
    Ok(show(&session))
}

async fn fail(session: Session) -> Result<(StatusCode, &'static str)> {
    session.insert("failed", true)?;
    Ok((StatusCode::INTERNAL_SERVER_ERROR, "failed on purpose"))
}

async fn rotate(session: Session) -> Result<String> {
    session.rotate()?;
    session.save().await?;
    Ok(show(&session))
}

/// Sets what the body says, and rotates: a login in one request.
async fn login(session: Session, body: String) -> Result<()> {
    apply(&session, &body)?;
    session.rotate()
}

async fn seal(session: Session) -> Result<()> {
    session.seal()
}

async fn renew_id(session: Session) -> Result<()> {
    session.renew_id()
}

async fn merge_and_renew_id(session: Session, body: String) -> Result<()> {
    apply(&session, &body)?;
    session.renew_id()
}

async fn swap(session: Session) -> Result<()> {
    session.destroy()?;
    session.insert("fresh", true)?;
    Ok(())
}

async fn save(session: Session) -> Result<String> {
    session.insert("saved", 1)?;
    session.save().await?;
    let first = session.id();
    session.insert("saved", 2)?;
    session.save().await?;
    assert_eq!(session.id(), first);
    Ok(show(&session))
}

async fn cached(session: Session) -> Result<([(axum::http::HeaderName, &'static str); 1], String)> {
    session.insert("cached", true)?;
    Ok(([(CACHE_CONTROL, "private, max-age=5")], String::new()))
}

async fn age(
    axum::extract::Path(seconds): axum::extract::Path<u64>,
    session: Session,
) -> Result<()> {
    session.set_max_age(Duration::from_secs(seconds))?;
    session.insert("aged", seconds)?;
    Ok(())
}

async fn browser(session: Session) -> Result<()> {
    session.set_max_age(MaxAge::Browser)?;
    session.insert("browser", true)?;
    Ok(())
}

async fn panics(session: Session) -> String {
    let _ = session.insert("panicked", true);
    panic!("a panic on purpose");
}
