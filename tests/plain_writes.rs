//! Plain writes beside each other, and what a request that is cut off leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum_io_session::bridge::OnConflict;
use axum_io_session::{ErrorKind, Session, SessionBridge};
use serde_json::{Value, json};
use support::KEY;
use support::app::{Gate, app, gated};
use support::http::Browser;

async fn bridge(on_conflict: OnConflict) -> SessionBridge {
    SessionBridge::builder().signing_keys([KEY]).on_conflict(on_conflict).build().await.unwrap()
}

/// A request loads the session of `browser`, another one writes `fast`, and the first writes `slow`.
async fn beside(
    bridge: &SessionBridge,
    browser: &mut Browser,
    fast: &str,
    slow: &str,
) -> (StatusCode, Value) {
    let app = app(bridge);
    let (held, gate) = gated(bridge);
    let (mut other, slow) = (browser.clone(), slow.to_owned());
    let slow = tokio::spawn(async move { other.post(&held, "/", &slow).await });
    gate.reached().await;
    assert!(browser.post(&app, "/merge", fast).await.status.is_success());
    gate.open();
    let status = slow.await.unwrap().status;
    (status, browser.get(&app, "/read").await.json()["data"].clone())
}

async fn with_session(bridge: &SessionBridge, body: &str) -> Browser {
    let mut browser = Browser::new();
    browser.post(&app(bridge), "/merge", body).await;
    browser
}

