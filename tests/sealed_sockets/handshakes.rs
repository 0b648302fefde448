//! Handshakes with several session cookies: the first that lives counts.

use serde_json::{Value, json};

use crate::ground::{Ground, Over, sees_nothing};
use crate::support::http::Browser;
use crate::support::sio::Client;

over_both_stores! {
    the_first_session_cookie_that_lives_pairs,
    a_cookie_behind_four_that_verify_is_not_looked_at,
}

/// A handshake with these session cookies, in this order, and one client cookie.
async fn open(ground: &Ground, sessions: &[&str], client: &Browser) -> Client {
    let mut pairs: Vec<String> = sessions.iter().map(|value| format!("sid={value}")).collect();
    pairs.push(format!("sid.cid={}", client.jar["sid.cid"]));
    ground.connect(&pairs.join("; ")).await
}

async fn the_first_session_cookie_that_lives_pairs(over: &Over) {
    let ground = over.ground().await;
    let (mut a, b) = (ground.seeded(r#"{"n":10}"#).await, ground.seeded(r#"{"n":20}"#).await);
    let superseded = a.jar["sid"].clone();
    ground.login(&mut a, r#"{"user":"ada"}"#).await;
    let mut gone = ground.seeded(r#"{"n":0}"#).await;
    let dead = gone.jar["sid"].clone();
    ground.post(&mut gone, "/logout").await;
    let (first, second) = (a.jar["sid"].clone(), b.jar["sid"].clone());
    let stranger = ground.visitor().await;
    let cases: [(&[&str], &Browser); 9] = [
        (&[&first], &a),
        (&[&dead, &first], &a),
        (&[&superseded, &first], &a),
        (&["junk", &superseded, &dead, &first], &a),
        (&["junk", "", &dead, &superseded, &first], &a),
        (&[&dead, &first], &stranger),
        (&[&first, &second], &a),
        (&[&first, &second], &b),
        (&[&dead, &superseded, &first, &second], &b),
    ];
    for (n, (sessions, client)) in cases.into_iter().enumerate() {
        let mut socket = open(&ground, sessions, client).await;
        let ids = socket.call("ids", Value::Null).await;
        assert_eq!(ids["session"], ground.id(&a).await, "case {n}");
        assert_eq!(ids["client"], a.clone().get(&ground.app, "/client").await.body, "case {n}");
        assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 11 + n}), "case {n}");
        socket.close().await;
    }
    let mut other = open(&ground, &[&second, &first], &a).await;
    assert_eq!(other.call("inc", Value::Null).await, json!({"ok": 21}));
    for sessions in [&[&*dead][..], &[&superseded], &[&superseded, &dead, "junk"]] {
        for client in [&a, &stranger] {
            sees_nothing(&mut open(&ground, sessions, client).await).await;
        }
    }
}

async fn a_cookie_behind_four_that_verify_is_not_looked_at(over: &Over) {
    let ground = over.ground().await;
    let browser = ground.seeded(r#"{"n":1}"#).await;
    let mut dead = Vec::new();
    for _ in 0..4 {
        let mut gone = ground.seeded(r#"{"n":0}"#).await;
        dead.push(gone.jar["sid"].clone());
        ground.post(&mut gone, "/logout").await;
    }
    let mut sessions: Vec<&str> = dead.iter().map(String::as_str).collect();
    sessions.push(&browser.jar["sid"]);
    sees_nothing(&mut open(&ground, &sessions, &browser).await).await;
    let mut socket = open(&ground, &sessions[1..], &browser).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
}
