//! Sessions that only the store knows of, and those that it has lost.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use axum_io_session::store::{
    LiveStore, SessionStore, SetOutcome, StoreEntry, StoreResult, StoredSession,
};
use axum_io_session::{ClientId, DestroyReason, ErrorKind, SessionBridge, SessionEvent, SessionId};
use serde_json::json;
use support::probe::ProbeStore;
use support::world::{World, now_ms, world, world_of};
use support::{KEY, so_far, until};

fn ends(told: &[SessionEvent]) -> Vec<DestroyReason> {
    let reasons = told.iter().filter_map(|event| match event {
        SessionEvent::Destroy(end) => Some(end.reason),
        _ => None,
    });
    reasons.collect()
}

/// Another process over the same store.
async fn restarted(world: &World) -> World {
    world_of(world.store.clone()).await
}

#[tokio::test]
async fn after_a_restart_every_method_finds_a_stored_session() {
    let before = world().await;
    let (_, session, client) = before.seeded(r#"{"a":1}"#).await;
    let expected = Some(json!({"a": 1}));
    let value = |data: Option<axum_io_session::SessionData>| data.map(|data| data.to_value());

    let World { bridge, .. } = restarted(&before).await;
    assert_eq!(bridge.session_id_of(&client).await.unwrap(), Some(session));
    let World { bridge, .. } = restarted(&before).await;
    assert_eq!(bridge.client_id_of(&session).await.unwrap(), Some(client));
    let World { bridge, .. } = restarted(&before).await;
    assert_eq!(value(bridge.get_by_id(&session).await.unwrap()), expected);
    let World { bridge, .. } = restarted(&before).await;
    assert_eq!(value(bridge.get_by_client_id(&client).await.unwrap()), expected);
    let World { bridge, .. } = restarted(&before).await;
    let read = bridge.with_session(&session, |ctx| async move { ctx.data().to_value() }).await;
    assert_eq!(read.unwrap(), json!({"a": 1}));
    let World { bridge, .. } = restarted(&before).await;
    bridge.set_by_id(&session, json!({"a": 2}), None).await.unwrap();
    let World { bridge, .. } = restarted(&before).await;
    bridge.set_by_client_id(&client, json!({"a": 3}), None).await.unwrap();
    assert_eq!(value(bridge.get_by_id(&session).await.unwrap()), Some(json!({"a": 3})));

    for by_client in [false, true] {
        let before = world().await;
        let (_, session, client) = before.seeded(r#"{"a":1}"#).await;
        let World { bridge, store, .. } = restarted(&before).await;
        let mut events = bridge.events();
        assert!(match by_client {
            true => bridge.destroy_by_client_id(&client).await.unwrap(),
            false => bridge.destroy_by_id(&session).await.unwrap(),
        });
        assert_eq!(ends(&so_far(&bridge, &mut events).await), [DestroyReason::Destroyed]);
        assert!(store.live.is_empty());
    }
}

#[tokio::test]
async fn a_stored_session_of_nobody_is_missing_for_every_method() {
    let world = world().await;
    let id = SessionId::generate();
    let orphan = StoredSession::new(r#"{"a":1}"#, now_ms() + 60_000, 60_000);
    world.store.live.set(&id, orphan.clone()).await.unwrap();
    let bridge = &world.bridge;
    assert_eq!(bridge.get_by_id(&id).await.unwrap(), None);
    assert_eq!(bridge.client_id_of(&id).await.unwrap(), None);
    assert!(!bridge.destroy_by_id(&id).await.unwrap());
    let set = bridge.set_by_id(&id, json!({}), None).await;
    assert_eq!(set.unwrap_err().kind(), ErrorKind::SessionMissing);
    let used = bridge.with_session(&id, |_| async {}).await;
    assert_eq!(used.unwrap_err().kind(), ErrorKind::SessionMissing);
    assert_eq!(world.store.live.get(&id).await.unwrap(), Some(orphan), "and it is left alone");
}

#[tokio::test]
async fn a_session_that_vanished_from_the_store_is_missing_and_its_end_is_told_once() {
    let world = world().await;
    let bridge = &world.bridge;
    for first in 0..7 {
        let (mut browser, session, client) = world.seeded(r#"{"a":1}"#).await;
        let mut events = bridge.events();
        world.store.live.destroy(&session).await.unwrap();
        // Whichever method comes first finds it out.
        match first {
            0 => assert_eq!(bridge.get_by_id(&session).await.unwrap(), None),
            1 => assert_eq!(bridge.get_by_client_id(&client).await.unwrap(), None),
            2 => assert_eq!(bridge.session_id_of(&client).await.unwrap(), None),
            3 => assert_eq!(bridge.client_id_of(&session).await.unwrap(), None),
            4 => assert!(!bridge.destroy_by_id(&session).await.unwrap()),
            5 => {
                let set = bridge.set_by_id(&session, json!({}), None).await;
                assert_eq!(set.unwrap_err().kind(), ErrorKind::SessionMissing);
            }
            _ => assert_eq!(browser.get(&world.app, "/id").await.body, ""),
        }
        assert!(!bridge.destroy_by_client_id(&client).await.unwrap());
        assert_eq!(bridge.session_id_of(&client).await.unwrap(), None);
        let told = so_far(bridge, &mut events).await;
        assert_eq!(ends(&told), [DestroyReason::External], "{first}: {told:?}");
        let tables = bridge.stats().tables;
        assert_eq!((tables["clients"], tables["sessions"]), (0, 0), "{first}");
    }
    assert!(world.store.live.is_empty());
}

/// Lists records that are renewed before the list is looked at.
struct Renewing {
    inner: LiveStore,
    renewed: AtomicBool,
}

impl SessionStore for Renewing {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        self.inner.get(id).await
    }
    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        self.inner.set(id, session).await
    }
    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        self.inner.destroy(id).await
    }
    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        let page = self.inner.list(after, limit).await?;
        for entry in page.iter().flatten() {
            self.inner.touch(&entry.id, now_ms() + 60_000, 60_000).await?;
            self.renewed.store(true, Ordering::SeqCst);
        }
        Ok(page)
    }
}

