//! `renew_id`: the same session under another id.

use std::time::Duration;

use axum::http::StatusCode;
use axum_io_session::ErrorKind;
use axum_io_session::Renewal;
use serde_json::{Value, json};

use crate::place::Place;
use crate::support::until;

over_both_stores! {
    a_renewed_id_opens_the_same_session_and_the_previous_one_does_for_the_overlap,
    who_did_not_ask_for_a_new_id_gets_no_new_cookie,
    parallel_writes_land_in_a_session_whose_id_is_renewed,
    a_logout_with_the_previous_id_ends_the_session,
    without_an_overlap_the_previous_id_is_late_at_once,
    sealing_ends_the_overlap,
}

async fn a_renewed_id_opens_the_same_session_and_the_previous_one_does_for_the_overlap(
    place: Place,
) {
    let overlap = Duration::from_millis(1500);
    let world = place.world_of(|builder| builder.renew_overlap(overlap)).await;
    for sealed in [false, true] {
        let body = r#"{"a":1}"#;
        let mut browser = if sealed { world.sealed(body).await } else { world.open(body).await };
        let (old, before) = (browser.clone(), world.seen(&browser).await);
        let old_id = world.id(&old).await;
        let answer = browser.post(&world.app, "/renew-id", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        let after = world.seen(&browser).await;
        assert_ne!(after["id"], before["id"]);
        for field in ["client", "data", "sealed"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert_eq!(world.seen(&old).await["data"], after["data"], "in the overlap");
        until("the overlap is over", async || world.data(&old).await == json!({})).await;
        let late = old.clone().post(&world.app, "/merge", r#"{"late":1}"#).await;
        assert_eq!(late.status, StatusCode::CONFLICT);
        let set = world.bridge.set_by_id(&old_id, json!({}), None).await;
        assert_eq!(set.unwrap_err().kind(), ErrorKind::SessionMissing);
        assert_eq!(world.seen(&browser).await, after);
    }
}

async fn who_did_not_ask_for_a_new_id_gets_no_new_cookie(place: Place) {
    let world = place.world_of(|builder| builder.renewal(Renewal::EveryResponse)).await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let old = browser.clone();
    browser.post(&world.app, "/renew-id", "").await;
    for (method, uri) in [
        ("GET", "/read"),
        ("GET", "/plain"),
        ("POST", "/merge"),
        ("POST", "/inc"),
        ("POST", "/save"),
        ("POST", "/age/100"),
    ] {
        let mut old = old.clone();
        let answer = match method {
            "GET" => old.get(&world.app, uri).await,
            _ => old.post(&world.app, uri, r#"{"b":1}"#).await,
        };
        assert_eq!(answer.status, StatusCode::OK, "{uri}: {}", answer.body);
        assert!(answer.set_cookie("sid").is_none(), "{uri}");
    }
    let data = world.data(&browser).await;
    assert_eq!(data, json!({"a": 1, "b": 1, "n": 1, "saved": 2, "aged": 100}));
    // Who asks gets the id that the session has by now, not yet another one.
    let mut asks = old.clone();
    assert!(asks.post(&world.app, "/renew-id", "").await.set_cookie("sid").is_some());
    assert_eq!(world.id(&asks).await, world.id(&browser).await);
}

async fn parallel_writes_land_in_a_session_whose_id_is_renewed(place: Place) {
    let world = place.world().await;
    for what in ["merge", "update"] {
        let mut browser = world.open(r#"{"a":1}"#).await;
        let mut parallel = browser.clone();
        let (held, gate) = world.gated();
        let parallel = tokio::spawn(async move {
            parallel.post(&held, &format!("/{what}"), r#"{"parallel":1}"#).await
        });
        gate.reached().await;
        browser.post(&world.app, "/renew-id", "").await;
        gate.open();
        let answer = parallel.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.body);
        assert!(answer.set_cookie("sid").is_none(), "{what}");
        assert_eq!(world.data(&browser).await, json!({"a": 1, "parallel": 1}), "{what}");
    }
}

async fn a_logout_with_the_previous_id_ends_the_session(place: Place) {
    let world = place.world().await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let mut old = browser.clone();
    browser.post(&world.app, "/renew-id", "").await;
    let answer = old.post(&world.app, "/logout", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!old.jar.contains_key("sid"));
    assert_eq!(world.seen(&browser).await["id"], Value::Null);
}

async fn without_an_overlap_the_previous_id_is_late_at_once(place: Place) {
    let world = place.world_of(|builder| builder.renew_overlap(Duration::ZERO)).await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let mut old = browser.clone();
    browser.post(&world.app, "/renew-id", "").await;
    assert_eq!(world.data(&old).await, json!({}));
    let late = old.post(&world.app, "/merge", r#"{"late":1}"#).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(world.data(&browser).await, json!({"a": 1}));
}

async fn sealing_ends_the_overlap(place: Place) {
    let world = place.world().await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let mut old = browser.clone();
    browser.post(&world.app, "/renew-id", "").await;
    assert_eq!(world.data(&old).await, json!({"a": 1}));
    browser.post(&world.app, "/rotate", "").await;
    assert_eq!(world.data(&old).await, json!({}));
    let late = old.post(&world.app, "/merge", r#"{"late":1}"#).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(world.data(&browser).await, json!({"a": 1}));
}
