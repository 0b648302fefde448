//! Sessions over HTTP, as a browser and a handler see them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum_io_session::bridge::{ClientCookie, OnConflict, SameSite, Secure};
use axum_io_session::{ErrorKind, Renewal, SessionBridge, SessionId};
use support::app::{app, gated};
use support::http::{Browser, send};
use support::probe::ProbeStore;
use support::{KEY, OTHER_KEY, bridge, until};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn max_age(line: &str) -> Option<u64> {
    let cookie = cookie::Cookie::parse(line.to_owned()).unwrap();
    cookie.max_age().map(|age| age.whole_seconds().unsigned_abs())
}

// ---- client cookie -------------------------------------------------------------------------

#[tokio::test]
async fn the_first_response_sets_the_client_cookie_and_later_ones_roll_it() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    let first = browser.get(&app, "/plain").await.set_cookie("sid.cid").unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Expires=", "Max-Age=31536000"] {
        assert!(first.contains(attribute), "{first}");
    }
    assert!(!first.contains("Secure") && !first.contains("Domain"), "{first}");
    let id = browser.jar["sid.cid"].clone();
    for uri in ["/plain", "/nowhere"] {
        assert!(browser.get(&app, uri).await.set_cookie("sid.cid").is_some());
        assert_eq!(browser.jar["sid.cid"], id);
    }
}

#[tokio::test]
async fn without_rolling_a_known_client_gets_no_cookie() {
    let bridge = SessionBridge::builder()
        .signing_keys([KEY])
        .client_cookie(ClientCookie::WhenNew)
        .build()
        .await;
    let app = app(&bridge.unwrap());
    let mut browser = Browser::new();
    assert!(browser.get(&app, "/plain").await.set_cookie("sid.cid").is_some());
    assert!(browser.get(&app, "/plain").await.set_cookie("sid.cid").is_none());
}

#[tokio::test]
async fn a_response_that_shared_caches_may_keep_names_no_client() {
    let bridge = bridge().await;
    let answer = async |cache: &'static str| {
        let handler = move || async move { ([(header::CACHE_CONTROL, cache)], "for all") };
        let routes = axum::Router::new().route("/page", axum::routing::get(handler));
        let app = routes.layer(bridge.layer());
        Browser::new().get(&app, "/page").await.set_cookie("sid.cid")
    };
    for shared in ["public", "max-age=60, Public", "s-maxage=10", "max-age=60", "immutable"] {
        assert_eq!(answer(shared).await, None, "{shared}");
    }
    for own in ["private", "private, max-age=60", "no-store", "x-public=1"] {
        assert!(answer(own).await.is_some(), "{own}");
    }
}

#[tokio::test]
async fn a_changed_client_cookie_gets_a_new_id() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    let id = browser.get(&app, "/client").await.body;
    let value = browser.jar["sid.cid"].clone();
    let last = if value.ends_with('A') { "B" } else { "A" };
    browser.jar.insert("sid.cid".into(), format!("{}{last}", &value[..value.len() - 1]));
    assert_ne!(browser.get(&app, "/client").await.body, id);
    assert_eq!(bridge.stats().bad_signatures, 1);
}

// ---- when sessions are stored --------------------------------------------------------------

#[tokio::test]
async fn requests_without_the_extractor_cost_no_store_trip() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let (reads, writes) = (store.reads(), store.writes());
    for _ in 0..5 {
        browser.get(&app, "/plain").await;
        browser.get(&app, "/client").await;
    }
    assert_eq!((store.reads(), store.writes()), (reads, writes));
    browser.get(&app, "/read").await;
    assert_eq!((store.reads(), store.writes()), (reads + 1, writes));
}

#[tokio::test]
async fn reading_creates_nothing_and_the_first_change_creates_one_record() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    for body in ["", "{}"] {
        assert!(browser.get(&app, "/read").await.set_cookie("sid").is_none());
        assert!(browser.post(&app, "/replace", body).await.set_cookie("sid").is_none());
    }
    assert_eq!((store.live.len(), store.writes()), (0, 0));
    let created = browser.post(&app, "/merge", r#"{"a":1}"#).await;
    assert_eq!(max_age(&created.set_cookie("sid").unwrap()), Some(30 * 24 * 60 * 60));
    assert_eq!(created.headers[header::CACHE_CONTROL], "private, no-store");
    assert_eq!((store.live.len(), store.writes()), (1, 1));
}

