//! What is in Redis, and what is sent to it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Browser, Cluster, PREFIX, Redis, STAY, Sockets, until};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
/// How long a session's end can still be named, and as much again for a slow machine.
const GRACE: Duration = Duration::from_secs(120);
/// How long an id that a session had before is known for one, in milliseconds.
const EARLIER: i64 = 5 * 60 * 1000;

fn all_keys(redis: &Redis) -> Vec<String> {
    redis.scan(&format!("{PREFIX}:*"))
}

#[test]
fn every_key_has_a_time_to_live() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let sockets = Sockets::start();
    let browsers: Vec<Browser> = (0..20).map(|_| cluster.browser()).collect();
    let mut open = Vec::new();
    for (at, browser) in browsers.iter().enumerate() {
        browser.post("/session/inc").ok();
        let socket = sockets.open(browser, cluster[at % 3].url());
        socket.ok("session:inc");
        browser.post("/session/regenerate").ok();
        browser.post("/session/inc").ok();
        if at % 4 == 0 {
            browser.post("/logout").ok();
        }
        open.push(socket);
    }
    let holder = browsers[1].at(cluster[0].url());
    let held = std::thread::spawn(move || holder.post("/probe/hold?ms=1500"));
    let waiter = browsers[1].at(cluster[1].url());
    until("the lease is held", LIMIT, || {
        (!redis.scan(&format!("{PREFIX}:*:l")).is_empty()).then_some(())
    });
    let waiting = std::thread::spawn(move || waiter.post("/session/inc"));
    until("one waits for it", LIMIT, || {
        (!redis.scan(&format!("{PREFIX}:*:q")).is_empty()).then_some(())
    });
    let keys = all_keys(&redis);
    assert!(keys.len() > 40, "{keys:?}");
    for key in &keys {
        // -1 is for ever; -2 is gone by now.
        assert_ne!(redis.cli(&["PTTL", key]), "-1", "{key} stays for ever");
    }
    held.join().unwrap().ok();
    waiting.join().unwrap().ok();
}

#[test]
fn nothing_is_left_a_while_after_the_last_session_ended() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &STAY);
    let sockets = Sockets::start();
    let (mut names, mut earlier) = (Vec::new(), Vec::new());
    for at in 0..30 {
        let browser = cluster.browser();
        let first = browser.post("/session/inc").ok();
        let socket = sockets.open(&browser, cluster[at % 3].url());
        socket.ok("session:inc");
        let second = browser.post("/session/regenerate").ok();
        names.push(first.json["clientId"].as_str().unwrap().to_owned());
        names.extend([&first, &second].map(|answer| answer.session_id().unwrap().to_owned()));
        earlier.push(format!("{PREFIX}:sid:{}", first.session_id().unwrap()));
        match at % 3 {
            0 => drop(browser.post("/logout").ok()),
            1 => assert_eq!(socket.ok("session:destroy")["ok"], true),
            _ => {
                // The session is gone, and so is its client.
                let key = format!("{PREFIX}:{{{}}}:s", first.json["clientId"].as_str().unwrap());
                assert_eq!(redis.cli(&["DEL", &key]), "1");
            }
        }
    }
    // By these a late cookie is told apart from an unknown one, for some minutes.
    for pointer in &earlier {
        let left: i64 = redis.cli(&["PTTL", pointer]).trim().parse().unwrap();
        assert!(left > 0 && left <= EARLIER, "{pointer} stays for {left} ms");
        redis.cli(&["DEL", pointer]);
    }
    until("no key names a client or a session", GRACE, || {
        let keys = all_keys(&redis);
        let named = keys.iter().any(|key| names.iter().any(|name| key.contains(name.as_str())));
        let index = keys.iter().filter(|key| key.contains("due")).count();
        (!named && index == 0).then_some(())
    });
    // Killed: nobody tidies up.
    drop(cluster);
    until("nothing is left of the nodes", GRACE, || all_keys(&redis).is_empty().then_some(()));
}

/// A browser with a session, and what commands about it name: the client or the session.
fn somebody(cluster: &Cluster) -> (Browser, [String; 2]) {
    let browser = cluster.browser();
    // Without a lease, which would be given back after the answer.
    let answer = browser.post_json("/session/set", &json!({ "n": 1 })).ok();
    let client = answer.json["clientId"].as_str().unwrap().to_owned();
    (browser, [client, answer.session_id().unwrap().to_owned()])
}

/// Commands about one client that were sent while `act` ran.
fn sent(redis: &Redis, names: &[String], act: impl FnOnce()) -> Vec<String> {
    let mut monitor = redis.monitor();
    act();
    let all = monitor.sent(redis);
    all.into_iter().filter(|line| names.iter().any(|name| line.contains(name.as_str()))).collect()
}

#[test]
fn a_read_takes_one_command_a_write_one_and_a_turn_two() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let (browser, names) = somebody(&cluster);
    let sockets = Sockets::start();
    let socket = sockets.open(&browser, cluster[1].url());
    socket.ok("session:inc");
    // The first write makes what later ones find, and the first of each kind loads its script.
    let mut newest = browser;
    for (at, url) in cluster.urls().into_iter().enumerate() {
        newest = newest.at(url);
        newest.post("/session/inc").ok();
        newest.post_json("/session/merge", &json!({ "first": at })).ok();
    }
    for url in cluster.urls() {
        // A cookie that the session outlives is sent again, which takes another look.
        newest = newest.at(url);
        let browser = &newest;
        let read = sent(&redis, &names, || drop(browser.get("/session").ok()));
        assert_eq!(read.len(), 1, "a read: {read:#?}");
        let merge = || drop(browser.post_json("/session/merge", &json!({ "u": url })).ok());
        let write = sent(&redis, &names, merge);
        assert_eq!(write.len(), 2, "a read, and a write at the end: {write:#?}");
        let same = sent(&redis, &names, merge);
        assert_eq!(same.len(), 1, "a read, and no change: {same:#?}");
    }
    let turn = sent(&redis, &names, || drop(socket.ok("session:inc")));
    assert_eq!(turn.len(), 2, "acquire with load, commit with release: {turn:#?}");
}

#[test]
fn the_connect_of_a_socket_subscribes_to_its_client_and_reads_its_session_once() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let (browser, names) = somebody(&cluster);
    let sockets = Sockets::start();
    let mut open = Vec::new();
    for url in cluster.urls() {
        let connect = sent(&redis, &names, || open.push(sockets.open(&browser, url)));
        let names: Vec<_> = connect.iter().filter_map(|sent| sent.split('"').nth(1)).collect();
        assert_eq!(names, ["SUBSCRIBE", "GET"], "{connect:#?}");
    }
    for socket in open {
        assert_eq!(socket.ok("session:get")["session"]["n"], 1);
    }
}

#[test]
fn a_request_that_does_not_extract_the_session_sends_nothing() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let (browser, names) = somebody(&cluster);
    let nothing = sent(&redis, &names, || {
        for path in ["/", "/client.js", "/no/such/page", "/probe/waiting"] {
            browser.get(path);
            browser.get(path);
        }
    });
    assert!(nothing.is_empty(), "{nothing:#?}");
    // The same look sees a read.
    assert!(!sent(&redis, &names, || drop(browser.get("/session"))).is_empty());
}
