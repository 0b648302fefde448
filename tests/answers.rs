//! What answers say about cookies and caches.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

#[path = "answers/again.rs"]
mod again;
#[path = "answers/caches.rs"]
mod caches;
#[path = "answers/cleared.rs"]
mod cleared;
#[path = "answers/client_cookie.rs"]
mod client_cookie;
#[path = "answers/late.rs"]
mod late;
#[path = "answers/several.rs"]
mod several;

use axum::Router;
use axum::http::{StatusCode, header};
use axum_io_session::SessionBridge;
use axum_io_session::bridge::SessionBridgeBuilder;

use support::http::{Answer, Browser};

fn builder() -> SessionBridgeBuilder {
    SessionBridge::builder().signing_keys([support::KEY])
}

/// A bridge with these options, and the application around it.
async fn built(builder: SessionBridgeBuilder) -> (SessionBridge, Router) {
    let bridge = builder.build().await.unwrap();
    let app = support::app::app(&bridge);
    (bridge, app)
}

async fn begun(app: &Router, uri: &str, body: &str) -> Browser {
    let mut browser = Browser::new();
    let answer = browser.post(app, uri, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    browser
}

fn max_age(line: &str) -> Option<i64> {
    let cookie = cookie::Cookie::parse(line.to_owned()).unwrap();
    cookie.max_age().map(cookie::time::Duration::whole_seconds)
}

/// All lines of a header, joined.
fn said(answer: &Answer, name: header::HeaderName) -> String {
    let lines = answer.headers.get_all(name).iter().map(|line| line.to_str().unwrap());
    lines.collect::<Vec<_>>().join(" | ")
}