#[tokio::test]
async fn a_write_that_replaces_what_another_one_set_meanwhile_is_counted() {
    for (fast, slow, overwrites, data) in [
        (r#"{"a":2}"#, r#"{"a":3}"#, 1, json!({"a": 3, "b": 1})),
        // The same value by both: one increment is lost.
        (r#"{"a":2}"#, r#"{"a":2}"#, 1, json!({"a": 2, "b": 1})),
        (r#"{"a":null}"#, r#"{"a":3}"#, 1, json!({"a": 3, "b": 1})),
        (r#"{"a":2}"#, r#"{"a":null}"#, 1, json!({"b": 1})),
        (r#"{"new":1}"#, r#"{"new":2}"#, 1, json!({"a": 1, "b": 1, "new": 2})),
        // Other keys, and a key that was set to what it was.
        (r#"{"a":2}"#, r#"{"b":2}"#, 0, json!({"a": 2, "b": 2})),
        (r#"{"a":1,"c":1}"#, r#"{"a":3}"#, 0, json!({"a": 3, "b": 1, "c": 1})),
    ] {
        let bridge = bridge(OnConflict::Merge).await;
        let mut browser = with_session(&bridge, r#"{"a":1,"b":1}"#).await;
        let (status, stored) = beside(&bridge, &mut browser, fast, slow).await;
        assert_eq!((status, stored), (StatusCode::OK, data), "{fast} {slow}");
        let stats = bridge.stats();
        assert_eq!((stats.conflicts, stats.overwrites), (1, overwrites), "{fast} {slow}");
    }
}

#[tokio::test]
async fn detecting_refuses_a_write_exactly_if_it_would_replace_what_another_one_set() {
    for (slow, status, data) in [
        (r#"{"a":3,"c":1}"#, StatusCode::CONFLICT, json!({"a": 2, "b": 1})),
        (r#"{"a":2}"#, StatusCode::CONFLICT, json!({"a": 2, "b": 1})),
        (r#"{"a":null}"#, StatusCode::CONFLICT, json!({"a": 2, "b": 1})),
        (r#"{"b":3,"c":1}"#, StatusCode::OK, json!({"a": 2, "b": 3, "c": 1})),
    ] {
        let bridge = bridge(OnConflict::Detect).await;
        let mut browser = with_session(&bridge, r#"{"a":1,"b":1}"#).await;
        let found = beside(&bridge, &mut browser, r#"{"a":2}"#, slow).await;
        assert_eq!(found, (status, data), "{slow}");
        let stats = bridge.stats();
        assert_eq!((stats.conflicts, stats.overwrites), (1, 0), "{slow}");
    }
}

#[tokio::test]
async fn first_requests_of_a_client_that_set_the_same_key_are_counted_or_refused() {
    for (on_conflict, status, n, overwrites) in [
        (OnConflict::Merge, StatusCode::OK, 2, 1),
        (OnConflict::Detect, StatusCode::CONFLICT, 1, 0),
    ] {
        let bridge = bridge(on_conflict).await;
        let mut browser = Browser::new();
        browser.get(&app(&bridge), "/read").await;
        let found = beside(&bridge, &mut browser, r#"{"n":1}"#, r#"{"n":2}"#).await;
        assert_eq!(found, (status, json!({"n": n})), "{on_conflict:?}");
        assert_eq!(bridge.stats().overwrites, overwrites, "{on_conflict:?}");
    }
}

/// `POST /`: sets `a` before the gate, and adds 1 to `n` by an update behind it.
fn updating(bridge: &SessionBridge, sets: bool) -> (Router, Gate) {
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |session: Session| {
        if sets {
            session.insert("a", "old news")?;
        }
        inside.stop().await;
        session
            .update(|data| {
                let n = data.get::<i64>("n")?.unwrap_or(0) + 1;
                data.insert("n", n)
            })
            .await
            .map(drop)
    };
    (Router::new().route("/", post(handler)).layer(bridge.layer()), gate)
}

#[tokio::test]
async fn an_update_replaces_nothing_but_what_its_request_set_before() {
    for (on_conflict, sets, status, data, overwrites) in [
        (OnConflict::Merge, false, StatusCode::OK, json!({"a": 2, "n": 11}), 0),
        (OnConflict::Merge, true, StatusCode::OK, json!({"a": "old news", "n": 11}), 1),
        (OnConflict::Detect, false, StatusCode::OK, json!({"a": 2, "n": 11}), 0),
        (OnConflict::Detect, true, StatusCode::CONFLICT, json!({"a": 2, "n": 10}), 0),
    ] {
        let bridge = bridge(on_conflict).await;
        let app = app(&bridge);
        let mut browser = with_session(&bridge, r#"{"a":1,"n":1}"#).await;
        let (held, gate) = updating(&bridge, sets);
        let mut other = browser.clone();
        let update = tokio::spawn(async move { other.post(&held, "/", "").await });
        gate.reached().await;
        browser.post(&app, "/merge", r#"{"a":2,"n":10}"#).await;
        gate.open();
        assert_eq!(update.await.unwrap().status, status, "{on_conflict:?} {sets}");
        assert_eq!(browser.get(&app, "/read").await.json()["data"], data, "{on_conflict:?} {sets}");
        assert_eq!(bridge.stats().overwrites, overwrites, "{on_conflict:?} {sets}");
    }
}

#[tokio::test]
async fn a_handler_beside_a_plain_write_of_its_key_is_counted_or_refused() {
    for (on_conflict, fails, n, overwrites) in
        [(OnConflict::Merge, false, 3, 1), (OnConflict::Detect, true, 2, 0)]
    {
        let bridge = bridge(on_conflict).await;
        let app = app(&bridge);
        let mut browser = with_session(&bridge, r#"{"n":1}"#).await;
        let id = browser.get(&app, "/id").await.body.parse().unwrap();
        let (mut other, inside) = (browser.clone(), app.clone());
        let done = bridge.with_session(&id, |ctx| async move {
            other.post(&inside, "/merge", r#"{"n":2}"#).await;
            ctx.insert("n", 3).map(drop)
        });
        let failed = done.await.is_err_and(|error| error.kind() == ErrorKind::Conflict);
        assert_eq!(failed, fails, "{on_conflict:?}");
        assert_eq!(browser.get(&app, "/read").await.json()["data"]["n"], n, "{on_conflict:?}");
        assert_eq!(bridge.stats().overwrites, overwrites, "{on_conflict:?}");
    }
}

// ---- cut off -------------------------------------------------------------------------------

/// `POST /`: sets `first`, waits at the gate, and sets `second`.
fn in_two_steps() -> (Router, Gate) {
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |session: Session| {
        session.insert("first", true)?;
        inside.stop().await;
        session.insert("second", true).map(drop)
    };
    (Router::new().route("/", post(handler)), gate)
}

/// A timeout that runs out when the handler stands at the gate.
async fn cut_off(gate: Gate, request: Request, next: Next) -> Response {
    tokio::select! {
        answer = next.run(request) => answer,
        () = gate.reached() => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[tokio::test]
async fn a_timeout_outside_the_layer_writes_nothing_and_one_inside_writes_what_was_set() {
    for (outside, data) in [(true, json!({"n": 1})), (false, json!({"n": 1, "first": true}))] {
        let bridge = bridge(OnConflict::Merge).await;
        let mut browser = with_session(&bridge, r#"{"n":1}"#).await;
        let (routes, gate) = in_two_steps();
        let timeout = from_fn(move |request, next| cut_off(gate.clone(), request, next));
        let cut = match outside {
            true => routes.layer(bridge.layer()).layer(timeout),
            false => routes.layer(timeout).layer(bridge.layer()),
        };
        assert_eq!(browser.post(&cut, "/", "").await.status, StatusCode::REQUEST_TIMEOUT);
        let stored = browser.get(&app(&bridge), "/read").await.json()["data"].clone();
        assert_eq!(stored, data, "outside: {outside}");
    }
}
