//! Cookies that no honest browser sends, and those of answers that went wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::routing::{get, post};
use axum_io_session::store::SessionStore as _;
use axum_io_session::{Error, ErrorKind, MaxAge, Renewal, Session, SessionBridge};
use serde_json::{Value, json};
use support::app::{app, gated};
use support::http::{Answer, Browser, send};
use support::probe::ProbeStore;
use support::world::world;
use support::{KEY, OTHER_KEY, bridge, until};

/// Asks with this `Cookie` header and nothing else.
async fn ask(app: &axum::Router, uri: &str, cookie: impl AsRef<[u8]>) -> Answer {
    let request = axum::http::Request::get(uri)
        .header(header::COOKIE, HeaderValue::from_bytes(cookie.as_ref()).unwrap());
    send(app, request.body(Body::empty()).unwrap()).await
}

// ---- what opens nothing --------------------------------------------------------------------

#[tokio::test]
async fn session_cookies_that_do_not_verify_open_nothing_and_are_left_alone_on_every_route() {
    let world = world().await;
    let (browser, ..) = world.seeded(r#"{"a":1}"#).await;
    let (sid, cid) = (&browser.jar["sid"], &browser.jar["sid.cid"]);
    let foreign = SessionBridge::builder().signing_keys([OTHER_KEY]).build().await.unwrap();
    let mut elsewhere = Browser::new();
    elsewhere.post(&app(&foreign), "/merge", r#"{"a":1}"#).await;
    let flipped = format!("{}{}", if sid.starts_with('A') { 'B' } else { 'A' }, &sid[1..]);
    let cases = [
        ("changed", flipped),
        ("another cookie's", cid.clone()),
        ("cut", sid[..sid.len() - 1].to_owned()),
        ("doubled", format!("{sid}{sid}")),
        ("unsigned", sid[44..].to_owned()),
        ("foreign", elsewhere.jar["sid"].clone()),
        ("oversized", "A".repeat(100_000)),
        ("emptied", String::new()),
    ];
    for (what, value) in cases {
        for uri in ["/plain", "/read"] {
            let seen = world.bridge.stats().bad_signatures;
            let answer = ask(&world.app, uri, format!("sid.cid={cid}; sid={value}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{what}");
            // Another node may know the key, another answer may have set a newer cookie.
            assert_eq!(answer.set_cookie("sid"), None, "{what} on {uri}");
            if uri == "/read" {
                assert_eq!(answer.json()["data"], json!({}), "{what}");
            }
            let counted = world.bridge.stats().bad_signatures - seen;
            assert_eq!(counted, u64::from(!value.is_empty()), "{what}");
        }
    }
    assert_eq!(browser.clone().get(&world.app, "/read").await.json()["data"], json!({"a": 1}));
}

#[tokio::test]
async fn no_text_in_a_cookie_is_an_error_of_the_server() {
    let world = world().await;
    let (browser, ..) = world.seeded(r#"{"a":1}"#).await;
    let ours = browser.cookie_header();
    let many = (0..1000).map(|n| format!("c{n}={n}")).collect::<Vec<_>>().join("; ");
    let found: [Vec<u8>; 6] = [
        format!(";;; =x; nameless; {ours};;").into(),
        format!("{many}; {ours}").into(),
        format!("{ours}; {many}").into(),
        format!("pad={}; {ours}", "x".repeat(8192)).into(),
        [b"a=\xff\xfe\x80; \xe9=1; sid\xc3\xa9=1; ", ours.as_bytes()].concat(),
        format!("sid=junk; sid.cid=junk; {ours}").into(),
    ];
    for cookie in found {
        let answer = ask(&world.app, "/read", &cookie).await;
        let shown = String::from_utf8_lossy(&cookie[..cookie.len().min(40)]);
        assert_eq!(answer.json()["data"], json!({"a": 1}), "{shown}");
    }
    let lost: [&[u8]; 6] = [
        b"sid=\xff\xfe; sid.cid=\xff",
        "sid=é漢😀; sid.cid=é".as_bytes(),
        b"sid=__proto__; sid.cid=*",
        b"sid=../../etc/passwd",
        b"sid=%00%0a; sid.cid=\"\"",
        b"SID=1; sid =1; =sid; sid",
    ];
    for cookie in lost {
        let answer = ask(&world.app, "/read", cookie).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["data"], json!({}), "{}", String::from_utf8_lossy(cookie));
    }
}

#[tokio::test]
async fn the_cookie_of_an_expired_session_opens_nothing_and_is_left_alone() {
    let builder = SessionBridge::builder().signing_keys([KEY]).max_age(Duration::from_secs(1));
    let app = app(&builder.build().await.unwrap());
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    until("the end", async || browser.clone().get(&app, "/id").await.body.is_empty()).await;
    for uri in ["/plain", "/read"] {
        assert_eq!(browser.get(&app, uri).await.set_cookie("sid"), None, "{uri}");
    }
    assert!(browser.post(&app, "/merge", r#"{"b":1}"#).await.set_cookie("sid").is_some());
    assert_eq!(browser.get(&app, "/read").await.json()["data"], json!({"b": 1}));
}

// ---- records and cookies go together -------------------------------------------------------

#[tokio::test]
async fn the_very_first_request_of_a_client_maps_its_session() {
    let world = world().await;
    let created = Browser::new().post(&world.app, "/save", "").await.json();
    let client = created["client"].as_str().unwrap().parse().unwrap();
    let session = created["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.bridge.session_id_of(&client).await.unwrap(), Some(session));
    assert_eq!(world.bridge.client_id_of(&session).await.unwrap(), Some(client));
}

#[tokio::test]
async fn an_update_that_changes_nothing_creates_writes_and_sets_nothing() {
    async fn idle(session: Session) -> Result<(), Error> {
        session.update(|data| Ok(data.remove("nothing"))).await?;
        session.update(|data| data.insert("a", 1)).await?;
        session.update(|data| Ok(data.remove("a"))).await?;
        session.update(|data| data.get::<i64>("a")).await?;
        Ok(())
    }
    async fn look(session: Session) -> Result<(), Error> {
        session.update(|data| Ok(data.remove("nothing"))).await.map(|_| ())
    }
    let world = world().await;
    let app = axum::Router::new()
        .route("/idle", post(idle))
        .route("/look", post(look))
        .layer(world.bridge.layer());
    let mut browser = Browser::new();
    for _ in 0..2 {
        let answer = browser.post(&app, "/look", "").await;
        assert!(answer.status.is_success() && answer.set_cookie("sid").is_none());
    }
    assert!(world.store.live.is_empty());
    // Created by its second update, and emptied by its third.
    let created = browser.post(&app, "/idle", "").await;
    assert!(created.set_cookie("sid").is_some(), "{}", created.body);
    let writes = world.store.writes();
    assert_eq!(writes, 2);
    assert!(browser.post(&app, "/look", "").await.set_cookie("sid").is_none());
    assert_eq!((world.store.writes(), world.store.touches()), (writes, 0));
}

#[tokio::test]
async fn refused_requests_keep_session_and_cookies() {
    async fn strict(session: Session, Json(body): Json<Value>) -> Result<String, Error> {
        session.insert("body", body)?;
        Ok(String::new())
    }
    async fn teapot(session: Session) -> Result<StatusCode, Error> {
        session.insert("tea", true)?;
        Ok(StatusCode::IM_A_TEAPOT)
    }
    let world = world().await;
    let app = axum::Router::new()
        .route("/strict", post(strict))
        .route("/teapot", post(teapot))
        .layer(world.bridge.layer());
    let mut browser = Browser::new();
    let refused = browser.post(&app, "/strict", "no json").await;
    assert!(refused.status.is_client_error());
    assert!(refused.set_cookie("sid.cid").is_some() && refused.set_cookie("sid").is_none());
    assert!(world.store.live.is_empty());
    let served = browser.post(&app, "/teapot", "").await;
    assert_eq!(served.status, StatusCode::IM_A_TEAPOT);
    assert!(served.set_cookie("sid").is_some(), "no record without its cookie");
    for uri in ["/strict", "/nowhere"] {
        let refused = browser.post(&app, uri, "no json").await;
        assert!(refused.status.is_client_error());
        assert!(refused.set_cookie("sid.cid").is_some() && refused.set_cookie("sid").is_none());
    }
    assert_eq!(browser.get(&world.app, "/read").await.json()["data"], json!({"tea": true}));
}

#[tokio::test]
async fn what_was_saved_keeps_its_cookie_although_the_commit_at_the_end_fails() {
    let store = ProbeStore::new();
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    let breaker = store.clone();
    let handler = async move |session: Session| {
        session.insert("a", 1)?;
        session.save().await?;
        session.insert("a", 2)?;
        breaker.set_broken(true);
        Ok::<_, Error>(())
    };
    let router = axum::Router::new().route("/", post(handler)).layer(bridge.layer());
    let mut browser = Browser::new();
    let answer = browser.post(&router, "/", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    store.set_broken(false);
    assert_eq!(store.live.len(), 1);
    assert_eq!(browser.get(&app(&bridge), "/read").await.json()["data"], json!({"a": 1}));
}

#[tokio::test]
async fn a_handler_that_panics_writes_nothing_and_blocks_nobody() {
    let world = world().await;
    let (mut browser, ..) = world.seeded(r#"{"n":1}"#).await;
    let (app, mut same) = (world.app.clone(), browser.clone());
    let panicked = tokio::spawn(async move { same.post(&app, "/panic", "").await }).await;
    assert!(panicked.err().unwrap().is_panic());
    assert_eq!(browser.post(&world.app, "/inc", "").await.json()["data"], json!({"n": 2}));
}

#[tokio::test]
async fn a_request_that_is_dropped_writes_nothing_and_leaves_the_line() {
    let world = world().await;
    let (mut browser, session, _) = world.seeded(r#"{"n":1}"#).await;
    let (held, gate) = gated(&world.bridge);
    let mut dropped = browser.clone();
    let slow = tokio::spawn(async move { dropped.post(&held, "/", r#"{"dropped":1}"#).await });
    gate.reached().await;
    slow.abort();
    assert!(slow.await.err().unwrap().is_cancelled());
    let (app, bridge) = (world.app.clone(), world.bridge.clone());
    let mut waiter = browser.clone();
    let loads = bridge.stats().loads;
    world
        .bridge
        .with_session(&session, |ctx| async move {
            let update = tokio::spawn(async move { waiter.post(&app, "/inc", "").await });
            until("it is in line, or about to be", async || bridge.stats().loads > loads).await;
            tokio::task::yield_now().await;
            update.abort();
            assert!(update.await.err().unwrap().is_cancelled());
            ctx.insert("n", 10).unwrap();
        })
        .await
        .unwrap();
    assert_eq!(browser.post(&world.app, "/inc", "").await.json()["data"], json!({"n": 11}));
}

#[tokio::test]
async fn a_renewal_that_fails_is_no_error_of_a_route_without_a_session() {
    let store = ProbeStore::new();
    let builder = SessionBridge::builder()
        .signing_keys([KEY])
        .renewal(Renewal::EveryResponse)
        .store(store.clone());
    let app = app(&builder.build().await.unwrap());
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let jar = browser.jar.clone();
    store.set_broken(true);
    assert_eq!(browser.get(&app, "/plain").await.status, StatusCode::OK);
    assert_eq!(browser.get(&app, "/read").await.status, StatusCode::SERVICE_UNAVAILABLE);
    store.set_broken(false);
    assert_eq!(browser.jar["sid"], jar["sid"]);
    assert!(browser.get(&app, "/plain").await.set_cookie("sid").is_some());
}

#[tokio::test]
async fn a_renewal_that_fails_is_no_error_of_a_request_that_only_reads() {
    let store = ProbeStore::new();
    let builder = SessionBridge::builder()
        .signing_keys([KEY])
        .renewal(Renewal::EveryResponse)
        .store(store.clone());
    let bridge = builder.build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    store.set_no_touch(true);
    let read = browser.get(&app, "/read").await;
    assert_eq!((read.status, &read.json()["data"]), (StatusCode::OK, &json!({"a": 1})));
    assert!(read.set_cookie("sid").is_none(), "it was not renewed");
    assert_eq!(bridge.stats().errors, 1);
    // A write renews by itself, and fails or not by itself.
    assert_eq!(browser.post(&app, "/merge", r#"{"a":2}"#).await.status, StatusCode::OK);
    store.set_no_touch(false);
    assert!(browser.get(&app, "/read").await.set_cookie("sid").is_some());
}

// ---- keys ----------------------------------------------------------------------------------

/// Whether a browser keeps its session over requests that both nodes of a deploy get in turn.
async fn keeps_its_session(store: &ProbeStore, browser: &mut Browser, keys: [&[&str]; 2]) -> bool {
    let mut nodes = Vec::new();
    for keys in keys {
        let builder = SessionBridge::builder().signing_keys(keys).store(store.clone());
        nodes.push(app(&builder.build().await.unwrap()));
    }
    for turn in 0..4 {
        let n = browser.post(&nodes[turn % 2], "/inc", "").await.json()["data"]["n"].clone();
        if n.as_u64() < Some(2) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn signing_keys_are_replaced_on_a_rolling_deploy_in_steps_that_lose_no_session() {
    let (old, new) = (KEY, OTHER_KEY);
    let begun = async |store: &ProbeStore| {
        let builder = SessionBridge::builder().signing_keys([old]).store(store.clone());
        let mut browser = Browser::new();
        browser.post(&app(&builder.build().await.unwrap()), "/inc", "").await;
        browser
    };
    let store = ProbeStore::new();
    let mut browser = begun(&store).await;
    let steps: [&[&str]; 4] = [&[old], &[old, new], &[new, old], &[new]];
    for step in steps.windows(2) {
        assert!(keeps_its_session(&store, &mut browser, [step[0], step[1]]).await, "{step:?}");
        assert!(keeps_its_session(&store, &mut browser, [step[1], step[1]]).await, "{step:?}");
    }
    // In one step a node signs by a key that the others do not know yet.
    let store = ProbeStore::new();
    let mut browser = begun(&store).await;
    assert!(!keeps_its_session(&store, &mut browser, [&[new, old], &[old]]).await);
}

// ---- lives ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_browser_session_lives_in_the_store_as_long_as_any() {
    let world = world().await;
    let mut browser = Browser::new();
    browser.post(&world.app, "/browser", "").await;
    let id = browser.get(&world.app, "/id").await.body.parse().unwrap();
    let stored = world.store.live.get(&id).await.unwrap().unwrap();
    assert_eq!((stored.max_age, stored.ttl), (MaxAge::Browser, 30 * 24 * 60 * 60 * 1000));
    // A later change needs no other cookie.
    assert_eq!(browser.post(&world.app, "/merge", r#"{"b":1}"#).await.set_cookie("sid"), None);
}

#[tokio::test]
async fn a_session_can_be_read_as_a_struct_and_tells_its_own_max_age() {
    #[derive(Default, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    #[serde(default)]
    struct Visit {
        user: Option<String>,
        basket: Vec<u32>,
    }
    async fn login(session: Session) -> Result<(), Error> {
        assert!(session.is_new() && session.id().is_none());
        assert_eq!(session.max_age(), MaxAge::Default);
        assert_eq!(session.deserialize::<Visit>()?, Visit::default());
        session.replace(Visit { user: Some("ada".into()), basket: vec![1, 2] })?;
        session.set_max_age(Duration::from_secs(60))?;
        assert_eq!(session.deserialize::<Visit>()?.basket, [1, 2]);
        Ok(())
    }
    async fn me(session: Session) -> Result<String, Error> {
        assert!(!session.is_new());
        assert_eq!(session.max_age(), MaxAge::After(Duration::from_secs(60)));
        assert_eq!(session.get::<u32>("user").unwrap_err().kind(), ErrorKind::InvalidData);
        session.deserialize::<Visit>().map(|visit| visit.user.unwrap_or_default())
    }
    let app = axum::Router::new()
        .route("/login", post(login))
        .route("/me", get(me))
        .layer(bridge().await.layer());
    let mut browser = Browser::new();
    assert_eq!(browser.post(&app, "/login", "").await.status, StatusCode::OK);
    assert_eq!(browser.get(&app, "/me").await.body, "ada");
}
