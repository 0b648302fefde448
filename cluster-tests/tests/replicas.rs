//! Changes that wait for replicas: what was acknowledged is there after a failover.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::{Answer, Browser, Cluster, PREFIX, Redis, Sentinels, Sockets, until};
use serde_json::{Value, json};
use support::replicas::{FAILED_OVER, has_replicas, pair};
use support::user::HEALS;

/// Much later than an answer that waits for nobody.
const LATE: Duration = Duration::from_millis(150);
/// What the nodes give the replicas.
const WAIT: Duration = Duration::from_millis(800);
const FLAGS: [&str; 4] = ["--replicas", "1", "--replica-wait", "800ms"];
/// Several times what a change may take.
const BOUND: Duration = Duration::from_secs(20);

/// What a replica has of a session now.
fn data(replica: &Redis, client: &str) -> Option<Value> {
    let text = replica.stored_session(PREFIX, client)?.1;
    (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

fn client(answer: &Answer) -> String {
    answer.json["clientId"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_acknowledged_is_on_the_replica_at_once() {
    let (primary, proxy, replica) = pair();
    proxy.delay(LATE);
    let cluster = Cluster::start(&primary, 2, &FLAGS);
    let browser = cluster.browser();
    let first = browser.post("/session/inc").ok();
    let client = client(&first);
    assert_eq!(data(&replica, &client), Some(json!({ "n": 1 })), "created");
    let pointer = |answer: &Answer| format!("{PREFIX}:sid:{}", answer.session_id().unwrap());
    let created = browser.get("/session").ok();
    assert_eq!(replica.cli(&["GET", &pointer(&created)]), client);
    for n in 2..6 {
        browser.post("/session/inc").ok();
        assert_eq!(data(&replica, &client), Some(json!({ "n": n })), "updated");
    }
    browser.post_json("/session/merge", &json!({ "a": 1 })).ok();
    assert_eq!(data(&replica, &client), Some(json!({ "n": 5, "a": 1 })), "committed at the end");
    let socket = Sockets::start().open(&browser, cluster[0].url());
    socket.ok("session:inc");
    assert_eq!(data(&replica, &client), Some(json!({ "n": 6, "a": 1 })), "by a socket");
    let rotated = browser.post("/session/regenerate").ok();
    let (stored, _) = replica.stored_session(PREFIX, &client).unwrap();
    assert_eq!(stored, rotated.session_id().unwrap());
    assert_eq!(replica.cli(&["GET", &pointer(&rotated)]), client);
    browser.post("/logout").ok();
    assert_eq!(data(&replica, &client), None, "ended");
}

#[test]
fn what_was_acknowledged_a_moment_before_the_primary_died_is_there_when_the_replica_takes_over() {
    let (mut primary, proxy, replica) = pair();
    proxy.delay(LATE);
    let cluster = Cluster::start(&primary, 1, &FLAGS);
    let people: Vec<Browser> = (0..4).map(|_| cluster.browser()).collect();
    let logged_out = cluster.browser();
    let gone = client(&logged_out.post("/session/inc").ok());
    for person in &people {
        person.post("/session/inc").ok();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| logged_out.post("/logout").ok());
        for person in &people {
            scope.spawn(|| (0..3).for_each(|_| drop(person.post("/session/inc").ok())));
        }
    });
    primary.kill();
    // What is still on its way is lost with it.
    drop(proxy);
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    let heir = Cluster::start(&replica, 1, &[]);
    for person in &people {
        let found = person.at(heir[0].url()).get("/session").ok();
        assert_eq!(found.session(), &json!({ "n": 4 }));
    }
    assert_eq!(data(&replica, &gone), None, "who logged out stays so");
}

#[test]
fn a_replica_that_does_not_confirm_refuses_changes_in_time_and_not_before_and_no_reads() {
    let (primary, _proxy, replica) = pair();
    let cluster = Cluster::start(&primary, 1, &FLAGS);
    let node = cluster[0].url();
    let sockets = Sockets::start();
    let people: Vec<Browser> = (0..16).map(|_| cluster.browser()).collect();
    for person in &people {
        person.post("/session/inc").ok();
    }
    let socket = sockets.open(&people[0], node);
    replica.pause();
    let begun = Instant::now();
    let refused = people[0].post("/session/inc");
    let took = begun.elapsed();
    assert_eq!((refused.status, refused.retry_after.as_deref()), (503, Some("1")));
    assert!(refused.text.contains("0 of 1 replicas"), "{}", refused.text);
    assert!(took >= WAIT && took < BOUND, "it took {took:?}");
    let told = socket.call("session:inc", &[]);
    assert!(told["error"].as_str().unwrap().contains("unavailable"), "{told}");
    // It was made, and is not taken back.
    assert_eq!(people[0].get("/session").ok().session(), &json!({ "n": 3 }));
    assert_eq!(people[0].get("/healthz").status, 200);
    // More changes at once than there are connections for them; reads wait for none of them.
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while writing.load(Ordering::SeqCst) {
                let begun = Instant::now();
                people[1].clone().get("/session").ok();
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let write = |person: &Browser| {
            let begun = Instant::now();
            let answer = person.post("/session/inc");
            (answer, begun.elapsed())
        };
        let writers: Vec<_> = people.iter().map(|p| scope.spawn(move || write(p))).collect();
        for (answer, took) in writers.into_iter().map(|writer| writer.join().unwrap()) {
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(took < BOUND, "it took {took:?}");
        }
        writing.store(false, Ordering::SeqCst);
        let longest = reader.join().unwrap();
        assert!(longest < WAIT, "a read took {longest:?}");
    });
    replica.resume();
    people.iter().for_each(is_acknowledged);
    assert_eq!(socket.ok("session:get")["ok"], true);
    let stats = people[0].get("/monitor/stats").ok().json["stats"]["tables"].clone();
    assert_eq!((&stats["lease_lines"], &stats["lease_tokens"]), (&json!(0), &json!(0)));
}

#[test]
fn failovers_lose_nothing_that_was_acknowledged() {
    const ROUNDS: usize = 3;
    let mut redis = Sentinels::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 2], &FLAGS);
    for round in 0..ROUNDS {
        let primary = primary_of(&redis, round);
        let people: Vec<Browser> = (0..6).map(|_| cluster.browser()).collect();
        people.iter().for_each(is_acknowledged);
        let began: Vec<u64> = people.iter().map(count).collect();
        let (stop, severed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (written, answered_since) = (AtomicU64::new(0), AtomicUsize::new(0));
        let write = |person: &Browser| {
            let (mut sent, mut acknowledged) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                sent += 1;
                let late = severed.load(Ordering::SeqCst);
                if person.post("/session/inc").status == 200 {
                    acknowledged += 1;
                    written.fetch_add(1, Ordering::SeqCst);
                }
                answered_since.fetch_add(usize::from(late), Ordering::SeqCst);
            }
            (sent, acknowledged)
        };
        let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let write = &write;
            let writers: Vec<_> = people.iter().map(|p| scope.spawn(move || write(p))).collect();
            until("there is enough to lose", HEALS, || {
                (written.load(Ordering::SeqCst) > 100).then_some(())
            });
            // From here on nothing reaches a replica any more, not even their systems' buffers.
            let replicas = || (0..3).filter(|at| *at != primary).map(|at| &redis.servers()[at]);
            replicas().for_each(Redis::pause);
            let cut = redis.servers()[primary].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
            assert_eq!(cut, "2", "links to replicas");
            severed.store(true, Ordering::SeqCst);
            until("everybody has tried to write once more", HEALS, || {
                (answered_since.load(Ordering::SeqCst) >= 2 * people.len()).then_some(())
            });
            redis.server(primary).kill();
            let replicas = |at: &usize| *at != primary;
            (0..3).filter(replicas).for_each(|at| redis.servers()[at].resume());
            stop.store(true, Ordering::SeqCst);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let heir = primary_of(&redis, round);
        assert_ne!(heir, primary);
        for ((person, began), (sent, acknowledged)) in people.iter().zip(began).zip(counts) {
            let n = until("the session is served again", FAILED_OVER, || {
                let answer = person.try_get("/session").ok().filter(|a| a.status == 200)?;
                Some(answer.session()["n"].as_u64())
            });
            let possible = began + acknowledged..=began + sent;
            assert!(n.is_some_and(|n| possible.contains(&n)), "round {round}: {n:?}, {possible:?}");
        }
        redis.agree_on(heir);
        redis.server(primary).start_again();
        has_replicas(&redis.servers()[heir], 2);
        redis.agree_on(heir);
    }
}

