//! Handlers that hold a session, or wait for it, while it is sealed.

use axum_io_session::bridge::OnRotate;
use axum_io_session::{ErrorKind, SessionId};
use serde_json::{Value, json};

use crate::ground::{Ground, Over};
use crate::support::app::gated;
use crate::support::http::{Answer, Browser};
use crate::support::sio::Client;
use crate::support::until;

over_both_stores! {
    a_handler_that_runs_while_its_session_is_sealed_writes_nothing,
    a_handler_that_waits_while_its_session_is_sealed_does_not_run,
    a_handler_of_a_socket_that_follows_is_refused_although_the_socket_stays,
    a_slow_request_of_before_the_login_does_not_bring_its_cookie_back,
}

/// Two sockets of a session: one whose handler holds it, and one whose handler waits for it.
async fn held(ground: &Ground) -> (Browser, [Client; 2]) {
    let browser = ground.seeded(r#"{"n":1}"#).await;
    let (mut holder, mut waiter) = (ground.open(&browser).await, ground.open(&browser).await);
    holder.emit("hold", Value::Null).await;
    ground.outcomes.gate.reached().await;
    waiter.emit("wait", Value::Null).await;
    until("it asks", async || ground.outcomes.of("asked").is_some()).await;
    (browser, [holder, waiter])
}

/// The session cookie that an answer sends.
fn sent(answer: &Answer) -> Option<String> {
    answer.set_cookie("sid")
}

async fn ended(ground: &Ground, call: &str) -> String {
    until(call, async || ground.outcomes.of(call).is_some()).await;
    ground.outcomes.of(call).unwrap()
}

async fn a_handler_that_runs_while_its_session_is_sealed_writes_nothing(over: &Over) {
    let ground = over.ground().await;
    let (mut browser, sockets) = held(&ground).await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    // Its socket is gone before the handler comes to its end.
    for mut socket in sockets {
        socket.until_disconnected().await;
    }
    ground.outcomes.gate.open();
    let kinds = ["SessionEnded", "Disconnected"];
    assert!(kinds.contains(&ended(&ground, "hold").await.as_str()));
    assert!(ended(&ground, "wait").await != "ok");
    assert_eq!(ground.data(&browser).await, json!({"n": 1, "user": "ada"}));
    let mut again = ground.open(&browser).await;
    assert_eq!(again.call("inc", Value::Null).await, json!({"ok": 2}), "the lease is free");
}

async fn a_handler_that_waits_while_its_session_is_sealed_does_not_run(over: &Over) {
    let ground = over.ground().await;
    let (mut browser, _sockets) = held(&ground).await;
    let session: SessionId = ground.id(&browser).await.parse().unwrap();
    let bridge = ground.bridge.clone();
    let (by_id, by_set) = (bridge.clone(), bridge.clone());
    let mut waiting = tokio::spawn(async move {
        by_id.with_session(&session, |_| async { panic!("it must not run") }).await
    });
    let mut setting =
        tokio::spawn(async move { by_set.set_by_id(&session, json!({}), None).await });
    let mut updater = browser.clone();
    let app = ground.app.clone();
    let mut updating = tokio::spawn(async move { updater.post(&app, "/inc", "").await });
    // Each has found the session, and stands in the line behind the holder.
    let pause = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(pause, &mut waiting).await.is_err());
    assert!(tokio::time::timeout(pause, &mut setting).await.is_err());
    assert!(tokio::time::timeout(pause, &mut updating).await.is_err());
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    ground.outcomes.gate.open();
    let missing = |kind: Option<ErrorKind>| assert_eq!(kind, Some(ErrorKind::SessionMissing));
    let waited: axum_io_session::Result<()> = waiting.await.unwrap();
    missing(waited.err().map(|error| error.kind()));
    missing(setting.await.unwrap().err().map(|error| error.kind()));
    let answer = updating.await.unwrap();
    assert_eq!(answer.status.as_u16(), 409);
    assert_eq!(sent(&answer), None);
    assert!(["SessionMissing", "Disconnected"].contains(&ended(&ground, "wait").await.as_str()));
    assert_eq!(ground.data(&browser).await, json!({"n": 1, "user": "ada"}));
}

async fn a_handler_of_a_socket_that_follows_is_refused_although_the_socket_stays(over: &Over) {
    let ground = over.ground_with(|builder| builder.on_rotate(OnRotate::Follow)).await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let mut socket = ground.open(&browser).await;
    socket.emit("hold", Value::Null).await;
    ground.outcomes.gate.reached().await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    assert_eq!(socket.event().await.0, "sessionSet", "it is in the sealed session");
    ground.outcomes.gate.open();
    assert_eq!(ended(&ground, "hold").await, "SessionEnded");
    assert_eq!(ground.data(&browser).await, json!({"n": 1, "user": "ada"}));
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
}

async fn a_slow_request_of_before_the_login_does_not_bring_its_cookie_back(over: &Over) {
    let ground = over.ground().await;
    let (slow, gate) = gated(&ground.bridge);
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let begun = std::time::Instant::now();
    // One that only reads, and one that writes too late.
    let requests = ["{}", r#"{"late":true}"#].map(|body| {
        let (slow, mut tab) = (slow.clone(), browser.clone());
        tokio::spawn(async move { tab.post(&slow, "/", body).await })
    });
    gate.reached().await;
    gate.reached().await;
    // Cookies count whole seconds: as time goes by the old one seems to end before its session.
    until("two seconds are over", async || begun.elapsed().as_secs() >= 2).await;
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    gate.open();
    gate.open();
    for (request, status) in requests.into_iter().zip([200, 409]) {
        let answer = request.await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(sent(&answer), None, "the browser has the sealed session's cookie by now");
    }
}
