//! The bridge's methods and events, without HTTP where it plays no part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum_io_session::bridge::Lagged;
use axum_io_session::store::{SessionStore as _, StoredSession};
use axum_io_session::{
    ClientId, DestroyReason, Error, ErrorKind, MaxAge, SessionBridge, SessionEvent, SessionId,
};
use serde_json::json;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::{KEY, bridge, next, so_far, until};

struct World {
    bridge: SessionBridge,
    store: ProbeStore,
    app: axum::Router,
}

async fn world() -> World {
    world_of(ProbeStore::new()).await
}

async fn world_of(store: ProbeStore) -> World {
    let bridge = SessionBridge::builder().keys([KEY]).store(store.clone()).build().await.unwrap();
    World { app: app(&bridge), bridge, store }
}

impl World {
    /// A browser with a session, and its ids.
    async fn seeded(&self, body: &str) -> (Browser, SessionId, ClientId) {
        let mut browser = Browser::new();
        browser.post(&self.app, "/merge", body).await;
        let session = browser.get(&self.app, "/id").await.body.parse().unwrap();
        let client = browser.get(&self.app, "/client").await.body.parse().unwrap();
        (browser, session, client)
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

// ---- options -------------------------------------------------------------------------------

#[tokio::test]
async fn every_invalid_option_is_named_with_its_value_and_range() {
    use axum_io_session::bridge::{OnDestroy, SameSite, Secure, SocketMessages};
    let second = Duration::from_secs(1);
    let year = second * 60 * 60 * 24 * 366;
    let b = SessionBridge::builder;
    let messages = |name: &str| SocketMessages { set: Some(name.into()), ..Default::default() };
    let cases = [
        (b().key(""), "key", "1 to 128"),
        (b().key("a b"), "key", "cookie name"),
        (b().key("a;b"), "key", "cookie name"),
        (b().key("é"), "key", "cookie name"),
        (b().key("a").client_key("A"), "client_key", "different from `key`"),
        (b().client_key("a=b"), "client_key", "cookie name"),
        (b().max_age(Duration::ZERO), "max_age", "1 second to 1 year"),
        (b().max_age(second / 2), "max_age", "1 second to 1 year"),
        (b().max_age(year * 2), "max_age", "1 second to 1 year"),
        (b().absolute_max_age(Duration::ZERO), "absolute_max_age", "1 second to 10 years"),
        (b().client_max_age(Duration::ZERO), "client_max_age", "1 second to 400 days"),
        (b().client_max_age(year * 2), "client_max_age", "1 second to 400 days"),
        (b().keys([""]), "keys[0]", "at least 32"),
        (b().keys([KEY, "short"]), "keys[1]", "at least 32"),
        (b().path("app"), "path", "begins with /"),
        (b().path("/a;b"), "path", "begins with /"),
        (b().domain(""), "domain", "host name"),
        (b().domain("a b"), "domain", "host name"),
        (b().same_site(SameSite::None), "same_site", "Secure::Yes"),
        (b().key("__Host-a").secure(Secure::No), "secure", "__Host-a"),
        (b().key("__host-a").path("/x"), "path", "__host-a"),
        (b().key("__Host-a").domain("example.com"), "domain", "__Host-a"),
        (b().key("__Secure-a").secure(Secure::No), "secure", "__Secure-a"),
        (b().auto_cleanup_interval(second), "auto_cleanup_interval", "1 minute to 1 day"),
        (b().max_payload(0), "max_payload", "2 to"),
        (b().lease(Duration::ZERO), "lease", "100 milliseconds"),
        (b().wait_limit(Duration::ZERO), "wait_limit", "1 millisecond"),
        (b().max_hold(Duration::ZERO), "max_hold", "100 milliseconds"),
        (b().lease_queue_limit(0), "lease_queue_limit", "1 to"),
        (b().event_capacity(1), "event_capacity", "16 to"),
        (b().node_id("a b"), "node_id", "1 to 64"),
        (b().on_destroy(OnDestroy::Disconnect { grace: year }), "on_destroy.grace", "1 hour"),
        (b().messages(messages("disconnect")), "messages.set", "reserve"),
        (b().store(ProbeStore::new().without_list()).auto_cleanup(true), "auto_cleanup", "list"),
    ];
    for (builder, option, range) in cases {
        let error = builder.build().await.expect_err(option);
        assert_eq!(error.kind(), ErrorKind::InvalidOption, "{option}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{option}` is ")), "{option}: {text}");
        assert!(text.contains(range), "{option}: {text}");
    }
    let valid = b().client_max_age(second * 365 * 24 * 60 * 60).max_age(second).build().await;
    assert!(valid.is_ok());
}

