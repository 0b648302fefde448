//! Sockets that follow: into a sealed session if the application wants it, and into a new id.

use axum_io_session::bridge::OnRotate;
use serde_json::{Value, json};

use crate::ground::{Over, hears, sees_nothing, shown, without_session};
use crate::support::until;

over_both_stores! {
    sockets_that_saw_a_session_follow_it_into_the_sealed_one_if_that_is_wanted,
    a_socket_that_was_not_let_into_the_session_does_not_follow_it,
    a_new_id_disconnects_nobody_and_is_told_once,
    a_handler_that_holds_the_session_while_it_gets_a_new_id_lands,
}

async fn sockets_that_saw_a_session_follow_it_into_the_sealed_one_if_that_is_wanted(over: &Over) {
    let ground = over.ground_with(|builder| builder.on_rotate(OnRotate::Follow)).await;
    let mut browser = ground.visitor().await;
    let early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let paired = ground.open(&browser).await;
    let mut sockets = [early, paired];
    // Once the event of the creation has come there is nothing under way.
    assert_eq!(sockets[0].event().await.0, "sessionSet");
    for round in 0..2 {
        let before = ground.id(&browser).await;
        ground.login(&mut browser, &format!(r#"{{"round":{round}}}"#)).await;
        let now = ground.id(&browser).await;
        assert_ne!(now, before);
        for socket in &mut sockets {
            let told = socket.event().await;
            let set = json!({"isNew": false, "isInit": true, "node": "n"});
            assert_eq!(told, ("sessionSet".into(), set));
            assert_eq!(socket.call("ids", Value::Null).await["session"], now);
        }
        assert_eq!(sockets[1].call("inc", Value::Null).await, json!({"ok": 2 + round}));
        for socket in &mut sockets {
            hears(socket, &["sessionSet"]).await;
            let data = json!({"n": 2 + round, "round": round});
            assert_eq!(socket.call("get", Value::Null).await, json!({"ok": data}));
        }
    }
    ground.post(&mut browser, "/logout").await;
    for socket in &mut sockets {
        assert_eq!(shown(&socket.last_events().await), ["sessionDestroy destroyed"]);
    }
}

async fn a_socket_that_was_not_let_into_the_session_does_not_follow_it(over: &Over) {
    let ground = over.ground_with(|builder| builder.on_rotate(OnRotate::Follow)).await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let planted = browser.clone();
    let mut bystander = ground.open(&without_session(&browser)).await;
    let mut follower = ground.open(&browser).await;
    for round in 0..2 {
        ground.login(&mut browser, &format!(r#"{{"round":{round}}}"#)).await;
        assert_eq!(follower.event().await.0, "sessionSet");
        sees_nothing(&mut bystander).await;
        // Nor do those that come after it.
        sees_nothing(&mut ground.open(&planted).await).await;
        sees_nothing(&mut ground.open(&without_session(&browser)).await).await;
    }
    assert_eq!(follower.call("inc", Value::Null).await, json!({"ok": 2}));
    sees_nothing(&mut bystander).await;
}

async fn a_new_id_disconnects_nobody_and_is_told_once(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.visitor().await;
    let early = ground.open(&browser).await;
    ground.merge(&mut browser, r#"{"n":1}"#).await;
    let paired = ground.open(&browser).await;
    let mut bystander = ground.open(&without_session(&browser)).await;
    let mut sockets = [early, paired];
    assert_eq!(sockets[0].event().await.0, "sessionSet");
    for sealed in [false, true] {
        let before = browser.clone();
        ground.post(&mut browser, "/renew-id").await;
        assert_ne!(browser.jar["sid"], before.jar["sid"]);
        for socket in &mut sockets {
            let told = hears(socket, &["sessionSet"]).await;
            let set = json!({"isNew": false, "isInit": true, "node": "n"});
            assert_eq!(told[0].1, set, "sealed: {sealed}");
            let id = socket.call("ids", Value::Null).await["session"].clone();
            assert_eq!(id, ground.id(&browser).await);
        }
        assert!(sockets[0].call("inc", Value::Null).await["ok"].is_i64());
        // For a while the id before opens it, and so pairs.
        let mut overlapping = ground.open(&before).await;
        assert!(overlapping.call("inc", Value::Null).await["ok"].is_i64());
        for socket in &mut sockets {
            hears(socket, &["sessionSet", "sessionSet"]).await;
        }
        sees_nothing(&mut bystander).await;
        if !sealed {
            ground.login(&mut browser, r#"{"user":"ada"}"#).await;
            for socket in &mut sockets {
                socket.until_disconnected().await;
            }
            sockets = [ground.open(&browser).await, ground.open(&browser).await];
        }
    }
}

async fn a_handler_that_holds_the_session_while_it_gets_a_new_id_lands(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let mut socket = ground.open(&browser).await;
    socket.emit("hold", Value::Null).await;
    ground.outcomes.gate.reached().await;
    ground.post(&mut browser, "/renew-id").await;
    ground.outcomes.gate.open();
    until("the handler ends", async || ground.outcomes.of("hold").is_some()).await;
    assert_eq!(ground.outcomes.of("hold").unwrap(), "ok");
    assert_eq!(ground.data(&browser).await, json!({"n": 1, "held": true}));
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
    let told = hears(&mut socket, &["sessionSet", "sessionSet", "sessionSet"]).await;
    let begins = told.iter().filter(|(_, payload)| payload["isInit"] == true);
    assert_eq!(begins.count(), 1, "one of them is the new id");
}
