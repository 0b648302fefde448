//! Callers that wait for one session on a node run one after the other, and their writes are shared.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use axum_io_session::store::SessionStore as _;
use axum_io_session::{Error, ErrorKind, Result, SessionBridge, SessionId};
use serde_json::json;
use support::faulty::Faulty;
use support::http::Browser;
use support::world::{World, world};
use tokio::task::JoinHandle;

const CALLERS: usize = 40;

/// Adds one, and returns what it is then.
async fn add(bridge: SessionBridge, session: SessionId) -> Result<i64> {
    bridge
        .try_with_session(&session, |ctx| async move {
            let n = ctx.get::<i64>("n")?.unwrap_or(0) + 1;
            ctx.insert("n", n)?;
            Ok(n)
        })
        .await
}

async fn stored(world: &World, session: &SessionId) -> serde_json::Value {
    world.store.live.get(session).await.unwrap().unwrap().session.as_str().parse().unwrap()
}

/// Lets all tasks run until none has anything to do: there is one thread.
async fn settle() {
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

/// Callers of which the first writes, and waits for the store, and the others stand in line.
async fn line(world: &World, session: SessionId) -> Vec<JoinHandle<Result<i64>>> {
    world.store.hold_writes(true);
    let callers = (0..CALLERS).map(|_| tokio::spawn(add(world.bridge.clone(), session))).collect();
    settle().await;
    callers
}

async fn results(callers: Vec<JoinHandle<Result<i64>>>) -> Vec<Result<i64>> {
    let mut results = Vec::new();
    for caller in callers {
        let result = tokio::time::timeout(support::LIMIT, caller).await;
        results.push(result.expect("an answer in time").unwrap());
    }
    results
}

#[tokio::test]
async fn those_who_wait_are_written_together_and_each_builds_on_the_one_before() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let before = world.store.writes();
    let callers = line(&world, session).await;
    world.store.hold_writes(false);
    let mut seen: Vec<i64> = results(callers).await.into_iter().map(Result::unwrap).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=i64::try_from(CALLERS).unwrap()).collect::<Vec<_>>());
    let writes = world.store.writes() - before;
    assert!(writes <= 5, "{CALLERS} callers took {writes} writes");
    assert_eq!(stored(&world, &session).await, json!({ "n": CALLERS }));
}

#[tokio::test]
async fn nobody_hears_of_success_before_its_change_is_stored() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let callers = line(&world, session).await;
    assert!(callers.iter().all(|caller| !caller.is_finished()));
    assert_eq!(stored(&world, &session).await, json!({ "n": 0 }));
    world.store.hold_writes(false);
    assert!(results(callers).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_write_that_fails_fails_all_that_it_holds_and_nobody_else() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let callers = line(&world, session).await;
    world.store.set_broken(true);
    world.store.hold_writes(false);
    let results = results(callers).await;
    world.store.set_broken(false);
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(stored(&world, &session).await, json!({ "n": 0 }));
    assert_eq!(add(world.bridge.clone(), session).await.unwrap(), 1);
}

#[tokio::test]
async fn what_a_reader_returns_is_stored() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let mut callers = line(&world, session).await;
    let bridge = world.bridge.clone();
    let reads = async move {
        let read = |ctx: axum_io_session::bridge::SessionContext| async move {
            Ok::<_, Error>(ctx.get::<i64>("n")?.unwrap_or(0))
        };
        bridge.try_with_session(&session, read).await
    };
    callers.push(tokio::spawn(reads));
    settle().await;
    world.store.set_broken(true);
    world.store.hold_writes(false);
    let results = results(callers).await;
    world.store.set_broken(false);
    // It ran after callers whose changes came to nothing, or not at all.
    let read = results.last().unwrap();
    assert!(!matches!(read, Ok(n) if *n > 0), "{read:?}");
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_or_is_dropped_takes_only_itself_out() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let mut callers = line(&world, session).await;
    let mut spoilers = Vec::new();
    for kind in 0..3 {
        let bridge = world.bridge.clone();
        spoilers.push(tokio::spawn(async move {
            bridge
                .try_with_session(&session, |ctx| async move {
                    ctx.insert("n", -1_000)?;
                    match kind {
                        0 => Err(Error::new(ErrorKind::Handler, "on purpose")),
                        1 => panic!("on purpose"),
                        _ => std::future::pending().await,
                    }
                })
                .await
                .map(|()| 0_i64)
        }));
        settle().await;
        callers.push(tokio::spawn(add(world.bridge.clone(), session)));
        settle().await;
    }
    world.store.hold_writes(false);
    settle().await;
    spoilers[2].abort();
    let all: Vec<Result<i64>> = results(callers).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(stored(&world, &session).await, json!({ "n": CALLERS + 3 }));
}

