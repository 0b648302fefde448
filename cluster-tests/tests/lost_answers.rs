//! A change whose answer is lost ends as what it is: done, once, with one event; and a read during a
//! reset of its connection is served.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{
    Answer, Browser, Cluster, EventRecorder, Loss, Proxy, RecordedEvent, Redis, until,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);
const LOSSES: [Loss; 3] = [Loss::Answer, Loss::Silence, Loss::Command];
const COOKIE: &str = "app.sid";

/// A node behind a bad network, and one that reaches Redis by a good one.
struct Setting {
    _redis: Redis,
    proxy: Proxy,
    cluster: Cluster,
    events: EventRecorder,
}

impl Setting {
    fn new() -> Self {
        let redis = Redis::start();
        let proxy = Proxy::start(&redis.address());
        let cluster = Cluster::start_at(&[proxy.redis_url(), redis.url()], &[]);
        let events = EventRecorder::follow(&cluster[1]);
        let setting = Self { _redis: redis, proxy, cluster, events };
        // An unknown script would not run: Redis gets to know all of them.
        let browser = setting.bad();
        merge(&browser, "known").ok();
        merge(&browser, "again").ok();
        browser.post("/session/inc").ok();
        browser.post_json("/login", &json!({})).ok();
        browser.post("/session/renew").ok();
        browser.post("/logout").ok();
        setting
    }

    /// A browser that uses the node behind the bad network.
    fn bad(&self) -> Browser {
        Browser::new(&[self.cluster[0].url()])
    }

    /// The browser at the other node.
    fn good(&self, browser: &Browser) -> Browser {
        browser.at(self.cluster[1].url())
    }

    /// What was told of a session, up to now.
    fn told(&self, session: &str) -> Vec<RecordedEvent> {
        let marked = Browser::new(&[self.cluster[1].url()]);
        merge(&marked, "mark").ok();
        let mark = marked.session_in(COOKIE).expect("a session cookie");
        until("the mark is told", LIMIT, || (!self.events.of(&mark).is_empty()).then_some(()));
        self.events.of(session)
    }

    /// Runs this; the answer to the next command with these words is lost meanwhile.
    fn losing(&self, words: &[&str], loss: Loss, run: impl FnOnce() -> Answer) -> Answer {
        let lost = self.proxy.lost();
        self.proxy.lose(words, loss);
        let answer = run();
        assert_eq!(self.proxy.lost(), lost + 1, "{loss:?}: the command was not seen");
        answer
    }
}

fn merge(browser: &Browser, mark: &str) -> Answer {
    browser.post_json("/session/merge", &json!({ "mark": mark }))
}

fn session_of(browser: &Browser) -> String {
    browser.get("/session").ok().session_id().expect("a session").to_owned()
}

#[test]
fn a_creation_whose_answer_is_lost_is_done_and_told_once() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        let answer = setting.losing(&["EVALSHA", "created"], loss, || merge(&browser, "created"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        let session = browser.session_in(COOKIE).expect("a session cookie");
        assert_eq!(setting.good(&browser).get("/session").session()["mark"], "created", "{loss:?}");
        let told = setting.told(&session);
        assert!(
            matches!(&told[..], [RecordedEvent::Set { is_new: true, .. }]),
            "{loss:?}: {told:?}"
        );
    }
}

#[test]
fn a_plain_write_whose_answer_is_lost_is_done_and_told_once() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        merge(&browser, "first").ok();
        let session = session_of(&browser);
        let answer = setting.losing(&["EVALSHA", "second"], loss, || merge(&browser, "second"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        assert_eq!(setting.good(&browser).get("/session").session()["mark"], "second", "{loss:?}");
        let told = setting.told(&session);
        assert_eq!(told.len(), 2, "{loss:?}: created and written: {told:?}");
    }
}

#[test]
fn a_write_under_a_lease_whose_answer_is_lost_counts_once_and_frees_the_lease() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        merge(&browser, "leased").ok();
        let session = session_of(&browser);
        let words = ["EVALSHA", "leased"];
        let answer = setting.losing(&words, loss, || browser.post("/session/inc"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        // The lease is free: nobody waits for it.
        let next = setting.good(&browser).post("/session/inc").ok();
        assert_eq!(next.session()["n"], 2, "{loss:?}");
        let told = setting.told(&session);
        assert_eq!(told.len(), 3, "{loss:?}: {told:?}");
    }
}

#[test]
fn a_rotation_whose_answer_is_lost_gives_the_browser_its_new_cookie() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        merge(&browser, "open").ok();
        let old = session_of(&browser);
        let body = json!({ "user": "rotated" });
        let words = ["EVALSHA", "rotated"];
        let answer = setting.losing(&words, loss, || browser.post_json("/login", &body));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        let seen = setting.good(&browser).get("/session").ok();
        let new = seen.session_id().expect("the cookie opens the session").to_owned();
        assert_ne!(new, old);
        assert_eq!(seen.session()["user"], "rotated", "{loss:?}");
        let (old, new) = (setting.told(&old), setting.told(&new));
        let ended = old.iter().filter(|event| event.reason().is_some()).count();
        assert_eq!((ended, new.len()), (1, 1), "{loss:?}: {old:?}, {new:?}");
    }
}

#[test]
fn a_renewed_id_whose_answer_is_lost_reaches_the_browser() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        merge(&browser, "renewed").ok();
        let old = session_of(&browser);
        let words = ["EVALSHA", "renewed"];
        let answer = setting.losing(&words, loss, || browser.post("/session/renew"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        let new = session_of(&setting.good(&browser));
        assert_ne!(new, old, "{loss:?}");
        assert_eq!(answer.session_id(), Some(&*new), "{loss:?}");
    }
}

#[test]
fn a_logout_whose_answer_is_lost_is_done_and_told_once() {
    for loss in LOSSES {
        let setting = Setting::new();
        let browser = setting.bad();
        let client = merge(&browser, "in").ok().json["clientId"].as_str().unwrap().to_owned();
        let session = session_of(&browser);
        let words = ["EVALSHA", &*client];
        let answer = setting.losing(&words, loss, || browser.post("/logout"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        assert_eq!(browser.session_in(COOKIE), None, "{loss:?}: the cookie is cleared");
        let told = setting.told(&session);
        let ends = told.iter().filter_map(RecordedEvent::reason);
        assert_eq!(ends.collect::<Vec<_>>(), ["destroyed"], "{loss:?}");
    }
}

#[test]
fn a_read_whose_connection_is_reset_is_served() {
    for loss in [Loss::Answer, Loss::Command] {
        let setting = Setting::new();
        let browser = setting.bad();
        let client = merge(&browser, "read").ok().json["clientId"].as_str().unwrap().to_owned();
        let words = ["\r\nGET\r\n", &*client];
        let answer = setting.losing(&words, loss, || browser.get("/session"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        assert_eq!(answer.session()["mark"], "read");
    }
}

#[test]
fn a_lease_whose_acquire_is_lost_is_had_and_given_back() {
    for loss in [Loss::Answer, Loss::Command] {
        let setting = Setting::new();
        let browser = setting.bad();
        let client = merge(&browser, "held").ok().json["clientId"].as_str().unwrap().to_owned();
        // The first script of an update that names the client.
        let words = ["EVALSHA", &*client];
        let answer = setting.losing(&words, loss, || browser.post("/session/inc"));
        assert_eq!(answer.status, 200, "{loss:?}: {}", answer.text);
        let next = setting.good(&browser).post("/session/inc").ok();
        assert_eq!(next.session()["n"], 2, "{loss:?}");
    }
}
