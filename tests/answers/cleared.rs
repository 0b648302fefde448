//! A session cookie is cleared by the answer to the request that ended the session, and by no other.

use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use axum_io_session::{Renewal, Session, SessionBridge};
use serde_json::json;

use crate::support::app::{Gate, app, show};
use crate::support::http::{Answer, Browser};
use crate::support::{OTHER_KEY, until};
use crate::{begun, builder, built};

fn clears(answer: &Answer) -> bool {
    answer.set_cookie("sid").is_some_and(|line| {
        line.starts_with("sid=;")
            && line.contains("Max-Age=0")
            && line.contains("Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    })
}

/// Cookies that open nothing, each for another reason.
async fn dead(bridge: &SessionBridge, app: &axum::Router) -> Vec<(&'static str, Browser)> {
    let mut ended = begun(app, "/merge", r#"{"a":1}"#).await;
    let unknown = ended.clone();
    ended.post(app, "/logout", "").await;
    let expired = begun(app, "/age/1", "").await;
    let id = expired.clone().get(app, "/id").await.body.parse().unwrap();
    // Looking at it by the bridge renews nothing.
    until("it expires", async || bridge.get_by_id(&id).await.unwrap().is_none()).await;
    let mut live = begun(app, "/merge", r#"{"a":1}"#).await;
    let superseded = live.clone();
    live.post(app, "/rotate", "").await;
    let foreign = SessionBridge::builder().signing_keys([OTHER_KEY]).build().await.unwrap();
    let badly_signed = begun(&self::app(&foreign), "/merge", r#"{"a":1}"#).await;
    let mut junk = Browser::new();
    junk.jar.insert("sid".into(), "junk".into());
    assert!(bridge.stats().ended > 0);
    vec![
        ("ended", unknown),
        ("expired", expired),
        ("superseded", superseded),
        ("badly signed", badly_signed),
        ("junk", junk),
    ]
}

#[tokio::test]
async fn cookies_that_open_nothing_are_left_alone() {
    for renewal in [Renewal::OnWrite, Renewal::EveryResponse] {
        let (bridge, app) = built(builder().renewal(renewal)).await;
        for (what, browser) in dead(&bridge, &app).await {
            let mut alone = browser.clone();
            alone.jar.remove("sid.cid");
            for mut browser in [browser, alone] {
                for uri in ["/plain", "/read", "/id", "/client", "/nowhere"] {
                    let answer = browser.get(&app, uri).await;
                    assert_eq!(answer.set_cookie("sid"), None, "{what} on {uri}");
                }
                for uri in ["/rotate", "/seal", "/renew-id", "/logout"] {
                    let answer = browser.post(&app, uri, "").await;
                    assert_eq!(answer.set_cookie("sid"), None, "{what} on {uri}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_request_that_ends_the_session_clears_its_cookie() {
    let (_, app) = built(builder()).await;
    for begin in ["/merge", "/login"] {
        let mut browser = begun(&app, begin, r#"{"a":1}"#).await;
        let answer = browser.post(&app, "/logout", "").await;
        assert!(clears(&answer), "{:?}", answer.set_cookies("sid"));
        // The browser has none any more, so there is nothing to clear.
        assert_eq!(browser.post(&app, "/logout", "").await.set_cookie("sid"), None);
    }
}

#[tokio::test]
async fn of_two_logouts_at_once_one_ends_the_session_and_clears_the_cookie() {
    let (bridge, app) = built(builder()).await;
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |session: Session| {
        inside.stop().await;
        session.destroy()
    };
    let held = axum::Router::new().route("/", post(handler)).layer(bridge.layer());
    for begin in ["/merge", "/login"] {
        let mut browser = begun(&app, begin, r#"{"a":1}"#).await;
        let (mut late, held, old) = (browser.clone(), held.clone(), browser.jar["sid.cid"].clone());
        let late = tokio::spawn(async move {
            let answer = late.post(&held, "/", "").await;
            (late, answer)
        });
        gate.reached().await;
        assert!(clears(&browser.post(&app, "/logout", "").await));
        gate.open();
        let (late, answer) = late.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{begin}: {}", answer.body);
        assert_eq!(answer.set_cookie("sid"), None, "{begin}");
        // It must not bring back the client id that the other answer has replaced.
        if begin == "/login" && answer.set_cookie("sid.cid").is_some() {
            assert_ne!(late.jar["sid.cid"], old);
        }
    }
}

#[tokio::test]
async fn a_late_answer_to_a_request_of_an_older_session_leaves_the_newer_ones_cookie_alone() {
    for renewal in [Renewal::OnWrite, Renewal::EveryResponse] {
        let (bridge, app) =
            built(builder().renewal(renewal).max_age(Duration::from_secs(60))).await;
        let gate = Gate::new();
        let inside = gate.clone();
        let handler = async move |session: Session| {
            inside.stop().await;
            show(&session)
        };
        let held = axum::Router::new().route("/", axum::routing::get(handler));
        let held = held.layer(bridge.layer());
        for end in ["/logout", "/swap", "/rotate"] {
            let mut browser = begun(&app, "/merge", r#"{"a":1}"#).await;
            let (mut late, held) = (browser.clone(), held.clone());
            let late = tokio::spawn(async move { late.get(&held, "/").await });
            gate.reached().await;
            browser.post(&app, end, "").await;
            browser.post(&app, "/merge", r#"{"newer":1}"#).await;
            gate.open();
            let late = late.await.unwrap();
            assert_eq!(late.status, StatusCode::OK, "{end}");
            assert_eq!(late.json()["data"], json!({"a": 1}), "{end}: what it had loaded");
            assert_eq!(late.set_cookie("sid"), None, "{end}");
        }
    }
}

#[tokio::test]
async fn a_409_brings_no_client_id_back_that_a_logout_has_replaced() {
    let (bridge, app) = built(builder()).await;
    let gate = Gate::new();
    let inside = gate.clone();
    let handler = async move |session: Session| {
        inside.stop().await;
        session.insert("late", 1).map(drop)
    };
    let held = axum::Router::new().route("/", post(handler)).layer(bridge.layer());
    let mut browser = begun(&app, "/login", r#"{"user":"ada"}"#).await;
    let mut late = browser.clone();
    let late = tokio::spawn(async move { late.post(&held, "/", "").await });
    gate.reached().await;
    assert!(browser.post(&app, "/logout", "").await.set_cookie("sid.cid").is_some());
    gate.open();
    let late = late.await.unwrap();
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(late.set_cookie("sid"), None);
    assert_eq!(late.set_cookie("sid.cid"), None);
}
