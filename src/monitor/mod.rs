//! Health, figures and a small dashboard, for operators.
//!
//! Nothing here is on unless an application mounts [`router`] or [`health_router`]. They show
//! figures, never ids or data. Figures should not be public either: mount [`router`] on an internal
//! port or behind authentication.
//!
//! Every answer carries `Cache-Control: no-store` and `X-Content-Type-Options: nosniff`. The page
//! also forbids inline scripts, other servers and frames around it.

mod metrics;
mod page;

use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::bridge::SessionBridge;

pub use metrics::prometheus;

/// Routes for operators.
///
/// | route | answers |
/// |---|---|
/// | `GET /livez` | 200 as long as the process answers, whatever Redis does; JSON |
/// | `GET /readyz`, `GET /healthz` | 200 if sessions can be read and written now, else 503, also while the node drains; JSON |
/// | `GET /metrics` | [`Stats`](crate::bridge::Stats) as Prometheus text |
/// | `GET /monitor` | a page that shows the figures and refreshes itself |
/// | `GET /monitor/stats` | the figures as JSON |
/// | `GET /monitor/nodes` | [`nodes`](SessionBridge::nodes) as JSON, or 503 if they can't be asked for |
///
/// The page also loads a script and a style below `/monitor`. It works under any prefix, as with
/// `Router::nest`.
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
    let operators = Router::new()
        .route("/metrics", get(metrics))
        .route("/monitor/stats", get(stats))
        .route("/monitor/nodes", get(nodes))
        .merge(page::routes())
        .with_state(bridge.clone());
    guarded(operators).merge(health_router(bridge))
}

/// `GET /livez`, `/readyz` and `/healthz` of [`router`] alone, for a port on which the figures must not be seen.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// use axum_io_session::monitor;
/// let bridge = axum_io_session::SessionBridge::builder().build().await?;
/// let public: axum::Router = axum::Router::new().merge(monitor::health_router(&bridge));
/// let internal: axum::Router = axum::Router::new().merge(monitor::router(&bridge));
/// # bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub fn health_router<S: Clone + Send + Sync + 'static>(bridge: &SessionBridge) -> Router<S> {
    let checks = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(bridge.clone());
    guarded(checks)
}

/// Adds the headers that every answer has. Not to answers of other routes and fallbacks.
fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.route_layer(map_response(async |mut answer: Response| {
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }))
}

async fn live(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    Json(json!({ "status": "ok", "node": bridge.node() }))
}

async fn ready(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    if bridge.is_draining() {
        let body = json!({
            "status": "draining", "node": bridge.node(), "error": "this node is about to stop",
        });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
    }
    let (status, body) = match bridge.health().await {
        Ok(()) => (StatusCode::OK, json!({ "status": "ok", "node": bridge.node() })),
        Err(error) => {
            tracing::warn!(?error, "health check failed");
            let body = json!({
                "status": "unavailable", "node": bridge.node(), "error": error.to_string(),
            });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, Json(body))
}

async fn metrics(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], prometheus(&bridge))
}

async fn stats(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    Json(json!({ "node": bridge.node(), "stats": bridge.stats() }))
}

async fn nodes(State(bridge): State<SessionBridge>) -> impl IntoResponse {
    let (status, body) = match bridge.nodes().await {
        Ok(nodes) => (StatusCode::OK, json!({ "node": bridge.node(), "nodes": nodes })),
        Err(error) => {
            let body = json!({ "node": bridge.node(), "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, Json(body))
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS};
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    async fn answer(routes: Router, path: &str) -> Response {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        routes.oneshot(request).await.unwrap()
    }

    async fn text(answer: Response) -> String {
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn ask(bridge: &SessionBridge, path: &str) -> (StatusCode, Value) {
        let answer = answer(router(bridge), path).await;
        (answer.status(), serde_json::from_str(&text(answer).await).unwrap())
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
        for path in ["/monitor/nodes", "/healthz", "/readyz"] {
            let (status, body) = ask(&bridge, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(body["error"].is_string() && body["node"] == "n1", "{path}: {body}");
        }
        for path in ["/monitor/stats", "/livez"] {
            assert_eq!(ask(&bridge, path).await.0, StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn no_answer_is_cached_or_guessed_at() {
        let bridge = SessionBridge::builder().build().await.unwrap();
        let paths = [
            ("/healthz", "application/json"),
            ("/livez", "application/json"),
            ("/readyz", "application/json"),
            ("/metrics", "text/plain"),
            ("/monitor", "text/html"),
            ("/monitor/dashboard.js", "text/javascript"),
            ("/monitor/dashboard.css", "text/css"),
            ("/monitor/stats", "application/json"),
            ("/monitor/nodes", "application/json"),
        ];
        for (path, kind) in paths {
            let answer = answer(router(&bridge), path).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let headers = answer.headers();
            assert_eq!(headers[CACHE_CONTROL], "no-store", "{path}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            assert!(headers[CONTENT_TYPE].to_str().unwrap().starts_with(kind), "{path}");
        }
        bridge.shutdown().await;
        for path in ["/healthz", "/readyz", "/monitor/nodes"] {
            let answer = answer(router(&bridge), path).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-store", "{path}");
            assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_may_run_only_what_the_routes_serve_and_finds_it_under_any_prefix() {
        let bridge = SessionBridge::builder().build().await.unwrap();
        let routes = || Router::new().nest("/some/prefix", router(&bridge));
        let page = answer(routes(), "/some/prefix/monitor").await;
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers()[X_FRAME_OPTIONS], "DENY");
        assert_eq!(page.headers()[REFERRER_POLICY], "no-referrer");

        let page = text(page).await;
        assert!(!page.contains("<style") && !page.contains("style="), "inline style");
        assert!(!page.contains("<script>") && !page.contains("javascript:"), "inline script");
        let loaded = ["src=\"", "href=\""].map(|begin| page.split(begin).skip(1));
        let loaded = loaded.into_iter().flatten().filter_map(|rest| rest.split('"').next());
        let loaded: Vec<&str> = loaded.filter(|url| !url.starts_with("data:")).collect();
        assert_eq!(loaded, ["monitor/dashboard.js", "monitor/dashboard.css"]);
        for url in loaded {
            let answer = answer(routes(), &format!("/some/prefix/{url}")).await;
            assert_eq!(answer.status(), StatusCode::OK, "{url}");
        }
        bridge.shutdown().await;
    }

    #[tokio::test]
    async fn health_is_mounted_apart_without_the_figures_and_leaves_other_routes_as_they_are() {
        let bridge = SessionBridge::builder().build().await.unwrap();
        let routes = || health_router(&bridge).route("/other", get(|| async { "other" }));
        for path in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(answer(routes(), path).await.status(), StatusCode::OK, "{path}");
        }
        for path in ["/metrics", "/monitor", "/monitor/stats", "/monitor/nodes"] {
            assert_eq!(answer(routes(), path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let other = answer(routes(), "/other").await;
        assert!(!other.headers().contains_key(CACHE_CONTROL));
        assert!(!answer(routes(), "/none").await.headers().contains_key(CACHE_CONTROL));
        bridge.shutdown().await;
    }
}
