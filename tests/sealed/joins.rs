//! First requests of a client at once.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::place::{Place, World};
use crate::support::http::Browser;
use crate::support::until;

over_both_stores! {
    first_requests_at_once_end_in_one_open_session_with_all_changes,
    requests_with_a_dead_session_cookie_join_as_first_ones_do,
    a_joining_request_sets_its_max_age,
    a_joining_request_that_rotates_ends_as_a_sealed_session_of_its_own,
    a_joining_request_that_destroys_what_it_joined_ends_it,
    a_first_request_that_is_slower_than_the_window_goes_its_own_way,
    no_first_request_joins_a_sealed_session,
}

/// A browser that has a client cookie and no session.
async fn visitor(world: &World) -> Browser {
    let mut browser = Browser::new();
    browser.get(&world.app, "/plain").await;
    browser
}

async fn first_requests_at_once_end_in_one_open_session_with_all_changes(place: Place) {
    for loaded in [true, false] {
        let world = place.world().await;
        let browser = visitor(&world).await;
        let requests: Vec<_> =
            (0..20).map(|n| (["merge", "update"][n % 2], format!(r#"{{"k{n}":{n}}}"#))).collect();
        let answers = world.at_once(&browser, loaded, &requests).await;
        let id = world.id(&answers[0].0).await;
        for (browser, answer) in &answers {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            assert_eq!(world.id(browser).await, id);
        }
        let seen = world.seen(&answers[0].0).await;
        assert_eq!(seen["data"].as_object().unwrap().len(), 20, "{seen}");
        assert_eq!(seen["sealed"], false);
        assert_eq!(seen["client"], visitor_client(&world, &browser).await);
        let stats = world.bridge.stats();
        assert_eq!((stats.created, stats.own_ways), (1, 0));
    }
}

async fn visitor_client(world: &World, browser: &Browser) -> Value {
    Value::String(browser.clone().get(&world.app, "/client").await.body)
}

async fn requests_with_a_dead_session_cookie_join_as_first_ones_do(place: Place) {
    let world = place.world().await;
    let browser = world.open(r#"{"old":1}"#).await;
    // As after a flush of the store: every browser has a cookie that names nothing.
    assert!(world.bridge.destroy_by_id(&world.id(&browser).await).await.unwrap());
    let requests = [("merge", r#"{"a":1}"#.into()), ("merge", r#"{"b":1}"#.into())];
    for (browser, answer) in world.at_once(&browser, true, &requests).await {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(world.data(&browser).await, json!({"a": 1, "b": 1}));
    }
    assert_eq!(world.bridge.stats().own_ways, 0);
}

async fn a_joining_request_sets_its_max_age(place: Place) {
    let world = place.world().await;
    let mut first = visitor(&world).await;
    let mut second = first.clone();
    let (held, gate) = world.gated();
    let joining = tokio::spawn(async move {
        let answer = second.post(&held, "/age", r#"{"b":1}"#).await;
        (second, answer)
    });
    gate.reached().await;
    first.post(&world.app, "/merge", r#"{"a":1}"#).await;
    gate.open();
    let (second, answer) = joining.await.unwrap();
    let line = answer.set_cookie("sid").unwrap();
    assert!(line.contains("Max-Age=1000;"), "{line}");
    assert_eq!(world.id(&second).await, world.id(&first).await);
}

async fn a_joining_request_that_rotates_ends_as_a_sealed_session_of_its_own(place: Place) {
    let world = place.world().await;
    let mut first = visitor(&world).await;
    let mut second = first.clone();
    let (held, gate) = world.gated();
    let joining = tokio::spawn(async move {
        let answer = second.post(&held, "/login", r#"{"user":"ada"}"#).await;
        (second, answer)
    });
    gate.reached().await;
    first.post(&world.app, "/merge", r#"{"planted":1}"#).await;
    let before = world.seen(&first).await;
    gate.open();
    let (second, answer) = joining.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let own = world.seen(&second).await;
    assert_eq!((&own["sealed"], &own["data"]), (&json!(true), &json!({"user": "ada"})));
    assert_ne!(own["client"], before["client"]);
    assert_eq!(world.seen(&first).await, before, "whoever began the open one has nothing of it");
}

async fn a_joining_request_that_destroys_what_it_joined_ends_it(place: Place) {
    let world = place.world().await;
    let mut first = visitor(&world).await;
    let mut second = first.clone();
    let (held, gate) = world.gated();
    let joining = tokio::spawn(async move {
        let answer = second.post(&held, "/join-and-logout", r#"{"b":1}"#).await;
        (second, answer)
    });
    gate.reached().await;
    first.post(&world.app, "/merge", r#"{"a":1}"#).await;
    gate.open();
    let (second, answer) = joining.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(!second.jar.contains_key("sid"));
    assert_eq!(world.seen(&first).await["id"], Value::Null);
}

async fn a_first_request_that_is_slower_than_the_window_goes_its_own_way(place: Place) {
    let window = Duration::from_millis(20);
    let world = place.world_of(|builder| builder.join_window(window)).await;
    let mut first = visitor(&world).await;
    for what in ["merge", "update"] {
        let mut slow = first.clone();
        slow.jar.remove("sid");
        let (held, gate) = world.gated();
        let slow = tokio::spawn(async move {
            let answer = slow.post(&held, &format!("/{what}"), r#"{"slow":1}"#).await;
            (slow, answer)
        });
        gate.reached().await;
        first.post(&world.app, "/merge", r#"{"first":1}"#).await;
        let before = world.seen(&first).await;
        let begun = Instant::now();
        until("the window is over", async || begun.elapsed() > window).await;
        gate.open();
        let (slow, answer) = slow.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.body);
        let own = world.seen(&slow).await;
        assert_eq!(own["data"], json!({"slow": 1}), "{what}");
        assert_ne!(own["client"], before["client"], "{what}");
        assert_eq!(world.seen(&first).await, before, "{what}");
    }
    assert_eq!(world.bridge.stats().own_ways, 2);
}

async fn no_first_request_joins_a_sealed_session(place: Place) {
    let world = place.world().await;
    for what in ["merge", "update"] {
        let mut first = visitor(&world).await;
        let mut second = first.clone();
        let (held, gate) = world.gated();
        let second = tokio::spawn(async move {
            let answer = second.post(&held, &format!("/{what}"), r#"{"b":1}"#).await;
            (second, answer)
        });
        gate.reached().await;
        first.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
        let before = world.seen(&first).await;
        assert_eq!(before["sealed"], true);
        gate.open();
        let (second, answer) = second.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{what}: {}", answer.body);
        assert_eq!(world.data(&second).await, json!({"b": 1}), "{what}");
        assert_eq!(world.seen(&first).await, before, "{what}");
    }
}
