//! Options that say when sessions are sealed and joined, and how long open ones live.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use axum_io_session::bridge::Seal;
use axum_io_session::{Error, Renewal, Session, SessionBridge};
use serde_json::json;

use crate::place::{Place, World};
use crate::support::http::{Answer, Browser};
use crate::support::{KEY, until};

over_both_stores! {
    sealed_from_the_start_no_session_is_ever_open_or_joined,
    with_a_window_of_zero_sessions_are_open_and_none_is_joined,
    open_sessions_may_have_a_shorter_life_than_sealed_ones,
    sealing_makes_no_session_younger,
    seal_seals_once,
    a_session_says_whether_it_is_sealed_as_stored,
}

fn max_age(answer: &Answer) -> i64 {
    let line = answer.set_cookie("sid").expect("a session cookie");
    let cookie = cookie::Cookie::parse(line).unwrap();
    cookie.max_age().expect("an age").whole_seconds()
}

/// Two first requests at once end in two sessions of two clients.
async fn nobody_joins(world: &World, sealed: bool) {
    let mut browser = Browser::new();
    browser.get(&world.app, "/plain").await;
    for what in ["merge", "update"] {
        for loaded in [true, false] {
            let own_ways = world.bridge.stats().own_ways;
            let requests = [(what, r#"{"a":1}"#.into()), (what, r#"{"b":1}"#.into())];
            let [(a, first), (b, second)] = &world.at_once(&browser, loaded, &requests).await[..]
            else {
                panic!("two answers");
            };
            assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK), "{what}");
            let (a, b) = (world.seen(a).await, world.seen(b).await);
            assert_eq!((&a["data"], &b["data"]), (&json!({"a": 1}), &json!({"b": 1})), "{what}");
            assert_eq!((&a["sealed"], &b["sealed"]), (&json!(sealed), &json!(sealed)), "{what}");
            assert_ne!(a["client"], b["client"], "{what}");
            assert!(world.bridge.stats().own_ways > own_ways);
        }
    }
}

