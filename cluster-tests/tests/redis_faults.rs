//! Redis restarts, forgets, refuses and freezes; the nodes go on.
//!
//! What is guaranteed: sockets stay connected; a session that Redis lost is told as ended to its
//! sockets when the node is back; what is told of sessions without sockets while a node could not
//! hear is lost on that node.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use cluster_tests::{
    Browser, Cluster, EventRecorder, PREFIX, Proxy, RecordedEvent, Redis, RedisOptions, STAY,
    Socket, Sockets, until,
};
use serde_json::{Value, json};

/// Longer than the time between two audits.
const LIMIT: Duration = Duration::from_secs(60);

/// A node waits 2 seconds for Redis.
const REFUSED: Duration = Duration::from_secs(15);

/// Sooner than the first audit: what was missed is looked for as soon as Redis is back.
const PROMPT: Duration = Duration::from_secs(20);

/// A browser with a session whose `n` is 1, and a socket of it at each node.
fn with_sockets(cluster: &Cluster, sockets: &Sockets) -> (Browser, Vec<Socket>) {
    let browser = cluster.browser();
    browser.post("/session/inc").ok();
    let open = |url: &&str| sockets.open(&browser, url);
    let opened = cluster.urls().iter().map(open).collect();
    (browser, opened)
}

/// All nodes serve, and each hears what another one does.
fn all_is_well(cluster: &Cluster, sockets: &Sockets) {
    for url in cluster.urls() {
        let browser = Browser::new(&[url]);
        until("the node serves again", LIMIT, || {
            browser
                .try_post("/session/inc", &Value::Null)
                .ok()
                .filter(|answer| answer.status == 200)
        });
    }
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    // A node may be back for commands before it is back for listening.
    until("all nodes hear each other", LIMIT, || {
        let session = cluster.browser().post("/session/inc").ok().session_id().unwrap().to_owned();
        let heard = |recorder: &EventRecorder| {
            let deadline = std::time::Instant::now() + Duration::from_secs(2);
            while std::time::Instant::now() < deadline {
                if !recorder.of(&session).is_empty() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            false
        };
        recorders.iter().all(heard).then_some(())
    });
    let (browser, opened) = with_sockets(cluster, sockets);
    let session = browser.get("/session").ok().session_id().unwrap().to_owned();
    for socket in &opened {
        socket.ok("session:inc");
    }
    assert_eq!(browser.get("/session").ok().session(), &json!({ "n": 1 + opened.len() }));
    browser.post("/logout").ok();
    for socket in &opened {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "destroyed");
    }
    for recorder in &recorders {
        assert_eq!(recorder.end_of(&session, LIMIT), "destroyed");
    }
}

/// A node without Redis says so, to whoever needs a session, and in time.
fn is_refused_in_time(browser: &Browser, socket: &Socket) {
    let begun = Instant::now();
    let answers =
        [browser.get("/session"), browser.post("/session/inc"), browser.post("/session/inc")];
    let health = browser.get("/healthz");
    let asked = Instant::now();
    let untouched = browser.get("/probe/waiting");
    let waited = asked.elapsed();
    let by_socket = socket.call("session:inc", &[]);
    assert!(begun.elapsed() < 5 * REFUSED, "{:?}", begun.elapsed());
    for answer in answers {
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert_eq!(answer.retry_after.as_deref(), Some("1"), "it says when to try again");
    }
    assert_eq!(health.status, 503, "{}", health.text);
    assert_eq!(health.json["status"], "unavailable");
    assert!(health.json["error"].as_str().unwrap().contains("unavailable"), "{}", health.text);
    assert_eq!(untouched.status, 200, "a request without a session is served");
    assert!(waited < Duration::from_secs(2), "it waits for nothing: {waited:?}");
    assert_eq!(by_socket["ok"], false, "{by_socket}");
    assert!(by_socket["error"].as_str().unwrap().contains("unavailable"), "{by_socket}");
}

fn is_healthy(url: &str) {
    let browser = Browser::new(&[url]);
    until("the node is healthy again", LIMIT, || {
        (browser.get("/healthz").status == 200).then_some(())
    });
}

fn reasons(socket: &Socket) -> Vec<Value> {
    let messages = socket.messages().into_iter();
    messages.filter(|m| m.name == "session:destroy").map(|m| m.payload["reason"].clone()).collect()
}

#[test]
fn a_restart_that_loses_all_data_ends_the_sessions_and_the_nodes_go_on() {
    let mut redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &STAY);
    let sockets = Sockets::start();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    redis.restart();
    for socket in &opened {
        assert_eq!(socket.message("session:destroy", PROMPT)["reason"], "reconciled");
    }
    until("the session is gone", LIMIT, || {
        let answer = browser.try_get("/session").ok().filter(|answer| answer.status == 200)?;
        (answer.session() == &Value::Null).then_some(())
    });
    all_is_well(&cluster, &sockets);
    for socket in &opened {
        assert!(socket.connected());
        assert_eq!(reasons(socket), ["reconciled"], "told once");
    }
}

