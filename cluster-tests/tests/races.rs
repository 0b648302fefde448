//! Requests of one browser at once, over two nodes: nobody is logged out, nobody gets a cookie that
//! is not theirs, and what is acknowledged stays.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::collections::BTreeSet;

use cluster_tests::{Browser, PREFIX, until};
use serde_json::{Value, json};
use support::races::{Done, LIMIT, SID, Testbed};

const ROUNDS: usize = 40;

fn merge(key: &str) -> (&'static str, Value) {
    ("/session/merge", json!({ key: 1 }))
}

#[test]
fn of_rotations_at_once_none_logs_the_browser_out_whichever_answer_it_keeps() {
    let testbed = Testbed::start();
    let (mut own_ways, mut late) = (0, 0);
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        let data = json!({ "user": "ann", "round": round });
        testbed.went_to(&format!("{round} before"), &{
            let answer = browser.post_json("/session/set", &data).ok();
            Done { answer, browser: browser.clone() }
        });
        let rotate = ("/session/regenerate", Value::Null);
        let all = testbed.at_once(&browser, &vec![rotate; 4]);
        let mut clients = BTreeSet::new();
        for (at, done) in all.iter().enumerate() {
            testbed.went_to(&format!("{round} rotation {at}"), done);
            if done.got().is_none() {
                // It came when another one was done: it has nothing to seal, and the browser keeps
                // what it was given.
                assert_eq!(done.answer.status, 409, "{}", done.answer.text);
                late += 1;
                continue;
            }
            assert_eq!(done.answer.status, 200, "{}", done.answer.text);
            let kept = testbed.session(&done.browser);
            assert_eq!(kept.session(), &data, "round {round}, answer {at}");
            assert_eq!(kept.session_id(), done.answer.session_id());
            assert!(clients.insert(kept.json["clientId"].to_string()), "a client of its own");
        }
        assert!(!clients.is_empty(), "nobody got the rotated session");
        own_ways += clients.len() - 1;
        // The one of before is worth nothing.
        assert_eq!(testbed.session(&browser).session(), &Value::Null);
    }
    println!("{own_ways} went their own way, {late} came late");
    assert!(own_ways > 0, "no two rotations met");
    testbed.cluster.stop();
}

#[test]
fn writes_with_the_cookie_of_before_a_rotation_are_in_it_or_refused() {
    let testbed = Testbed::start();
    let (mut kept, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        let before = browser.post_json("/session/set", &json!({ "user": "ann" })).ok();
        let keys = ["a", "b", "c", "d"];
        let mut requests: Vec<_> = keys.iter().map(|key| merge(key)).collect();
        // Now earlier, now later than the writes, and now here, now there.
        requests.insert(round % 5, ("/session/regenerate", Value::Null));
        let mut all = testbed.at_once(&browser, &requests);
        let rotated = all.remove(round % 5);
        assert_eq!(rotated.answer.status, 200, "{}", rotated.answer.text);
        testbed.went_to(&format!("{round} rotated"), &rotated);
        let session = testbed.session(&rotated.browser);
        assert_eq!(session.session_id(), rotated.answer.session_id());
        assert_eq!(session.session()["user"], "ann");
        for (key, done) in keys.iter().zip(&all) {
            testbed.went_to(&format!("{round} before"), done);
            let there = session.session().get(key).is_some();
            match done.answer.status {
                200 => {
                    assert!(there, "round {round}: {key} was acknowledged and is lost");
                    assert_eq!(done.answer.session_id(), before.session_id());
                    kept += 1;
                }
                409 => {
                    assert!(!there, "round {round}: {key} was refused and is there");
                    assert_eq!(done.got(), None, "the cookie of before would log the browser out");
                    refused += 1;
                }
                other => panic!("{other}: {}", done.answer.text),
            }
        }
    }
    assert!(kept > 0 && refused > 0, "{kept} were kept and {refused} refused");
    testbed.cluster.stop();
}

#[test]
fn writes_beside_a_logout_revive_nothing() {
    let testbed = Testbed::start();
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        // Open and sealed sessions end in the same way.
        let path = if round % 2 == 0 { "/session/set" } else { "/login" };
        let before = browser.post_json(path, &json!({ "user": "ann" })).ok();
        let keys = ["a", "b", "c", "d"];
        let mut requests: Vec<_> = keys.iter().map(|key| merge(key)).collect();
        requests.insert(round % 5, ("/logout", Value::Null));
        let mut all = testbed.at_once(&browser, &requests);
        let out = all.remove(round % 5);
        assert_eq!(out.answer.status, 200, "{}", out.answer.text);
        assert_eq!(out.browser.cookie(SID), None, "the logout clears the cookie");
        let id = before.session_id().unwrap();
        assert_eq!(testbed.redis.cli(&["EXISTS", &format!("{PREFIX}:sid:{id}")]), "0");
        assert_eq!(testbed.session(&browser).session(), &Value::Null, "round {round}");
        for (key, done) in keys.iter().zip(&all) {
            assert!([200, 409].contains(&done.answer.status), "{}", done.answer.text);
            // One that came when it was over began a session of its own, or joined that one.
            let seen = testbed.session(&done.browser);
            assert_eq!(seen.session().get("user"), None, "round {round}: {}", seen.text);
            match (done.answer.status, seen.session_id()) {
                (200, Some(new)) => {
                    assert_ne!(new, id);
                    assert_eq!(seen.session()[key], 1);
                    testbed.went_to(&format!("{round} after"), done);
                }
                _ => testbed.went_to(&format!("{round} before"), done),
            }
        }
    }
    testbed.cluster.stop();
}

