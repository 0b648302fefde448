//! The example node from outside, by the real socket.io-client.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use cluster_tests::{KEY, Node, STAY, run_js, run_js_with};

/// A store that survives restarts, in a folder that goes with the test.
fn file_store(folder: &tempfile::TempDir) -> String {
    format!("file:{}", folder.path().join("sessions.redb").display())
}

fn checks(program: &str, flags: &[&str]) {
    let node = Node::start(&[&["--probes"], &STAY[..], flags].concat());
    run_js(program, &[node.url()]);
    node.stop();
}

fn sockets_by(transport: &str) {
    let node = Node::start(&[&["--probes"], &STAY[..]].concat());
    run_js_with("sockets.mjs", &[node.url()], &[("TRANSPORT", transport)]);
    node.stop();
}

#[test]
fn http_on_the_memory_store() {
    checks("http.mjs", &[]);
}

#[test]
fn http_on_the_file_store() {
    let folder = tempfile::tempdir().unwrap();
    checks("http.mjs", &["--store", &file_store(&folder)]);
}

#[test]
fn sockets_by_websocket_only() {
    sockets_by("websocket");
}

#[test]
fn sockets_by_polling_only() {
    sockets_by("polling");
}

#[test]
fn sockets_by_polling_and_then_an_upgrade() {
    sockets_by("upgrade");
}

#[test]
fn sockets_on_the_file_store() {
    let folder = tempfile::tempdir().unwrap();
    checks("sockets.mjs", &["--store", &file_store(&folder)]);
}

#[test]
fn events_reach_the_sessions_own_sockets() {
    checks("events.mjs", &[]);
}

#[test]
fn hostile_cookies_and_bodies_do_no_harm() {
    checks("hostile.mjs", &[]);
}

#[test]
fn sessions_end_in_time() {
    checks("expiry.mjs", &["--max-age", "3s"]);
}

#[test]
fn slow_handlers_outlive_a_short_lease() {
    checks("lease.mjs", &["--lease", "2s"]);
}

#[test]
fn a_session_survives_the_death_of_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = file_store(&folder);
    let kept = folder.path().join("cookies.json");
    let kept = kept.to_str().unwrap();
    let flags = ["--store", &store, "--keys", KEY];
    let mut node = Node::start(&flags);
    run_js("restart.mjs", &[node.url(), "before", kept]);
    node.kill();
    node.start_again();
    run_js("restart.mjs", &[node.url(), "after", kept]);
    node.stop();
}

#[test]
fn wrong_flags_are_named() {
    for (flags, named) in [
        (&["--redis", "redis://127.0.0.1"][..], "`signing_keys`"),
        (&["--redis", "redis://127.0.0.1", "--store", "live"], "--store"),
        (&["--max-age", "soon"], "--max-age"),
        (&["--store", "tape"], "--store"),
        (&["--what"], "--what"),
    ] {
        let failed = std::panic::catch_unwind(|| Node::start(flags)).unwrap_err();
        let text = failed.downcast_ref::<String>().unwrap();
        assert!(text.contains(named), "{text}");
    }
}
