//! The example node's page in a real browser.

use cluster_tests::{Node, chromium, run_js_with};

#[test]
fn the_page_shows_one_session_in_all_tabs_of_a_profile() {
    let node = Node::start(&[]);
    let browser = chromium();
    run_js_with("page.mjs", &[node.url()], &[("CHROMIUM_PATH", &browser.display().to_string())]);
    node.stop();
}