async fn sealed_from_the_start_no_session_is_ever_open_or_joined(place: Place) {
    let presets = [
        place.world_of(|builder| builder.seal(Seal::FromStart)).await,
        place.world_of(axum_io_session::bridge::SessionBridgeBuilder::strict).await,
    ];
    for world in presets {
        nobody_joins(&world, true).await;
        // What is begun in other ways is sealed, too.
        let mut browser = world.open(r#"{"a":1}"#).await;
        assert_eq!(world.seen(&browser).await["sealed"], true);
        let client = world.client(&browser).await;
        browser.post(&world.app, "/swap", "").await;
        assert_eq!(world.seen(&browser).await["sealed"], true);
        assert_ne!(world.client(&browser).await, client, "it was a logout of a sealed session");
        let mut counter = Browser::new();
        counter.post(&world.app, "/inc", "").await;
        assert_eq!(world.seen(&counter).await["sealed"], true);
    }
}

async fn with_a_window_of_zero_sessions_are_open_and_none_is_joined(place: Place) {
    let world = place.world_of(|builder| builder.join_window(Duration::ZERO)).await;
    nobody_joins(&world, false).await;
    // With its cookie a session is written to as ever.
    let mut browser = world.open(r#"{"a":1}"#).await;
    browser.post(&world.app, "/merge", r#"{"b":1}"#).await;
    assert_eq!(world.data(&browser).await, json!({"a": 1, "b": 1}));
}

async fn open_sessions_may_have_a_shorter_life_than_sealed_ones(place: Place) {
    let hour = Duration::from_secs(3600);
    let world =
        place.world_of(|builder| builder.open_max_age(hour).renewal(Renewal::EveryResponse)).await;
    let mut browser = Browser::new();
    let open = browser.post(&world.app, "/merge", r#"{"a":1}"#).await;
    assert_eq!(max_age(&open), 3600);
    let sealed = browser.post(&world.app, "/rotate", "").await;
    assert_eq!(max_age(&sealed), 30 * 24 * 3600);
    let later = browser.post(&world.app, "/merge", r#"{"b":1}"#).await;
    assert_eq!(max_age(&later), 30 * 24 * 3600);
    // A session's own age overrides both.
    assert_eq!(max_age(&Browser::new().post(&world.app, "/age/7200", "").await), 7200);
    let created_sealed = Browser::new().post(&world.app, "/login", r#"{"a":1}"#).await;
    assert_eq!(max_age(&created_sealed), 30 * 24 * 3600);
}

async fn sealing_makes_no_session_younger(place: Place) {
    let cap = Duration::from_secs(100);
    let world = place.world_of(|builder| builder.absolute_max_age(cap)).await;
    for what in ["rotate", "login", "rotate-and-update"] {
        let mut browser = Browser::new();
        assert_eq!(max_age(&browser.post(&world.app, "/merge", r#"{"a":1}"#).await), 100);
        let older = async || max_age(&browser.post(&world.app, "/rotate", "").await) < 100;
        until("the cap comes nearer", older).await;
        // Also for who loses a race and gets a session of its own.
        let rotations = [(what, r#"{"b":1}"#.into()), (what, r#"{"c":1}"#.into())];
        for (_, answer) in world.at_once(&browser, true, &rotations).await {
            assert!(max_age(&answer) < 100, "{what}");
        }
    }
}

async fn seal_seals_once(place: Place) {
    let world = place.world().await;
    let mut browser = world.open(r#"{"a":1}"#).await;
    let (old, open) = (browser.clone(), world.seen(&browser).await);
    assert!(browser.post(&world.app, "/seal", "").await.set_cookie("sid").is_some());
    let sealed = world.seen(&browser).await;
    assert_ne!(sealed["id"], open["id"]);
    assert_eq!((&sealed["sealed"], &sealed["data"]), (&json!(true), &json!({"a": 1})));
    assert_eq!(world.data(&old).await, json!({}));
    let again = browser.post(&world.app, "/seal", "").await;
    assert_eq!(again.status, StatusCode::OK);
    assert!(again.set_cookie("sid").is_none());
    assert_eq!(world.seen(&browser).await, sealed);
}

async fn a_session_says_whether_it_is_sealed_as_stored(place: Place) {
    async fn login(session: Session) -> Result<(), Error> {
        assert!(!session.is_sealed());
        session.insert("a", 1)?;
        session.rotate()?;
        assert!(!session.is_sealed(), "not before it is written");
        session.save().await?;
        assert!(session.is_sealed());
        session.destroy()?;
        assert!(!session.is_sealed());
        session.insert("b", 1)?;
        session.save().await?;
        assert!(!session.is_sealed());
        Ok(())
    }
    let world = place.world().await;
    let app = Router::new().route("/", post(login)).layer(world.bridge.layer());
    let mut browser = Browser::new();
    let answer = browser.post(&app, "/", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(world.data(&browser).await, json!({"b": 1}));
}

#[tokio::test]
async fn times_out_of_range_fail_the_build_and_name_the_option() {
    let second = Duration::from_secs(1);
    let builder = || SessionBridge::builder().signing_keys([KEY]);
    for (name, builder) in [
        ("join_window", builder().join_window(61 * second)),
        ("renew_overlap", builder().renew_overlap(301 * second)),
        ("open_max_age", builder().open_max_age(second / 2)),
        ("open_max_age", builder().open_max_age(367 * 24 * 3600 * second)),
        ("pending_sockets_limit", builder().pending_sockets_limit(0)),
        ("trusted_proxies", builder().trusted_proxies(17)),
    ] {
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), axum_io_session::ErrorKind::InvalidOption, "{name}");
        assert!(error.to_string().contains(&format!("`{name}` is")), "{error}");
    }
}
