//! What others may do while a handler holds a session, and what becomes of its write.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::{Duration, Instant};

use axum::routing::post;
use axum_io_session::store::SessionStore as _;
use axum_io_session::{ErrorKind, Session, SessionBridge, SessionId};
use serde_json::json;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::world::{World, world};
use support::{KEY, so_far, until};

async fn data(world: &World, id: &SessionId) -> serde_json::Value {
    world.bridge.get_by_id(id).await.unwrap().unwrap().to_value()
}

#[tokio::test]
async fn reads_and_plain_requests_do_not_wait_for_a_handler_and_updates_do() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"n":1}"#).await;
    let (app, bridge) = (world.app.clone(), world.bridge.clone());
    let mut updater = browser.clone();
    let mut waiting = None;
    let waits = &mut waiting;
    world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.insert("n", 2).unwrap();
            let (other, mut poster) = (app.clone(), updater.clone());
            let update = tokio::spawn(async move { poster.post(&other, "/inc", "").await });
            // Whoever waited for this handler would wait for ever.
            let free = async {
                assert_eq!(updater.get(&app, "/read").await.json()["data"]["n"], 1);
                let by_id = bridge.get_by_id(&session).await.unwrap().unwrap();
                assert_eq!(by_id.get::<i64>("n").unwrap(), Some(1));
                assert!(bridge.get_by_client_id(&client).await.unwrap().is_some());
                assert_eq!(bridge.session_id_of(&client).await.unwrap(), Some(session));
                let written = updater.post(&app, "/merge", r#"{"beside":true}"#).await;
                assert!(written.status.is_success());
            };
            tokio::time::timeout(support::LIMIT, free).await.expect("nobody waits");
            assert!(!update.is_finished(), "an update takes its turn");
            *waits = Some(update);
        })
        .await
        .unwrap();
    assert_eq!(waiting.unwrap().await.unwrap().json()["data"]["n"], 3);
    let seen = browser.get(&world.app, "/read").await.json();
    assert_eq!(seen["data"], json!({"n": 3, "beside": true}));
}