#[test]
fn a_restart_that_keeps_the_data_ends_nothing_and_loses_no_acknowledged_write() {
    for kill in [false, true] {
        let mut redis = RedisOptions::new().durable().start();
        let cluster = Cluster::start(&redis, 3, &[]);
        let sockets = Sockets::start();
        let (browser, opened) = with_sockets(&cluster, &sockets);
        browser.post("/session/inc").ok();
        if kill {
            redis.kill();
            redis.start_again();
        } else {
            redis.restart();
        }
        all_is_well(&cluster, &sockets);
        for socket in &opened {
            assert_eq!(socket.ok("session:get")["session"], json!({ "n": 2 }));
            assert_eq!(reasons(socket), Vec::<Value>::new(), "killed: {kill}");
        }
    }
}

#[test]
fn forgotten_scripts_are_loaded_again() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let sockets = Sockets::start();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    for _ in 0..5 {
        redis.cli(&["SCRIPT", "FLUSH"]);
        browser.post("/session/inc").ok();
        redis.cli(&["SCRIPT", "FLUSH"]);
        opened[0].ok("session:inc");
    }
    assert_eq!(browser.get("/session").ok().session(), &json!({ "n": 11 }));
    redis.cli(&["SCRIPT", "FLUSH"]);
    all_is_well(&cluster, &sockets);
}

#[test]
fn a_killed_subscription_comes_back_and_no_end_is_missed_by_sockets() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let sockets = Sockets::start();
    for round in 0..3 {
        let (browser, opened) = with_sockets(&cluster, &sockets);
        let killed = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(killed.parse::<u32>().unwrap() >= 3, "round {round}: {killed} were killed");
        // Perhaps while nobody listens.
        browser.post("/logout").ok();
        for socket in &opened {
            let reason = socket.message("session:destroy", LIMIT)["reason"].clone();
            assert!([json!("destroyed"), json!("reconciled")].contains(&reason), "{reason}");
        }
        all_is_well(&cluster, &sockets);
        for socket in &opened {
            assert_eq!(reasons(socket).len(), 1, "told once");
        }
    }
}

#[test]
fn without_the_right_to_configure_redis_the_nodes_warn_once_and_serve() {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config"]);
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let cluster = Cluster::start_at(&[url.clone(), url.clone(), url], &["--max-age", "3s"]);
    assert!(
        ["notify-keyspace-events", ""]
            .contains(&redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]).trim()),
        "nobody could set it"
    );
    for node in cluster.nodes() {
        let log = node.log();
        let warnings =
            log.lines().filter(|l| l.contains("WARN") && l.contains("notify-keyspace-events"));
        assert_eq!(warnings.count(), 1, "{log}");
    }
    let sockets = Sockets::start();
    all_is_well(&cluster, &sockets);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    let alone = cluster.browser().post("/session/inc").ok();
    let session = browser.get("/session").ok().session_id().unwrap().to_owned();
    for socket in &opened {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "expired");
    }
    for recorder in &recorders {
        assert_eq!(recorder.end_of(&session, LIMIT), "expired");
        assert_eq!(recorder.end_of(alone.session_id().unwrap(), LIMIT), "expired");
    }
}

#[test]
fn flags_that_redis_has_are_kept_and_ours_are_added_again_after_a_restart() {
    let mut redis = RedisOptions::new().arguments(&["--notify-keyspace-events", "Elm"]).start();
    let flags = |redis: &Redis| {
        let answer = redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
        answer.lines().nth(1).unwrap_or_default().to_owned()
    };
    let _cluster = Cluster::start(&redis, 1, &[]);
    let has = |all: &str, wanted: &str| wanted.chars().all(|flag| all.contains(flag));
    let merged = flags(&redis);
    assert!(has(&merged, "Elm") && has(&merged.replace('A', "gxe"), "Kgxe"), "{merged}");
    redis.restart();
    until("the flags are added again", LIMIT, || {
        has(&flags(&redis).replace('A', "gxe"), "ElmKgxe").then_some(())
    });
}

#[test]
fn while_redis_is_frozen_requests_are_refused_in_time_and_then_served_again() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let sockets = Sockets::start();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    redis.pause();
    is_refused_in_time(&browser, &opened[0]);
    redis.resume();
    is_healthy(cluster[0].url());
    all_is_well(&cluster, &sockets);
    for socket in &opened {
        assert!(socket.connected());
        assert_eq!(socket.ok("session:get")["ok"], true);
        assert_eq!(reasons(socket), Vec::<Value>::new());
    }
}

#[test]
fn a_node_whose_connections_are_cut_tells_its_sockets_what_it_missed() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let cluster = Cluster::start_at(&[redis.url(), redis.url(), proxy.redis_url()], &[]);
    let sockets = Sockets::start();
    let (ended, ended_sockets) = with_sockets(&cluster, &sockets);
    let (kept, kept_sockets) = with_sockets(&cluster, &sockets);
    proxy.refuse();
    let here = cluster[0].url();
    ended.at(here).post("/logout").ok();
    kept.at(here).post("/session/inc").ok();
    for socket in &ended_sockets[..2] {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "destroyed");
    }
    assert_eq!(reasons(&ended_sockets[2]), Vec::<Value>::new(), "its node can't know");
    proxy.heal();
    assert_eq!(ended_sockets[2].message("session:destroy", PROMPT)["reason"], "reconciled");
    all_is_well(&cluster, &sockets);
    assert_eq!(kept_sockets[2].ok("session:get")["session"], json!({ "n": 2 }));
    assert_eq!(reasons(&kept_sockets[2]), Vec::<Value>::new());
}

