//! The example node's page, and pages of others, in a real browser.

use cluster_tests::{Cluster, Node, Redis, chromium, free_port, run_js_with};

/// Runs a program with the browser.
fn in_browser(program: &str, urls: &[&str], variables: &[(&str, &str)]) {
    let browser = chromium().display().to_string();
    run_js_with(program, urls, &[&[("CHROMIUM_PATH", browser.as_str())], variables].concat());
}

#[test]
fn the_page_shows_one_session_in_all_tabs_of_a_profile() {
    let node = Node::start(&[]);
    in_browser("page.mjs", &[node.url()], &[]);
    node.stop();
}

#[test]
fn the_page_shows_one_session_in_tabs_of_two_nodes() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    in_browser("page.mjs", &cluster.urls(), &[]);
    cluster.stop();
}

#[test]
fn pages_of_other_origins_and_sites_are_refused() {
    let node = Node::start(&[]);
    in_browser("origins.mjs", &[node.url()], &[]);
    node.stop();
}

#[test]
fn a_page_of_an_allowed_origin_may_post_and_connect() {
    let port = free_port().to_string();
    let node = Node::start(&["--origins", &format!("http://127.0.0.1:{port}")]);
    in_browser("origins.mjs", &[node.url()], &[("FOREIGN_PORT", &port)]);
    node.stop();
}
