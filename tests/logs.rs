//! What the log says, and what it must not say.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum_io_session::SessionBridge;
use axum_io_session::bridge::{Secure, SessionBridgeBuilder};
use support::app::app;
use support::http::Browser;
use support::{KEY, OTHER_KEY};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything that this thread logs from now on, at all levels.
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (log, guard)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn count(&self, part: &str) -> usize {
        self.text().lines().filter(|line| line.contains(part)).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn unsigned_cookies_and_missing_or_weak_keys_are_warned_of() {
    let (log, _guard) = Log::begin();
    SessionBridge::builder().signing_keys([KEY]).build().await.unwrap();
    assert_eq!(log.count("WARN"), 0, "{}", log.text());
    SessionBridge::builder().signed(false).build().await.unwrap();
    assert_eq!(log.count("cookies are not signed"), 1, "{}", log.text());
    SessionBridge::builder().build().await.unwrap();
    assert_eq!(log.count("no signing keys are given"), 1, "{}", log.text());
    SessionBridge::builder().signing_keys(["short"]).allow_weak_keys(true).build().await.unwrap();
    assert_eq!(log.count("shorter than 32 bytes"), 1, "{}", log.text());
    assert_eq!(log.count("WARN"), 3, "{}", log.text());
}

#[tokio::test]
async fn anomalies_are_traced_and_neither_ids_nor_keys_nor_data_get_into_the_log() {
    let (log, _guard) = Log::begin();
    let bridge = SessionBridge::builder().signing_keys([KEY, OTHER_KEY]).build().await.unwrap();
    let app = app(&bridge);
    let (mut a, mut b) = (Browser::new(), Browser::new());
    a.post(&app, "/merge", r#"{"password":"a secret"}"#).await;
    b.post(&app, "/merge", r#"{"password":"a secret"}"#).await;
    let secrets = [
        a.get(&app, "/id").await.body,
        b.get(&app, "/id").await.body,
        a.get(&app, "/client").await.body,
        b.get(&app, "/client").await.body,
    ];
    let (whole_a, whole_b) = (a.clone(), b.clone());
    // A changed cookie, a mixed pair, and an id that names nothing any more.
    let mut changed = whole_a.clone();
    changed.jar.insert("sid".into(), whole_a.jar["sid"].replacen('=', "A", 1));
    changed.get(&app, "/read").await;
    let mut mixed = whole_a.clone();
    mixed.jar.insert("sid".into(), whole_b.jar["sid"].clone());
    mixed.get(&app, "/read").await;
    b.post(&app, "/logout", "").await;
    whole_b.clone().get(&app, "/read").await;
    assert_eq!(log.count("bad signature"), 1, "{}", log.text());
    assert_eq!(log.count("do not belong together"), 1, "{}", log.text());
    assert_eq!(log.count("unknown session"), 1, "{}", log.text());

    tracing::info!(?bridge, events = ?bridge.events(), "as an application may log it");
    let mut events = bridge.events();
    a.post(&app, "/merge", r#"{"n":1}"#).await;
    tracing::info!(event = ?support::next(&mut events).await);
    let text = log.text();
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()), "an id is in the log:\n{text}");
    }
    for (name, value) in whole_a.jar.iter().chain(&whole_b.jar) {
        assert!(!text.contains(value.as_str()), "{name} is in the log:\n{text}");
    }
    for secret in [KEY, OTHER_KEY, "a secret"] {
        assert!(!text.contains(secret), "{secret:?} is in the log:\n{text}");
    }
}

#[tokio::test]
async fn what_clients_do_wrong_is_counted_and_is_no_warning() {
    let (log, _guard) = Log::begin();
    let builder = SessionBridge::builder().signing_keys([KEY]).max_payload(100);
    let bridge = builder.build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let late = browser.clone();
    browser.post(&app, "/rotate", "").await;
    let much = format!(r#"{{"a":"{}"}}"#, "x".repeat(100));
    for (browser, uri, body, status) in [
        (&late, "/merge", r#"{"b":1}"#, 409),
        (&late, "/logout", "", 409),
        (&browser, "/merge", &much, 413),
    ] {
        assert_eq!(browser.clone().post(&app, uri, body).await.status, status, "{uri}");
    }
    assert_eq!(bridge.stats().client_errors, 3);
    assert_eq!(bridge.stats().errors, 0);
    browser.jar.insert("sid".into(), "junk".into());
    browser.get(&app, "/read").await;
    let foreign = browser.request("POST", "/merge").header("sec-fetch-site", "cross-site");
    let foreign = browser.send(&app, foreign.body(String::new().into()).unwrap()).await;
    assert_eq!(foreign.status, 403);
    for level in ["WARN", "ERROR"] {
        assert_eq!(log.count(level), 0, "{}", log.text());
    }
    assert_eq!(log.count("another origin was refused"), 1, "{}", log.text());
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_with_its_https_is_warned_of_once() {
    const WARNING: &str = "no proxy is trusted";
    let headers = [
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1;proto=https"),
        ("x-forwarded-proto", "http, https"),
    ];
    for (name, value) in headers {
        let (log, _guard) = Log::begin();
        let ask = async |builder: SessionBridgeBuilder| {
            let app = app(&builder.build().await.unwrap());
            for _ in 0..3 {
                let request = Browser::new().request("GET", "/plain").header(name, value);
                let request = request.body(String::new().into()).unwrap();
                assert_eq!(Browser::new().send(&app, request).await.status, 200);
            }
        };
        let builder = || SessionBridge::builder().signing_keys([KEY]);
        ask(builder().trusted_proxies(1)).await;
        ask(builder().secure(Secure::Yes)).await;
        ask(builder().secure(Secure::No)).await;
        assert_eq!(log.count(WARNING), 0, "{}", log.text());
        ask(builder()).await;
        assert_eq!(log.count(WARNING), 1, "{}", log.text());
        assert_eq!(log.count("trusted_proxies(1)"), 1, "it says what to do: {}", log.text());
    }
}

#[tokio::test]
async fn a_request_that_came_by_plain_http_is_no_reason_for_a_warning() {
    let (log, _guard) = Log::begin();
    let bridge = SessionBridge::builder().signing_keys([KEY]).build().await.unwrap();
    let app = app(&bridge);
    for (name, value) in [
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=192.0.2.1;proto=http"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        let request = Browser::new().request("GET", "/plain").header(name, value);
        Browser::new().send(&app, request.body(String::new().into()).unwrap()).await;
    }
    assert_eq!(log.count("WARN"), 0, "{}", log.text());
}

#[tokio::test]
async fn a_crowd_that_waits_for_one_session_fills_no_log() {
    use axum::routing::post;
    use axum_io_session::{Result, Session};

    let bridge = SessionBridge::builder()
        .signing_keys([KEY])
        .acquire_timeout(std::time::Duration::from_millis(20))
        .build()
        .await
        .unwrap();
    let inside = bridge.clone();
    // Holds its own session while it asks for it once more, from another task.
    let handler = async move |session: Session| -> Result<()> {
        let id = session.id().expect("a session");
        let held = inside.with_session(&id, async |_| {
            let waiting = session.clone();
            tokio::spawn(async move { waiting.update(|_| Ok(())).await }).await.unwrap()
        });
        held.await?
    };
    let app = app(&bridge).route("/hold", post(handler).layer(bridge.layer()));
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let (log, _guard) = Log::begin();
    let answer = browser.post(&app, "/hold", "").await;
    assert_eq!(answer.status, axum::http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((log.count("ERROR"), log.count("WARN")), (0, 0), "{}", log.text());
    assert_eq!(log.count("waited too long"), 1);
}
