//! The other rules of pairing: strict, and by the client cookie.

use std::time::Duration;

use axum_io_session::bridge::{OnDestroy, OnRotate, SessionBridgeBuilder, SocketPairing};
use serde_json::{Value, json};

use crate::ground::{Over, hears, sees_nothing, shown, without_session};

over_both_stores! {
    with_strict_pairing_no_later_session_is_seen_not_even_an_open_one,
    with_the_strict_rules_only_a_handshake_with_its_cookie_opens_a_session,
    pairing_by_client_shows_every_session_and_sealing_disconnects_all_the_same,
    pairing_by_client_and_following_is_what_the_client_cookie_alone_can_give,
}

async fn with_strict_pairing_no_later_session_is_seen_not_even_an_open_one(over: &Over) {
    let ground = over
        .ground_with(|builder| {
            builder.socket_pairing(SocketPairing::Strict).on_destroy(OnDestroy::Notify)
        })
        .await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    sees_nothing(&mut early).await;
    let mut paired = ground.open(&browser).await;
    assert_eq!(paired.call("inc", Value::Null).await, json!({"ok": 2}));
    ground.post(&mut browser, "/logout").await;
    hears(&mut paired, &["sessionSet", "sessionDestroy destroyed"]).await;
    // The next one of the same client.
    ground.merge(&mut browser, r#"{"n":5}"#).await;
    for socket in [&mut early, &mut paired] {
        sees_nothing(socket).await;
    }
    let mut again = ground.open(&browser).await;
    assert_eq!(again.call("inc", Value::Null).await, json!({"ok": 6}));
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    assert_eq!(shown(&again.last_events().await), ["sessionSet", "sessionDestroy sealed"]);
    sees_nothing(&mut early).await;
}

async fn with_the_strict_rules_only_a_handshake_with_its_cookie_opens_a_session(over: &Over) {
    let ground = over.ground_with(SessionBridgeBuilder::strict).await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let mut half = ground.open(&without_session(&browser)).await;
    let mut paired = ground.open(&browser).await;
    assert_eq!(paired.call("inc", Value::Null).await, json!({"ok": 2}));
    ground.post(&mut browser, "/renew-id").await;
    assert_eq!(paired.call("inc", Value::Null).await, json!({"ok": 3}));
    for socket in [&mut early, &mut half] {
        sees_nothing(socket).await;
    }
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    let told = shown(&paired.last_events().await);
    assert_eq!(told.last().unwrap(), "sessionDestroy sealed");
    for socket in [&mut early, &mut half] {
        sees_nothing(socket).await;
    }
}

async fn pairing_by_client_shows_every_session_and_sealing_disconnects_all_the_same(over: &Over) {
    let grace = Duration::from_secs(3600);
    let ground = over
        .ground_with(|builder| {
            let builder = builder.socket_pairing(SocketPairing::ClientOnly);
            // The grace of an end is not one of sealing.
            builder.on_destroy(OnDestroy::Disconnect { grace })
        })
        .await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    assert_eq!(early.call("inc", Value::Null).await, json!({"ok": 2}));
    let mut half = ground.open(&without_session(&browser)).await;
    assert_eq!(half.call("inc", Value::Null).await, json!({"ok": 3}));
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    for socket in [&mut early, &mut half] {
        let told = shown(&socket.last_events().await);
        assert_eq!(told.last().unwrap(), "sessionDestroy sealed");
    }
    let mut again = ground.open(&without_session(&browser)).await;
    assert_eq!(again.call("get", Value::Null).await, json!({"ok": {"n": 3, "user": "ada"}}));
}

async fn pairing_by_client_and_following_is_what_the_client_cookie_alone_can_give(over: &Over) {
    let ground = over
        .ground_with(|builder| {
            builder.socket_pairing(SocketPairing::ClientOnly).on_rotate(OnRotate::Follow)
        })
        .await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let mut half = ground.open(&without_session(&browser)).await;
    assert_eq!(early.event().await.0, "sessionSet");
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    for (n, socket) in [&mut early, &mut half].into_iter().enumerate() {
        assert_eq!(socket.event().await.0, "sessionSet");
        assert_eq!(socket.call("ids", Value::Null).await["session"], ground.id(&browser).await);
        assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2 + n}));
    }
}
