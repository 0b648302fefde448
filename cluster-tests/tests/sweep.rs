//! One of the nodes sweeps, and listens to what others do to records. Any of them may die.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Commit, Create, Created};
use axum_io_session::session::{MaxAge, SessionData};
use axum_io_session::{ClientId, SessionId};
use cluster_tests::{Cluster, EventRecorder, PREFIX, Redis, Sockets, until};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Sooner than the first audit.
const PROMPT: Duration = Duration::from_secs(20);

/// Connections that listen to what Redis says of keys.
fn listeners(redis: &Redis) -> usize {
    redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).matches(" psub=1 ").count()
}

async fn backend(redis: &Redis) -> RedisBackend {
    let place = RedisConfig::new(redis.url()).prefix(PREFIX);
    RedisBackend::connect(place, BackendConfig::default()).await.unwrap()
}

fn creation(client: ClientId, max_age: Duration) -> Create {
    let mut data = SessionData::new();
    data.insert("name", "somebody").unwrap();
    let mut create = Create::new(client, data);
    create.max_age = MaxAge::After(max_age);
    create
}

fn key(client: ClientId, part: &str) -> String {
    format!("{PREFIX}:{{{}}}:{part}", client.as_str())
}

fn told() -> String {
    format!("{PREFIX}:{{sweep}}:tombstones")
}

/// Puts an end into the set of tombstones, as the script that announces a page of ends does.
const ENTOMB: &str =
    "return redis.call('SADD', KEYS[1], ARGV[1] .. redis.call('GETRANGE', KEYS[2], 0, 49))";

/// Whose turn it is.
fn sweeper(redis: &Redis) -> Option<String> {
    redis.ask(&["GET", &format!("{PREFIX}:{{sweep}}:leader")]).filter(|by| !by.is_empty())
}

#[test]
fn one_of_three_nodes_listens_to_keys_and_another_one_after_its_death() {
    let redis = Redis::start();
    let mut cluster = Cluster::start(&redis, 3, &[]);
    for at in 0..3 {
        until("one node listens", LIMIT, || (listeners(&redis) == 1).then_some(()));
        cluster[at].kill();
        cluster[at].start_again();
    }
    until("one node listens", LIMIT, || (listeners(&redis) == 1).then_some(()));
}

#[test]
fn ends_are_told_although_the_node_that_sweeps_dies() {
    let redis = Redis::start();
    let mut cluster = Cluster::start(&redis, 2, &["--max-age", "4s"]);
    let mut turns = 0;
    for dies in [0, 1] {
        let stays = 1 - dies;
        let recorder = EventRecorder::follow(&cluster[stays]);
        let ended = cluster.browser().post("/session/inc").ok().session_id().unwrap().to_owned();
        let by = sweeper(&redis).expect("one node sweeps");
        cluster[dies].kill();
        assert_eq!(recorder.end_of(&ended, LIMIT), "expired");
        let next = until("a node sweeps", LIMIT, || sweeper(&redis));
        turns += usize::from(next != by);
        cluster[dies].start_again();
    }
    assert!(turns > 0, "the node that swept died in one of the rounds");
}

