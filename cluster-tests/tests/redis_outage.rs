//! Redis is away: readers may be served as anonymous, crowds are refused in time, and nothing piles up.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Loaded};
use axum_io_session::{ClientId, ErrorKind, SessionId};
use cluster_tests::{Browser, Cluster, Proxy, Redis, RedisOptions, Sockets, until};
use serde_json::{Value, json};

/// Whatever heals has healed by then.
const HEALS: Duration = Duration::from_secs(60);
/// Several times what a node waits for Redis.
const REFUSED: Duration = Duration::from_secs(15);

fn in_time<T>(ask: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let answer = ask();
    assert!(begun.elapsed() < REFUSED, "it took {:?}", begun.elapsed());
    answer
}

#[test]
fn readers_are_served_as_anonymous_if_asked_for_and_nobody_is_logged_out() {
    let mut redis = RedisOptions::new().durable().start();
    let flags = ["--when-away", "anonymous", "--retry-after", "6500ms"];
    let cluster = Cluster::start(&redis, 2, &flags);
    let sockets = Sockets::start();
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    let session = browser.get("/session").ok().session_id().unwrap().to_owned();
    let open = sockets.open(&browser, cluster[0].url());
    let cookie = browser.cookie("app.sid");
    for frozen in [true, false] {
        if frozen {
            redis.pause();
        } else {
            redis.kill();
        }
        let read = in_time(|| browser.get("/session")).ok();
        assert_eq!((read.session_id(), read.session()), (None, &Value::Null));
        for path in ["/session/inc", "/session/regenerate", "/logout"] {
            let answer = in_time(|| browser.post(path));
            assert_eq!(answer.status, 503, "{path}: {}", answer.text);
            assert_eq!(answer.retry_after.as_deref(), Some("7"), "{path}");
        }
        let anonymous = in_time(|| Browser::new(&cluster.urls()).get("/session"));
        assert_eq!(anonymous.status, 200, "{}", anonymous.text);
        let early = in_time(|| sockets.try_open(&browser, cluster[0].url(), REFUSED));
        assert!(early.is_none(), "no socket without its session");
        let told = in_time(|| open.call("session:get", &[]));
        assert!(told["error"].as_str().unwrap().contains("unavailable"), "{told}");
        let figures: Vec<_> = cluster
            .urls()
            .into_iter()
            .map(|url| browser.at(url).get("/monitor/stats").ok().json["stats"].clone())
            .collect();
        let served = |stats: &Value| stats["served_anonymously"].as_u64().unwrap();
        assert!(figures.iter().map(served).sum::<u64>() >= 4, "{figures:?}");
        if frozen {
            redis.resume();
        } else {
            redis.start_again();
        }
        let back = until("the session is there again", HEALS, || {
            let answer = browser.try_get("/session").ok().filter(|answer| answer.status == 200)?;
            answer.session_id().is_some().then_some(answer)
        });
        assert_eq!(back.session_id(), Some(session.as_str()));
        assert_eq!(browser.cookie("app.sid"), cookie, "it was never touched");
        until("the socket works again", HEALS, || {
            (open.call("session:get", &[])["ok"] == true).then_some(())
        });
        let late = until("sockets connect again", HEALS, || {
            sockets.try_open(&browser, cluster[1].url(), REFUSED)
        });
        assert_eq!(late.ok("session:get")["sessionId"], session.as_str());
        late.close();
    }
    // A write that was answered with 503 may have been done once Redis was back; the count of
    // anonymous visitors can not.
    assert!(open.ok("session:get")["session"]["n"].as_u64() >= Some(1));
}

