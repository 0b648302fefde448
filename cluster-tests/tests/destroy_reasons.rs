//! However a session ends, all nodes and all its sockets are told once, and why.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{KeyspaceEvents, RedisBackend, RedisConfig};
use axum_io_session::backend::{
    Backend, BackendConfig, Commit, Committed, Create, Created, DestroyTarget, Loaded,
};
use axum_io_session::session::SessionData;
use cluster_tests::{
    Browser, Cluster, EventRecorder, PREFIX, Redis, RedisCluster, RedisOptions, STAY, Socket,
    Sockets, until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Three nodes with a socket of one session each.
struct Watched {
    redis: Redis,
    cluster: Cluster,
    recorders: Vec<EventRecorder>,
    browser: Browser,
    client: String,
    session: String,
    sockets: Vec<Socket>,
}

impl Watched {
    /// The sockets stay connected: what is told twice is seen.
    fn start(options: &RedisOptions, flags: &[&str]) -> Self {
        Self::with(options, &[&STAY[..], flags].concat())
    }

    fn with(options: &RedisOptions, flags: &[&str]) -> Self {
        let redis = options.start();
        let cluster = Cluster::start(&redis, 3, flags);
        let recorders = cluster.nodes().iter().map(EventRecorder::follow).collect();
        // Before the session begins, which may be a short one.
        let sockets = Sockets::start();
        let browser = cluster.browser();
        let answer = browser.post("/session/inc").ok();
        let sockets = cluster.urls().iter().map(|url| sockets.open(&browser, url)).collect();
        let client = answer.json["clientId"].as_str().unwrap().to_owned();
        let session = answer.session_id().unwrap().to_owned();
        Self { redis, cluster, recorders, browser, client, session, sockets }
    }

    fn record(&self) -> String {
        format!("{PREFIX}:{{{}}}:s", self.client)
    }

    /// All are told once, with this reason, and the session is gone.
    fn ended(&self, reason: &str) {
        for recorder in &self.recorders {
            assert_eq!(recorder.end_of(&self.session, LIMIT), reason);
        }
        for socket in &self.sockets {
            let told = socket.message("session:destroy", LIMIT);
            assert_eq!([&told["sessionId"], &told["reason"]], [&self.session, reason]);
        }
        // The next session's events come after whatever is still told of this one.
        let next = self.browser.at(self.cluster[0].url()).post("/session/inc").ok();
        let next = next.session_id().unwrap();
        assert_ne!(next, self.session);
        for (recorder, socket) in self.recorders.iter().zip(&self.sockets) {
            until("the next session is told", LIMIT, || {
                (!recorder.of(next).is_empty()).then_some(())
            });
            let ends = recorder.of(&self.session).into_iter().filter(|e| e.reason().is_some());
            assert_eq!(ends.count(), 1, "told once");
            until("the socket hears of the next session", LIMIT, || {
                socket.messages().into_iter().find(|message| message.payload["sessionId"] == next)
            });
            let ends = socket.messages().into_iter().filter(|m| m.name == "session:destroy");
            assert_eq!(ends.count(), 1, "told once");
            assert!(socket.connected());
            assert_eq!(socket.ok("session:get")["sessionId"], next);
        }
    }
}

#[test]
fn a_logout_is_told_as_destroyed() {
    let watched = Watched::start(&RedisOptions::new(), &[]);
    watched.browser.at(watched.cluster[1].url()).post("/logout").ok();
    watched.ended("destroyed");
}

#[test]
fn an_end_by_the_bridges_method_is_told_as_destroyed() {
    let watched = Watched::start(&RedisOptions::new(), &[]);
    let path = format!("/probe/destroy/{}", watched.session);
    let somebody = Browser::new(&[watched.cluster[2].url()]);
    assert_eq!(somebody.post(&path).ok().json, json!(true));
    assert_eq!(somebody.post(&path).ok().json, json!(false), "it is gone already");
    watched.ended("destroyed");
}

#[test]
fn the_end_of_its_time_is_told_as_expired() {
    let watched = Watched::start(&RedisOptions::new(), &["--max-age", "2s"]);
    watched.ended("expired");
}

#[test]
fn however_a_session_ends_its_sockets_are_told_and_then_disconnected() {
    type End<'a> = &'a dyn Fn(&Watched);
    let log_out = |watched: &Watched| drop(watched.browser.post("/logout").ok());
    let by_id = |watched: &Watched| {
        let path = format!("/probe/destroy/{}", watched.session);
        drop(Browser::new(&[watched.cluster[1].url()]).post(&path).ok());
    };
    let by_socket = |watched: &Watched| drop(watched.sockets[2].ok("session:destroy"));
    let delete = |watched: &Watched| drop(watched.redis.cli(&["DEL", &watched.record()]));
    let ends: [(&str, &str, End<'_>); 5] = [
        ("destroyed", "1h", &log_out),
        ("destroyed", "1h", &by_id),
        ("destroyed", "1h", &by_socket),
        ("external", "1h", &delete),
        ("expired", "2s", &|_| ()),
    ];
    for (reason, max_age, end) in ends {
        let watched = Watched::with(&RedisOptions::new(), &["--max-age", max_age]);
        end(&watched);
        for socket in &watched.sockets {
            let told = socket.message("session:destroy", LIMIT);
            assert_eq!([&told["sessionId"], &told["reason"]], [&watched.session, reason]);
        }
        for socket in &watched.sockets {
            until("it is disconnected", LIMIT, || (!socket.connected()).then_some(()));
            let ends = socket.messages().into_iter().filter(|m| m.name == "session:destroy");
            assert_eq!(ends.count(), 1, "told once");
        }
    }
}

#[test]
fn a_session_without_any_socket_is_told_as_expired_too() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &["--max-age", "2s"]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let answers = (0..10).map(|_| cluster.browser().post("/session/inc").ok());
    let sessions: Vec<_> = answers.map(|a| a.session_id().unwrap().to_owned()).collect();
    for recorder in &recorders {
        for session in &sessions {
            assert_eq!(recorder.end_of(session, LIMIT), "expired");
        }
    }
}

#[test]
fn a_new_session_without_the_old_ones_cookie_is_another_clients_and_ends_nothing() {
    let watched = Watched::start(&RedisOptions::new(), &[]);
    let elsewhere = watched.browser.at(watched.cluster[1].url());
    let cookie = elsewhere.cookie("app.sid.cid").unwrap();
    // A young session is joined: two first requests need not be sent in the same moment.
    let apart = until("the session is too old to be joined", LIMIT, || {
        elsewhere.forget("app.sid");
        let answer = elsewhere.post("/session/inc").ok();
        (answer.session_id() != Some(&watched.session)).then_some(answer)
    });
    assert_ne!(apart.json["clientId"], json!(watched.client));
    assert_ne!(elsewhere.cookie("app.sid.cid").unwrap(), cookie);
    assert_eq!(apart.session(), &json!({ "n": 1 }), "nothing of the other session is in it");
    let id = apart.session_id().unwrap();
    for recorder in &watched.recorders {
        until("the new session is told", LIMIT, || (!recorder.of(id).is_empty()).then_some(()));
        assert!(recorder.of(&watched.session).iter().all(|event| event.reason().is_none()));
    }
    for socket in &watched.sockets {
        assert_eq!(socket.ok("session:get")["sessionId"], watched.session);
        assert!(socket.messages().iter().all(|message| message.payload["sessionId"] != id));
    }
}

#[test]
fn a_record_deleted_by_redis_cli_is_told_as_external() {
    for command in ["DEL", "UNLINK"] {
        let watched = Watched::start(&RedisOptions::new(), &[]);
        assert_eq!(watched.redis.cli(&[command, &watched.record()]), "1");
        watched.ended("external");
    }
}

#[test]
fn a_record_deleted_by_redis_cli_is_told_by_nodes_without_its_sockets_too() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let answer = cluster.browser().post("/session/inc").ok();
    let client = answer.json["clientId"].as_str().unwrap();
    redis.cli(&["DEL", &format!("{PREFIX}:{{{client}}}:s")]);
    for recorder in &recorders {
        assert_eq!(recorder.end_of(answer.session_id().unwrap(), LIMIT), "external");
    }
}

