//! The cookie lives as long as its session, and is sent again when the session outlives it.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum_io_session::{MaxAge, Renewal, SessionBridge, SessionId};
use serde_json::json;

use crate::support::http::{Answer, Browser};
use crate::support::probe::ProbeStore;
use crate::support::{KEY, OTHER_KEY, app::app, until, world::now_ms};
use crate::{begun, builder, built, max_age};

const HOUR: Duration = Duration::from_secs(3600);

async fn id(app: &axum::Router, browser: &Browser) -> SessionId {
    browser.clone().get(app, "/id").await.body.parse().unwrap()
}

/// The end that a session cookie's value says, as seconds from now.
fn end_in_value(answer: &Answer) -> Option<i64> {
    let line = answer.set_cookie("sid").expect("a session cookie");
    let value = line.split(';').next().unwrap();
    let (_, ends) = value.rsplit_once('.')?;
    Some(ends.parse::<i64>().unwrap() - i64::try_from(now_ms() / 1000).unwrap())
}

#[tokio::test]
async fn a_cookies_age_is_the_life_of_its_session() {
    let capped = builder().absolute_max_age(2 * HOUR).max_age(10 * HOUR);
    for (builder, uri, expected) in [
        (builder(), "/merge", 30 * 24 * 3600),
        (builder().max_age(HOUR), "/merge", 3600),
        (builder().max_age(HOUR), "/age/100", 100),
        (builder().max_age(HOUR), "/age/7200", 7200),
        (builder().open_max_age(HOUR), "/merge", 3600),
        (builder().open_max_age(HOUR), "/login", 30 * 24 * 3600),
        (capped, "/merge", 7200),
    ] {
        let (_, app) = built(builder).await;
        let answer = Browser::new().post(&app, uri, r#"{"a":1}"#).await;
        let line = answer.set_cookie("sid").unwrap();
        assert_eq!(max_age(&line), Some(expected), "{uri}");
        let ends = end_in_value(&answer).expect("an end");
        assert!((expected - 2..=expected).contains(&ends), "{uri}: {ends}");
    }
}

#[tokio::test]
async fn a_session_prolonged_by_the_bridge_sends_its_cookie_with_the_next_answer_that_reads_it() {
    let (bridge, app) = built(builder()).await;
    let mut browser = begun(&app, "/age/100", "").await;
    assert_eq!(browser.get(&app, "/read").await.set_cookie("sid"), None);
    let id = id(&app, &browser).await;
    bridge.set_by_id(&id, json!({"n": 1}), Some(MaxAge::After(HOUR))).await.unwrap();
    // Neither to those who do not read it, nor in what a shared cache may keep.
    assert_eq!(browser.get(&app, "/plain").await.set_cookie("sid"), None);
    let line = browser.get(&app, "/read").await.set_cookie("sid").unwrap();
    assert_eq!(max_age(&line), Some(3600));
    for _ in 0..2 {
        assert_eq!(browser.get(&app, "/read").await.set_cookie("sid"), None, "once is enough");
    }
    // The value that is sent opens the same session.
    assert_eq!(self::id(&app, &browser).await, id);
}

#[tokio::test]
async fn a_cookie_of_a_short_session_is_sent_again_once_the_session_outlives_it_by_more_than_a_second()
 {
    let (bridge, app) = built(builder().max_age(Duration::from_secs(60))).await;
    let browser = begun(&app, "/merge", r#"{"n":1}"#).await;
    let id = id(&app, &browser).await;
    let again = async || {
        bridge.set_by_id(&id, json!({"n": 1}), None).await.unwrap();
        browser.clone().get(&app, "/read").await.set_cookie("sid")
    };
    assert_eq!(again().await, None);
    until("it is sent again", async || again().await.is_some()).await;
}

#[tokio::test]
async fn handlers_that_prolong_a_session_elsewhere_have_its_cookie_sent_too() {
    let (bridge, app) = built(builder()).await;
    let mut browser = begun(&app, "/age/100", "").await;
    let id = id(&app, &browser).await;
    let held = bridge.with_session(&id, async |session| session.set_max_age(HOUR)).await;
    held.unwrap().unwrap();
    let line = browser.get(&app, "/read").await.set_cookie("sid").unwrap();
    assert_eq!(max_age(&line), Some(3600));
    // Another tab of the same browser, which has not seen that cookie.
    let mut other = browser.clone();
    assert!(browser.post(&app, "/age/7200", "").await.set_cookie("sid").is_some());
    let line = other.get(&app, "/read").await.set_cookie("sid").unwrap();
    assert_eq!(max_age(&line), Some(7200));
}

#[tokio::test]
async fn a_session_that_was_made_shorter_elsewhere_keeps_its_cookie() {
    let (bridge, app) = built(builder()).await;
    let mut browser = begun(&app, "/merge", r#"{"n":1}"#).await;
    let id = id(&app, &browser).await;
    bridge.set_by_id(&id, json!({"n": 2}), Some(MaxAge::After(HOUR))).await.unwrap();
    assert_eq!(browser.get(&app, "/read").await.set_cookie("sid"), None);
}

#[tokio::test]
async fn renew_counts_the_cookies_own_end() {
    let store = ProbeStore::new();
    let (bridge, app) = built(builder().renewal(Renewal::PastHalf).store(store.clone())).await;
    let mut browser = begun(&app, "/age/100", "").await;
    assert_eq!(browser.get(&app, "/plain").await.set_cookie("sid"), None);
    let id = id(&app, &browser).await;
    bridge.set_by_id(&id, json!({"n": 1}), Some(MaxAge::After(HOUR))).await.unwrap();
    assert_eq!(store.touches(), 0);
    // The session is as good as new, its cookie is not.
    let line = browser.get(&app, "/plain").await.set_cookie("sid").unwrap();
    assert_eq!((max_age(&line), store.touches()), (Some(3600), 1));
    for _ in 0..2 {
        assert_eq!(browser.get(&app, "/plain").await.set_cookie("sid"), None);
    }
    assert_eq!(store.touches(), 1);
}

#[tokio::test]
async fn a_cookie_that_ends_with_the_browser_says_no_end_and_is_not_sent_again() {
    let (bridge, app) = built(builder()).await;
    let mut browser = Browser::new();
    let created = browser.post(&app, "/browser", "").await;
    let line = created.set_cookie("sid").unwrap();
    assert!(max_age(&line).is_none() && !line.contains("Expires"), "{line}");
    assert_eq!(end_in_value(&created), None);
    let id = id(&app, &browser).await;
    bridge.set_by_id(&id, json!({"n": 1}), None).await.unwrap();
    assert_eq!(browser.get(&app, "/read").await.set_cookie("sid"), None);
    // Of another kind from now on, and back again.
    bridge.set_by_id(&id, json!({"n": 1}), Some(MaxAge::After(HOUR))).await.unwrap();
    let dated = browser.get(&app, "/read").await;
    assert_eq!(max_age(&dated.set_cookie("sid").unwrap()), Some(3600));
    bridge.set_by_id(&id, json!({"n": 1}), Some(MaxAge::Browser)).await.unwrap();
    let undated = browser.get(&app, "/read").await;
    assert_eq!(
        (max_age(&undated.set_cookie("sid").unwrap()), end_in_value(&undated)),
        (None, None)
    );
    assert_eq!(browser.get(&app, "/read").await.set_cookie("sid"), None);
}

#[tokio::test]
async fn a_cookie_of_an_older_key_is_signed_again_once_and_keeps_its_end() {
    let store = ProbeStore::new();
    let old = SessionBridge::builder().signing_keys([OTHER_KEY]).store(store.clone());
    let (_, old) = built(old).await;
    let mut browser = begun(&old, "/age/1000", "").await;
    let new =
        SessionBridge::builder().signing_keys([KEY, OTHER_KEY]).store(store).build().await.unwrap();
    let new = app(&new);
    assert_eq!(browser.get(&new, "/plain").await.set_cookie("sid"), None, "it is not looked at");
    let signed = browser.get(&new, "/read").await;
    assert_eq!(signed.status, StatusCode::OK);
    let age = max_age(&signed.set_cookie("sid").unwrap()).unwrap();
    assert!((990..=1000).contains(&age), "{age}");
    assert_eq!(signed.headers[header::CACHE_CONTROL], "private, no-store");
    assert_eq!(browser.get(&new, "/read").await.set_cookie("sid"), None);
    assert_eq!(browser.get(&old, "/read").await.json()["data"], json!({}), "by the new key");
}
