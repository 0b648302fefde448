//! Requests whose cookie has an earlier id of a session that was sealed.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::place::{Place, World};
use crate::support::http::{Answer, Browser};

over_both_stores! {
    a_late_cookie_reads_no_session_and_is_left_alone,
    a_late_write_and_a_late_logout_are_conflicts_that_touch_no_cookie,
    a_late_login_becomes_a_sealed_session_of_its_own,
    of_a_late_cookie_and_the_live_one_the_live_one_counts,
    the_last_eight_ids_are_late_and_older_ones_unknown,
    after_a_restart_late_cookies_are_late_still,
}

/// A browser whose session was sealed, and the same one with the cookies of before: with and
/// without its client cookie.
async fn sealed_and_late(world: &World) -> (Browser, [Browser; 2]) {
    let mut live = world.open(r#"{"a":1}"#).await;
    let late = live.clone();
    live.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
    let mut alone = late.clone();
    alone.jar.remove("sid.cid");
    (live, [late, alone])
}

fn sets_no_cookie(answer: &Answer) -> bool {
    answer.headers.get("set-cookie").is_none()
}

async fn a_late_cookie_reads_no_session_and_is_left_alone(place: Place) {
    let world = place.world().await;
    let (live, lates) = sealed_and_late(&world).await;
    let before = world.seen(&live).await;
    for mut late in lates {
        let counted = world.bridge.stats().superseded_sessions;
        let answer = late.get(&world.app, "/read").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!((&answer.json()["id"], &answer.json()["data"]), (&Value::Null, &json!({})));
        assert!(answer.set_cookie("sid").is_none());
        assert_eq!(world.bridge.stats().superseded_sessions, counted + 1);
    }
    assert_eq!(world.seen(&live).await, before);
}

async fn a_late_write_and_a_late_logout_are_conflicts_that_touch_no_cookie(place: Place) {
    let world = place.world().await;
    let (live, lates) = sealed_and_late(&world).await;
    let before = world.seen(&live).await;
    for late in lates {
        for uri in ["/merge", "/inc", "/save", "/logout", "/swap", "/merge-and-renew-id", "/age/9"]
        {
            let errors = world.bridge.stats().client_errors;
            let answer = late.clone().post(&world.app, uri, r#"{"late":1}"#).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{uri}: {}", answer.body);
            // Another answer may have set newer cookies, also a new client id.
            let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
            assert!(sets_no_cookie(&answer), "{uri}: {set:?}");
            assert!(world.bridge.stats().client_errors <= errors + 1);
        }
    }
    assert_eq!(world.seen(&live).await, before);
    assert_eq!(world.bridge.stats().own_ways, 0);
}

async fn a_late_login_becomes_a_sealed_session_of_its_own(place: Place) {
    let world = place.world().await;
    let (live, lates) = sealed_and_late(&world).await;
    let before = world.seen(&live).await;
    for mut late in lates {
        let answer = late.post(&world.app, "/login", r#"{"user":"eve"}"#).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert!(answer.set_cookie("sid").is_some() && answer.set_cookie("sid.cid").is_some());
        let own = world.seen(&late).await;
        assert_eq!((&own["sealed"], &own["data"]), (&json!(true), &json!({"user": "eve"})));
        assert_ne!(own["client"], before["client"]);
        assert_eq!(late.get(&world.app, "/client").await.body, own["client"]);
        assert_eq!(world.seen(&live).await, before);
    }
}

async fn of_a_late_cookie_and_the_live_one_the_live_one_counts(place: Place) {
    let world = place.world().await;
    let (live, [late, _]) = sealed_and_late(&world).await;
    let before = world.seen(&live).await;
    let cookies = format!("sid={}; {}", late.jar["sid"], live.cookie_header());
    let request = axum::http::Request::get("/read").header("cookie", cookies);
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = crate::support::http::send(&world.app, request).await;
    assert_eq!(answer.json(), before);
}

async fn the_last_eight_ids_are_late_and_older_ones_unknown(place: Place) {
    let world = place.world().await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let mut earlier = Vec::new();
    for _ in 0..9 {
        earlier.push(browser.clone());
        browser.post(&world.app, "/rotate", "").await;
    }
    let before = world.seen(&browser).await;
    for late in &earlier[1..] {
        let answer = late.clone().post(&world.app, "/merge", r#"{"late":1}"#).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
    }
    // An unknown id is as good as none: its request gets a session and a client id of its own.
    let mut oldest = earlier[0].clone();
    assert_eq!(oldest.post(&world.app, "/merge", r#"{"b":1}"#).await.status, StatusCode::OK);
    let own = world.seen(&oldest).await;
    assert_eq!(own["data"], json!({"b": 1}));
    assert_ne!(own["client"], before["client"]);
    assert_eq!(world.seen(&browser).await, before);
}

async fn after_a_restart_late_cookies_are_late_still(place: Place) {
    let store = place.store().await;
    let before = store.world_of(|builder| builder).await;
    let (live, [late, _]) = sealed_and_late(&before).await;
    let seen = before.seen(&live).await;
    before.bridge.shutdown().await;
    // In either order: whichever comes first attaches the session.
    for late_first in [true, false] {
        let world = store.world_of(|builder| builder).await;
        if !late_first {
            assert_eq!(world.seen(&live).await, seen);
        }
        assert_eq!(world.data(&late).await, json!({}));
        for uri in ["/merge", "/logout"] {
            let answer = late.clone().post(&world.app, uri, r#"{"late":1}"#).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{uri}");
        }
        assert_eq!(world.seen(&live).await, seen);
        world.bridge.shutdown().await;
    }
}