#[tokio::test]
async fn an_update_inside_a_handler_of_the_same_session_is_an_error_at_once() {
    let bridge = support::bridge().await;
    let inside = bridge.clone();
    let nested = async move |session: Session| {
        let id = session.id().unwrap();
        let outcome = inside.with_session(&id, |ctx| async move {
            ctx.insert("outer", true).unwrap();
            session.update(|data| data.insert("inner", true)).await
        });
        assert_eq!(outcome.await.unwrap().unwrap_err().kind(), ErrorKind::Reentrant);
    };
    let router = axum::Router::new().route("/", post(nested)).layer(bridge.layer());
    let mut browser = Browser::new();
    browser.post(&app(&bridge), "/merge", r#"{"n":1}"#).await;
    let begun = Instant::now();
    assert!(browser.post(&router, "/", "").await.status.is_success());
    assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait for the limit");
    let seen = browser.get(&app(&bridge), "/read").await.json();
    assert_eq!(seen["data"], json!({"n": 1, "outer": true}));
}

#[tokio::test]
async fn a_handler_whose_client_got_another_session_writes_nothing() {
    let world = world().await;
    for destroys in [false, true] {
        let (mut browser, session, client) = world.seeded(r#"{"n":1}"#).await;
        let app = world.app.clone();
        let written = world.bridge.with_session(&session, |ctx| async move {
            browser.post(&app, "/logout", "").await;
            browser.post(&app, "/merge", r#"{"next":1}"#).await;
            match destroys {
                true => ctx.destroy(),
                false => drop(ctx.insert("n", -1).unwrap()),
            }
        });
        assert_eq!(written.await.unwrap_err().kind(), ErrorKind::SessionEnded, "{destroys}");
        let next = world.bridge.session_id_of(&client).await.unwrap().unwrap();
        assert_ne!(next, session);
        assert_eq!(data(&world, &next).await, json!({"next": 1}), "the new one is unharmed");
    }
}

/// A frozen node: its clock goes on and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_past_the_lease_is_refused() {
    let store = ProbeStore::new();
    let builder =
        SessionBridge::builder().signing_keys([KEY]).lease_duration(Duration::from_millis(200));
    let bridge = builder.store(store.clone()).build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store };
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let mut events = world.bridge.events();
    let written = world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.insert("n", -1).unwrap();
            std::thread::sleep(Duration::from_millis(600));
        })
        .await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(data(&world, &session).await, json!({"n": 1}));
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    let next = world.bridge.with_session(&session, |ctx| async move {
        ctx.insert("n", 2).unwrap();
    });
    next.await.unwrap();
    assert_eq!(data(&world, &session).await, json!({"n": 2}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_past_the_lease_ends_nothing_either() {
    let store = ProbeStore::new();
    let builder =
        SessionBridge::builder().signing_keys([KEY]).lease_duration(Duration::from_millis(200));
    let bridge = builder.store(store.clone()).build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store };
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let ended = world.bridge.with_session(&session, |ctx| async move {
        ctx.destroy();
        std::thread::sleep(Duration::from_millis(600));
    });
    assert_eq!(ended.await.err().map(|error| error.kind()), Some(ErrorKind::LeaseLost));
    assert_eq!(data(&world, &session).await, json!({"n": 1}));
}

#[tokio::test]
async fn a_handler_that_goes_on_after_its_token_fired_is_refused_although_the_lease_has_time_left()
{
    let store = ProbeStore::new();
    let builder = SessionBridge::builder().signing_keys([KEY]).max_hold(Duration::from_millis(100));
    let bridge = builder.store(store.clone()).build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store };
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    for destroys in [false, true] {
        let begun = Instant::now();
        let written = world.bridge.with_session(&session, |ctx| async move {
            ctx.cancellation().cancelled().await;
            match destroys {
                true => ctx.destroy(),
                false => drop(ctx.insert("n", -1).unwrap()),
            }
        });
        let kind = written.await.err().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::LeaseLost), "destroys: {destroys}");
        assert!(begun.elapsed() < Duration::from_secs(3), "not at the next renewal");
    }
    assert_eq!(data(&world, &session).await, json!({"n": 1}));
    assert_eq!(world.bridge.stats().leases_lost, 2);
}

#[tokio::test]
async fn reading_in_a_handler_does_not_extend_the_life_and_writing_does() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let left = async || world.store.live.get(&session).await.unwrap().unwrap().expires_at;
    let before = left().await;
    until("time passes", async || support::world::now_ms() > before - 30 * 24 * 3600 * 1000 + 5)
        .await;
    world.bridge.with_session(&session, |ctx| async move { ctx.data() }).await.unwrap();
    assert_eq!((left().await, world.store.touches()), (before, 0));
    let write = |ctx: axum_io_session::SessionContext| async move {
        ctx.insert("n", 2).unwrap();
    };
    world.bridge.with_session(&session, write).await.unwrap();
    assert!(left().await > before);
}

#[tokio::test]
async fn a_handler_that_leaves_too_much_gets_an_error_and_changes_nothing() {
    let store = ProbeStore::new();
    let builder =
        SessionBridge::builder().signing_keys([KEY]).max_payload(100).store(store.clone());
    let bridge = builder.build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store };
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let nest = (0..200).fold(json!(1), |value, _| json!([value]));
    let cases = [
        (json!({"s": "x".repeat(93)}), ErrorKind::PayloadTooLarge),
        (json!({"deep": nest}), ErrorKind::InvalidData),
    ];
    for (bad, kind) in cases {
        let value = bad.clone();
        let written = world.bridge.with_session(&session, |ctx| async move {
            ctx.replace(value).unwrap();
        });
        assert_eq!(written.await.unwrap_err().kind(), kind);
        let set = world.bridge.set_by_id(&session, &bad, None).await;
        assert_eq!(set.unwrap_err().kind(), kind);
        assert_eq!(data(&world, &session).await, json!({"n": 1}));
    }
    // Exactly at the limit.
    let fits = json!({"s": "x".repeat(92)});
    world.bridge.set_by_id(&session, &fits, None).await.unwrap();
    assert_eq!(data(&world, &session).await, fits);
}

