//! A node that falls behind Redis forgets what it can't keep, notices it, and compares.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Cluster, PREFIX, Redis, STAY, Sockets};

/// Longer than a busy machine needs for what it is sent, and shorter than until an audit.
const LIMIT: Duration = Duration::from_secs(90);

/// Publishes so many announcements of thirty ends each.
const FLOOD: &str = "for n = 1, 1000 do local ends = {} \
    for i = 1, 30 do ends[i] = string.format('%024d', i) \
    .. struct.pack('>I7', ARGV[2] * 1000 + n) .. string.rep('A', 43) end \
    redis.call('PUBLISH', ARGV[1], 'E\\1\\1x' .. table.concat(ends)) end return 1";

fn flood(redis: &Redis, parts: std::ops::Range<usize>) {
    let mut connection = redis.connect();
    for part in parts {
        let channel = format!("{PREFIX}:all:0");
        let sent = connection.call(&["EVAL", FLOOD, "0", &channel, &part.to_string()]).unwrap();
        assert_eq!(sent.to_string(), "1");
    }
}

#[test]
fn a_node_that_lost_announcements_tells_its_sockets_what_they_said() {
    let redis = Redis::start();
    // Redis keeps all of it for a node that does not read.
    redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    let cluster = Cluster::start(&redis, 2, &[&STAY[..], &["--audit", "10m"]].concat());
    let sockets = Sockets::start();
    let people: Vec<_> = (0..16)
        .map(|_| {
            let browser = cluster.browser();
            browser.post("/session/inc").ok();
            let socket = sockets.open(&browser, cluster[1].url());
            (browser, socket)
        })
        .collect();
    cluster[1].freeze();
    // What gets lost is a part here and a part there, so their ends are all over it.
    for (at, (browser, _)) in people.iter().enumerate() {
        flood(&redis, 2 * at..2 * at + 2);
        browser.at(cluster[0].url()).post("/logout").ok();
    }
    // As much as a node keeps for later: nothing before it is safe.
    flood(&redis, 32..50);
    cluster[1].thaw();
    let reasons: Vec<_> = people
        .iter()
        .map(|(_, socket)| socket.message("session:destroy", LIMIT)["reason"].clone())
        .collect();
    assert!(cluster[1].log().contains("fell behind Redis"), "it did not lose anything");
    assert!(reasons.contains(&"reconciled".into()), "it lost none of these: {reasons:?}");
    for (_, socket) in &people {
        // What came twice came before this answer.
        assert_eq!(socket.call("session:get", &[])["error"], "missing-session");
        let told = socket.messages().into_iter().filter(|told| told.name == "session:destroy");
        assert_eq!(told.count(), 1, "told once");
    }
}
