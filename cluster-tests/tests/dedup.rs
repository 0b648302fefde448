//! The end of a session is told once, whoever was away when it was.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Cluster, EventRecorder, Proxy, Redis, Sockets};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_node_that_missed_an_end_does_not_tell_it_to_the_others_again() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let mut cluster = Cluster::start_at(&[redis.url(), proxy.redis_url(), redis.url()], &[]);
    let sockets = Sockets::start();
    let browser = cluster.browser();
    let session = browser.post("/session/inc").ok().session_id().unwrap().to_owned();
    let away = sockets.open(&browser, cluster[1].url());
    let there = sockets.open(&browser, cluster[0].url());

    proxy.refuse();
    browser.at(cluster[0].url()).post("/logout").ok();
    assert_eq!(there.message("session:destroy", LIMIT)["reason"], "destroyed");
    // A node that knows nothing of it takes what it is told for news.
    cluster[2].kill();
    cluster[2].start_again();
    let new = EventRecorder::follow(&cluster[2]);
    proxy.heal();
    assert_eq!(away.message("session:destroy", LIMIT)["reason"], "reconciled");

    // What the node that was away told comes before this.
    let url = cluster[1].url();
    let next = cluster.browser().at(url).post("/session/inc").ok().session_id().unwrap().to_owned();
    cluster.browser().at(url).post(&format!("/probe/destroy/{next}")).ok();
    new.end_of(&next, LIMIT);
    assert_eq!(new.of(&session), [], "it ended before the node began");
    let ends = there.messages().into_iter().filter(|message| message.name == "session:destroy");
    assert_eq!(ends.count(), 1, "told once");
}
