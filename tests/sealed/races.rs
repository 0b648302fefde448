//! Requests that change who the browser is, at once with others: nobody is logged out, nobody gets
//! a session that is not theirs, each 200 is kept, and everything else is a 409.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::place::{Place, World};
use crate::support::http::{Answer, Browser};

over_both_stores! {
    of_parallel_rotations_each_answer_is_good,
    writes_beside_a_rotation_are_kept_or_conflicts,
    writes_beside_a_logout_are_done_before_it_or_conflicts,
    first_requests_beside_a_login_are_all_served,
    two_renewals_at_once_end_in_one_id,
    a_renewal_beside_a_rotation_never_opens_the_sealed_session,
}

const ROUNDS: usize = 40;

fn writes(what: &'static str, count: usize) -> Vec<(&'static str, String)> {
    (0..count).map(|n| (what, format!(r#"{{"w{n}":1}}"#))).collect()
}

/// What the cookies that an answer has set open. Nothing is set: the cookies of before stay.
async fn opened(world: &World, (browser, answer): &(Browser, Answer)) -> Option<Value> {
    answer.set_cookie("sid")?;
    let seen = world.seen(browser).await;
    assert_ne!(seen["id"], Value::Null, "a cookie that was set opens a live session");
    // The client cookie beside it is of the same client.
    let client = browser.clone().get(&world.app, "/client").await.body;
    assert_eq!(seen["client"], client);
    Some(seen)
}

async fn of_parallel_rotations_each_answer_is_good(place: Place) {
    let world = place.world().await;
    for round in 0..ROUNDS {
        // Half of the rounds all have loaded the same session, else they race for that as well.
        let loaded = round % 2 == 0;
        let browser = world.open(r#"{"a":1}"#).await;
        let what = ["rotate", "login", "rotate-and-update"][round / 2 % 3];
        let rotations: Vec<_> = (0..4).map(|n| (what, format!(r#"{{"user":"u{n}"}}"#))).collect();
        let answers = world.at_once(&browser, loaded, &rotations).await;
        let mut clients = Vec::new();
        for (n, answer) in answers.iter().enumerate() {
            let Some(seen) = opened(&world, answer).await else {
                assert!(!loaded && what == "rotate", "a late rotation without data has nothing");
                assert_eq!(answer.1.status, StatusCode::CONFLICT);
                continue;
            };
            assert_eq!(answer.1.status, StatusCode::OK, "{}", answer.1.body);
            assert_eq!(seen["sealed"], true);
            if loaded {
                assert_eq!(seen["data"]["a"], 1, "{seen}");
            }
            if what != "rotate" {
                assert_eq!(seen["data"]["user"], format!("u{n}"));
            }
            clients.push(seen["client"].clone());
        }
        let all = clients.len();
        clients.sort_by_key(Value::to_string);
        clients.dedup();
        assert!(clients.len() == all && all > 0, "each has a client id of its own");
    }
}

async fn writes_beside_a_rotation_are_kept_or_conflicts(place: Place) {
    let world = place.world().await;
    let (mut kept, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let loaded = round % 2 == 0;
        let browser = world.open(r#"{"a":1}"#).await;
        let what = if round % 4 < 2 { "merge" } else { "update" };
        let mut requests = writes(what, 4);
        requests.insert(round % 5, ("login", r#"{"user":"ada"}"#.into()));
        let answers = world.at_once(&browser, loaded, &requests).await;
        let login = &answers[round % 5];
        assert_eq!(login.1.status, StatusCode::OK, "{}", login.1.body);
        let sealed = opened(&world, login).await.expect("a cookie");
        assert_eq!(sealed["sealed"], true);
        assert_eq!((&sealed["data"]["a"], &sealed["data"]["user"]), (&json!(1), &json!("ada")));
        let others = answers.iter().enumerate().filter(|(n, _)| *n != round % 5);
        for (n, (_, (writer, answer))) in others.enumerate() {
            let there = sealed["data"].get(format!("w{n}")).is_some();
            match answer.status {
                StatusCode::OK => kept += 1,
                StatusCode::CONFLICT => refused += 1,
                other => panic!("{other}: {}", answer.body),
            }
            assert_eq!(there, answer.status == StatusCode::OK, "w{n}: {sealed}");
            assert_ne!(writer.jar["sid"], login.0.jar["sid"], "nobody else gets the new cookie");
            assert_eq!(world.data(writer).await, json!({}), "the old one opens nothing");
        }
    }
    assert_eq!(kept + refused, 4 * ROUNDS);
}

async fn writes_beside_a_logout_are_done_before_it_or_conflicts(place: Place) {
    let world = place.world().await;
    for round in 0..ROUNDS {
        let loaded = round % 2 == 0;
        let body = r#"{"a":1}"#;
        let sealed = round % 4 < 2;
        let browser = if sealed { world.sealed(body).await } else { world.open(body).await };
        let before = world.seen(&browser).await;
        let what = if round % 8 < 4 { "merge" } else { "update" };
        let mut requests = writes(what, 4);
        requests.insert(round % 5, ("logout", String::new()));
        let mut answers = world.at_once(&browser, loaded, &requests).await;
        let (gone, logout) = answers.remove(round % 5);
        assert_eq!(logout.status, StatusCode::OK, "{}", logout.body);
        assert!(!gone.jar.contains_key("sid"));
        assert_eq!(world.seen(&gone).await["id"], Value::Null);
        assert_eq!(world.seen(&browser).await["id"], Value::Null, "the old cookie is dead");
        for (writer, answer) in &answers {
            assert!(
                [StatusCode::OK, StatusCode::CONFLICT].contains(&answer.status),
                "{}",
                answer.body
            );
            let seen = world.seen(writer).await;
            if loaded {
                assert_eq!(seen["id"], Value::Null, "nothing is revived");
            } else if seen["id"] != Value::Null {
                // It came after the logout, with a dead cookie: a first request again.
                assert_ne!(seen["id"], before["id"]);
                assert_eq!(seen["data"].get("a"), None, "nothing of the old session: {seen}");
            }
        }
    }
}

async fn first_requests_beside_a_login_are_all_served(place: Place) {
    let world = place.world().await;
    for round in 0..ROUNDS {
        let mut browser = Browser::new();
        browser.get(&world.app, "/plain").await;
        let mut requests = writes(if round % 4 < 2 { "merge" } else { "update" }, 3);
        requests.insert(round % 4, ("login", r#"{"user":"ada"}"#.into()));
        let answers = world.at_once(&browser, round % 2 == 0, &requests).await;
        let mut n = 0;
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(answer.1.status, StatusCode::OK, "{}", answer.1.body);
            let seen = opened(&world, answer).await.expect("a cookie");
            if index == round % 4 {
                assert_eq!(
                    (&seen["sealed"], &seen["data"]),
                    (&json!(true), &json!({"user": "ada"}))
                );
            } else {
                assert_eq!(seen["sealed"], false);
                assert_eq!(seen["data"].get("user"), None);
                assert_eq!(seen["data"][format!("w{n}")], 1, "{seen}");
                n += 1;
            }
        }
    }
}

async fn two_renewals_at_once_end_in_one_id(place: Place) {
    let world = place.world().await;
    for round in 0..ROUNDS {
        let browser = world.open(r#"{"a":1}"#).await;
        let old = world.id(&browser).await;
        let renewals = writes("renew-id", 2);
        let answers = world.at_once(&browser, round % 2 == 0, &renewals).await;
        let mut ids = Vec::new();
        for answer in &answers {
            assert_eq!(answer.1.status, StatusCode::OK, "{}", answer.1.body);
            let seen = opened(&world, answer).await.expect("a cookie");
            assert_eq!(seen["data"], json!({"a": 1, "w0": 1, "w1": 1}));
            ids.push(world.id(&answer.0).await);
        }
        assert!(ids[0] == ids[1] && ids[0] != old, "one new id");
        assert_eq!(world.id(&browser).await, ids[0], "the previous id opens the session still");
    }
}

async fn a_renewal_beside_a_rotation_never_opens_the_sealed_session(place: Place) {
    let world = place.world().await;
    for round in 0..ROUNDS {
        let browser = world.open(r#"{"a":1}"#).await;
        let requests =
            [("login", r#"{"user":"ada"}"#.into()), ("renew-id", r#"{"renewed":1}"#.into())];
        let [login, renewal] = &world.at_once(&browser, round % 2 == 0, &requests).await[..] else {
            panic!("two answers");
        };
        assert_eq!(login.1.status, StatusCode::OK, "{}", login.1.body);
        let sealed = opened(&world, login).await.expect("a cookie");
        let kept = sealed["data"].get("renewed").is_some();
        assert_eq!(renewal.1.status == StatusCode::OK, kept, "{}", renewal.1.status);
        assert!(kept || renewal.1.status == StatusCode::CONFLICT, "{}", renewal.1.body);
        assert_eq!(world.seen(&renewal.0).await["id"], Value::Null);
        assert_eq!(world.seen(&browser).await["id"], Value::Null);
    }
}
