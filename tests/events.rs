//! What the bridge tells, cleans up, survives and ends.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum_io_session::bridge::Lagged;
use axum_io_session::store::{SessionStore as _, StoredSession};
use axum_io_session::{
    ClientId, DestroyReason, Error, ErrorKind, SessionBridge, SessionEvent, SessionId,
};
use serde_json::json;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::world::{World, now_ms, world, world_of};
use support::{KEY, bridge, next, so_far, until};

// ---- events --------------------------------------------------------------------------------

#[tokio::test]
async fn flags_tell_created_attached_and_changed() {
    let world = world().await;
    let mut events = world.bridge.events();
    let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
    browser.post(&world.app, "/merge", r#"{"a":2}"#).await;
    browser.post(&world.app, "/renew-id", "").await;
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
        // Those who waited for each other are written together.
        let [changes @ .., SessionEvent::Destroy(_)] = &*told else { panic!("{told:?}") };
        assert!((1..=20).contains(&changes.len()), "{told:?}");
        assert!(changes.iter().all(|change| matches!(change, SessionEvent::Set(_))));
    }
}

#[tokio::test]
async fn a_handler_that_panics_or_is_slow_disturbs_nobody() {
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).event_capacity(16).build().await.unwrap();
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
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).event_capacity(16).build().await.unwrap();
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
    let builder = SessionBridge::builder().signing_keys([KEY]).max_age(Duration::from_secs(1));
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
        let builder =
            SessionBridge::builder().signing_keys([KEY]).max_age(Duration::from_secs(max_age));
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
    let events = world.bridge.events();
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
    for mut stream in [events, world.bridge.events()] {
        let end = tokio::time::timeout(support::LIMIT, async {
            while let Some(item) = stream.recv().await {
                item.unwrap();
            }
        });
        assert!(end.await.is_ok(), "streams end although the bridge is still held");
    }
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
