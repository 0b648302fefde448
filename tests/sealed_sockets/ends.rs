//! What becomes of sockets when their session ends.

use std::time::Duration;

use axum_io_session::bridge::OnDestroy;
use axum_io_session::{SessionEvent, SessionId};
use serde_json::{Value, json};

use crate::ground::{Over, hears, sees_nothing, shown};
use crate::support::http::Browser;
use crate::support::sio::Client;
use crate::support::{next, until};

over_both_stores! {
    by_default_the_sockets_of_an_ended_session_are_told_and_disconnected,
    a_request_that_ends_a_session_and_begins_another_disconnects_the_sockets_of_the_first,
    sockets_stay_for_the_grace_also_those_of_a_client_that_has_a_new_session,
    sockets_that_are_only_notified_see_the_next_open_session,
    with_nothing_as_policy_sockets_hear_nothing_and_stay,
    a_session_that_ends_while_its_socket_comes_is_not_kept_by_the_socket,
    sockets_that_came_and_went_leave_no_connection_behind,
}

async fn by_default_the_sockets_of_an_ended_session_are_told_and_disconnected(over: &Over) {
    let ground = over.ground_with(|builder| builder.max_age(Duration::from_secs(2))).await;
    let ends = ["/logout", "by id", "by client", "by a socket", "expired"];
    for end in ends {
        for sealed in [false, true] {
            let mut browser = ground.seeded(r#"{"n":1}"#).await;
            if sealed {
                ground.login(&mut browser, "{}").await;
            }
            let mut socket = ground.open(&browser).await;
            let id: SessionId = ground.id(&browser).await.parse().unwrap();
            match end {
                "by id" => assert!(ground.bridge.destroy_by_id(&id).await.unwrap()),
                "by client" => {
                    let client = ground.bridge.client_id_of(&id).await.unwrap().unwrap();
                    assert!(ground.bridge.destroy_by_client_id(&client).await.unwrap());
                }
                "by a socket" => socket.emit("destroy", Value::Null).await,
                "expired" => {}
                path => ground.post(&mut browser, path).await,
            }
            let reason = if end == "expired" { "expired" } else { "destroyed" };
            let told = shown(&socket.last_events().await);
            assert_eq!(told, [format!("sessionDestroy {reason}")], "{end}, sealed: {sealed}");
        }
    }
    until("all are detached", async || ground.bridge.stats().sockets == 0).await;
}

async fn a_request_that_ends_a_session_and_begins_another_disconnects_the_sockets_of_the_first(
    over: &Over,
) {
    let ground = over.ground().await;
    for round in 0..20 {
        let mut browser = ground.visitor().await;
        let mut early = ground.open(&browser).await;
        ground.merge(&mut browser, r#"{"n":1}"#).await;
        if round % 2 == 1 {
            ground.login(&mut browser, "{}").await;
            early.until_disconnected().await;
            early = ground.open(&browser).await;
        }
        let mut paired = ground.open(&browser).await;
        assert_eq!(paired.call("inc", Value::Null).await, json!({"ok": 2}));
        // Ends it and sets something: a flash message.
        ground.post(&mut browser, "/swap").await;
        // Neither told of the other one, nor let into it until they are gone.
        for socket in [&mut early, &mut paired] {
            let told = shown(&socket.last_events().await);
            assert_eq!(told.last().unwrap(), "sessionDestroy destroyed", "{round}: {told:?}");
        }
        assert_eq!(ground.data(&browser).await, json!({"fresh": true}));
        let mut next = ground.open(&browser).await;
        assert_eq!(next.call("get", Value::Null).await, json!({"ok": {"fresh": true}}));
    }
}

async fn sockets_stay_for_the_grace_also_those_of_a_client_that_has_a_new_session(over: &Over) {
    let grace = Duration::from_millis(700);
    let disconnect = OnDestroy::Disconnect { grace };
    let ground = over.ground_with(|builder| builder.on_destroy(disconnect)).await;
    for path in ["/logout", "/swap"] {
        let mut browser = ground.seeded(r#"{"n":1}"#).await;
        let mut socket = ground.open(&browser).await;
        let begun = std::time::Instant::now();
        ground.post(&mut browser, path).await;
        assert_eq!(shown(&[socket.event().await]), ["sessionDestroy destroyed"]);
        // There is time left, but not for another session.
        sees_nothing(&mut socket).await;
        assert_eq!(shown(&socket.last_events().await), [""; 0]);
        assert!(begun.elapsed() >= grace, "{path}");
    }
}

async fn sockets_that_are_only_notified_see_the_next_open_session(over: &Over) {
    let ground = over.ground_with(|builder| builder.on_destroy(OnDestroy::Notify)).await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let mut socket = ground.open(&browser).await;
    ground.post(&mut browser, "/logout").await;
    hears(&mut socket, &["sessionDestroy destroyed"]).await;
    sees_nothing(&mut socket).await;
    ground.merge(&mut browser, r#"{"n":5}"#).await;
    hears(&mut socket, &["sessionSet"]).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 6}));
    ground.post(&mut browser, "/swap").await;
    hears(&mut socket, &["sessionSet", "sessionDestroy destroyed", "sessionSet"]).await;
    assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"fresh": true}}));
}

