//! The bridge's options and methods, without HTTP where it plays no part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum_io_session::store::{LiveStore, SessionStore as _};
use axum_io_session::{
    ClientId, DestroyReason, ErrorKind, MaxAge, SessionBridge, SessionEvent, SessionId,
};
use serde_json::json;
use support::app::app;
use support::faulty::Faulty;
use support::http::Browser;
use support::probe::ProbeStore;
use support::world::{World, now_ms, world};
use support::{KEY, next, so_far, until};

// ---- options -------------------------------------------------------------------------------

#[tokio::test]
async fn every_invalid_option_is_named_with_its_value_and_range() {
    use axum_io_session::bridge::{OnDestroy, SameSite, Secure, SocketMessages};
    let second = Duration::from_secs(1);
    let year = second * 60 * 60 * 24 * 366;
    let b = SessionBridge::builder;
    let messages = |name: &str| SocketMessages::default().set(Some(name));
    let cases = [
        (b().cookie_name(""), "cookie_name", "1 to 128"),
        (b().cookie_name("a b"), "cookie_name", "cookie name"),
        (b().cookie_name("a;b"), "cookie_name", "cookie name"),
        (b().cookie_name("é"), "cookie_name", "cookie name"),
        (b().cookie_name("a").client_key("A"), "client_key", "different from `cookie_name`"),
        (b().cookie_name("a").client_key("a.sig"), "client_key", "signatures"),
        (b().cookie_name("a.sig").client_key("a"), "client_key", "signatures"),
        (b().client_key("a=b"), "client_key", "cookie name"),
        (b().client_key(""), "client_key", "cookie name"),
        (b().max_age(Duration::ZERO), "max_age", "1 second to 1 year"),
        (b().max_age(second / 2), "max_age", "1 second to 1 year"),
        (b().max_age(year * 2), "max_age", "1 second to 1 year"),
        (b().open_max_age(second / 2), "open_max_age", "1 second to 1 year"),
        (b().open_max_age(year * 2), "open_max_age", "1 second to 1 year"),
        (b().join_window(second * 61), "join_window", "at most 1 minute"),
        (b().renew_overlap(second * 301), "renew_overlap", "at most 5 minutes"),
        (b().pending_sockets_limit(0), "pending_sockets_limit", "1 to"),
        (b().trusted_proxies(17), "trusted_proxies", "0 to 16"),
        (b().allowed_origins(["example.com"]), "allowed_origins", "a scheme, a host"),
        (b().allowed_origins(["https://a.example", "*"]), "allowed_origins", "wildcard"),
        (b().origin_exempt_paths(["hooks"]), "origin_exempt_paths", "below /"),
        (b().origin_exempt_paths(["/a/../b"]), "origin_exempt_paths", "below /"),
        (b().absolute_max_age(Duration::ZERO), "absolute_max_age", "1 second to 10 years"),
        (b().client_max_age(Duration::ZERO), "client_max_age", "1 second to 400 days"),
        (b().client_max_age(year * 2), "client_max_age", "1 second to 400 days"),
        (b().signing_keys([""]), "signing_keys[0]", "at least 32"),
        (b().signing_keys([KEY, "short"]), "signing_keys[1]", "at least 32"),
        (b().path("app"), "path", "begins with /"),
        (b().path("/a;b"), "path", "begins with /"),
        (b().domain(""), "domain", "host name"),
        (b().domain("a b"), "domain", "host name"),
        (b().same_site(SameSite::None), "same_site", "Secure::Yes"),
        (b().cookie_name("__Host-a").secure(Secure::No), "secure", "__Host-a"),
        (b().cookie_name("__host-a").path("/x"), "path", "__host-a"),
        (b().cookie_name("__Host-a").domain("example.com"), "domain", "__Host-a"),
        (b().cookie_name("__Secure-a").secure(Secure::No), "secure", "__Secure-a"),
        (b().auto_cleanup_interval(second), "auto_cleanup_interval", "1 minute to 1 day"),
        (b().max_payload(0), "max_payload", "2 to"),
        (b().lease_duration(Duration::ZERO), "lease_duration", "100 milliseconds"),
        (b().acquire_timeout(Duration::ZERO), "acquire_timeout", "1 millisecond"),
        (b().max_hold(Duration::ZERO), "max_hold", "100 milliseconds"),
        (b().lease_queue_limit(0), "lease_queue_limit", "1 to"),
        (b().event_capacity(1), "event_capacity", "16 to"),
        (b().retry_after(second / 2), "retry_after", "1 second to 1 day"),
        (b().retry_after(year), "retry_after", "1 second to 1 day"),
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

#[tokio::test]
async fn a_second_place_for_sessions_is_an_error_that_names_both() {
    let b = SessionBridge::builder;
    let own = |config| async move {
        let backend = axum_io_session::backend::local::LocalBackend::new(LiveStore::new(), config);
        Ok(Arc::new(backend) as Arc<dyn axum_io_session::backend::Backend>)
    };
    let cases = [
        (b().store(LiveStore::new()).store(LiveStore::new()), "store", "store"),
        (b().store(LiveStore::new()).backend(own), "store", "backend"),
        (b().backend(own).store(LiveStore::new()), "backend", "store"),
        #[cfg(feature = "redis")]
        (b().store(LiveStore::new()).redis("redis://127.0.0.1:1"), "store", "redis"),
        #[cfg(feature = "redis")]
        (b().redis("redis://127.0.0.1:1").backend(own), "redis", "backend"),
    ];
    for (builder, first, second) in cases {
        let error = builder.signing_keys([KEY]).build().await.expect_err(second);
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
        let text = error.to_string();
        assert!(text.contains(&format!("`{second}` is given after `{first}`")), "{text}");
    }
    assert!(b().signing_keys([KEY]).backend(own).build().await.is_ok());
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
async fn a_new_id_during_a_handler_loses_nothing() {
    let world = world().await;
    let (mut browser, session, client) = world.seeded(r#"{"n":1}"#).await;
    let app = world.app.clone();
    world
        .bridge
        .with_session(&session, |ctx| async move {
            ctx.insert("n", 2).unwrap();
            assert!(browser.post(&app, "/renew-id", "").await.status.is_success());
        })
        .await
        .unwrap();
    let now = world.bridge.session_id_of(&client).await.unwrap().unwrap();
    assert_ne!(now, session);
    for id in [now, session] {
        let data = world.bridge.get_by_id(&id).await.unwrap().unwrap();
        assert_eq!(data.to_value(), json!({"n": 2}), "the id before opens it for a while");
    }
}

#[tokio::test]
async fn a_session_that_is_sealed_during_a_handler_keeps_nothing_of_it() {
    let world = world().await;
    for destroys in [false, true] {
        let (mut browser, session, client) = world.seeded(r#"{"n":1}"#).await;
        let app = world.app.clone();
        let written = world.bridge.with_session(&session, |ctx| async move {
            assert!(browser.post(&app, "/rotate", "").await.status.is_success());
            match destroys {
                true => ctx.destroy(),
                false => drop(ctx.insert("n", 2).unwrap()),
            }
        });
        assert_eq!(written.await.unwrap_err().kind(), ErrorKind::SessionEnded, "{destroys}");
        let now = world.bridge.session_id_of(&client).await.unwrap().unwrap();
        let data = world.bridge.get_by_id(&now).await.unwrap().unwrap();
        assert_eq!(data.to_value(), json!({"n": 1}));
        assert_eq!(world.bridge.get_by_id(&session).await.unwrap(), None);
        let late = world.bridge.set_by_id(&session, json!({"n": 3}), None).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::SessionMissing);
        assert!(!world.bridge.destroy_by_id(&session).await.unwrap());
    }
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
            ctx.data_mut().unwrap().insert("b", 1).unwrap();
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
            assert_eq!(ctx.data().to_value(), json!({"a": 1}));
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
    let builder =
        SessionBridge::builder().signing_keys([KEY]).acquire_timeout(Duration::from_millis(200));
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
        .signing_keys([KEY])
        .lease_duration(Duration::from_millis(150))
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

#[tokio::test]
async fn a_client_whose_session_gets_a_new_id_meanwhile_has_a_session() {
    let backend = |config| async { Ok(Faulty::make("seals behind a read", config)) };
    let bridge = SessionBridge::builder().signing_keys([KEY]).backend(backend).build().await;
    let bridge = bridge.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"n":1}"#).await;
    let client = browser.get(&app, "/client").await.body.parse().unwrap();
    let before = bridge.session_id_of(&client).await.unwrap();
    let data = bridge.get_by_client_id(&client).await.unwrap().expect("a session");
    assert_eq!(data.to_value(), json!({"n": 1}));
    assert_ne!(bridge.session_id_of(&client).await.unwrap(), before, "it has a new id");
}