#[test]
fn a_failover_from_a_primary_that_lives_loses_nothing_that_all_replicas_had_to_confirm() {
    let redis = Sentinels::start();
    has_replicas(&redis.servers()[0], 2);
    let flags = ["--replicas", "2", "--replica-wait", "800ms"];
    let cluster = Cluster::start_at(&vec![redis.url(); 2], &flags);
    let people: Vec<Browser> = (0..6).map(|_| cluster.browser()).collect();
    people.iter().for_each(is_acknowledged);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = |person: &Browser| {
        let began = count(person);
        let (mut sent, mut acknowledged) = (began, began);
        while !stop.load(Ordering::SeqCst) {
            sent += 1;
            if person.post("/session/inc").status == 200 {
                acknowledged += 1;
                written.fetch_add(1, Ordering::SeqCst);
            }
        }
        acknowledged..=sent
    };
    let possible: Vec<_> = std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = people.iter().map(|p| scope.spawn(move || write(p))).collect();
        until("there is enough to lose", HEALS, || {
            (written.load(Ordering::SeqCst) > 100).then_some(())
        });
        let heir = redis.fail_over();
        // The old one is made a replica, and what it alone has is gone.
        has_replicas(&redis.servers()[heir], 2);
        redis.agree_on(heir);
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (person, possible) in people.iter().zip(possible) {
        let n = until("the session is served", FAILED_OVER, || {
            let answer = person.try_get("/session").ok().filter(|a| a.status == 200)?;
            answer.session()["n"].as_u64()
        });
        assert!(possible.contains(&n), "{n}, {possible:?}");
    }
}

/// Waits until a change of this person's session is.
fn is_acknowledged(person: &Browser) {
    until("a change is acknowledged", HEALS, || {
        (person.post("/session/inc").status == 200).then_some(())
    });
}

fn count(person: &Browser) -> u64 {
    person.get("/session").ok().session()["n"].as_u64().unwrap()
}

/// Which of the servers takes writes now.
fn primary_of(redis: &Sentinels, round: usize) -> usize {
    until(&format!("a primary in round {round}"), FAILED_OVER, || {
        redis.servers().iter().position(|server| {
            let role = server.ask(&["ROLE"]).unwrap_or_default();
            role.starts_with("master") && role.lines().count() > 2
        })
    })
}