#[tokio::test]
async fn only_a_change_is_written_and_a_cookie_that_the_browser_has_is_not_sent_again() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":{"x":1,"y":2}}"#).await;
    let id = browser.get(&app, "/id").await.body;
    for body in [r#"{"a":{"y":2,"x":1}}"#, "{}", r#"{"gone":null}"#] {
        assert!(browser.post(&app, "/merge", body).await.set_cookie("sid").is_none());
    }
    assert_eq!(store.writes(), 1);
    assert!(browser.post(&app, "/merge", r#"{"a":2}"#).await.set_cookie("sid").is_none());
    assert!(browser.post(&app, "/replace", "{}").await.set_cookie("sid").is_none());
    assert_eq!(store.writes(), 3);
    assert_eq!(browser.get(&app, "/id").await.body, id);
    assert_eq!(browser.get(&app, "/read").await.json()["new"], false);
}

#[tokio::test]
async fn rolling_renews_with_each_response_and_renew_past_half_of_the_life() {
    let store = ProbeStore::new();
    let builder = SessionBridge::builder()
        .signing_keys([KEY])
        .store(store.clone())
        .renewal(Renewal::EveryResponse);
    let rolling = app(&builder.build().await.unwrap());
    let mut browser = Browser::new();
    browser.post(&rolling, "/merge", r#"{"a":1}"#).await;
    for uri in ["/plain", "/read"] {
        assert!(browser.get(&rolling, uri).await.set_cookie("sid").is_some());
    }
    assert_eq!((store.writes(), store.touches()), (1, 2));
    // Socket.IO's own traffic renews nothing.
    assert!(browser.get(&rolling, "/plain?EIO=4&sid=x").await.set_cookie("sid").is_none());

    let store = ProbeStore::new();
    let builder = SessionBridge::builder()
        .signing_keys([KEY])
        .store(store.clone())
        .renewal(Renewal::PastHalf);
    let renew = app(&builder.max_age(Duration::from_secs(4)).build().await.unwrap());
    let mut browser = Browser::new();
    browser.post(&renew, "/merge", r#"{"a":1}"#).await;
    assert!(browser.get(&renew, "/plain").await.set_cookie("sid").is_none());
    until("renewal", async || browser.get(&renew, "/plain").await.set_cookie("sid").is_some())
        .await;
    assert_eq!((store.writes(), store.touches()), (1, 1));
}

#[tokio::test]
async fn a_failing_handler_still_saves_and_sends_its_cookies() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    let failed = browser.post(&app, "/fail", "").await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(failed.set_cookie("sid").is_some() && failed.set_cookie("sid.cid").is_some());
    assert_eq!(browser.get(&app, "/read").await.json()["data"]["failed"], true);
}

#[tokio::test]
async fn saving_twice_in_one_request_sends_one_cookie() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    let saved = browser.post(&app, "/save", "").await;
    assert_eq!(saved.status, StatusCode::OK, "{}", saved.body);
    assert_eq!(saved.set_cookies("sid").len(), 1);
    assert_eq!(browser.get(&app, "/read").await.json()["data"]["saved"], 2);
}

#[tokio::test]
async fn a_session_cookie_overrides_what_the_handler_lets_caches_keep() {
    let app = app(&bridge().await);
    let answer = Browser::new().post(&app, "/cached", "").await;
    assert!(answer.set_cookie("sid").is_some());
    assert_eq!(answer.headers[header::CACHE_CONTROL], "private, no-store");
}

// ---- ends and new ids ----------------------------------------------------------------------

#[tokio::test]
async fn a_logout_clears_the_cookie_and_keeps_the_client_of_an_open_session() {
    let bridge = SessionBridge::builder().signing_keys([KEY]).domain("example.com").path("/app");
    let bridge = bridge.build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    let created = browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let client = browser.get(&app, "/client").await.body;
    let old = browser.clone();
    let cleared = browser.post(&app, "/logout", "").await.set_cookie("sid").unwrap();
    for line in [
        created.set_cookie("sid").unwrap(),
        created.set_cookie("sid.cid").unwrap(),
        cleared.clone(),
    ] {
        assert!(line.contains("Domain=example.com") && line.contains("Path=/app"), "{line}");
    }
    assert!(cleared.contains("Max-Age=0") && cleared.starts_with("sid=;"), "{cleared}");
    assert!(!browser.jar.contains_key("sid"));
    assert_eq!(browser.get(&app, "/client").await.body, client);
    // The old cookie is dead, and a new session has a new id.
    let id = |browser: &Browser| browser.jar["sid"].clone();
    let mut stolen = old.clone();
    assert_eq!(stolen.get(&app, "/id").await.body, "");
    assert_eq!(id(&stolen), id(&old), "another request's cookie is left alone");
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    assert_ne!(id(&browser), id(&old));
    // A logout without a session is harmless and silent.
    let mut nobody = Browser::new();
    let answer = nobody.post(&app, "/logout", "").await;
    assert!(answer.status.is_success() && answer.set_cookie("sid").is_none());
}

#[tokio::test]
async fn data_after_a_destroy_makes_a_new_session() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let old = browser.get(&app, "/id").await.body;
    browser.post(&app, "/swap", "").await;
    let seen = browser.get(&app, "/read").await.json();
    assert_ne!(seen["id"], old);
    assert_eq!(seen["data"], serde_json::json!({"fresh": true}));
    assert!(bridge.get_by_id(&old.parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_rotation_keeps_the_data_and_kills_the_old_id() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let mut old = browser.clone();
    let before = browser.get(&app, "/read").await.json();
    let after = browser.post(&app, "/rotate", "").await.json();
    assert_ne!(before["id"], after["id"]);
    assert_eq!(before["data"], after["data"]);
    assert_eq!(before["client"], after["client"]);
    // Its cookie opens nothing, and is not cleared: a parallel request has just replaced it.
    let answer = old.get(&app, "/read").await;
    assert_eq!(answer.json()["data"], serde_json::json!({}));
    assert!(answer.set_cookie("sid").is_none());
}

// ---- which session a request gets ----------------------------------------------------------

#[tokio::test]
async fn the_session_cookie_decides_and_the_client_cookie_follows() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let (mut a, mut b) = (Browser::new(), Browser::new());
    a.post(&app, "/merge", r#"{"who":"a"}"#).await;
    b.post(&app, "/merge", r#"{"who":"b"}"#).await;
    let owner = b.get(&app, "/client").await.body;
    // Client A's cookie beside B's session.
    a.jar.insert("sid".into(), b.jar["sid"].clone());
    let seen = a.get(&app, "/read").await;
    assert_eq!(seen.json()["data"]["who"], "b");
    assert_eq!(seen.json()["client"], owner);
    assert_eq!(seen.set_cookies("sid.cid").len(), 1);
    assert_eq!(a.get(&app, "/client").await.body, owner);
    // No client cookie at all: even a request that does not load the session keeps the client.
    a.jar.remove("sid.cid");
    assert_eq!(a.get(&app, "/client").await.body, owner);
    assert!(bridge.stats().pair_mismatches >= 2);
    let (session, client) =
        (a.get(&app, "/id").await.body.parse().unwrap(), owner.parse().unwrap());
    assert_eq!(bridge.session_id_of(&client).await.unwrap(), Some(session));
    assert_eq!(bridge.client_id_of(&session).await.unwrap(), Some(client));
}

#[tokio::test]
async fn a_client_cookie_alone_opens_nothing() {
    let app = app(&bridge().await);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    browser.jar.remove("sid");
    let seen = browser.get(&app, "/read").await.json();
    assert_eq!((seen["id"].is_null(), seen["data"].clone()), (true, serde_json::json!({})));
}

#[tokio::test]
async fn a_signed_id_that_names_nothing_is_not_adopted() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let id: SessionId = browser.get(&app, "/id").await.body.parse().unwrap();
    bridge.destroy_by_id(&id).await.unwrap();
    let unknown = bridge.stats().unknown_sessions;
    browser.post(&app, "/merge", r#"{"b":1}"#).await;
    let seen = browser.get(&app, "/read").await.json();
    assert_ne!(seen["id"], id.as_str());
    assert_eq!(seen["data"], serde_json::json!({"b": 1}));
    assert_eq!(bridge.stats().unknown_sessions, unknown + 1);
}

#[tokio::test]
async fn twenty_first_posts_at_once_make_one_session_with_all_changes() {
    for known in [true, false] {
        let store = ProbeStore::new();
        let bridge = SessionBridge::builder()
            .signing_keys([KEY])
            .store(store.clone())
            .build()
            .await
            .unwrap();
        let app = app(&bridge);
        let mut browser = Browser::new();
        browser.get(&app, "/plain").await;
        if known {
            // The store works as slowly as a request: all have loaded before one creates.
            assert!(browser.get(&app, "/id").await.body.is_empty());
        }
        let posts = (0..20).map(|n| {
            let (app, mut browser) = (app.clone(), browser.clone());
            let uri = if n % 2 == 0 { "/merge-slowly" } else { "/merge" };
            tokio::spawn(async move {
                let body = format!(r#"{{"k{n}":{n}}}"#);
                let answer = browser.post(&app, uri, &body).await;
                assert!(answer.status.is_success(), "{}", answer.body);
                // The cookie also says when it ends, which a slow machine makes differ.
                let id = browser.get(&app, "/id").await.body;
                (id, browser.jar["sid"].clone())
            })
        });
        let answers: Vec<_> = futures_util::future::join_all(posts).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|(id, _)| *id == answers[0].0), "one session");
        assert_eq!(store.live.len(), 1);
        browser.jar.insert("sid".into(), answers[0].1.clone());
        let data = browser.get(&app, "/read").await.json()["data"].clone();
        assert_eq!(data.as_object().unwrap().len(), 20, "{data}");
    }
}

// ---- two writers ---------------------------------------------------------------------------

#[tokio::test]
async fn two_requests_that_change_other_keys_keep_each_others_changes() {
    let bridge = bridge().await;
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"keep":1,"gone":1}"#).await;
    let (held, gate) = gated(&bridge);
    let mut other = browser.clone();
    let slow =
        tokio::spawn(async move { other.post(&held, "/", r#"{"slow":1,"gone":null}"#).await });
    gate.reached().await;
    browser.post(&app, "/merge", r#"{"fast":1}"#).await;
    gate.open();
    assert!(slow.await.unwrap().status.is_success());
    assert_eq!(bridge.stats().conflicts, 1);
    let data = browser.get(&app, "/read").await.json()["data"].clone();
    assert_eq!(data, serde_json::json!({"keep": 1, "fast": 1, "slow": 1}));
}

#[tokio::test]
async fn conflicts_can_be_errors_or_overwrite() {
    for (on_conflict, status, expected) in [
        (OnConflict::Error, StatusCode::CONFLICT, serde_json::json!({"a": 1, "fast": 1})),
        (OnConflict::Overwrite, StatusCode::OK, serde_json::json!({"a": 1, "slow": 1})),
    ] {
        let bridge =
            SessionBridge::builder().signing_keys([KEY]).on_conflict(on_conflict).build().await;
        let bridge = bridge.unwrap();
        let app = app(&bridge);
        let mut browser = Browser::new();
        browser.post(&app, "/merge", r#"{"a":1}"#).await;
        let (held, gate) = gated(&bridge);
        let mut other = browser.clone();
        let slow = tokio::spawn(async move { other.post(&held, "/", r#"{"slow":1}"#).await });
        gate.reached().await;
        browser.post(&app, "/merge", r#"{"fast":1}"#).await;
        gate.open();
        assert_eq!(slow.await.unwrap().status, status, "{on_conflict:?}");
        assert_eq!(browser.get(&app, "/read").await.json()["data"], expected, "{on_conflict:?}");
    }
}

#[tokio::test]
async fn a_write_to_a_session_that_ended_meanwhile_is_a_409_and_revives_nothing() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let (held, gate) = gated(&bridge);
    let mut other = browser.clone();
    let slow = tokio::spawn(async move { other.post(&held, "/", r#"{"slow":1}"#).await });
    gate.reached().await;
    browser.post(&app, "/logout", "").await;
    gate.open();
    let answer = slow.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.set_cookie("sid").is_none(), "the logout's answer has cleared it");
    assert_eq!(store.live.len(), 0);
}

#[tokio::test]
async fn parallel_updates_lose_nothing() {
    let app = app(&bridge().await);
    let mut browser = Browser::new();
    browser.get(&app, "/plain").await;
    let posts = (0..50).map(|_| {
        let (app, mut browser) = (app.clone(), browser.clone());
        tokio::spawn(async move {
            assert!(browser.post(&app, "/inc", "").await.status.is_success());
            browser.jar["sid"].clone()
        })
    });
    let cookies = futures_util::future::join_all(posts).await;
    browser.jar.insert("sid".into(), cookies[0].as_ref().unwrap().clone());
    assert_eq!(browser.get(&app, "/read").await.json()["data"]["n"], 50);
}

// ---- lives ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_sessions_own_max_age_stays_with_it() {
    // Each answer sends the cookie, and so says how long the session lives.
    let bridge = SessionBridge::builder()
        .signing_keys([KEY])
        .renewal(Renewal::EveryResponse)
        .build()
        .await
        .unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    let set = browser.post(&app, "/age/1000", "").await.set_cookie("sid").unwrap();
    assert_eq!(max_age(&set), Some(1000));
    let later = browser.post(&app, "/merge", r#"{"b":1}"#).await.set_cookie("sid").unwrap();
    assert_eq!(max_age(&later), Some(1000));
    for refused in ["/age/0", "/age/99999999999"] {
        let answer = browser.post(&app, refused, "").await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let browser_session = browser.post(&app, "/browser", "").await.set_cookie("sid").unwrap();
    assert!(!browser_session.contains("Max-Age") && !browser_session.contains("Expires"));
}

#[tokio::test]
async fn the_absolute_max_age_caps_what_rolling_renews() {
    let builder = SessionBridge::builder().signing_keys([KEY]).renewal(Renewal::EveryResponse);
    let bridge = builder.absolute_max_age(Duration::from_secs(2)).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    let born = std::time::Instant::now();
    let line = browser.post(&app, "/merge", r#"{"a":1}"#).await.set_cookie("sid").unwrap();
    assert!(max_age(&line).unwrap() <= 2, "{line}");
    until("the end", async || browser.get(&app, "/id").await.body.is_empty()).await;
    // Records count whole milliseconds, and the wall clock may be slewed.
    assert!(born.elapsed() >= Duration::from_millis(1950), "{:?}", born.elapsed());
}

#[tokio::test]
async fn an_expired_session_is_gone_and_the_next_one_has_a_new_id() {
    let bridge = SessionBridge::builder().signing_keys([KEY]).max_age(Duration::from_secs(1));
    let bridge = bridge.build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let id = browser.get(&app, "/id").await.body;
    let mut reader = browser.clone();
    until("the end", async || reader.get(&app, "/id").await.body.is_empty()).await;
    browser.post(&app, "/merge", r#"{"b":1}"#).await;
    let seen = browser.get(&app, "/read").await.json();
    assert_ne!(seen["id"], id);
    assert_eq!(seen["data"], serde_json::json!({"b": 1}));
}

// ---- limits and failures -------------------------------------------------------------------

#[tokio::test]
async fn a_session_at_the_payload_limit_is_kept_and_one_over_it_is_a_413() {
    let store = ProbeStore::new();
    let builder =
        SessionBridge::builder().signing_keys([KEY]).max_payload(100).store(store.clone());
    let app = app(&builder.build().await.unwrap());
    let mut browser = Browser::new();
    let body = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
    assert_eq!(body(100).len(), 100);
    assert!(browser.post(&app, "/merge", &body(100)).await.status.is_success());
    let refused = browser.post(&app, "/merge", &body(101)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(browser.get(&app, "/read").await.json()["data"]["a"].as_str().unwrap().len(), 92);
    let mut other = Browser::new();
    assert_eq!(other.post(&app, "/merge", &body(101)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!other.jar.contains_key("sid"));
    assert_eq!(store.live.len(), 1);
}

#[tokio::test]
async fn a_broken_store_is_a_503_only_where_it_is_needed() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let jar = browser.jar.clone();
    store.set_broken(true);
    assert!(browser.get(&app, "/plain").await.status.is_success());
    for (method, uri) in [("GET", "/read"), ("POST", "/inc")] {
        let request = browser.request(method, uri).body(Body::empty()).unwrap();
        let answer = browser.send(&app, request).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        assert!(answer.set_cookie("sid").is_none());
    }
    // A session cookie alone: who it is can't be told, so nothing is sent that would replace it.
    let mut alone = Browser::new();
    alone.jar.insert("sid".into(), jar["sid"].clone());
    assert!(alone.get(&app, "/plain").await.set_cookie("sid.cid").is_none());
    store.set_broken(false);
    assert_eq!(browser.jar["sid"], jar["sid"]);
    assert_eq!(browser.get(&app, "/read").await.json()["data"]["a"], 1);
}

#[tokio::test]
async fn a_failed_commit_is_a_503_and_no_false_success() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let breaker = store.clone();
    let app = axum::Router::new()
        .route(
            "/",
            axum::routing::post(async move |session: axum_io_session::Session| {
                session.insert("a", 1)?;
                breaker.set_broken(true);
                Ok::<_, axum_io_session::Error>("all is well")
            }),
        )
        .layer(bridge.layer());
    let answer = Browser::new().post(&app, "/", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body, "");
    assert!(answer.set_cookie("sid").is_none());
    assert!(answer.set_cookie("sid.cid").is_some());
    assert_eq!(bridge.stats().errors, 1);
}

#[tokio::test]
async fn an_error_of_the_store_keeps_its_source() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    store.set_broken(true);
    let error = bridge.get_by_id(&SessionId::generate()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.downcast_ref::<support::probe::Broken>().is_some());
}

#[tokio::test]
async fn without_the_layer_the_extractor_says_what_is_missing() {
    let app = axum::Router::new()
        .route("/", axum::routing::get(async |_: axum_io_session::Session| "never"));
    let answer = Browser::new().get(&app, "/").await;
    assert!(answer.status.is_server_error());
    assert!(answer.body.contains("bridge.layer()"), "{}", answer.body);
}

#[tokio::test]
async fn a_layer_added_twice_works_as_once() {
    let bridge = bridge().await;
    let app = app(&bridge).layer(bridge.layer());
    let mut browser = Browser::new();
    let created = browser.post(&app, "/merge", r#"{"a":1}"#).await;
    assert_eq!(created.set_cookies("sid.cid").len(), 1);
    let client = browser.get(&app, "/client").await.body;
    assert_eq!(created.json()["client"], client);
    assert_eq!(bridge.stats().requests, 2);
}

#[tokio::test]
async fn after_the_response_a_session_can_be_read_but_not_changed() {
    let bridge = bridge().await;
    let (sender, mut kept) = tokio::sync::mpsc::channel(1);
    let app = axum::Router::new()
        .route(
            "/",
            axum::routing::post(async move |session: axum_io_session::Session| {
                session.insert("a", 1)?;
                sender.send(session).await.unwrap();
                Ok::<_, axum_io_session::Error>(())
            }),
        )
        .layer(bridge.layer());
    Browser::new().post(&app, "/", "").await;
    let session = kept.recv().await.unwrap();
    assert_eq!(session.get::<i64>("a").unwrap(), Some(1));
    assert!(session.id().is_some());
    assert_eq!(session.insert("a", 2).unwrap_err().kind(), ErrorKind::Committed);
    assert_eq!(session.update(|_| Ok(())).await.unwrap_err().kind(), ErrorKind::Committed);
}

// ---- keys and attributes -------------------------------------------------------------------

#[tokio::test]
async fn a_cookie_signed_by_an_older_key_is_accepted_and_issued_anew() {
    let store = ProbeStore::new();
    let old = SessionBridge::builder()
        .signing_keys([OTHER_KEY])
        .store(store.clone())
        .build()
        .await
        .unwrap();
    let mut browser = Browser::new();
    browser.post(&app(&old), "/merge", r#"{"a":1}"#).await;
    let builder = SessionBridge::builder()
        .signing_keys([KEY, OTHER_KEY])
        .client_cookie(ClientCookie::WhenNew);
    let new = builder.store(store.clone()).build().await.unwrap();
    let app_new = app(&new);
    let before = browser.jar.clone();
    let answer = browser.get(&app_new, "/read").await;
    assert_eq!(answer.json()["data"]["a"], 1);
    let issued = answer.set_cookie("sid").unwrap();
    assert!(max_age(&issued).unwrap() <= 30 * 24 * 60 * 60 && issued.contains("HttpOnly"));
    assert!(answer.set_cookie("sid.cid").is_some());
    assert!(before["sid"] != browser.jar["sid"] && before["sid.cid"] != browser.jar["sid.cid"]);
    // Now the old key can go.
    let last = SessionBridge::builder().signing_keys([KEY]).store(store).build().await.unwrap();
    assert_eq!(browser.get(&app(&last), "/read").await.json()["data"]["a"], 1);
}

#[tokio::test]
async fn secure_follows_the_scheme_and_a_trusted_proxy() {
    for (trust, proto, uri, expected) in [
        (0, "https", "/plain", false),
        (1, "https", "/plain", true),
        (1, "HTTPS, http", "/plain", false),
        (2, "HTTPS, http", "/plain", true),
        (1, "http", "/plain", false),
        (0, "http", "https://example.com/plain", true),
    ] {
        let builder = SessionBridge::builder().signing_keys([KEY]).trusted_proxies(trust);
        let bridge = builder.build().await.unwrap();
        let request = axum::http::Request::get(uri).header("x-forwarded-proto", proto);
        let answer = send(&app(&bridge), request.body(Body::empty()).unwrap()).await;
        let line = answer.set_cookie("sid.cid").unwrap();
        assert_eq!(line.contains("Secure"), expected, "{trust} {proto} {uri}: {line}");
    }
}

#[tokio::test]
async fn host_prefixed_names_are_secure_whatever_the_scheme() {
    let builder = SessionBridge::builder()
        .signing_keys([KEY])
        .cookie_name("__Host-sid")
        .same_site(SameSite::Strict);
    let app = app(&builder.build().await.unwrap());
    let answer = Browser::new().post(&app, "/merge", r#"{"a":1}"#).await;
    for name in ["__Host-sid", "__Host-sid.cid"] {
        let line = answer.set_cookie(name).unwrap();
        assert!(line.contains("Secure") && line.contains("SameSite=Strict"), "{line}");
    }
}

#[tokio::test]
async fn http_only_and_secure_can_be_chosen() {
    let builder = SessionBridge::builder().signing_keys([KEY]).http_only(false).secure(Secure::Yes);
    let app = app(&builder.client_max_age(DAY).build().await.unwrap());
    let line = Browser::new().get(&app, "/plain").await.set_cookie("sid.cid").unwrap();
    assert!(
        !line.contains("HttpOnly") && line.contains("Secure") && line.contains("Max-Age=86400")
    );
}

#[tokio::test]
async fn unsigned_cookies_hold_the_bare_id_and_their_end() {
    let bridge = SessionBridge::builder().signed(false).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let (id, ends) = browser.jar["sid"].split_once('.').unwrap();
    assert!(ends.parse::<u64>().is_ok(), "{ends}");
    assert_eq!(browser.clone().get(&app, "/id").await.body, id);
    browser.post(&app, "/browser", "").await;
    assert_eq!(browser.get(&app, "/id").await.body, browser.jar["sid"], "without an end");
}