#[test]
fn nothing_that_a_request_began_before_a_login_lands_after_it() {
    let testbed = Testbed::start();
    let mut refused = 0;
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        browser.post_json("/session/set", &json!({ "n": 1 })).ok();
        let here = browser.at(testbed.cluster[round % 2].url());
        let late = browser.at(testbed.cluster[(round + 1) % 2].url());
        let (login, slow, fast) = std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let answer = late.post("/probe/slow?ms=300");
                Done { answer, browser: late.clone() }
            });
            testbed.waits((round + 1) % 2);
            let writes = scope.spawn(|| testbed.at_once(&browser, &[merge("a"), merge("b")]));
            let answer = here.post_json("/login", &json!({ "user": "ann" })).ok();
            let login = Done { answer, browser: here.clone() };
            (login, slow.join().unwrap(), writes.join().unwrap())
        });
        testbed.went_to(&format!("{round} login"), &login);
        testbed.went_to(&format!("{round} before"), &slow);
        let session = testbed.session(&login.browser);
        assert_eq!(session.session_id(), login.answer.session_id(), "the login lives");
        assert_eq!(session.session()["user"], "ann");
        // On a machine where the login takes as long, it may have been done before.
        let n = match slow.answer.status {
            200 => 2,
            409 => 1,
            other => panic!("{other}: {}", slow.answer.text),
        };
        assert_eq!(session.session()["n"], n);
        refused += usize::from(n == 1);
        if n == 1 {
            assert_eq!(slow.got(), None, "the cookie of before would log the browser out");
        }
        for (key, done) in ["a", "b"].iter().zip(&fast) {
            testbed.went_to(&format!("{round} before"), done);
            let there = session.session().get(key).is_some();
            assert_eq!(done.answer.status, if there { 200 } else { 409 }, "{}", done.answer.text);
        }
    }
    assert!(refused > ROUNDS / 2, "only {refused} of {ROUNDS} were overtaken");
    testbed.cluster.stop();
}

#[test]
fn a_request_that_a_login_overtook_does_not_bring_the_cookie_of_before_back() {
    // A cookie of a short session is sent again soon.
    let testbed = Testbed::start_with(&["--max-age", "90s"]);
    let end = |browser: &Browser| {
        let cookie = browser.cookie(SID).unwrap();
        cookie.rsplit('.').next().unwrap().parse::<u64>().unwrap()
    };
    // Refused at the end of the request, and in the middle of it.
    for path in ["/probe/slow?ms=500", "/probe/hold?ms=500"] {
        let browser = testbed.cluster.browser();
        browser.post_json("/session/set", &json!({ "n": 1 })).ok();
        // The session outlives the cookie of one that does not hear of its changes.
        let late = browser.at(testbed.cluster[1].url());
        let mut n = 0;
        until("the cookie's end moves", LIMIT, || {
            n += 1;
            browser.post_json("/session/merge", &json!({ "t": n })).ok();
            (end(&browser) > end(&late) + 2).then_some(())
        });
        let here = browser.at(testbed.cluster[0].url());
        let (login, late) = std::thread::scope(|scope| {
            let late = scope.spawn(|| {
                let answer = late.post(path);
                Done { answer, browser: late.clone() }
            });
            testbed.waits(1);
            let login = here.post_json("/login", &json!({ "user": "ann" })).ok();
            (login, late.join().unwrap())
        });
        assert_eq!(late.answer.status, 409, "{path}: {}", late.answer.text);
        assert_eq!(late.got(), None, "{path}: the browser would take it for the login's");
        assert_eq!(testbed.session(&here).session_id(), login.session_id());
    }
    testbed.cluster.stop();
}

#[test]
fn first_requests_at_once_over_both_nodes_end_in_one_open_session() {
    let testbed = Testbed::start();
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        browser.get("/session").ok();
        let keys: Vec<String> = (0..6).map(|n| format!("k{n}")).collect();
        let requests: Vec<_> = keys.iter().map(|key| merge(key)).collect();
        let all = testbed.at_once(&browser, &requests);
        for done in &all {
            assert_eq!(done.answer.status, 200, "{}", done.answer.text);
            assert!(done.got().is_some());
            testbed.went_to(&format!("{round} joined"), done);
        }
        let session = testbed.session(&all[0].browser);
        assert_eq!(session.session().as_object().unwrap().len(), keys.len(), "{}", session.text);
        for done in &all[1..] {
            assert_eq!(testbed.session(&done.browser).session_id(), session.session_id());
        }
        let late = testbed.at_once(&browser, &[merge("late")]);
        assert_eq!(late[0].answer.status, 200);
        let joined = testbed.session(&late[0].browser);
        assert_eq!(joined.session_id(), session.session_id(), "it is open");
    }
    testbed.cluster.stop();
}

#[test]
fn a_login_beside_first_requests_is_joined_by_none_of_them() {
    let testbed = Testbed::start();
    for round in 0..ROUNDS {
        let browser = testbed.cluster.browser();
        browser.get("/session").ok();
        let mut requests: Vec<_> = ["a", "b", "c"].iter().map(|key| merge(key)).collect();
        requests.insert(round % 4, ("/login", json!({ "user": "ann" })));
        let mut all = testbed.at_once(&browser, &requests);
        let login = all.remove(round % 4);
        testbed.went_to(&format!("{round} login"), &login);
        assert_eq!(login.answer.status, 200, "{}", login.answer.text);
        assert_eq!(testbed.session(&login.browser).session(), &json!({ "user": "ann" }));
        for (key, done) in ["a", "b", "c"].iter().zip(&all) {
            assert_eq!(done.answer.status, 200, "{}", done.answer.text);
            testbed.went_to(&format!("{round} {}", done.got().unwrap()), done);
            let seen = testbed.session(&done.browser);
            assert_eq!((seen.session().get("user"), &seen.session()[key]), (None, &json!(1)));
        }
    }
    testbed.cluster.stop();
}