// ---- by id ---------------------------------------------------------------------------------

#[tokio::test]
async fn unknown_ids_are_none_false_and_an_error_and_nothing_is_stored() {
    let World { bridge, store, .. } = world().await;
    let (session, client) = (SessionId::generate(), ClientId::generate());
    assert_eq!(bridge.get_by_id(&session).await.unwrap(), None);
    assert_eq!(bridge.get_by_client_id(&client).await.unwrap(), None);
    assert_eq!(bridge.session_id_of(&client).await.unwrap(), None);
    assert_eq!(bridge.client_id_of(&session).await.unwrap(), None);
    assert!(!bridge.destroy_by_id(&session).await.unwrap());
    assert!(!bridge.destroy_by_client_id(&client).await.unwrap());
    let by_session = bridge.set_by_id(&session, json!({"a": 1}), None).await.unwrap_err();
    let by_client = bridge.set_by_client_id(&client, json!({"a": 1}), None).await.unwrap_err();
    for error in [by_session, by_client] {
        assert_eq!(error.kind(), ErrorKind::SessionMissing);
        assert!(error.to_string().contains("never creates"), "{error}");
    }
    let ran = bridge.with_session(&session, |_| async { panic!("no session, no call") }).await;
    assert_eq!(ran.unwrap_err().kind(), ErrorKind::SessionMissing);
    assert!(store.live.is_empty());
    assert_eq!(bridge.stats().tables["clients"], 0);
}

#[tokio::test]
async fn set_by_id_replaces_the_data_and_tells_once() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
    let mut events = world.bridge.events();
    world.bridge.set_by_id(&session, json!({"b": 2}), None).await.unwrap();
    world.bridge.set_by_client_id(&client, json!({"b": 3}), None).await.unwrap();
    for _ in 0..2 {
        match next(&mut events).await {
            SessionEvent::Set(event) => {
                assert_eq!((event.session_id, event.client_id), (session, client));
                assert!(!event.is_new && !event.is_init);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    assert_eq!(browser.get(&world.app, "/read").await.json()["data"], json!({"b": 3}));
    let copy = world.bridge.get_by_id(&session).await.unwrap().unwrap();
    let mut changed = copy.clone();
    changed.insert("b", 4).unwrap();
    assert_eq!(world.bridge.get_by_id(&session).await.unwrap().unwrap(), copy);
}

#[tokio::test]
async fn setting_equal_data_begins_the_life_anew_without_an_event() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"a":1}"#).await;
    let expiry = async || world.store.live.get(&session).await.unwrap().unwrap().expires_at;
    let before = expiry().await;
    let mut events = world.bridge.events();
    until("time passes", async || now_ms() > before - 30 * 24 * 3600 * 1000 + 5).await;
    world.bridge.set_by_id(&session, json!({"a": 1}), None).await.unwrap();
    assert!(expiry().await > before);
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    // Another max age is a change.
    let hour = MaxAge::After(Duration::from_secs(3600));
    world.bridge.set_by_id(&session, json!({"a": 1}), Some(hour)).await.unwrap();
    assert!(expiry().await < before);
}