#[test]
fn what_is_deleted_while_the_node_that_listens_is_frozen_is_found_by_the_next_one() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let sockets = Sockets::start();
    let mut turns = 0;
    for frozen in 0..3 {
        let at = (frozen + 1) % 3;
        let browser = cluster.browser().at(cluster[at].url());
        let answer = browser.post("/session/inc").ok();
        let client = answer.json["clientId"].as_str().unwrap();
        let socket = sockets.open(&browser, cluster[at].url());
        let before = sweeper(&redis).unwrap();
        cluster[frozen].freeze();
        let key = |part: &str| format!("{PREFIX}:{{{client}}}:{part}");
        // Nothing is left that names it, other than the socket's node.
        assert_eq!(redis.cli(&["DEL", &key("s"), &key("m")]), "2");
        assert_ne!(socket.message("session:destroy", PROMPT)["reason"], json!("destroyed"));
        turns += usize::from(sweeper(&redis).is_some_and(|now| now != before));
        cluster[frozen].thaw();
    }
    assert!(turns > 0, "the node that listened was frozen in one of the rounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_ends_outlives_a_session_that_was_renewed() {
    let redis = Redis::start();
    let backend = backend(&redis).await;
    let client = ClientId::generate();
    let create = creation(client, Duration::from_secs(1));
    let data = create.data.clone();
    let Created::New(record) = backend.create(create).await.unwrap() else { panic!("a new one") };
    // The list thinks that it ends in a second, and is told otherwise only by looking.
    let mut commit = Commit::new(&record, data);
    (commit.version, commit.max_age) = (None, MaxAge::Default);
    backend.commit(commit).await.unwrap();
    let list = format!("{PREFIX}:{{sweep}}:due");
    let score = || redis.ask(&["ZSCORE", &list, client.as_str()])?.parse::<f64>().ok();
    let before = score().unwrap();
    until("the sweep puts it off", LIMIT, || score().filter(|now| *now > before));
    let left = |key: &str| redis.cli(&["PTTL", key]).trim().parse::<i64>().unwrap();
    let record = left(&key(client, "s"));
    assert!(left(&list) > record && record > 3_000_000, "{} {record}", left(&list));
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_and_not_yet_marked_is_told_by_nobody_else() {
    let redis = Redis::start();
    let backend = backend(&redis).await;
    let mut events = backend.subscribe();
    let [first, second] = [ClientId::generate(), ClientId::generate()];
    for client in [first, second] {
        backend.create(creation(client, Duration::from_secs(600))).await.unwrap();
    }
    // As if the sweep had told the first one this moment.
    assert_eq!(redis.cli(&["EVAL", ENTOMB, "2", &told(), &key(first, "m"), first.as_str()]), "1");
    for client in [first, second] {
        assert_eq!(redis.cli(&["DEL", &key(client, "s")]), "1");
    }
    backend.create(creation(first, Duration::from_secs(600))).await.unwrap();
    let heard = async {
        let mut ended = Vec::new();
        while ended.last() != Some(&second) {
            let event = events.recv().await.unwrap();
            if event.destroy_reason().is_some() {
                ended.extend(event.event.client_id().copied());
            }
        }
        ended
    };
    assert_eq!(tokio::time::timeout(LIMIT, heard).await.unwrap(), [second]);
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_were_told_are_marked_soon_and_those_that_a_dead_node_left_too() {
    let redis = Redis::start();
    let pointer = |session: SessionId| format!("{PREFIX}:sid:{}", session.as_str());
    let [left, renewed] = [ClientId::generate(), ClientId::generate()];
    let sessions = [SessionId::generate(), SessionId::generate()];
    for (client, session) in [left, renewed].into_iter().zip(sessions) {
        let mapping = format!("1234567{}654321", session.as_str());
        redis.cli(&["SET", &key(client, "m"), &mapping, "PX", "60000"]);
        redis.cli(&["SET", &pointer(session), client.as_str(), "PX", "60000"]);
        redis.cli(&["EVAL", ENTOMB, "2", &told(), &key(client, "m"), client.as_str()]);
    }
    redis.cli(&["SET", &key(renewed, "m"), "another", "PX", "60000"]);

    let backend = backend(&redis).await;
    let marked = |client: ClientId| redis.cli(&["GETRANGE", &key(client, "m"), "50", "60"]) == "!";
    until("what was left is marked", LIMIT, || marked(left).then_some(()));
    let create = creation(ClientId::generate(), Duration::from_secs(1));
    let client = create.client;
    let Created::New(record) = backend.create(create).await.unwrap() else { panic!("a new one") };
    until("the end is marked", LIMIT, || {
        let done = marked(client) && redis.cli(&["EXISTS", &told()]) == "0";
        done.then_some(())
    });
    assert_eq!(redis.cli(&["GET", &key(renewed, "m")]).trim(), "another");
    for session in sessions.into_iter().chain([record.session_id]) {
        assert_eq!(redis.cli(&["EXISTS", &pointer(session)]), "0");
    }
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_into_a_mapping_keeps_no_end_from_being_told() {
    let redis = Redis::start();
    let backend = backend(&redis).await;
    let mut events = backend.subscribe();
    let clients: Vec<ClientId> = (0..5).map(|_| ClientId::generate()).collect();
    for client in &clients {
        backend.create(creation(*client, Duration::from_secs(600))).await.unwrap();
    }
    // All in one page.
    let time = redis.cli(&["TIME"]);
    let end = (time.lines().next().unwrap().parse::<u64>().unwrap() + 2).to_string() + "000";
    for client in &clients {
        redis.cli(&["PEXPIREAT", &key(*client, "s"), &end]);
        redis.cli(&["ZADD", &format!("{PREFIX}:{{sweep}}:due"), &end, client.as_str()]);
    }
    for (client, odd) in clients.iter().zip(["7:\"", "7:a b", "\\", ""]) {
        redis.cli(&["SET", &key(*client, "m"), odd, "KEEPTTL"]);
    }
    let heard = async {
        loop {
            let event = events.recv().await.unwrap();
            if event.destroy_reason().is_some() {
                break event.event.client_id().copied();
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, heard).await.unwrap(), clients.last().copied());
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shuts_down_hands_the_sweep_over_at_once() {
    let redis = Redis::start();
    // A term lasts four times as long: 4 minutes, in which nobody else would sweep.
    let place =
        || RedisConfig::new(redis.url()).prefix(PREFIX).sweep_interval(Duration::from_secs(60));
    let first = RedisBackend::connect(place(), BackendConfig::default()).await.unwrap();
    let before = sweeper(&redis).expect("it sweeps");
    let second = RedisBackend::connect(place(), BackendConfig::default()).await.unwrap();
    let mut events = second.subscribe();
    let client = ClientId::generate();
    first.create(creation(client, Duration::from_secs(3))).await.unwrap();
    first.shutdown().await;
    let ended = async {
        loop {
            if let Some(reason) = events.recv().await.unwrap().destroy_reason() {
                return reason;
            }
        }
    };
    let reason = tokio::time::timeout(LIMIT, ended).await.expect("the end is announced");
    assert_eq!(reason.as_str(), "expired");
    assert!(sweeper(&redis).is_some_and(|now| now != before), "another node sweeps");
    second.shutdown().await;
    assert_eq!(sweeper(&redis), None, "the last one leaves nothing behind");
}
