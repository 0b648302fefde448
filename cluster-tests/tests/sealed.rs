//! Sealed sessions on two nodes, and on one, with the real client: the product's own promises.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Cluster, Node, Proxy, Redis, STAY, Sockets, run_js, run_js_with, until};

const LIMIT: Duration = Duration::from_secs(30);

/// The checks of one scene, on nodes with these flags.
fn scene(name: &str, flags: &[&str]) {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, flags);
    run_js_with("pairing.mjs", &cluster.urls(), &[("SCENE", name)]);
    cluster.stop();
}

#[test]
fn cookies_of_before_a_login_are_worth_nothing_after_it() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    run_js("sealed.mjs", &cluster.urls());
    cluster.stop();
}

/// One node that stands for both.
fn on_one_node(flags: &[&str]) {
    let node = Node::start(&[&["--probes"], flags].concat());
    run_js("sealed.mjs", &[node.url(), node.url()]);
    node.stop();
}

#[test]
fn cookies_of_before_a_login_are_worth_nothing_in_the_memory_store() {
    on_one_node(&[]);
}

#[test]
fn cookies_of_before_a_login_are_worth_nothing_in_the_file_store() {
    let folder = tempfile::tempdir().unwrap();
    on_one_node(&["--store", &format!("file:{}", folder.path().join("sessions.redb").display())]);
}

#[test]
fn with_strict_pairing_a_socket_sees_only_the_session_of_its_handshake() {
    scene("strict", &["--pairing", "strict"]);
}

#[test]
fn with_pairing_by_client_a_socket_sees_whatever_session_its_client_has() {
    scene("client", &["--pairing", "client"]);
}

#[test]
fn sessions_that_are_sealed_from_the_start_are_never_open() {
    scene("from-start", &["--seal", "from-start"]);
}

#[test]
fn sockets_follow_into_a_sealed_session_if_asked_for() {
    scene("follow", &["--on-rotate", "follow"]);
}

#[test]
fn a_call_that_overtakes_the_announcement_of_a_rotation_waits_for_it() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let cluster = Cluster::start_at(&[redis.url(), proxy.redis_url()], &STAY);
    let (browser, sockets) = (cluster.browser().at(cluster[0].url()), Sockets::start());
    let client = browser.post("/session/inc").ok().json["clientId"].as_str().unwrap().to_owned();
    let socket = sockets.open(&browser, cluster[1].url());
    assert_eq!(socket.ok("session:inc")["session"]["n"], 2);
    proxy.hold_messages();
    browser.post("/session/regenerate").ok();
    let mut monitor = redis.monitor();
    let calling = std::thread::spawn({
        let socket = socket.clone();
        move || socket.call("session:inc", &[])
    });
    until("the call has read the sealed session", LIMIT, || {
        monitor.sent(&redis).iter().any(|line| line.contains(&client)).then_some(())
    });
    // It waits without the lease.
    assert_eq!(browser.post("/session/inc").ok().session()["n"], 3);
    proxy.heal();
    assert_eq!(calling.join().unwrap()["session"]["n"], 4);

    // An announcement that does not come is waited for no longer than a message may take.
    proxy.hold_messages();
    browser.post("/session/regenerate").ok();
    assert_eq!(socket.call("session:inc", &[])["error"], "missing-session");
    proxy.heal();
    until("the socket has followed", LIMIT, || {
        (socket.call("session:inc", &[])["session"]["n"] == 5).then_some(())
    });
}