#[test]
fn a_crowd_that_meets_a_frozen_redis_is_refused_in_time_and_leaves_nothing_behind() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, &[]);
    let node = cluster[0].url();
    let sockets = Sockets::start();
    let people: Vec<Browser> = (0..24).map(|_| cluster.browser()).collect();
    for person in &people {
        person.post("/session/inc").ok();
    }
    // More wait for one session than would be refused in time one after the other.
    let opened: Vec<_> = (0..16).map(|_| sockets.open(&people[0], node)).collect();
    redis.pause();
    std::thread::scope(|scope| {
        let mut crowd = Vec::new();
        for person in &people {
            crowd.push(scope.spawn(|| in_time(|| person.get("/session"))));
            crowd.push(scope.spawn(|| in_time(|| person.post("/session/inc"))));
        }
        let calls: Vec<_> = opened.iter().map(|socket| socket.begin("session:inc", &[])).collect();
        let begun = Instant::now();
        for _ in 0..20 {
            // Whoever needs no session does not wait behind those who do.
            assert_eq!(Browser::new(&[node]).get("/probe/waiting").status, 200);
        }
        let health = in_time(|| Browser::new(&[node]).get("/healthz"));
        assert_eq!((health.status, &health.json["status"]), (503, &json!("unavailable")));
        for answer in crowd.into_iter().map(|asked| asked.join().unwrap()) {
            assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")));
        }
        for call in calls {
            let left = REFUSED.saturating_sub(begun.elapsed());
            let answer = call.recv_timeout(left).expect("an answer in time");
            assert_eq!(answer["ok"], false, "{answer}");
            assert!(!answer["error"].as_str().unwrap().contains("waited"), "{answer}");
        }
    });
    redis.resume();
    until("everybody is served again", HEALS, || {
        people.iter().all(|person| person.get("/session").status == 200).then_some(())
    });
    opened.iter().for_each(cluster_tests::Socket::close);
    until("the node holds nothing any more", HEALS, || {
        let stats = &people[0].get("/monitor/stats").ok().json["stats"];
        let tables = stats["tables"].as_object().unwrap();
        (stats["sockets"] == 0 && tables.values().all(|size| size == 0)).then_some(())
    });
    assert_eq!(people[0].get("/healthz").status, 200);
}

/// What so many loads at once come to.
async fn crowd(
    backend: &Arc<RedisBackend>,
    size: usize,
) -> Vec<(Result<Loaded, ErrorKind>, Duration)> {
    let loads: Vec<_> = (0..size)
        .map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let client = ClientId::generate();
                let loaded = backend.load(&[SessionId::generate()], Some(&client)).await;
                (loaded.map_err(|error| error.kind()), begun.elapsed())
            })
        })
        .collect();
    let mut outcome = Vec::new();
    for load in loads {
        outcome.push(load.await.unwrap());
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_commands_wait_for_redis_than_fit_and_none_of_them_runs_when_it_is_back() {
    const FIT: usize = 10_000;
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let timeout = Duration::from_secs(3);
    let place = RedisConfig::new(proxy.redis_url()).pool_size(1).timeout(timeout);
    let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    let backend = Arc::new(backend);
    for round in 0..2 {
        proxy.refuse();
        until("the connection is lost", HEALS, || (proxy.connections() == 0).then_some(()));
        let outcome = crowd(&backend, FIT + 5_000).await;
        for (loaded, took) in &outcome {
            assert_eq!(loaded.as_ref().err(), Some(&ErrorKind::Unavailable), "round {round}");
            assert!(*took < REFUSED, "round {round}: it took {took:?}");
        }
        let at_once = outcome.iter().filter(|(_, took)| *took < timeout).count();
        assert!(at_once >= 5_000, "round {round}: {at_once} were refused without waiting");
        redis.cli(&["CONFIG", "RESETSTAT"]);
        proxy.heal();
        let begun = Instant::now();
        while backend.health().await.is_err() {
            assert!(begun.elapsed() < HEALS, "it never healed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let reads = redis.commandstats().get("get").copied().unwrap_or(0);
        assert!(reads < 100, "round {round}: {reads} reads were made for nobody");
        for (loaded, _) in crowd(&backend, 500).await {
            assert!(matches!(loaded, Ok(Loaded::Missing { .. })), "round {round}: {loaded:?}");
        }
    }
    // Open connections that carry nothing.
    proxy.stall();
    for (loaded, took) in crowd(&backend, FIT + 5_000).await {
        assert_eq!(loaded.err(), Some(ErrorKind::Unavailable));
        assert!(took < REFUSED, "it took {took:?}");
    }
    assert!(
        backend.table_sizes().iter().all(|(_, size)| *size == 0),
        "{:?}",
        backend.table_sizes()
    );
    proxy.heal();
    let begun = Instant::now();
    while backend.health().await.is_err() {
        assert!(begun.elapsed() < HEALS, "it never healed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    backend.shutdown().await;
}
