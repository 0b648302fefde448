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
/// | `GET /monitor/nodes` | [`nodes`](SessionBridge::nodes) as JSON, or 503 if they can't be asked for |
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
        .route("/monitor/nodes", get(nodes))
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

async fn nodes(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    let (status, body) = match bridge.nodes().await {
        Ok(nodes) => (StatusCode::OK, json!({ "node": bridge.node(), "nodes": nodes })),
        Err(error) => {
            let body = json!({ "node": bridge.node(), "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(body))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(bridge: &SessionBridge, path: &str) -> (StatusCode, Value) {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = router::<()>(bridge).with_state(()).oneshot(request).await.unwrap();
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_single_node_lists_itself() {
        let bridge = SessionBridge::builder().node_id("n1").build().await.unwrap();
        let (status, body) = ask(&bridge, "/monitor/nodes").await;
        assert_eq!((status, &body["node"]), (StatusCode::OK, &json!("n1")));
        assert_eq!(body["nodes"].as_array().unwrap().len(), 1);
        let listed = &body["nodes"][0];
        assert_eq!(listed["node"], "n1");
        assert_eq!(listed["figures"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(listed["seenMs"].is_u64() && listed["figures"]["sockets"] == 0, "{listed}");
        bridge.shutdown().await;
    }

    #[tokio::test]
    async fn what_the_backend_must_be_asked_for_is_503_when_it_is_closed() {
        let bridge = SessionBridge::builder().node_id("n1").build().await.unwrap();
        bridge.shutdown().await;
        for path in ["/monitor/nodes", "/healthz"] {
            let (status, body) = ask(&bridge, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(body["error"].is_string() && body["node"] == "n1", "{path}: {body}");
        }
        assert_eq!(ask(&bridge, "/monitor/stats").await.0, StatusCode::OK);
    }
}
