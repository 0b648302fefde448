//! Sessions vanish from Redis without a word: `FLUSHALL` and `SWAPDB` send no notification.
//!
//! What is guaranteed: the sockets of all nodes are told, once, at the next audit (each 30 seconds).
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Cluster, EventRecorder, Redis, STAY, Socket, Sockets};
use serde_json::{Value, json};

/// Longer than the time between two audits.
const LIMIT: Duration = Duration::from_secs(60);

fn vanish_by(command: &[&str]) {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &STAY);
    let sockets = Sockets::start();
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let browser = cluster.browser();
    let session = browser.post("/session/inc").ok().session_id().unwrap().to_owned();
    // No socket at the third node: it hears of the end from the others.
    let urls = &cluster.urls()[..2];
    let opened: Vec<Socket> = urls.iter().map(|url| sockets.open(&browser, url)).collect();

    redis.cli(command);
    for socket in &opened {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "reconciled");
        assert_eq!(socket.call("session:get", &[])["error"], "missing-session");
    }
    for recorder in &recorders {
        assert_eq!(recorder.end_of(&session, LIMIT), "reconciled");
    }
    assert_eq!(browser.get("/session").ok().session(), &Value::Null);

    // The same sockets see what comes next.
    browser.post("/session/inc").ok();
    for socket in &opened {
        let expected = socket.ok("session:inc")["session"].clone();
        assert_eq!(browser.get("/session").ok().session(), &expected);
        let told = socket.messages().into_iter().filter(|told| told.name == "session:destroy");
        assert_eq!(told.count(), 1, "told once");
    }
    assert_eq!(browser.get("/session").ok().session(), &json!({ "n": 3 }));
}

#[test]
fn sockets_are_told_of_sessions_that_were_flushed() {
    vanish_by(&["FLUSHALL"]);
}

#[test]
fn sockets_are_told_of_sessions_whose_database_was_swapped_away() {
    vanish_by(&["SWAPDB", "0", "1"]);
}