#[tokio::test]
async fn a_shutdown_waits_for_running_handlers_and_lets_them_write() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let (started, begun) = tokio::sync::oneshot::channel();
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let bridge = world.bridge.clone();
    let handler = tokio::spawn(async move {
        bridge
            .with_session(&session, |ctx| async move {
                started.send(()).unwrap();
                wait.await.unwrap();
                ctx.insert("n", 2).unwrap();
            })
            .await
    });
    begun.await.unwrap();
    let bridge = world.bridge.clone();
    let shutdown = tokio::spawn(async move { bridge.shutdown().await });
    until("nothing new begins", async || {
        let refused = world.bridge.with_session(&session, |_| async {}).await;
        refused.is_err_and(|error| error.kind() == ErrorKind::Unavailable)
    })
    .await;
    assert!(!shutdown.is_finished());
    go_on.send(()).unwrap();
    handler.await.unwrap().unwrap();
    shutdown.await.unwrap();
    let stored = world.store.live.get(&session).await.unwrap().unwrap();
    assert_eq!(stored.session, r#"{"n":2}"#);
}

#[tokio::test]
async fn an_error_of_an_update_writes_nothing_and_the_lease_is_free_again() {
    let world = world().await;
    let (mut browser, session, _) = world.seeded(r#"{"n":1}"#).await;
    let refuse = async |session: Session| -> axum_io_session::Result<()> {
        let error = session
            .update(|data| {
                data.insert("n", 2)?;
                data.get::<String>("n")
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let own = session
            .try_update(|data| {
                data.insert("n", 3).map_err(|_| Refusal)?;
                Err::<(), _>(Refusal)
            })
            .await;
        assert!(own.is_err());
        assert_eq!(session.get::<i64>("n").unwrap(), Some(1), "the request's copy is as before");
        session.update(|data| data.insert("beside", true)).await.map(|_| ())
    };
    let router = axum::Router::new().route("/", post(refuse)).layer(world.bridge.layer());
    assert!(browser.post(&router, "/", "").await.status.is_success());
    assert_eq!(data(&world, &session).await, json!({"n": 1, "beside": true}));
}

/// An error of the application's.
#[derive(Debug)]
struct Refusal;

impl From<axum_io_session::Error> for Refusal {
    fn from(_: axum_io_session::Error) -> Self {
        Self
    }
}

#[tokio::test]
async fn an_error_of_an_update_after_a_logout_ends_and_begins_nothing_yet() {
    let world = world().await;
    let (mut browser, session, _) = world.seeded(r#"{"n":1}"#).await;
    let bridge = world.bridge.clone();
    let refuse = async move |session: Session| -> axum_io_session::Result<()> {
        let id = session.id().unwrap();
        session.destroy()?;
        let refused = session.update(|data| {
            data.insert("next", 1)?;
            data.get::<String>("next")
        });
        assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(bridge.get_by_id(&id).await?.is_some(), "the logout comes with the response");
        Ok(())
    };
    let router = axum::Router::new().route("/", post(refuse)).layer(world.bridge.layer());
    assert!(browser.post(&router, "/", "").await.status.is_success());
    assert!(world.bridge.get_by_id(&session).await.unwrap().is_none());
    assert!(world.store.live.is_empty(), "and the refused data made no session");
}

#[tokio::test]
async fn an_error_of_a_handler_by_id_writes_nothing() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let refused = world.bridge.try_with_session(&session, async |ctx| {
        ctx.insert("n", 2).map_err(|_| Refusal)?;
        Err::<(), _>(Refusal)
    });
    assert!(refused.await.is_err());
    assert_eq!(data(&world, &session).await, json!({"n": 1}));
    let kept = world.bridge.try_with_session(&session, async |ctx| ctx.insert("n", 3));
    assert_eq!(kept.await.unwrap(), Some(json!(1)));
    assert_eq!(data(&world, &session).await, json!({"n": 3}));
}