#[tokio::test]
async fn data_that_is_no_object_and_ages_out_of_range_change_nothing() {
    let world = world().await;
    let (_, session, client) = world.seeded(r#"{"a":1}"#).await;
    for bad in [json!(null), json!([1]), json!("x"), json!(1), json!(true)] {
        let error = world.bridge.set_by_id(&session, &bad, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
    for bad in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
        let error =
            world.bridge.set_by_client_id(&client, json!({}), Some(bad.into())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMaxAge);
    }
    assert_eq!(
        world.bridge.get_by_id(&session).await.unwrap().unwrap().to_value(),
        json!({"a": 1})
    );
}

#[tokio::test]
async fn destroying_twice_is_true_and_false_with_one_event() {
    let world = world().await;
    for by_client in [false, true] {
        let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
        let mut events = world.bridge.events();
        let destroy = async || match by_client {
            true => world.bridge.destroy_by_client_id(&client).await.unwrap(),
            false => world.bridge.destroy_by_id(&session).await.unwrap(),
        };
        assert!(destroy().await);
        assert!(!destroy().await);
        match &so_far(&world.bridge, &mut events).await[..] {
            [SessionEvent::Destroy(event)] => {
                assert_eq!(event.reason, DestroyReason::Destroyed);
                assert_eq!((event.session_id, event.client_id), (session, client));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(browser.get(&world.app, "/id").await.body, "");
    }
    assert!(world.store.live.is_empty());
}

#[tokio::test]
async fn set_by_id_waits_for_a_running_handler_and_nothing_is_lost() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let (started, wait) = tokio::sync::oneshot::channel();
    let bridge = world.bridge.clone();
    let handler = tokio::spawn(async move {
        bridge
            .with_session(&session, |ctx| async move {
                started.send(()).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                ctx.insert("n", 2).unwrap();
            })
            .await
    });
    wait.await.unwrap();
    world.bridge.set_by_id(&session, json!({"n": 3}), None).await.unwrap();
    handler.await.unwrap().unwrap();
    assert_eq!(
        world.bridge.get_by_id(&session).await.unwrap().unwrap().to_value(),
        json!({"n": 3})
    );
}

#[tokio::test]
async fn a_session_destroyed_during_a_handler_stays_gone() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let bridge = world.bridge.clone();
    let written = world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.insert("n", 2).unwrap();
            assert!(bridge.destroy_by_id(&session).await.unwrap());
        })
        .await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::SessionEnded);
    assert!(world.store.live.is_empty());
}

#[tokio::test]
async fn a_rotation_during_a_handler_loses_nothing() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"n":1}"#).await;
    let app = world.app.clone();
    world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.insert("n", 2).unwrap();
            assert!(browser.post(&app, "/rotate", "").await.status.is_success());
        })
        .await
        .unwrap();
    let now = world.bridge.session_id_of(&client).await.unwrap().unwrap();
    assert_ne!(now, session);
    assert_eq!(world.bridge.get_by_id(&now).await.unwrap().unwrap().to_value(), json!({"n": 2}));
    assert_eq!(world.bridge.get_by_id(&session).await.unwrap(), None);
}

// ---- with_session --------------------------------------------------------------------------

#[tokio::test]
async fn a_handler_writes_once_and_only_if_it_changed_something() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"a":{"x":1,"y":2}}"#).await;
    let mut events = world.bridge.events();
    let writes = world.store.writes();
    let same = |value| {
        world.bridge.with_session(&session, move |ctx| async move { ctx.replace(value).unwrap() })
    };
    same(json!({"a": {"y": 2, "x": 1}})).await.unwrap();
    world.bridge.with_session(&session, |_| async {}).await.unwrap();
    assert_eq!(world.store.writes(), writes);
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.session_mut().unwrap().insert("b", 1).unwrap();
            ctx.insert("c", 1).unwrap();
            ctx.remove("b").unwrap();
        })
        .await
        .unwrap();
    assert_eq!(world.store.writes(), writes + 1);
    assert_eq!(so_far(&world.bridge, &mut events).await.len(), 1);
}

