//! What operators see of several nodes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use cluster_tests::{
    Browser, Cluster, KEY, Node, PREFIX, Redis, Sockets, chromium, run_js_with, until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// How long a dead node is listed.
const LIFE: Duration = Duration::from_secs(15);

/// The names of the nodes that a node lists, or none if it can't say.
fn listed(browser: &Browser) -> Option<Vec<String>> {
    let answer = browser.get("/monitor/nodes");
    if answer.status == 503 {
        assert!(answer.json["error"].is_string(), "{}", answer.text);
        return None;
    }
    let answer = answer.ok();
    let nodes = answer.json["nodes"].as_array().unwrap().iter();
    Some(nodes.map(|node| node["node"].as_str().unwrap().to_owned()).collect())
}

fn start(redis: &Redis, name: &str) -> Node {
    Node::start(&["--redis", &redis.url(), "--prefix", PREFIX, "--keys", KEY, "--node", name])
}

#[test]
fn a_stopped_node_leaves_the_list_at_once_and_a_killed_one_within_its_life() {
    let redis = Redis::start();
    let (stays, stopped, mut killed) =
        (start(&redis, "stays"), start(&redis, "stopped"), start(&redis, "killed"));
    for node in [&stays, &stopped, &killed] {
        let names = listed(&Browser::new(&[node.url()])).unwrap();
        assert_eq!(names, ["killed", "stays", "stopped"]);
    }
    let browser = Browser::new(&[stays.url()]);
    stopped.stop();
    assert_eq!(listed(&browser).unwrap(), ["killed", "stays"], "at once");
    killed.kill();
    let killed_at = Instant::now();
    // Its process ends a moment before its last word gets old.
    let gone = || (listed(&browser).unwrap() == ["stays"]).then(|| killed_at.elapsed());
    let after = until("the killed node leaves the list", LIMIT, gone);
    assert!(after < LIFE + Duration::from_secs(2), "{after:?}");
    killed.start_again();
    assert_eq!(listed(&browser).unwrap(), ["killed", "stays"], "it is there again");
    stays.stop();
    killed.stop();
}

#[test]
fn a_node_lists_what_the_others_said_of_themselves() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let browser = cluster.browser().at(cluster[1].url());
    browser.post("/session/inc");
    let sockets = Sockets::start();
    let _open = [(); 3].map(|()| sockets.open(&browser, cluster[1].url()));
    let told = until("the other node's figures", LIMIT, || {
        let answer = cluster.browser().at(cluster[0].url()).get("/monitor/nodes").ok();
        assert_eq!(answer.json["node"], "n0");
        let said = answer.json["nodes"][1].clone();
        (said["figures"]["sockets"] == 3).then_some(said)
    });
    assert_eq!(told["node"], "n1");
    assert_eq!(told["figures"]["created"], 1, "{told}");
    assert!(told["seenMs"].as_u64().unwrap() < 15_000, "{told}");
    cluster.stop();
}

#[test]
fn without_redis_the_nodes_are_503_and_the_figures_are_still_there() {
    let mut redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, &[]);
    let browser = cluster.browser();
    redis.stop();
    assert_eq!(listed(&browser), None);
    assert_eq!(browser.get("/monitor/stats").status, 200);
    let metrics = browser.get("/metrics").ok().text;
    assert!(metrics.contains("axum_io_session_sockets{node=\"n0\"} 0"), "{metrics}");
    redis.start_again();
    until("the node lists itself again", LIMIT, || (listed(&browser)? == ["n0"]).then_some(()));
    cluster.stop();
}

#[test]
fn while_redis_is_full_a_node_lives_and_is_not_ready() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, &[]);
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    let status = || ["/livez", "/readyz", "/healthz"].map(|path| browser.get(path).status);
    assert_eq!(status(), [200, 200, 200]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(status(), [200, 503, 503]);
    assert_eq!(browser.get("/session").status, 200, "reads go on");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(status(), [200, 200, 200]);
    cluster.stop();
}

#[test]
fn the_dashboard_shows_all_nodes_and_says_when_redis_is_away() {
    let mut redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let chromium = chromium().display().to_string();
    let show = |scene| {
        let variables = [("CHROMIUM_PATH", chromium.as_str()), ("SCENE", scene)];
        run_js_with("dashboard.mjs", &cluster.urls(), &variables);
    };
    show("all nodes");
    redis.stop();
    show("no redis");
    redis.start_again();
    cluster.stop();
}
