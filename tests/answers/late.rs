//! Answers that come after another request has given the session a new id: none of them puts the
//! old id back into the browser.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use axum_io_session::{Error, MaxAge, Session, SessionBridge};
use serde_json::json;

use crate::support::KEY;
use crate::support::OTHER_KEY;
use crate::support::app::{Gate, app};
use crate::support::http::{Answer, Browser};
use crate::support::probe::ProbeStore;
use crate::{begun, builder, built};

/// `POST /{what}`: reads, or writes at once, waits at the gate, and perhaps writes once more.
fn held(bridge: &SessionBridge) -> (Router, Gate) {
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |axum::extract::Path(what): axum::extract::Path<String>,
                              session: Session| {
        if what != "read" {
            session.insert("saved", 1)?;
            session.save().await?;
        }
        inside.stop().await;
        if what == "write-twice" {
            session.insert("late", 1)?;
        }
        Ok::<_, Error>(())
    };
    (Router::new().route("/{what}", post(handler)).layer(bridge.layer()), gate)
}

/// The answer to a request that is held up while another one of the same browser is served.
async fn answer_after(
    bridge: &SessionBridge,
    browser: &mut Browser,
    what: &'static str,
    other: &str,
) -> Answer {
    let (held, gate) = held(bridge);
    let mut late = browser.clone();
    let late = tokio::spawn(async move { late.post(&held, &format!("/{what}"), "").await });
    gate.reached().await;
    let answer = browser.post(&app(bridge), other, r#"{"user":"ada"}"#).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    gate.open();
    late.await.unwrap()
}

#[tokio::test]
async fn a_late_answer_sends_no_cookie_again_whose_id_another_answer_has_replaced() {
    let (bridge, app) = built(builder()).await;
    for other in ["/login", "/renew-id", "/logout", "/swap"] {
        let mut browser = begun(&app, "/age/100", "").await;
        let id = browser.get(&app, "/id").await.body.parse().unwrap();
        // The session outlives its cookie.
        let hour = MaxAge::After(Duration::from_secs(3600));
        bridge.set_by_id(&id, json!({"n": 1}), Some(hour)).await.unwrap();
        let late = answer_after(&bridge, &mut browser, "read", other).await;
        assert_eq!(late.status, StatusCode::OK, "{other}");
        assert_eq!(late.set_cookie("sid"), None, "{other}");
    }
}

#[tokio::test]
async fn a_late_answer_signs_no_cookie_again_whose_id_another_answer_has_replaced() {
    let store = ProbeStore::new();
    let old = SessionBridge::builder().signing_keys([OTHER_KEY]).store(store.clone());
    let (_, old) = built(old).await;
    let new =
        SessionBridge::builder().signing_keys([KEY, OTHER_KEY]).store(store).build().await.unwrap();
    for other in ["/login", "/renew-id", "/logout", "/swap"] {
        let mut browser = begun(&old, "/merge", r#"{"n":1}"#).await;
        let late = answer_after(&new, &mut browser, "read", other).await;
        assert_eq!(late.status, StatusCode::OK, "{other}");
        assert_eq!(late.set_cookie("sid"), None, "{other}");
    }
}

#[tokio::test]
async fn a_late_answer_to_a_write_of_before_sets_no_cookie_whose_id_was_replaced() {
    let (bridge, app) = built(builder()).await;
    for other in ["/login", "/renew-id", "/logout", "/swap"] {
        let mut browser = begun(&app, "/merge", r#"{"n":1}"#).await;
        let late = answer_after(&bridge, &mut browser, "write", other).await;
        assert_eq!(late.status, StatusCode::OK, "{other}: {}", late.body);
        assert_eq!(late.set_cookie("sid"), None, "{other}");
    }
}

#[tokio::test]
async fn a_conflict_after_a_write_of_before_sets_no_cookie_whose_id_was_replaced() {
    let (bridge, app) = built(builder()).await;
    for other in ["/login", "/logout", "/swap"] {
        let mut browser = begun(&app, "/merge", r#"{"n":1}"#).await;
        let late = answer_after(&bridge, &mut browser, "write-twice", other).await;
        assert_eq!(late.status, StatusCode::CONFLICT, "{other}: {}", late.body);
        assert_eq!(late.set_cookie("sid"), None, "{other}");
    }
}