#[tokio::test]
async fn a_handler_can_destroy_and_a_refused_value_changes_nothing() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"a":1}"#).await;
    world
        .bridge
        .with_session(&session, |ctx| async move {
            for bad in [json!([]), json!("x"), json!(1), json!(true), json!(null)] {
                assert_eq!(ctx.replace(bad).unwrap_err().kind(), ErrorKind::InvalidData);
            }
            assert_eq!(ctx.session().to_value(), json!({"a": 1}));
        })
        .await
        .unwrap();
    let kept = world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.destroy();
            assert_eq!(ctx.insert("b", 1).unwrap_err().kind(), ErrorKind::SessionEnded);
            ctx
        })
        .await
        .unwrap();
    assert_eq!(world.bridge.get_by_id(&session).await.unwrap(), None);
    assert_eq!(kept.insert("b", 1).unwrap_err().kind(), ErrorKind::Committed);
}

#[tokio::test]
async fn a_handler_that_panics_or_is_dropped_writes_nothing_and_blocks_nobody() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let bridge = world.bridge.clone();
    let panicked = tokio::spawn(async move {
        bridge
            .with_session(&session, |ctx| async move {
                ctx.insert("n", -1).unwrap();
                panic!("on purpose");
            })
            .await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    let dropped = world.bridge.with_session(&session, |ctx| async move {
        ctx.insert("n", -2).unwrap();
        std::future::pending::<()>().await;
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), dropped).await.is_err());
    let begun = std::time::Instant::now();
    let n = world.bridge.with_session(&session, |ctx| async move { ctx.get::<i64>("n") }).await;
    assert_eq!(n.unwrap().unwrap(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a lease to run out");
    assert_eq!(world.bridge.stats().handlers_discarded, 2);
}

#[tokio::test]
async fn nesting_on_the_same_session_is_an_error_and_on_another_works() {
    let world = world().await;
    let (_, a, _) = world.seeded(r#"{"n":1}"#).await;
    let (_, b, _) = world.seeded(r#"{"n":1}"#).await;
    let bridge = world.bridge.clone();
    world
        .bridge
        .with_session(&a, |outer| async move {
            let nested = bridge.with_session(&a, |_| async {}).await;
            assert_eq!(nested.unwrap_err().kind(), ErrorKind::Reentrant);
            let set = bridge.set_by_id(&a, json!({}), None).await;
            assert_eq!(set.unwrap_err().kind(), ErrorKind::Reentrant);
            let (inner, again) = (bridge.clone(), bridge.clone());
            inner
                .with_session(&b, |ctx| async move {
                    ctx.insert("n", 2).unwrap();
                    let deep = again.with_session(&a, |_| async {}).await;
                    assert_eq!(deep.unwrap_err().kind(), ErrorKind::Reentrant);
                })
                .await
                .unwrap();
            outer.insert("n", 3).unwrap();
        })
        .await
        .unwrap();
    for (id, n) in [(a, 3), (b, 2)] {
        let data = world.bridge.get_by_id(&id).await.unwrap().unwrap();
        assert_eq!(data.get::<i64>("n").unwrap(), Some(n));
    }
}

#[tokio::test]
async fn two_handlers_that_nest_crosswise_end_by_the_wait_limit() {
    let builder = SessionBridge::builder().keys([KEY]).wait_limit(Duration::from_millis(200));
    let bridge = builder.build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store: ProbeStore::new() };
    let (_, a, _) = world.seeded(r#"{"n":1}"#).await;
    let (_, b, _) = world.seeded(r#"{"n":1}"#).await;
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let cross = |first: SessionId, second: SessionId| {
        let (bridge, inner, barrier) =
            (world.bridge.clone(), world.bridge.clone(), barrier.clone());
        tokio::spawn(async move {
            bridge
                .with_session(&first, |_| async move {
                    barrier.wait().await;
                    inner.with_session(&second, |_| async {}).await
                })
                .await
                .unwrap()
        })
    };
    let (one, two) = (cross(a, b), cross(b, a));
    let outcomes = [one.await.unwrap(), two.await.unwrap()];
    assert!(outcomes.iter().any(Result::is_err), "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::WaitTimeout);
    }
    assert!(world.bridge.stats().lease_timeouts > 0);
}

#[tokio::test]
async fn handlers_take_turns_in_order_and_lose_nothing() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for n in 0..50 {
        let (bridge, order) = (world.bridge.clone(), order.clone());
        let mut call = Box::pin(async move {
            bridge
                .with_session(&session, |ctx| async move {
                    let count = ctx.get::<i64>("n").unwrap().unwrap();
                    tokio::task::yield_now().await;
                    ctx.insert("n", count + 1).unwrap();
                    order.lock().unwrap().push(n);
                })
                .await
                .unwrap();
        });
        // Each is in line before the next comes.
        let waited = tokio::time::timeout(Duration::from_millis(1), &mut call).await;
        if waited.is_err() {
            calls.push(call);
        }
    }
    futures_util::future::join_all(calls).await;
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    let data = world.bridge.get_by_id(&session).await.unwrap().unwrap();
    assert_eq!(data.get::<i64>("n").unwrap(), Some(50));
}

#[tokio::test]
async fn a_handler_that_holds_too_long_is_told_and_its_write_is_refused() {
    let builder = SessionBridge::builder()
        .keys([KEY])
        .lease(Duration::from_millis(150))
        .max_hold(Duration::from_millis(300));
    let bridge = builder.build().await.unwrap();
    let world = World { app: app(&bridge), bridge, store: ProbeStore::new() };
    let (_, session, _) = world.seeded(r#"{"n":1}"#).await;
    let bridge = world.bridge.clone();
    let written = world
        .bridge
        .with_session(&session, |ctx| async move {
            // Renewed for a while: longer than one lease.
            tokio::time::timeout(support::LIMIT, ctx.cancellation().cancelled()).await.unwrap();
            ctx.insert("n", -1).unwrap();
            // Its time is over: another gets the turn although this one still runs.
            let other = tokio::spawn(async move {
                bridge
                    .with_session(&session, |ctx| async move { ctx.insert("n", 2).unwrap() })
                    .await
            });
            other.await.unwrap().unwrap();
        })
        .await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::LeaseLost);
    let data = world.bridge.get_by_id(&session).await.unwrap().unwrap();
    assert_eq!(data.get::<i64>("n").unwrap(), Some(2));
    assert_eq!(world.bridge.stats().leases_lost, 1);
}

// ---- events --------------------------------------------------------------------------------

#[tokio::test]
async fn flags_tell_created_attached_and_changed() {
    let world = world().await;
    let mut events = world.bridge.events();
    let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
    browser.post(&world.app, "/merge", r#"{"a":2}"#).await;
    browser.post(&world.app, "/rotate", "").await;
    let flags: Vec<_> = so_far(&world.bridge, &mut events)
        .await
        .into_iter()
        .map(|event| match event {
            SessionEvent::Set(set) => (set.is_new, set.is_init, set.previous_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(flags, [(true, true, None), (false, false, None), (false, true, Some(session))]);
    // Another process over the same store: the first use attaches, once.
    let World { bridge: again, app, .. } = world_of(world.store.clone()).await;
    let mut events = again.events();
    for _ in 0..3 {
        assert_eq!(browser.get(&app, "/read").await.json()["data"], json!({"a": 2}));
    }
    match &so_far(&again, &mut events).await[..] {
        [SessionEvent::Set(set)] => {
            assert_eq!((set.is_new, set.is_init, set.client_id), (false, true, client));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reads_failures_and_writes_without_change_tell_nothing() {
    let world = world().await;
    let (mut browser, session, _) = world.seeded(r#"{"a":1}"#).await;
    let mut events = world.bridge.events();
    browser.get(&world.app, "/read").await;
    browser.post(&world.app, "/merge", r#"{"a":1}"#).await;
    world.bridge.get_by_id(&session).await.unwrap();
    world.store.set_broken(true);
    assert!(world.bridge.set_by_id(&session, json!({"b": 1}), None).await.is_err());
    assert!(world.bridge.destroy_by_id(&session).await.is_err());
    world.store.set_broken(false);
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    assert_eq!(
        world.bridge.get_by_id(&session).await.unwrap().unwrap().to_value(),
        json!({"a": 1})
    );
}

#[tokio::test]
async fn events_of_one_session_come_in_the_order_of_the_commits_to_everybody() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let mut streams = [world.bridge.events(), world.bridge.events()];
    let calls = (0..20).map(|_| {
        world.bridge.with_session(&session, |ctx| async move {
            let n = ctx.get::<i64>("n").unwrap().unwrap();
            ctx.insert("n", n + 1).unwrap();
        })
    });
    futures_util::future::join_all(calls).await;
    assert!(world.bridge.destroy_by_id(&session).await.unwrap());
    for events in &mut streams {
        let told = so_far(&world.bridge, events).await;
        assert_eq!(told.len(), 21);
        assert!(matches!(told[20], SessionEvent::Destroy(_)));
    }
}

#[tokio::test]
async fn a_handler_that_panics_or_is_slow_disturbs_nobody() {
    let bridge = SessionBridge::builder().keys([KEY]).event_capacity(16).build().await.unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    bridge.on_session_set(move |_| {
        let seen = seen.clone();
        async move {
            assert!(seen.fetch_add(1, Ordering::SeqCst) > 0, "the first call panics on purpose");
        }
    });
    bridge.on_event(|_| std::future::pending());
    let destroyed = Arc::new(AtomicUsize::new(0));
    let (ends, cleanups) = (destroyed.clone(), Arc::new(AtomicUsize::new(0)));
    bridge.on_session_destroy(move |_| {
        ends.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let count = cleanups.clone();
    bridge.on_cleanup(move |event| {
        count.fetch_add(usize::try_from(event.cleared).unwrap(), Ordering::SeqCst);
        async {}
    });
    let app = app(&bridge);
    let mut browser = Browser::new();
    for n in 0..3 {
        let answer = browser.post(&app, "/merge", &format!(r#"{{"n":{n}}}"#)).await;
        assert!(answer.status.is_success());
    }
    browser.post(&app, "/logout", "").await;
    bridge.notify_store_cleanup(7);
    until("all are called", async || {
        calls.load(Ordering::SeqCst) == 3
            && destroyed.load(Ordering::SeqCst) == 1
            && cleanups.load(Ordering::SeqCst) == 7
    })
    .await;
    let ending = tokio::time::timeout(support::LIMIT, bridge.shutdown()).await;
    assert!(ending.is_ok(), "a handler that never ends does not keep the bridge");
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_missed_and_goes_on() {
    let bridge = SessionBridge::builder().keys([KEY]).event_capacity(16).build().await.unwrap();
    let mut slow = bridge.events();
    let mut quick = bridge.events();
    for n in 0..100 {
        bridge.notify_store_cleanup(n);
        assert!(
            matches!(next(&mut quick).await, SessionEvent::Cleanup(event) if event.cleared == n)
        );
    }
    assert_eq!(slow.recv().await, Some(Err(Lagged(84))));
    assert!(
        matches!(slow.recv().await, Some(Ok(SessionEvent::Cleanup(event))) if event.cleared == 84)
    );
}

#[tokio::test]
async fn a_session_nobody_reads_is_told_to_expire_in_time() {
    let builder = SessionBridge::builder().keys([KEY]).max_age(Duration::from_secs(1));
    let bridge = builder.build().await.unwrap();
    let app = app(&bridge);
    let mut events = bridge.events();
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    assert!(matches!(next(&mut events).await, SessionEvent::Set(_)));
    match next(&mut events).await {
        SessionEvent::Destroy(event) => assert_eq!(event.reason, DestroyReason::Expired),
        other => panic!("{other:?}"),
    }
    until("empty tables", async || bridge.stats().tables.values().all(|size| *size == 0)).await;
}

// ---- notices and cleanup -------------------------------------------------------------------

#[tokio::test]
async fn direct_changes_of_the_store_are_told_by_notices() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
    let mut stored = world.store.live.get(&session).await.unwrap().unwrap();
    let mut events = world.bridge.events();
    stored.session = r#"{"a":"direct"}"#.into();
    world.store.live.set(&session, stored).await.unwrap();
    // Without a notice the next read sees it, and nothing is told.
    assert_eq!(browser.get(&world.app, "/read").await.json()["data"]["a"], "direct");
    assert!(so_far(&world.bridge, &mut events).await.is_empty());
    world.bridge.notify_store_set(&session, false).await.unwrap();
    world.bridge.notify_store_set(&SessionId::generate(), true).await.unwrap();
    world.store.live.destroy(&session).await.unwrap();
    world.bridge.notify_store_destroy(&session).await.unwrap();
    world.bridge.notify_store_destroy(&session).await.unwrap();
    match &so_far(&world.bridge, &mut events).await[..] {
        [SessionEvent::Set(set), SessionEvent::Destroy(end)] => {
            assert_eq!((set.is_new, set.is_init), (false, false));
            assert_eq!((end.client_id, end.reason), (client, DestroyReason::External));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.bridge.session_id_of(&client).await.unwrap(), None);
}

#[tokio::test]
async fn cleanup_removes_exactly_what_has_expired() {
    let world = world().await;
    let (_, live, _) = world.seeded(r#"{"a":1}"#).await;
    let mut events = world.bridge.events();
    assert_eq!(world.bridge.cleanup().await.unwrap(), 0);
    let owner = ClientId::generate();
    for n in 0..600u64 {
        let mut old = StoredSession::new("{}", now_ms() - 1 - n % 1000, 1000);
        old.client_id = (n == 0).then_some(owner);
        world.store.live.set(&SessionId::generate(), old).await.unwrap();
    }
    assert_eq!(world.bridge.cleanup().await.unwrap(), 600);
    assert_eq!(world.store.live.len(), 1);
    assert!(world.bridge.get_by_id(&live).await.unwrap().is_some());
    assert_eq!(world.store.optimized(), 2);
    let told = so_far(&world.bridge, &mut events).await;
    let cleared: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            SessionEvent::Cleanup(event) => Some(event.cleared),
            _ => None,
        })
        .collect();
    assert_eq!(cleared, [0, 600]);
    let ended = told.iter().filter(|event| matches!(event, SessionEvent::Destroy(_)));
    assert_eq!(ended.count(), 1, "the one whose client is known");
}

#[tokio::test]
async fn cleanup_needs_a_store_that_lists() {
    let world = world_of(ProbeStore::new().without_list()).await;
    assert_eq!(world.bridge.cleanup().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let started = world.bridge.start_auto_cleanup(None).await;
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn automatic_cleanup_starts_stops_and_refuses_bad_intervals() {
    let world = world().await;
    assert!(!world.bridge.stop_auto_cleanup());
    assert!(world.bridge.start_auto_cleanup(None).await.unwrap());
    assert!(world.bridge.start_auto_cleanup(Some(Duration::from_secs(60))).await.unwrap());
    assert!(world.bridge.stop_auto_cleanup());
    assert!(!world.bridge.stop_auto_cleanup());
    for bad in [Duration::from_secs(59), Duration::from_secs(86_401)] {
        let error = world.bridge.start_auto_cleanup(Some(bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
    }
}

#[tokio::test(start_paused = true)]
async fn automatic_cleanup_runs_each_quarter_of_the_max_age() {
    for (max_age, interval) in [(60, 60), (8 * 3600, 2 * 3600), (30 * 86_400, 86_400)] {
        let builder = SessionBridge::builder().keys([KEY]).max_age(Duration::from_secs(max_age));
        let bridge = builder.auto_cleanup(true).build().await.unwrap();
        let mut events = bridge.events();
        let begun = tokio::time::Instant::now();
        for turn in 1..=2 {
            assert!(matches!(events.recv().await, Some(Ok(SessionEvent::Cleanup(_)))));
            assert_eq!(begun.elapsed().as_secs(), turn * interval, "max age {max_age}");
        }
        bridge.shutdown().await;
    }
}

// ---- corrupt records, restarts, the end ----------------------------------------------------

#[tokio::test]
async fn a_corrupt_record_ends_its_session_without_an_error() {
    let world = world().await;
    for text in ["", "no json", "[1]", "\"x\"", "5"] {
        let (mut browser, session, _) = world.seeded(r#"{"a":1}"#).await;
        let mut events = world.bridge.events();
        let mut stored = world.store.live.get(&session).await.unwrap().unwrap();
        stored.session = text.into();
        world.store.live.set(&session, stored).await.unwrap();
        for _ in 0..2 {
            let answer = browser.get(&world.app, "/read").await;
            assert!(answer.status.is_success(), "{text:?}: {}", answer.body);
            assert_eq!(answer.json()["data"], json!({}));
        }
        match &so_far(&world.bridge, &mut events).await[..] {
            [SessionEvent::Destroy(end)] => assert_eq!(end.reason, DestroyReason::Corrupt),
            other => panic!("{text:?}: {other:?}"),
        }
        assert!(world.store.live.get(&session).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn two_records_of_one_client_end_as_the_newer_one() {
    for find in [true, false] {
        let store = if find { ProbeStore::new() } else { ProbeStore::new().without_find() };
        let world = world_of(store.clone()).await;
        let (browser, session, _) = world.seeded(r#"{"a":"old"}"#).await;
        // As a process leaves it that dies in the middle of a rotation.
        let mut newer = store.live.get(&session).await.unwrap().unwrap();
        newer.version += 1;
        newer.session = r#"{"a":"new"}"#.into();
        let id = SessionId::generate();
        store.live.set(&id, newer).await.unwrap();
        let again = world_of(store.clone()).await;
        if !find {
            // Nobody can know of the newer one before it is presented.
            assert!(again.bridge.get_by_id(&id).await.unwrap().is_some());
        }
        let mut old = browser.clone();
        assert_eq!(old.get(&again.app, "/read").await.json()["data"], json!({}));
        assert!(old.jar.contains_key("sid"), "not cleared: the browser may have the newer one");
        assert_eq!(again.bridge.get_by_id(&session).await.unwrap(), None);
        let data = again.bridge.get_by_id(&id).await.unwrap().unwrap();
        assert_eq!(data.to_value(), json!({"a": "new"}));
        assert_eq!(store.live.len(), 1);
    }
}

#[tokio::test]
async fn after_shutdown_everything_is_unavailable_and_streams_end() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
    let mut events = world.bridge.events();
    assert!(world.bridge.health().await.is_ok());
    world.bridge.shutdown().await;
    world.bridge.shutdown().await;
    let errors: Vec<Error> = vec![
        world.bridge.get_by_id(&session).await.unwrap_err(),
        world.bridge.session_id_of(&client).await.unwrap_err(),
        world.bridge.destroy_by_id(&session).await.unwrap_err(),
        world.bridge.set_by_id(&session, json!({}), None).await.unwrap_err(),
        world.bridge.cleanup().await.unwrap_err(),
        world.bridge.health().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(browser.get(&world.app, "/read").await.status.as_u16(), 503);
    let World { bridge, app, .. } = world;
    drop((bridge, app));
    let end = tokio::time::timeout(support::LIMIT, events.recv()).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_bridge_ends_its_tasks() {
    let bridge = bridge().await;
    bridge.start_auto_cleanup(None).await.unwrap();
    let mut events = bridge.events();
    bridge.on_event(|_| async {});
    drop(bridge);
    let end = tokio::time::timeout(support::LIMIT, events.recv()).await;
    assert_eq!(end.unwrap(), None);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    until("no task is left", async || alive() == 0).await;
}
