//! One writer at a time, whatever happens to the writers' nodes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use cluster_tests::{Browser, Cluster, EventRecorder, Node, PREFIX, Redis, Sockets, until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Three nodes with a short lease, and a browser with a session whose `n` is 1.
fn cluster(redis: &Redis) -> (Cluster, Browser) {
    let cluster = Cluster::start(redis, 3, &["--lease", "2s"]);
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    (cluster, browser)
}

/// Waits until that many requests wait inside the node, their sessions read.
fn waiting(node: &Node, count: u64) {
    let browser = Browser::new(&[node.url()]);
    until("requests wait in the node", LIMIT, || {
        (browser.get("/probe/waiting").json == json!(count)).then_some(())
    });
}

fn client_of(browser: &Browser) -> String {
    browser.get("/session").json["clientId"].as_str().unwrap().to_owned()
}

#[test]
fn a_write_that_began_before_a_logout_elsewhere_is_refused_and_revives_nothing() {
    let redis = Redis::start();
    let (cluster, browser) = cluster(&redis);
    let client = client_of(&browser);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let session = browser.get("/session").session_id().unwrap().to_owned();
    let [here, there] = [browser.at(cluster[0].url()), browser.at(cluster[1].url())];
    let slow = std::thread::spawn(move || there.post("/probe/slow?ms=1500"));
    waiting(&cluster[1], 1);
    here.post("/logout").ok();
    let refused = slow.join().unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert_eq!(redis.cli(&["EXISTS", &format!("{PREFIX}:{{{client}}}:s")]), "0");
    for node in cluster.nodes() {
        assert_eq!(browser.at(node.url()).get("/session").session(), &Value::Null);
    }
    for recorder in &recorders {
        assert_eq!(recorder.end_of(&session, LIMIT), "destroyed");
        assert_eq!(recorder.of(&session).len(), 1, "{:?}", recorder.of(&session));
    }
}

#[test]
fn an_owner_that_was_frozen_past_its_lease_cannot_write() {
    let redis = Redis::start();
    let (cluster, browser) = cluster(&redis);
    let [here, there] = [browser.at(cluster[0].url()), browser.at(cluster[1].url())];
    let frozen = std::thread::spawn(move || here.post("/probe/hold?ms=1500"));
    waiting(&cluster[0], 1);
    cluster[0].freeze();
    // It waits until the lease is over; the wait limit would make it a 503.
    let answer = there.post("/session/inc");
    let answered = (answer.status, answer.session().clone());
    cluster[0].thaw();
    assert_eq!(answered, (200, json!({ "n": 2 })), "{}", answer.text);
    let refused = frozen.join().unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("lease"), "{}", refused.text);
    assert_eq!(browser.get("/session").session(), &json!({ "n": 2 }));
    // The node is of use again.
    let again = browser.at(cluster[0].url()).post("/session/inc").ok();
    assert_eq!(again.session(), &json!({ "n": 3 }));
}

#[test]
fn a_killed_owner_blocks_the_session_no_longer_than_its_lease() {
    let redis = Redis::start();
    let (mut cluster, browser) = cluster(&redis);
    let [here, there] = [browser.at(cluster[0].url()), browser.at(cluster[1].url())];
    let held =
        std::thread::spawn(move || here.try_post("/probe/hold?ms=60000", &Value::Null).is_err());
    waiting(&cluster[0], 1);
    cluster[0].kill();
    // Within the wait limit, which would make it a 503.
    assert_eq!(there.post("/session/inc").ok().session(), &json!({ "n": 2 }));
    assert!(held.join().unwrap(), "its caller hears nothing");
    cluster[0].start_again();
    let again = browser.at(cluster[0].url()).post("/session/inc").ok();
    assert_eq!(again.session(), &json!({ "n": 3 }));
}

#[test]
fn a_killed_waiter_delays_those_behind_it_no_longer_than_a_lease() {
    let redis = Redis::start();
    let (mut cluster, browser) = cluster(&redis);
    let queue = format!("{PREFIX}:{{{}}}:q", client_of(&browser));
    let tabs: Vec<_> = cluster.urls().iter().map(|url| browser.at(url)).collect();
    let [owner, waiter, last] = <[Browser; 3]>::try_from(tabs).unwrap();
    let owner = std::thread::spawn(move || owner.post("/probe/hold?ms=3000"));
    waiting(&cluster[0], 1);
    let waiter = std::thread::spawn(move || waiter.try_post("/session/inc", &Value::Null).is_err());
    until("one waits", LIMIT, || (redis.cli(&["LLEN", &queue]) == "1").then_some(()));
    let last = std::thread::spawn(move || last.post("/session/inc"));
    until("two wait", LIMIT, || (redis.cli(&["LLEN", &queue]) == "2").then_some(()));
    cluster[1].kill();
    owner.join().unwrap().ok();
    assert!(waiter.join().unwrap());
    // Within the wait limit, which would make it a 503.
    assert_eq!(last.join().unwrap().ok().session(), &json!({ "n": 3 }));
}

#[test]
fn a_caller_that_leaves_gives_the_lease_back_at_once() {
    let redis = Redis::start();
    // So long that only giving it back can explain that it is gone.
    let cluster = Cluster::start(&redis, 2, &["--lease", "5m"]);
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    let lease = format!("{PREFIX}:{{{}}}:l", client_of(&browser));
    let address = cluster[0].url().trim_start_matches("http://").to_owned();
    let mut leaver = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /probe/hold?ms=60000 HTTP/1.1\r\nhost: x\r\ncookie: {}\r\ncontent-length: 0\r\n\r\n",
        browser.cookies()
    );
    leaver.write_all(head.as_bytes()).unwrap();
    waiting(&cluster[0], 1);
    assert_eq!(redis.cli(&["EXISTS", &lease]), "1");
    drop(leaver);
    until("the lease is gone", LIMIT, || (redis.cli(&["EXISTS", &lease]) == "0").then_some(()));
    let other = browser.at(cluster[1].url()).post("/session/inc").ok();
    assert_eq!(other.session(), &json!({ "n": 2 }), "nothing was written");
}

#[test]
fn sockets_of_other_nodes_wait_for_a_holder_and_then_go_on() {
    let redis = Redis::start();
    let (cluster, browser) = cluster(&redis);
    let sockets = Sockets::start();
    let [one, two] = [1, 2].map(|at| sockets.open(&browser, cluster[at].url()));
    let holder = browser.at(cluster[0].url());
    // Longer than the lease, which the holder renews.
    let held = std::thread::spawn(move || holder.post("/probe/hold?ms=4500"));
    waiting(&cluster[0], 1);
    let answers = [one.begin("session:inc", &[]), two.begin("session:inc", &[])];
    assert_eq!(held.join().unwrap().ok().json, json!(2.0));
    let mut counts: Vec<_> = answers
        .iter()
        .map(|answer| answer.recv_timeout(LIMIT).unwrap()["session"]["n"].as_i64().unwrap())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 4]);
}
