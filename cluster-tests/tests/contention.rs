//! Many callers on one session, over three nodes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::{
    Cluster, EventRecorder, PREFIX, RecordedEvent, Redis, Sockets, assert_same, assert_sound, until,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn increments_by_32_sockets_and_32_http_callers_on_three_nodes_are_all_counted() {
    const ROUNDS: usize = 8;
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let browser = cluster.browser();
    browser.post_json("/session/set", &json!({ "n": 0 })).ok();
    let sockets = Sockets::start();
    let open = |at: usize| sockets.open(&browser, cluster[at % 3].url());
    let sockets: Vec<_> = (0..32).map(open).collect();
    let seen: Vec<i64> = std::thread::scope(|scope| {
        let by_socket = sockets.iter().map(|socket| {
            scope.spawn(move || -> Vec<_> {
                (0..ROUNDS).map(|_| socket.ok("session:inc")["session"]["n"].as_i64()).collect()
            })
        });
        let mut callers: Vec<_> = by_socket.collect();
        for at in 0..32 {
            let browser = browser.at(cluster[at % 3].url());
            callers.push(scope.spawn(move || {
                let one = |_| browser.post("/session/inc").ok().session()["n"].as_i64();
                (0..ROUNDS).map(one).collect()
            }));
        }
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).map(Option::unwrap).collect()
    });
    let expected = 64 * i64::try_from(ROUNDS).unwrap();
    assert_eq!(browser.get("/session").session(), &json!({ "n": expected }));
    let each: BTreeSet<i64> = seen.into_iter().collect();
    assert_eq!(each, (1..=expected).collect(), "each caller saw a number of its own");
    // The last to hold the lease has given it back, and nobody waits.
    until("lease and queue are gone", LIMIT, || {
        let left = [redis.scan(&format!("{PREFIX}:*:l")), redis.scan(&format!("{PREFIX}:*:q"))];
        left.iter().all(Vec::is_empty).then_some(())
    });
}

#[test]
fn plain_reads_issue_no_lock_command() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    let client = browser.get("/session").json["clientId"].as_str().unwrap().to_owned();
    until("the creator's lease is given back", LIMIT, || {
        redis.scan(&format!("{PREFIX}:*:l")).is_empty().then_some(())
    });
    let mut monitor = redis.monitor();
    for _ in 0..30 {
        assert_eq!(browser.get("/session").ok().session()["n"], 1);
    }
    let of_lease = format!("{{{client}}}:l");
    let reads = monitor.run(&redis);
    let touched: Vec<_> = reads.iter().filter(|line| line.contains(&of_lease)).collect();
    assert!(touched.is_empty(), "{touched:#?}");
    // The same look sees a writer's lease.
    browser.post("/session/inc").ok();
    let writes = monitor.run(&redis);
    assert!(writes.iter().any(|line| line.contains(&of_lease)), "{writes:#?}");
}

#[test]
fn twenty_first_posts_of_one_client_make_one_session_that_is_told_as_one() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    for round in 0..5 {
        let browser = cluster.browser();
        browser.get("/session").ok();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let post = |at: usize| {
                let tab = browser.at(cluster[at % 3].url());
                scope.spawn(move || {
                    let body = json!({ format!("k{at}"): at });
                    let answer = tab.post_json("/session/merge", &body).ok();
                    (answer, tab.session_in("app.sid").unwrap(), tab)
                })
            };
            let tabs: Vec<_> = (0..20).map(post).collect();
            tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
        });
        let ids: BTreeSet<_> = answers.iter().map(|(_, id, _)| id.clone()).collect();
        assert_eq!(ids.len(), 1, "one session");
        let with_session = browser.clone();
        assert_eq!(with_session.get("/session").ok().session_id(), None, "it has no cookie yet");
        let tab = cluster.browser();
        let (last, _, with_cookie) = answers.last().unwrap();
        assert!(last.set_cookies.iter().any(|line| line.starts_with("app.sid=")));
        tab.adopt("app.sid", &with_cookie.cookie("app.sid").unwrap());
        let session = tab.get("/session").ok();
        let keys = session.session().as_object().unwrap();
        assert_eq!(keys.len(), 20, "round {round}: {keys:?}");
        let id = session.session_id().unwrap().to_owned();
        let client = session.json["clientId"].as_str().unwrap();
        // Those that met on a node were written together.
        let written = redis.stored_version(PREFIX, client).unwrap();
        assert!((1..=20).contains(&written), "{written}");
        let told: Vec<Vec<RecordedEvent>> = recorders
            .iter()
            .map(|recorder| {
                until("as many changes as were written", LIMIT, || {
                    Some(recorder.of(&id)).filter(|told| told.len() >= written)
                })
            })
            .collect();
        assert_same(&told);
        for recorder in &recorders {
            let told = recorder.told();
            assert_sound(&told);
            let others = told.iter().filter(|event| event.client() == Some(client));
            assert!(others.clone().all(|event| event.session() == Some(&id)), "{others:?}");
        }
    }
}
