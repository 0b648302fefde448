//! What answers tell caches, and what they carry if a shared cache may keep them.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, EXPIRES, HeaderName, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum_io_session::{Error, Renewal, Session, SessionBridge};

use crate::support::http::{Answer, Browser};
use crate::support::probe::ProbeStore;
use crate::support::{app::app, bridge};
use crate::{begun, builder, built, said};

/// Headers from `name: value`, separated by `|`.
fn headers(text: &str) -> HeaderMap {
    let lines = text.split('|').filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap()))
        .collect()
}

/// Routes that answer with these headers: `/plain` asks for nothing, `/reads` reads the session,
/// `/writes` and `/ends` change it.
fn answering(bridge: &SessionBridge, text: &'static str) -> Router {
    let reads = async move |session: Session| {
        let _ = session.data();
        headers(text)
    };
    let writes = async move |session: Session| {
        session.insert("n", session.get::<u64>("n")?.unwrap_or(0) + 1)?;
        Ok::<_, Error>(headers(text))
    };
    let ends = async move |session: Session| {
        session.destroy()?;
        Ok::<_, Error>(headers(text))
    };
    Router::new()
        .route("/plain", get(async move || headers(text)))
        .route("/reads", get(reads))
        .route("/writes", post(writes))
        .route("/ends", post(ends))
        .layer(bridge.layer())
}

fn sets_nothing(answer: &Answer) -> bool {
    answer.headers.get("set-cookie").is_none()
}

const SHARED: [&str; 8] = [
    "cache-control: public",
    "cache-control: max-age=60",
    "cache-control: max-age=31536000, immutable",
    "cache-control: s-maxage=60",
    "cache-control: no-cache, PUBLIC",
    "expires: Fri, 31 Dec 2100 23:59:59 GMT",
    "cdn-cache-control: max-age=60",
    "surrogate-control: max-age=60",
];

const PRIVATE: [&str; 5] = [
    "cache-control: private",
    "cache-control: no-store",
    "cache-control: private, max-age=60",
    "cache-control: no-cache",
    "cache-control: no-store|expires: Fri, 31 Dec 2100 23:59:59 GMT",
];