#[tokio::test]
async fn an_end_comes_after_what_was_left_before_it_and_nothing_after() {
    let world = world().await;
    let (_, session, _) = world.seeded(r#"{"n":0}"#).await;
    let before = line(&world, session).await;
    let bridge = world.bridge.clone();
    let end = tokio::spawn(async move {
        bridge.with_session(&session, |ctx| async move { ctx.destroy() }).await
    });
    settle().await;
    let after: Vec<_> = (0..3).map(|_| tokio::spawn(add(world.bridge.clone(), session))).collect();
    settle().await;
    world.store.hold_writes(false);
    assert!(results(before).await.iter().all(Result::is_ok));
    end.await.unwrap().unwrap();
    for late in results(after).await {
        assert_eq!(late.unwrap_err().kind(), ErrorKind::SessionMissing);
    }
}

#[tokio::test]
async fn plain_writes_that_meet_are_written_together_and_lose_no_key() {
    let world = world().await;
    let (browser, session, _) = world.seeded(r#"{"n":0}"#).await;
    let before = world.store.writes();
    world.store.hold_writes(true);
    let mut requests = Vec::new();
    for n in 0..CALLERS {
        let (app, mut browser) = (world.app.clone(), browser.clone());
        requests.push(tokio::spawn(async move {
            browser.post(&app, "/merge", &json!({ format!("key{n}"): n }).to_string()).await.status
        }));
    }
    settle().await;
    world.store.hold_writes(false);
    for request in requests {
        assert!(request.await.unwrap().is_success());
    }
    let kept = stored(&world, &session).await;
    assert_eq!(kept.as_object().unwrap().len(), CALLERS + 1, "{kept}");
    let writes = world.store.writes() - before;
    assert!(writes <= 5, "{CALLERS} requests took {writes} writes");
}

/// Adds one under the lease, sets a key of its own as a plain write, and answers what it sees.
async fn add_and_note(session: axum_io_session::Session) -> Result<String> {
    let n = session
        .update(|data| {
            let n = data.get::<i64>("n")?.unwrap_or(0) + 1;
            data.insert("n", n)?;
            Ok(n)
        })
        .await?;
    session.insert(format!("note{n}"), n)?;
    Ok(session.get::<i64>("n")?.unwrap_or(0).to_string())
}

#[tokio::test]
async fn each_request_sees_what_it_left_itself_and_what_it_writes_later_is_merged() {
    let world = world().await;
    let (browser, session, _) = world.seeded(r#"{"n":0}"#).await;
    let app = axum::Router::new()
        .route("/", axum::routing::post(add_and_note))
        .layer(world.bridge.layer());
    world.store.hold_writes(true);
    let mut requests = Vec::new();
    for _ in 0..CALLERS {
        let (app, mut browser) = (app.clone(), browser.clone());
        requests.push(tokio::spawn(async move { browser.post(&app, "/", "").await }));
    }
    settle().await;
    world.store.hold_writes(false);
    let mut seen = Vec::new();
    for request in requests {
        let answer = request.await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.body);
        seen.push(answer.body.parse::<i64>().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=i64::try_from(CALLERS).unwrap()).collect::<Vec<_>>());
    let kept = stored(&world, &session).await;
    assert_eq!(kept["n"], json!(CALLERS));
    assert_eq!(kept.as_object().unwrap().len(), CALLERS + 1, "{kept}");
}

/// A bridge whose backend panics as it writes the key `panic`.
async fn panicking() -> (SessionBridge, axum::Router, Browser, SessionId) {
    let backend = |config| async { Ok(Faulty::make("panics as it writes", config)) };
    let builder = SessionBridge::builder().signing_keys([support::KEY]).backend(backend);
    let bridge = builder.build().await.unwrap();
    let (app, mut browser) = (support::app::app(&bridge), Browser::new());
    browser.post(&app, "/merge", r#"{"n":0}"#).await;
    let session = browser.get(&app, "/id").await.body.parse().unwrap();
    (bridge, app, browser, session)
}

/// The clock stands still: a round is over after some milliseconds.
#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_fails_those_who_share_the_write_and_nobody_later() {
    let (bridge, _, _, session) = panicking().await;
    let gate = support::app::Gate::new();
    let spoil = {
        let (bridge, gate) = (bridge.clone(), gate.clone());
        tokio::spawn(async move {
            let spoil = |ctx: axum_io_session::bridge::SessionContext| async move {
                gate.stop().await;
                ctx.insert("panic", 1)
            };
            bridge.with_session(&session, spoil).await
        })
    };
    gate.reached().await;
    let beside = tokio::spawn(add(bridge.clone(), session));
    settle().await;
    gate.open();
    let spoiled = tokio::time::timeout(support::LIMIT, spoil).await.expect("an answer").unwrap();
    assert_eq!(spoiled.unwrap_err().kind(), ErrorKind::Unavailable);
    let _ = tokio::time::timeout(support::LIMIT, beside).await.expect("an answer").unwrap();
    assert!(add(bridge, session).await.unwrap() >= 1);
}

#[tokio::test]
async fn a_backend_that_panics_leaves_no_group_of_writers_behind() {
    let (bridge, app, mut browser, _) = panicking().await;
    let (held, gate) = support::app::gated(&bridge);
    for body in [r#"{"panic":1}"#, r#"{"last":1}"#] {
        let (held, mut late) = (held.clone(), browser.clone());
        let late = tokio::spawn(async move { late.post(&held, "/", body).await.status });
        gate.reached().await;
        browser.post(&app, "/merge", r#"{"beside":1}"#).await;
        browser.post(&app, "/inc", "").await;
        gate.open();
        let status = tokio::time::timeout(support::LIMIT, late).await.expect("an answer").unwrap();
        assert_eq!(status.is_success(), body.contains("last"), "{body}: {status}");
    }
    assert_eq!(bridge.stats().tables["write_groups"], 0);
    let seen = browser.get(&app, "/read").await.json();
    assert_eq!(seen["data"]["last"], 1);
}
