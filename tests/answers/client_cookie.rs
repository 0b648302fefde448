//! On which answers the client cookie is sent.

use axum::http::header::CACHE_CONTROL;
use axum_io_session::SessionBridge;
use axum_io_session::bridge::{ClientCookie, SessionBridgeBuilder};

use crate::support::http::Browser;
use crate::support::probe::ProbeStore;
use crate::support::{KEY, OTHER_KEY};
use crate::{begun, builder, built, said};

fn with(policy: ClientCookie) -> SessionBridgeBuilder {
    builder().client_cookie(policy)
}

/// Which of these routes send the client cookie.
async fn senders(app: &axum::Router, browser: &Browser) -> Vec<&'static str> {
    let mut senders = Vec::new();
    for uri in ["/plain", "/nowhere", "/client", "/id", "/read"] {
        let answer = browser.clone().get(app, uri).await;
        let sent = answer.set_cookie("sid.cid").is_some();
        assert!(!sent || said(&answer, CACHE_CONTROL) == "private", "{uri}");
        if sent {
            senders.push(uri);
        }
    }
    senders
}

#[tokio::test]
async fn always_sends_it_with_every_answer() {
    let (_, app) = built(with(ClientCookie::Always)).await;
    for browser in [Browser::new(), begun(&app, "/merge", r#"{"a":1}"#).await] {
        let all = ["/plain", "/nowhere", "/client", "/id", "/read"];
        assert_eq!(senders(&app, &browser).await, all);
    }
}

#[tokio::test]
async fn with_session_sends_it_where_the_session_or_the_client_is_asked_for() {
    let (_, app) = built(with(ClientCookie::WithSession)).await;
    for browser in [Browser::new(), begun(&app, "/merge", r#"{"a":1}"#).await] {
        assert_eq!(senders(&app, &browser).await, ["/client", "/id", "/read"]);
    }
    let created = Browser::new().post(&app, "/merge", r#"{"a":1}"#).await;
    assert!(created.set_cookie("sid.cid").is_some());
}

#[tokio::test]
async fn when_new_sends_it_once() {
    let (_, app) = built(with(ClientCookie::WhenNew)).await;
    let all = ["/plain", "/nowhere", "/client", "/id", "/read"];
    assert_eq!(senders(&app, &Browser::new()).await, all);
    let mut browser = begun(&app, "/merge", r#"{"a":1}"#).await;
    assert_eq!(senders(&app, &browser).await, [""; 0]);
    let written = browser.post(&app, "/merge", r#"{"b":1}"#).await;
    assert!(written.set_cookie("sid").is_none() && written.set_cookie("sid.cid").is_none());
}

#[tokio::test]
async fn a_client_id_that_changes_is_sent_under_every_policy() {
    for policy in [ClientCookie::Always, ClientCookie::WithSession, ClientCookie::WhenNew] {
        let (_, app) = built(with(policy)).await;
        // The logout of a sealed session.
        let mut browser = begun(&app, "/login", r#"{"user":"ada"}"#).await;
        let before = browser.jar["sid.cid"].clone();
        let answer = browser.post(&app, "/logout", "").await;
        assert!(answer.set_cookie("sid.cid").is_some(), "{policy:?}");
        assert_ne!(browser.jar["sid.cid"], before, "{policy:?}");
        // A request that goes its own way.
        let sealed = begun(&app, "/login", r#"{"user":"ada"}"#).await;
        let mut thief = sealed.clone();
        thief.jar.remove("sid");
        let answer = thief.post(&app, "/merge", r#"{"a":1}"#).await;
        assert!(answer.set_cookie("sid.cid").is_some(), "{policy:?}");
        assert_ne!(thief.jar["sid.cid"], sealed.jar["sid.cid"], "{policy:?}");
        // A session cookie beside another client's cookie.
        let mut mixed = begun(&app, "/merge", r#"{"a":1}"#).await;
        mixed.jar.insert("sid.cid".into(), sealed.jar["sid.cid"].clone());
        let answer = mixed.get(&app, "/read").await;
        assert!(answer.set_cookie("sid.cid").is_some(), "{policy:?}");
        assert_ne!(mixed.jar["sid.cid"], sealed.jar["sid.cid"], "{policy:?}");
    }
}

#[tokio::test]
async fn a_client_cookie_of_an_older_key_is_signed_again() {
    for (policy, uri) in [
        (ClientCookie::Always, "/plain"),
        (ClientCookie::WithSession, "/client"),
        (ClientCookie::WhenNew, "/plain"),
    ] {
        let store = ProbeStore::new();
        let old = SessionBridge::builder().signing_keys([OTHER_KEY]).store(store.clone());
        let (_, old) = built(old).await;
        let mut browser = begun(&old, "/merge", r#"{"a":1}"#).await;
        let id = browser.get(&old, "/client").await.body;
        // The session's cookie would lead to the client, too.
        browser.jar.remove("sid");
        let new = SessionBridge::builder().signing_keys([KEY, OTHER_KEY]).client_cookie(policy);
        let (_, new) = built(new.store(store)).await;
        assert!(browser.get(&new, uri).await.set_cookie("sid.cid").is_some(), "{policy:?}");
        assert_eq!(browser.get(&new, "/client").await.body, id);
        assert_ne!(browser.get(&old, "/client").await.body, id, "by the new key");
    }
}
