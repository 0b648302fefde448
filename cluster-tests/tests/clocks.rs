//! Nodes whose clocks are hours apart are one all the same: all times are those of Redis.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use cluster_tests::{KEY, Node, PREFIX, Redis, STAY, run_js};

/// The library that gives a process another time of day.
fn faketime() -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime is missing: install the package `faketime`")
        .display()
        .to_string()
}

fn nodes(redis: &Redis, flags: &[&str]) -> Vec<Node> {
    let library = faketime();
    let start = |offset: &str| {
        let url = redis.url();
        let name = format!("n{}", offset.trim_start_matches(['+', '-']));
        let fixed =
            ["--redis", &url, "--prefix", PREFIX, "--probes", "--keys", KEY, "--node", &name];
        let variables = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", offset),
            // The time of day is off; a second is a second.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Node::start_with(&[&fixed[..], &STAY, flags].concat(), &variables)
    };
    ["+1h", "-2h", "+0"].map(start).into()
}

/// The hour that a node thinks it is.
fn hour(node: &Node) -> i32 {
    let address = node.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let date = answer.lines().find(|line| line.to_lowercase().starts_with("date:")).unwrap();
    let time = date.split_whitespace().find(|word| word.matches(':').count() == 2).unwrap();
    time.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn clocks_that_are_hours_off_change_nothing() {
    let redis = Redis::start();
    for (flags, programs) in [
        (&[][..], &["http.mjs", "sockets.mjs", "events.mjs"][..]),
        (&["--max-age", "3s"], &["expiry.mjs"]),
        (&["--lease", "2s"], &["lease.mjs"]),
    ] {
        let nodes = nodes(&redis, flags);
        let apart = (hour(&nodes[0]) - hour(&nodes[1])).rem_euclid(24);
        assert!((2..=4).contains(&apart), "their clocks are {apart} hours apart, not 3");
        let urls: Vec<&str> = nodes.iter().map(Node::url).collect();
        for program in programs {
            run_js(program, &urls);
        }
        nodes.into_iter().for_each(Node::stop);
    }
}