#[tokio::test]
async fn a_cleanup_spares_what_is_renewed_while_it_runs() {
    let inner = LiveStore::new();
    for owner in [None, Some(ClientId::generate())] {
        let mut expired = StoredSession::new("{}", now_ms() - 10, 1000);
        expired.client_id = owner;
        inner.set(&SessionId::generate(), expired).await.unwrap();
    }
    let store = Renewing { inner: inner.clone(), renewed: AtomicBool::new(false) };
    let bridge = SessionBridge::builder().signing_keys([KEY]).store(store).build().await.unwrap();
    let mut events = bridge.events();
    assert_eq!(bridge.cleanup().await.unwrap(), 0);
    assert_eq!(inner.len(), 2);
    assert_eq!(ends(&so_far(&bridge, &mut events).await), []);
}

#[tokio::test]
async fn a_notice_of_a_set_carries_its_flag_and_learns_the_new_expiry() {
    let world = world_of(ProbeStore::new()).await;
    let (_, session, client) = world.seeded(r#"{"a":1}"#).await;
    let mut events = world.bridge.events();
    let mut stored = world.store.live.get(&session).await.unwrap().unwrap();
    stored.expires_at = now_ms() + 300;
    stored.session = r#"{"a":2}"#.into();
    world.store.live.set(&session, stored).await.unwrap();
    world.bridge.notify_store_set(&session, true).await.unwrap();
    match &so_far(&world.bridge, &mut events).await[..] {
        [SessionEvent::Set(set)] => {
            assert_eq!((set.is_new, set.is_init), (true, false));
            assert_eq!((set.session_id, set.client_id), (session, client));
        }
        other => panic!("{other:?}"),
    }
    // Nobody reads it, and its end is told all the same.
    let mut reasons = Vec::new();
    until("the end", async || {
        reasons.extend(ends(&so_far(&world.bridge, &mut events).await));
        !reasons.is_empty()
    })
    .await;
    assert_eq!(reasons, [DestroyReason::Expired]);
}