#[test]
fn a_node_whose_connections_are_half_open_notices_it_by_itself() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let cluster = Cluster::start_at(&[redis.url(), redis.url(), proxy.redis_url()], &[]);
    let sockets = Sockets::start();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    proxy.half_open();
    browser.at(cluster[0].url()).post("/logout").ok();
    let reason = opened[2].message("session:destroy", LIMIT)["reason"].clone();
    assert_eq!(reason, "reconciled");
    all_is_well(&cluster, &sockets);
    assert_eq!(reasons(&opened[2]).len(), 1, "told once");
}

#[test]
fn while_nothing_gets_through_to_redis_a_node_refuses_in_time_and_then_heals() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let cluster = Cluster::start_at(&[redis.url(), redis.url(), proxy.redis_url()], &[]);
    let sockets = Sockets::start();
    let (browser, opened) = with_sockets(&cluster, &sockets);
    for fault in [Proxy::swallow, Proxy::stall, Proxy::refuse] {
        fault(&proxy);
        let first = Browser::new(&[cluster[2].url()]).post("/session/inc");
        is_refused_in_time(&browser.at(cluster[2].url()), &opened[2]);
        proxy.heal();
        assert_eq!(first.status, 503, "{}", first.text);
        is_healthy(cluster[2].url());
        all_is_well(&cluster, &sockets);
    }
    browser.at(cluster[0].url()).post("/logout").ok();
    for socket in &opened {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "destroyed");
    }
}

#[test]
fn a_slow_network_slows_a_node_and_breaks_nothing() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let cluster = Cluster::start_at(&[redis.url(), redis.url(), proxy.redis_url()], &[]);
    let sockets = Sockets::start();
    proxy.delay(Duration::from_millis(100));
    all_is_well(&cluster, &sockets);
    proxy.throttle(20_000);
    all_is_well(&cluster, &sockets);
}

#[test]
fn a_flood_of_foreign_notifications_hides_no_end_from_a_slow_node() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let sockets = Sockets::start();
    let sessions: Vec<_> = (0..5).map(|_| with_sockets(&cluster, &sockets)).collect();
    cluster[2].freeze();
    let mut connection = redis.connect();
    // All of it comes at once when the node goes on.
    let script = "for i = 1, 2000 do \
        local key = string.format('%s:{%024d}:s', ARGV[1], ARGV[2] * 2000 + i) \
        redis.call('SET', key, 'x') redis.call('DEL', key) end return 1";
    for part in 0..15 {
        let sent = connection.call(&["EVAL", script, "0", PREFIX, &part.to_string()]).unwrap();
        assert_eq!(sent.to_string(), "1");
    }
    for (browser, _) in &sessions {
        browser.at(cluster[0].url()).post("/logout").ok();
    }
    cluster[2].thaw();
    for (_, opened) in &sessions {
        for socket in opened {
            let reason = socket.message("session:destroy", LIMIT)["reason"].clone();
            assert!([json!("destroyed"), json!("reconciled")].contains(&reason), "{reason}");
        }
    }
    all_is_well(&cluster, &sockets);
    for (_, opened) in &sessions {
        for socket in opened {
            assert_eq!(reasons(socket).len(), 1, "told once");
        }
    }
}

#[test]
fn ten_thousand_events_beside_a_slow_listener_are_counted_as_missed_and_nothing_stops() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let sockets = Sockets::start();
    let slow = EventRecorder::follow(&cluster[1]);
    let quick = EventRecorder::follow(&cluster[0]);
    cluster[1].freeze();
    let written: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let browser = Browser::new(&[cluster[0].url()]);
                scope.spawn(move || {
                    (0..1250).filter(|_| browser.post("/session/inc").status == 200).count()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    cluster[1].thaw();
    assert_eq!(written, 10_000);
    until("the quick node tells all", LIMIT, || (quick.told().len() >= written).then_some(()));
    all_is_well(&cluster, &sockets);
    let missed = |event: &RecordedEvent| match event {
        RecordedEvent::Lagged(count) => usize::try_from(*count).unwrap(),
        _ => 0,
    };
    let of_writers =
        |told: &[RecordedEvent]| told.iter().filter(|event| event.session().is_some()).count();
    // RecordedEvent or counted, never silent.
    until("the slow node tells or counts all", LIMIT, || {
        let told = slow.told();
        let counted: usize = told.iter().map(missed).sum();
        let gap = told.iter().any(|event| matches!(event, RecordedEvent::Gap { .. }));
        (gap || of_writers(&told) + counted >= written).then_some(())
    });
}
