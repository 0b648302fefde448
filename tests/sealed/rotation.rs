//! Sealing: a new session with the old data, which nothing of before reaches.

use axum::http::StatusCode;
use axum_io_session::session::DestroyReason;
use axum_io_session::{ErrorKind, SessionEvent};
use serde_json::{Value, json};

use crate::place::Place;
use crate::support::http::Browser;
use crate::support::{next, so_far};

over_both_stores! {
    a_rotation_seals_keeps_the_data_and_kills_the_old_id,
    what_loaded_before_a_rotation_is_a_conflict_after_it_and_changes_nothing,
    a_handler_that_holds_the_session_while_it_is_sealed_writes_nothing,
    a_login_in_the_request_that_creates_the_session_creates_it_sealed,
    a_rotation_of_a_sealed_session_gives_another_one,
    sealing_is_told_as_the_end_of_one_session_and_the_begin_of_another,
}

async fn a_rotation_seals_keeps_the_data_and_kills_the_old_id(place: Place) {
    let world = place.world().await;
    let mut browser = world.open(r#"{"basket":[1,2]}"#).await;
    let (before, before_id) = (world.seen(&browser).await, world.id(&browser).await);
    let old = browser.clone();
    let answer = browser.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let after = world.seen(&browser).await;
    assert_eq!(after["data"], json!({"basket": [1, 2], "user": "ada"}));
    assert_ne!(after["id"], before["id"]);
    assert_eq!(after["client"], before["client"]);
    assert_eq!((&before["sealed"], &after["sealed"]), (&json!(false), &json!(true)));
    // The old id opens nothing, by whatever way.
    assert_eq!(world.data(&old).await, json!({}));
    let bridge = &world.bridge;
    assert_eq!(bridge.get_by_id(&before_id).await.unwrap(), None);
    assert_eq!(bridge.client_id_of(&before_id).await.unwrap(), None);
    let set = bridge.set_by_id(&before_id, json!({"stolen": 1}), None).await;
    assert_eq!(set.unwrap_err().kind(), ErrorKind::SessionMissing);
    let with = bridge.with_session(&before_id, async |_| ()).await;
    assert_eq!(with.unwrap_err().kind(), ErrorKind::SessionMissing);
    assert!(!bridge.destroy_by_id(&before_id).await.unwrap());
    assert_eq!(world.seen(&browser).await, after);
}

async fn what_loaded_before_a_rotation_is_a_conflict_after_it_and_changes_nothing(place: Place) {
    let world = place.world().await;
    for what in ["merge", "update", "replace", "renew-id", "age", "logout", "swap"] {
        let mut browser = world.open(r#"{"a":1}"#).await;
        let mut late = browser.clone();
        let (held, gate) = world.gated();
        let late = tokio::spawn(async move {
            let answer = late.post(&held, &format!("/{what}"), r#"{"late":1}"#).await;
            (late, answer)
        });
        gate.reached().await;
        browser.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
        let sealed = world.seen(&browser).await;
        gate.open();
        let (late, answer) = late.await.unwrap();
        assert_eq!(answer.status, StatusCode::CONFLICT, "{what}: {}", answer.body);
        assert!(answer.set_cookie("sid").is_none(), "{what}");
        assert_eq!(world.seen(&browser).await, sealed, "{what}");
        assert_eq!(world.data(&late).await, json!({}), "{what}");
    }
}

async fn a_handler_that_holds_the_session_while_it_is_sealed_writes_nothing(place: Place) {
    let world = place.world().await;
    for ends in [false, true] {
        let mut browser = world.open(r#"{"a":1}"#).await;
        let id = world.id(&browser).await;
        let written = world
            .bridge
            .with_session(&id, async |session| {
                let answer = browser.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
                assert_eq!(answer.status, StatusCode::OK, "a login waits for no handler");
                if ends {
                    session.destroy();
                } else {
                    session.insert("late", 1).unwrap();
                }
            })
            .await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::SessionEnded);
        let seen = world.seen(&browser).await;
        assert_eq!(seen["data"], json!({"a": 1, "user": "ada"}));
        assert_eq!(seen["sealed"], true);
    }
}

async fn a_login_in_the_request_that_creates_the_session_creates_it_sealed(place: Place) {
    let world = place.world().await;
    let mut browser = Browser::new();
    let answer = browser.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let seen = world.seen(&browser).await;
    assert_eq!((&seen["sealed"], &seen["data"]), (&json!(true), &json!({"user": "ada"})));
    let stats = world.bridge.stats();
    assert_eq!((stats.created, stats.commits), (1, 0), "in one step");
    // Without data there is nothing to seal.
    let mut nobody = Browser::new();
    let answer = nobody.post(&world.app, "/rotate", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.set_cookie("sid").is_none());
}

async fn a_rotation_of_a_sealed_session_gives_another_one(place: Place) {
    let world = place.world().await;
    let mut browser = world.sealed(r#"{"user":"ada"}"#).await;
    let mut ids = vec![world.id(&browser).await];
    for _ in 0..3 {
        let old = browser.clone();
        assert_eq!(browser.post(&world.app, "/rotate", "").await.status, StatusCode::OK);
        let seen = world.seen(&browser).await;
        assert_eq!((&seen["sealed"], &seen["data"]), (&json!(true), &json!({"user": "ada"})));
        assert_eq!(world.seen(&old).await["id"], Value::Null);
        ids.push(world.id(&browser).await);
    }
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

async fn sealing_is_told_as_the_end_of_one_session_and_the_begin_of_another(place: Place) {
    let world = place.world().await;
    let mut events = world.bridge.events();
    let mut browser = world.open(r#"{"a":1}"#).await;
    next(&mut events).await;
    let old = world.id(&browser).await;
    browser.post(&world.app, "/login", r#"{"user":"ada"}"#).await;
    let new = world.id(&browser).await;
    match &so_far(&world.bridge, &mut events).await[..] {
        [SessionEvent::Destroy(end), SessionEvent::Set(set)] => {
            assert_eq!(end.session_id, old);
            assert_eq!(end.reason, DestroyReason::Sealed);
            assert_eq!((set.session_id, set.previous_id), (new, Some(old)));
        }
        other => panic!("{other:?}"),
    }
}
