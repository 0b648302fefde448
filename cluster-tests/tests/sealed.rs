//! Sealed sessions on two nodes, and on one, with the real client: the product's own promises.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use cluster_tests::{Cluster, Node, Redis, run_js, run_js_with};

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