#[tokio::test]
async fn what_a_shared_cache_may_keep_carries_no_cookie_and_stays_as_the_handler_made_it() {
    let bridge = bridge().await;
    let known = begun(&app(&bridge), "/merge", r#"{"a":1}"#).await;
    for text in SHARED {
        let app = answering(&bridge, text);
        for (mut browser, uri) in [
            (Browser::new(), "/plain"),
            (Browser::new(), "/reads"),
            (known.clone(), "/plain"),
            (known.clone(), "/reads"),
        ] {
            let answer = browser.get(&app, uri).await;
            assert_eq!(answer.status, StatusCode::OK);
            for (name, value) in &headers(text) {
                assert_eq!(&answer.headers[name], value, "{text} on {uri}");
            }
            assert!(sets_nothing(&answer), "{text} on {uri}: {:?}", answer.headers);
        }
    }
}

#[tokio::test]
async fn rolling_and_renewing_leave_alone_what_a_shared_cache_may_keep() {
    let rolling = builder().renewal(Renewal::EveryResponse).build().await.unwrap();
    let mut browser = begun(&app(&rolling), "/merge", r#"{"a":1}"#).await;
    for text in SHARED {
        for uri in ["/plain", "/reads"] {
            let answer = browser.get(&answering(&rolling, text), uri).await;
            for (name, value) in &headers(text) {
                assert_eq!(answer.headers.get(name), Some(value), "{text} on {uri}");
            }
            assert!(sets_nothing(&answer), "{text} on {uri}: {:?}", answer.headers);
        }
    }
    // The next answer of another kind renews the session and its cookie.
    let answer = browser.get(&answering(&rolling, ""), "/plain").await;
    assert!(answer.set_cookie("sid").is_some());
}

#[tokio::test]
async fn a_cookie_that_would_be_sent_again_waits_for_an_answer_that_no_shared_cache_keeps() {
    let (bridge, app) = built(builder()).await;
    let mut browser = begun(&app, "/age/100", "").await;
    let id = browser.get(&app, "/id").await.body.parse().unwrap();
    let hour = axum_io_session::MaxAge::After(std::time::Duration::from_secs(3600));
    bridge.set_by_id(&id, serde_json::json!({"n": 1}), Some(hour)).await.unwrap();
    for text in SHARED {
        assert!(sets_nothing(&browser.get(&answering(&bridge, text), "/reads").await), "{text}");
    }
    let answer = browser.get(&answering(&bridge, ""), "/reads").await;
    assert!(answer.set_cookie("sid").is_some());
}

#[tokio::test]
async fn an_answer_that_sets_or_clears_the_session_cookie_is_kept_by_no_cache() {
    let bridge = bridge().await;
    for text in SHARED.into_iter().chain(PRIVATE).chain([""]) {
        let app = answering(&bridge, text);
        let mut browser = Browser::new();
        for uri in ["/writes", "/ends"] {
            let answer = browser.post(&app, uri, "").await;
            assert!(answer.set_cookie("sid").is_some() && answer.set_cookie("sid.cid").is_some());
            let control = said(&answer, CACHE_CONTROL);
            assert!(control.starts_with("private, no-store"), "{text} on {uri}: {control}");
            assert!(!control.contains("max-age") && !control.contains("public"), "{control}");
            for name in [EXPIRES.as_str(), "cdn-cache-control", "surrogate-control"] {
                assert!(!answer.headers.contains_key(name), "{text} on {uri}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_handlers_stricter_words_stay() {
    let bridge = bridge().await;
    for (text, kept) in [
        ("cache-control: no-cache", "private, no-store, no-cache"),
        ("cache-control: public, must-revalidate", "private, no-store, must-revalidate"),
        ("cache-control: no-transform, no-store", "private, no-store, no-transform"),
    ] {
        let answer = Browser::new().post(&answering(&bridge, text), "/writes", "").await;
        assert_eq!(said(&answer, CACHE_CONTROL), kept, "{text}");
    }
    for text in PRIVATE {
        for uri in ["/plain", "/reads"] {
            let answer = Browser::new().get(&answering(&bridge, text), uri).await;
            assert!(answer.set_cookie("sid.cid").is_some(), "{text} on {uri}");
            for (name, value) in &headers(text) {
                assert_eq!(&answer.headers[name], value, "{text} on {uri}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_read_a_session_and_says_nothing_is_private_and_varies() {
    let bridge = bridge().await;
    for browser in [Browser::new(), begun(&app(&bridge), "/merge", r#"{"a":1}"#).await] {
        let reads = browser.clone().get(&answering(&bridge, ""), "/reads").await;
        assert_eq!(
            (said(&reads, CACHE_CONTROL), said(&reads, VARY)),
            ("private".into(), "Cookie".into())
        );
        // Without the session it depends on no cookie, but it carries one.
        let plain = browser.clone().get(&answering(&bridge, ""), "/plain").await;
        assert!(plain.set_cookie("sid.cid").is_some());
        assert_eq!(
            (said(&plain, CACHE_CONTROL), said(&plain, VARY)),
            ("private".into(), String::new())
        );
    }
    for (text, varies) in [
        ("vary: accept-encoding", "accept-encoding | Cookie"),
        ("vary: origin, cookie", "origin, cookie"),
        ("vary: *", "*"),
    ] {
        let answer = Browser::new().get(&answering(&bridge, text), "/reads").await;
        assert_eq!(
            (said(&answer, CACHE_CONTROL), said(&answer, VARY)),
            ("private".into(), varies.into())
        );
    }
}

#[tokio::test]
async fn the_answer_of_a_failed_commit_is_none_for_shared_caches() {
    let store = ProbeStore::new();
    let bridge = builder().store(store.clone()).build().await.unwrap();
    let breaker = store.clone();
    let handler = async move |session: Session| {
        session.insert("a", 1)?;
        breaker.set_broken(true);
        Ok::<_, Error>(headers("cache-control: public, max-age=60"))
    };
    let app = Router::new().route("/", post(handler)).layer(bridge.layer());
    let answer = Browser::new().post(&app, "/", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(said(&answer, CACHE_CONTROL), "private");
}
