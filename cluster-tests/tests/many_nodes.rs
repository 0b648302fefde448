//! Three nodes over one Redis pass what one node passes, each request and each socket at another
//! node.

use cluster_tests::{Cluster, Redis, STAY, run_js, run_js_with};

fn checks(program: &str, flags: &[&str]) {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[&STAY[..], flags].concat());
    run_js(program, &cluster.urls());
    cluster.stop();
}

fn sockets_by(transport: &str) {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &STAY);
    run_js_with("sockets.mjs", &cluster.urls(), &[("TRANSPORT", transport)]);
    cluster.stop();
}

#[test]
fn http_over_three_nodes() {
    checks("http.mjs", &[]);
}

#[test]
fn sockets_by_websocket_over_three_nodes() {
    sockets_by("websocket");
}

#[test]
fn sockets_by_polling_over_three_nodes() {
    sockets_by("polling");
}

#[test]
fn sockets_by_polling_and_then_an_upgrade_over_three_nodes() {
    sockets_by("upgrade");
}

#[test]
fn events_reach_the_sockets_of_all_nodes() {
    checks("events.mjs", &[]);
}

#[test]
fn hostile_cookies_and_bodies_do_no_harm_to_three_nodes() {
    checks("hostile.mjs", &[]);
}

#[test]
fn sessions_end_in_time_on_three_nodes() {
    checks("expiry.mjs", &["--max-age", "3s"]);
}

#[test]
fn slow_handlers_outlive_a_short_lease_on_three_nodes() {
    checks("lease.mjs", &["--lease", "2s"]);
}
