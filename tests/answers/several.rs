//! Several session cookies of one name: browsers send them after a change of `domain` or `path`,
//! and sibling hosts may set some.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::http::{Answer, Browser, send};
use crate::{begun, builder, built};

/// Asks with these values of the session cookie, in this order, and the client cookie of the last
/// browser.
async fn ask(app: &Router, method: &str, uri: &str, sids: &[&str], of: &Browser) -> Answer {
    let mut cookies: Vec<String> = sids.iter().map(|value| format!("sid={value}")).collect();
    cookies.push(format!("sid.cid={}", of.jar["sid.cid"]));
    let request = Request::builder().method(method).uri(uri).header("cookie", cookies.join("; "));
    send(app, request.body(Body::from(r#"{"b":1}"#)).unwrap()).await
}

/// The cookie of a session that has ended.
async fn ended(app: &Router) -> String {
    let mut browser = begun(app, "/merge", r#"{"dead":1}"#).await;
    let value = browser.jar["sid"].clone();
    browser.post(app, "/logout", "").await;
    value
}

#[tokio::test]
async fn the_first_cookie_that_lives_counts() {
    let (_, app) = built(builder()).await;
    let live = begun(&app, "/merge", r#"{"a":1}"#).await;
    let other = begun(&app, "/merge", r#"{"other":1}"#).await;
    let (mut sealed, mut late) = (begun(&app, "/merge", r#"{"s":1}"#).await, Browser::new());
    late.jar.clone_from(&sealed.jar);
    sealed.post(&app, "/rotate", "").await;
    let dead = ended(&app).await;
    let (live_sid, other_sid) = (live.jar["sid"].as_str(), other.jar["sid"].as_str());
    let late = late.jar["sid"].as_str();
    for sids in [
        &[dead.as_str(), live_sid][..],
        &["junk", live_sid],
        &["", live_sid],
        &[late, live_sid],
        &[dead.as_str(), "junk", late, live_sid, other_sid],
        &[live_sid, other_sid],
        &[live_sid, dead.as_str()],
        &["junk", "junk", "junk", "junk", "junk", live_sid],
    ] {
        let answer = ask(&app, "GET", "/read", sids, &live).await;
        assert_eq!(answer.json()["data"], json!({"a": 1}), "{sids:?}");
        assert_eq!(answer.set_cookie("sid"), None, "{sids:?}");
    }
    // The client cookie follows the session that counts.
    let answer = ask(&app, "GET", "/read", &[&dead, other_sid, live_sid], &live).await;
    assert_eq!(answer.json()["data"], json!({"other": 1}));
    let mut after = other.clone();
    assert_eq!(answer.json()["client"], after.get(&app, "/client").await.body);
    assert!(answer.set_cookie("sid.cid").is_some());
}

#[tokio::test]
async fn what_lives_behind_a_dead_cookie_is_changed_and_ended() {
    let (_, app) = built(builder()).await;
    let live = begun(&app, "/merge", r#"{"a":1}"#).await;
    let dead = ended(&app).await;
    let sids = [dead.as_str(), live.jar["sid"].as_str()];
    let written = ask(&app, "POST", "/merge", &sids, &live).await;
    assert_eq!(written.status, StatusCode::OK);
    assert!(written.set_cookie("sid").is_none(), "the one that lives is there");
    let seen = live.clone().get(&app, "/read").await.json();
    assert_eq!(seen["data"], json!({"a": 1, "b": 1}));
    let gone = ask(&app, "POST", "/logout", &sids, &live).await;
    assert!(gone.set_cookie("sid").unwrap().contains("Max-Age=0"));
    assert_eq!(live.clone().get(&app, "/read").await.json()["id"], Value::Null);
}

#[tokio::test]
async fn four_cookies_that_verify_are_looked_up_and_not_a_fifth() {
    let (_, app) = built(builder()).await;
    let live = begun(&app, "/merge", r#"{"a":1}"#).await;
    let mut dead = Vec::new();
    for _ in 0..4 {
        dead.push(ended(&app).await);
    }
    let live_sid = live.jar["sid"].as_str();
    let mut sids: Vec<&str> = dead.iter().map(String::as_str).collect();
    sids.insert(3, live_sid);
    let answer = ask(&app, "GET", "/read", &sids, &live).await;
    assert_eq!(answer.json()["data"], json!({"a": 1}), "the fourth");
    sids.swap(3, 4);
    let answer = ask(&app, "GET", "/read", &sids, &live).await;
    assert_eq!(answer.json()["data"], json!({}), "the fifth");
    assert_eq!(answer.set_cookie("sid"), None);
    let seen = live.clone().get(&app, "/read").await.json();
    assert_eq!(seen["data"], json!({"a": 1}), "its session lives on");
}

#[tokio::test]
async fn a_plain_write_with_a_late_and_a_dead_cookie_is_a_conflict() {
    let (_, app) = built(builder()).await;
    let mut browser = begun(&app, "/merge", r#"{"a":1}"#).await;
    let late = browser.jar["sid"].clone();
    browser.post(&app, "/rotate", "").await;
    let dead = ended(&app).await;
    for sids in [[dead.as_str(), late.as_str()], [late.as_str(), dead.as_str()]] {
        let answer = ask(&app, "POST", "/merge", &sids, &browser).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{sids:?}");
        assert_eq!(answer.set_cookie("sid"), None);
    }
    assert_eq!(browser.get(&app, "/read").await.json()["data"], json!({"a": 1}));
}
