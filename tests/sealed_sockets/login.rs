//! Sockets of before a login, and those that come after it without the new cookie.

use axum_io_session::bridge::OnDestroy;
use serde_json::{Value, json};

use crate::ground::{Over, hears, ready, sees_nothing, shown, without_session};

over_both_stores! {
    a_socket_with_the_client_cookie_sees_an_open_session_and_is_disconnected_when_it_is_sealed,
    a_socket_opened_with_the_session_cookie_of_before_is_disconnected_at_the_login,
    without_the_new_cookie_a_sealed_session_is_not_seen_ever,
    a_session_sealed_by_its_first_request_is_not_seen_by_a_socket_of_before,
    sealing_again_disconnects_the_sockets_of_the_sealed_session,
    a_socket_that_joins_its_namespace_again_after_the_login_sees_nothing,
    the_next_login_of_a_browser_is_not_seen_by_sockets_of_the_one_before,
}

async fn a_socket_with_the_client_cookie_sees_an_open_session_and_is_disconnected_when_it_is_sealed(
    over: &Over,
) {
    let ground = over.ground().await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    sees_nothing(&mut early).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let (name, payload) = early.event().await;
    assert_eq!((name.as_str(), &payload["isNew"]), ("sessionSet", &json!(true)));
    assert_eq!(early.call("ids", Value::Null).await["session"], ground.id(&browser).await);
    assert_eq!(early.call("inc", Value::Null).await, json!({"ok": 2}));
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    let told = early.last_events().await;
    assert_eq!(shown(&told), ["sessionSet", "sessionDestroy sealed"]);
    assert_eq!(told[1].1, json!({"reason": "sealed", "node": "n"}));
    assert_eq!(ground.data(&browser).await, json!({"n": 2, "user": "ada"}));
    let mut again = ground.open(&browser).await;
    assert_eq!(again.call("get", Value::Null).await, json!({"ok": {"n": 2, "user": "ada"}}));
}

async fn a_socket_opened_with_the_session_cookie_of_before_is_disconnected_at_the_login(
    over: &Over,
) {
    // Also if sockets stay when their session ends.
    for on_destroy in [OnDestroy::default(), OnDestroy::Notify] {
        let ground = over.ground_with(|builder| builder.on_destroy(on_destroy)).await;
        let mut browser = ground.seeded(r#"{"n":1}"#).await;
        let planted = browser.clone();
        let mut sockets = [ground.open(&planted).await, ground.open(&browser).await];
        assert_eq!(sockets[0].call("inc", Value::Null).await, json!({"ok": 2}));
        ground.login(&mut browser, r#"{"user":"ada"}"#).await;
        for socket in &mut sockets {
            assert_eq!(shown(&socket.last_events().await), ["sessionSet", "sessionDestroy sealed"]);
        }
        let mut late = ground.open(&planted).await;
        ground.merge(&mut browser, r#"{"n":3}"#).await;
        sees_nothing(&mut late).await;
        assert_eq!(ground.data(&browser).await, json!({"n": 3, "user": "ada"}));
    }
}

async fn without_the_new_cookie_a_sealed_session_is_not_seen_ever(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let before = browser.clone();
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    let sid = before.jar["sid"].clone();
    let mut late = [
        ground.open(&without_session(&browser)).await,
        ground.open(&before).await,
        ground.connect(&format!("sid={sid}")).await,
    ];
    let mut owner = ground.open(&browser).await;
    let mut stranger = ground.open(&ground.visitor().await).await;
    for n in 1..4 {
        for socket in late.iter_mut().chain([&mut stranger]) {
            sees_nothing(socket).await;
        }
        ground.merge(&mut browser, &format!(r#"{{"n":{n}0}}"#)).await;
        ground.post(&mut browser, "/renew-id").await;
        assert_eq!(owner.call("inc", Value::Null).await, json!({"ok": n * 10 + 1}));
        assert_eq!(owner.call("ids", Value::Null).await["session"], ground.id(&browser).await);
    }
    ground.post(&mut browser, "/logout").await;
    assert_eq!(shown(&owner.last_events().await).last().unwrap(), "sessionDestroy destroyed");
    for socket in &mut late {
        sees_nothing(socket).await;
    }
}

async fn a_session_sealed_by_its_first_request_is_not_seen_by_a_socket_of_before(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.visitor().await;
    let mut early = ground.open(&browser).await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    sees_nothing(&mut early).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    sees_nothing(&mut early).await;
    let mut owner = ground.open(&browser).await;
    assert_eq!(owner.call("get", Value::Null).await, json!({"ok": {"n": 1, "user": "ada"}}));
}

async fn sealing_again_disconnects_the_sockets_of_the_sealed_session(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    let weaker = browser.clone();
    let mut socket = ground.open(&browser).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
    ground.post(&mut browser, "/rotate").await;
    assert_eq!(shown(&socket.last_events().await), ["sessionSet", "sessionDestroy sealed"]);
    sees_nothing(&mut ground.open(&weaker).await).await;
    let mut again = ground.open(&browser).await;
    assert_eq!(again.call("inc", Value::Null).await, json!({"ok": 3}));
}

async fn a_socket_that_joins_its_namespace_again_after_the_login_sees_nothing(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.visitor().await;
    let mut visitor = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let mut paired = ground.open(&browser).await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    for socket in [&mut visitor, &mut paired] {
        socket.last_events().await;
        // On the same connection, and so with the handshake of before.
        socket.join().await.unwrap();
        ready(socket).await;
        sees_nothing(socket).await;
    }
    ground.merge(&mut browser, r#"{"n":5}"#).await;
    for socket in [&mut visitor, &mut paired] {
        sees_nothing(socket).await;
    }
}

async fn the_next_login_of_a_browser_is_not_seen_by_sockets_of_the_one_before(over: &Over) {
    // Where sockets stay, so that they could see it.
    let ground = over.ground_with(|builder| builder.on_destroy(OnDestroy::Notify)).await;
    let mut browser = ground.visitor().await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    let former = browser.clone();
    let mut old = ground.open(&browser).await;
    let mut half = ground.open(&without_session(&browser)).await;
    let client = old.call("ids", Value::Null).await["client"].clone();
    ground.post(&mut browser, "/logout").await;
    hears(&mut old, &["sessionDestroy destroyed"]).await;
    assert_ne!(browser.jar["sid.cid"], former.jar["sid.cid"], "the client id is a new one");
    let mut again = ground.open(&former).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    for socket in [&mut old, &mut half, &mut again] {
        sees_nothing(socket).await;
    }
    ground.login(&mut browser, r#"{"user":"grace"}"#).await;
    ground.merge(&mut browser, r#"{"n":2}"#).await;
    for socket in [&mut old, &mut half, &mut again] {
        assert_eq!(socket.call("ids", Value::Null).await["client"], client);
        sees_nothing(socket).await;
    }
    let mut new = ground.open(&browser).await;
    assert_eq!(new.call("get", Value::Null).await, json!({"ok": {"n": 2, "user": "grace"}}));
}
