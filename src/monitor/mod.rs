//! Health, figures and a small dashboard, for whoever runs the node.
//!
//! Nothing here is on unless an application mounts [`router`]. It shows figures, never ids or
//! data, yet figures are nobody's business outside: mount it on an internal port or behind
//! authentication.

mod metrics;

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;

use crate::bridge::SessionBridge;

pub use metrics::prometheus;

/// Routes for operators.
///
/// | route | answers |
/// |---|---|
/// | `GET /healthz` | 200 if sessions can be read now, else 503; JSON |
/// | `GET /metrics` | [`Stats`](crate::bridge::Stats) as Prometheus text |
/// | `GET /monitor` | a page that shows the figures and refreshes itself |
/// | `GET /monitor/stats` | the figures as JSON |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// let bridge = axum_io_session::SessionBridge::builder().build().await?;
/// let app: axum::Router = axum::Router::new().merge(axum_io_session::monitor::router(&bridge));
/// # bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub fn router<S: Clone + Send + Sync + 'static>(bridge: &SessionBridge) -> Router<S> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/monitor", get(|| async { Html(include_str!("dashboard.html")) }))
        .route("/monitor/stats", get(stats))
        .with_state(bridge.clone())
}

async fn healthz(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    let (status, body) = match bridge.health().await {
        Ok(()) => (StatusCode::OK, json!({ "status": "ok", "node": bridge.node() })),
        Err(error) => {
            tracing::warn!(%error, "health check failed");
            let body = json!({
                "status": "unavailable", "node": bridge.node(), "error": error.to_string(),
            });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(body))
}

async fn metrics(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], prometheus(&bridge))
}

async fn stats(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    let body = json!({ "node": bridge.node(), "stats": bridge.stats() });
    ([(CACHE_CONTROL, "no-store")], Json(body))
}
