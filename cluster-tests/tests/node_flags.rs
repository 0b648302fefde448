//! What the example node offers, and refuses, by its flags and variables.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use cluster_tests::{Node, Program};

const KEY: &str = "a key of thirty-two bytes or more";

/// The status and the headers of an answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, _) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_ascii_lowercase())
}

fn status(address: &str, path: &str) -> u16 {
    get(address, path).0
}

fn node(arguments: &[&str]) -> (Program, String) {
    let all = [&["--port", "0", "--keys", KEY], arguments].concat();
    let mut node = Program::example("node", &all, &[]);
    let address = node.says("listening on http://").replace("0.0.0.0", "127.0.0.1");
    (node, address)
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// What the node says that does not start.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path: PathBuf = profile.join("examples").join("node");
    let mut command = Command::new(path);
    command.args(["--port", "0"]).args(arguments).envs(variables.iter().copied());
    let output =
        command.output().expect("run `cargo build --examples`, or all tests by `tests/run`");
    assert!(!output.status.success(), "{arguments:?} {variables:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn figures_are_on_the_public_port_only_while_it_listens_on_loopback() {
    let (_inside, address) = node(&[]);
    for path in ["/healthz", "/metrics", "/monitor"] {
        assert_eq!(status(&address, path), 200, "{path}");
    }
    let (_outside, address) = node(&["--host", "0.0.0.0"]);
    assert_eq!(status(&address, "/healthz"), 200, "a balancer asks for it");
    for path in ["/metrics", "/monitor", "/monitor/stats", "/monitor/nodes"] {
        assert_eq!(status(&address, path), 404, "{path}");
    }
}

#[test]
fn an_address_for_operators_takes_the_figures_from_the_public_port() {
    let admin = free_address();
    let (_node, address) = node(&["--admin", &admin]);
    for path in ["/healthz", "/metrics", "/monitor"] {
        assert_eq!(status(&admin, path), 200, "{path}");
    }
    assert_eq!(status(&address, "/metrics"), 404);
    assert_eq!(status(&address, "/healthz"), 200);
    assert_eq!(status(&admin, "/session"), 404, "no sessions there");
}

#[test]
fn pages_say_what_they_load_and_who_may_frame_them() {
    let (_node, address) = node(&[]);
    for path in ["/", "/monitor"] {
        let (status, head) = get(&address, path);
        assert_eq!(status, 200);
        assert!(
            head.contains("frame-ancestors 'none'") && head.contains("nosniff"),
            "{path}: {head}"
        );
        assert!(!head.contains("unsafe-inline"), "{path}: {head}");
    }
}

#[test]
fn a_secret_in_the_wrong_variable_is_refused_and_not_shown() {
    let said = refusal(&[], &[("SESSION_KEY", "very-secret")]);
    assert!(said.contains("SESSION_KEYS") && said.contains("COOKIE_NAME"), "{said}");
    assert!(!said.contains("very-secret"), "{said}");
}

#[test]
fn weak_keys_are_refused_unless_they_are_asked_for() {
    let said = refusal(&["--keys", "change-me"], &[]);
    assert!(said.contains("keys[0]") && said.contains("32"), "{said}");
    let mut node =
        Program::example("node", &["--port", "0", "--keys", "weak", "--allow-weak-keys"], &[]);
    node.says("listening on http://");
}

#[test]
fn words_that_a_flag_does_not_know_are_refused_with_those_that_it_does() {
    for (flag, word) in [
        ("--pairing", "until-sealed, strict, client"),
        ("--on-destroy", "disconnect, notify, nothing"),
        ("--on-rotate", "disconnect, follow"),
        ("--seal", "on-rotate, from-start"),
    ] {
        let said = refusal(&[flag, "maybe"], &[]);
        assert!(said.contains(flag) && said.contains(word), "{said}");
    }
    let said = refusal(&["--origins", "https://example.com/path"], &[]);
    assert!(said.contains("allowed_origins"), "{said}");
}

#[test]
fn a_client_that_has_sent_half_a_request_does_not_keep_a_node_from_ending() {
    let admin = free_address();
    let node = Node::start(&["--keys", KEY, "--admin", &admin]);
    let address = node.url().trim_start_matches("http://").to_owned();
    let half = |address: &str, text: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let header = "GET /session HTTP/1.1\r\nHost: x\r\nCook";
    let body = "POST /session/set HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a\":";
    let _open = [half(&address, header), half(&address, body), half(&admin, header)];
    // Answered behind them, so that they have been read.
    assert_eq!(status(&address, "/livez"), 200);
    assert_eq!(status(&admin, "/livez"), 200);
    node.stop();
}