#[test]
fn a_record_dropped_for_lack_of_memory_is_told_as_evicted() {
    let options = RedisOptions::new().arguments(&["--maxmemory-policy", "volatile-ttl"]);
    let watched = Watched::start(&options, &[]);
    watched.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    until("the record is evicted", LIMIT, || {
        (watched.redis.cli(&["EXISTS", &watched.record()]) == "0").then_some(())
    });
    watched.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    watched.ended("evicted");
}

#[test]
fn many_sessions_under_a_small_memory_limit_end_as_evicted_and_none_in_silence() {
    let options = RedisOptions::new().arguments(&["--maxmemory-policy", "allkeys-random"]);
    let redis = options.start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let sockets = Sockets::start();
    let used = |redis: &Redis| -> u64 {
        let info = redis.cli(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    };
    let limit = used(&redis) + 3_000_000;
    redis.cli(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let filler = "x".repeat(100_000);
    let mut sessions = Vec::new();
    for at in 0..60 {
        let browser = cluster.browser();
        let answer = browser.post_json("/session/set", &json!({ "s": filler }));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let client = answer.json["clientId"].as_str().unwrap().to_owned();
        let socket = sockets.open(&browser, cluster[at % 3].url());
        // It may be evicted before its socket comes: that one has no session, and is told of none.
        let seen = socket.call("session:get", &[])["ok"] == true;
        sessions.push((answer.session_id().unwrap().to_owned(), client, seen.then_some(socket)));
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut evicted = 0;
    for (session, client, socket) in &sessions {
        if redis.cli(&["EXISTS", &format!("{PREFIX}:{{{client}}}:s")]) == "1" {
            continue;
        }
        evicted += 1;
        if let Some(socket) = socket {
            assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "evicted");
        }
        for recorder in &recorders {
            let told = until("an end is told", LIMIT, || {
                let told = recorder.of(session);
                told.iter().any(|event| event.reason().is_some()).then_some(told)
            });
            assert_eq!(told.last().unwrap().reason(), Some("evicted"));
        }
    }
    let seen = sessions.iter().filter(|(_, _, socket)| socket.is_some()).count();
    assert!(seen > 50, "{seen} of 60 sockets saw their session");
    assert!(evicted > 10, "{evicted} of 60 do not fit into 3 MB");
}

#[test]
fn a_cleanup_is_told_by_all_nodes_with_the_number_of_sessions_that_it_removed() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let cleared = cluster.browser().post("/probe/cleanup").ok().json.as_u64().unwrap();
    for recorder in &recorders {
        let told = until("the cleanup is told", LIMIT, || {
            let told = recorder.told();
            told.into_iter().find_map(|event| match event {
                cluster_tests::RecordedEvent::Cleanup { cleared, node } => Some((cleared, node)),
                _ => None,
            })
        });
        assert_eq!(told, (cleared, "n0".to_owned()));
    }
}

#[test]
fn a_record_overwritten_by_redis_cli_ends_the_session() {
    for overwritten in [&["SET", "KEY", "x"][..], &["SETRANGE", "KEY", "85", "{broken"]] {
        let watched = Watched::start(&RedisOptions::new(), &[]);
        let record = watched.record();
        let command: Vec<_> =
            overwritten.iter().map(|&part| if part == "KEY" { &record } else { part }).collect();
        watched.redis.cli(&command);
        // Whoever looks first finds it.
        assert_eq!(watched.browser.get("/session").ok().session(), &Value::Null);
        let told = watched.recorders[0].end_of(&watched.session, LIMIT);
        assert!(["external", "corrupt"].contains(&told.as_str()), "{overwritten:?}: {told}");
        watched.ended(&told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_the_next_read_or_the_next_session_finds_is_external_and_not_expired() {
    let redis = Redis::start();
    is_external(&redis.url(), |key| redis.cli(&["DEL", key])).await;
    let cluster = RedisCluster::start();
    let delete = |key: &str| cluster.servers()[cluster.primary_of(key)].cli(&["DEL", key]);
    is_external(&cluster.url(), delete).await;
}

async fn is_external(url: &str, delete: impl Fn(&str) -> String) {
    // Nobody listens to Redis: what comes across it first announces it.
    let place = RedisConfig::new(url).prefix(PREFIX).keyspace_events(KeyspaceEvents::Off);
    let node = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    let mut events = node.subscribe();
    let client = ClientId::generate();
    let begun = async || match node.create(Create::new(client, SessionData::new())).await {
        Ok(Created::New(record)) => record,
        other => panic!("{other:?}"),
    };
    let mut next_end = async || loop {
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        if let Some(reason) = event.destroy_reason() {
            return reason.as_str();
        }
    };
    node.watch(&client).await.unwrap();
    for found_by in ["a read", "a logout", "the next session"] {
        let record = begun().await;
        assert_eq!(delete(&format!("{PREFIX}:{{{}}}:s", client.as_str())), "1");
        match found_by {
            "a read" => {
                let read = node.load(&[record.session_id], Some(&client)).await.unwrap();
                assert_eq!(read, Loaded::Missing { superseded: false });
            }
            "a logout" => {
                assert!(!node.destroy(DestroyTarget::Client(client)).await.unwrap());
            }
            _ => drop(begun().await),
        }
        assert_eq!(next_end().await, "external", "{found_by}, {url}");
    }
    node.unwatch(&client);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_life_was_shortened_and_ran_out_has_expired_and_is_not_external() {
    let (redis, cluster) = (Redis::start(), RedisCluster::start());
    for url in [redis.url(), cluster.url()] {
        let place = RedisConfig::new(&url).prefix(PREFIX).keyspace_events(KeyspaceEvents::Off);
        let node = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
        let mut events = node.subscribe();
        let client = ClientId::generate();
        node.watch(&client).await.unwrap();
        let record = match node.create(Create::new(client, SessionData::new())).await.unwrap() {
            Created::New(record) => record,
            other => panic!("{other:?}"),
        };
        let mut commit = Commit::new(&record, SessionData::new());
        commit.max_age = Duration::from_secs(1).into();
        assert!(matches!(node.commit(commit).await.unwrap(), Committed::Written(_)));
        loop {
            let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
            if let Some(reason) = event.destroy_reason() {
                assert_eq!(reason.as_str(), "expired", "{url}");
                break;
            }
        }
        node.unwatch(&client);
        node.shutdown().await;
    }
}

#[test]
fn an_eviction_that_a_node_with_a_socket_reads_past_is_told_as_evicted() {
    let options = RedisOptions::new().arguments(&["--maxmemory-policy", "volatile-ttl"]);
    let watched = Watched::start(&options, &[]);
    watched.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let reader = watched.browser.at(watched.cluster[2].url());
    until("a read finds it gone", LIMIT, || {
        reader.get("/session").json["session"].is_null().then_some(())
    });
    watched.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    for socket in &watched.sockets {
        assert_eq!(socket.message("session:destroy", LIMIT)["reason"], "evicted");
    }
}