async fn with_nothing_as_policy_sockets_hear_nothing_and_stay(over: &Over) {
    let ground = over.ground_with(|builder| builder.on_destroy(OnDestroy::Nothing)).await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let mut socket = ground.open(&browser).await;
    let mut events = ground.bridge.events();
    ground.post(&mut browser, "/logout").await;
    // Listeners come after the sockets.
    assert!(matches!(next(&mut events).await, SessionEvent::Destroy(_)));
    sees_nothing(&mut socket).await;
    ground.merge(&mut browser, r#"{"n":5}"#).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 6}));
    // Sealing is another matter.
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    socket.until_disconnected().await;
}

async fn a_session_that_ends_while_its_socket_comes_is_not_kept_by_the_socket(over: &Over) {
    let ground = over.ground().await;
    for round in 0..200u64 {
        let mut browser = ground.seeded(r#"{"n":1}"#).await;
        let session = ground.id(&browser).await;
        let (address, cookies) = (ground.address, browser.cookie_header());
        let coming = tokio::spawn(async move { Client::connect_to(address, "/", &cookies).await });
        // At another moment of the connect each time.
        tokio::time::sleep(Duration::from_micros(round % 50 * 60)).await;
        let path = if round % 2 == 0 { "/logout" } else { "/rotate" };
        ground.post(&mut browser, path).await;
        // Rejected is as good as disconnected.
        let Ok(mut socket) = coming.await.unwrap() else { continue };
        until("its end has come to the socket", async || {
            let ids = socket.try_call("ids", Value::Null).await;
            ids.is_none_or(|ids| ids["session"] != session)
        })
        .await;
        if path == "/rotate" {
            ground.merge(&mut browser, r#"{"n":2}"#).await;
        }
        if let Some(ids) = socket.try_call("ids", Value::Null).await {
            assert_eq!(ids["session"], Value::Null, "{round}");
            let got = socket.try_call("get", Value::Null).await;
            assert!(got.is_none_or(|got| got == json!({"error": "SessionMissing"})), "{round}");
        }
        socket.close().await;
    }
    until("all are detached", async || ground.bridge.stats().sockets == 0).await;
}

async fn sockets_that_came_and_went_leave_no_connection_behind(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let (visitor, nobody) = (ground.visitor().await, Browser::new());
    for round in 0..200 {
        let from = [&browser, &visitor, &nobody][round % 3];
        let mut socket = ground.open(from).await;
        if round == 0 {
            assert_eq!(ground.bridge.stats().tables["engines"], 1);
        }
        if round % 5 == 0 {
            socket.call("ids", Value::Null).await;
        }
        // Closed, and simply dropped.
        if round % 2 == 0 {
            socket.close().await;
        }
    }
    let mut last = ground.open(&browser).await;
    ground.post(&mut browser, "/logout").await;
    last.until_disconnected().await;
    last.close().await;
    until("no connection is left", async || {
        let stats = ground.bridge.stats();
        stats.tables["engines"] == 0 && stats.sockets == 0
    })
    .await;
}
