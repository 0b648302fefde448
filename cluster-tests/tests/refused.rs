//! Redis refuses writes, or holds values that are not ours: nothing is announced that was not done, and
//! sessions end also while Redis is full.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{
    Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget,
    Loaded, NewId, NodeStats,
};
use axum_io_session::session::{DestroyReason, Record, SessionData, SessionEvent};
use axum_io_session::{ClientId, ErrorKind};
use cluster_tests::{LOCAL_SERVER, Redis, RedisOptions, Refusal, fetched_server};
use tokio::sync::broadcast::Receiver;

const LIMIT: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_secs(5);

async fn node(redis: &Redis, config: BackendConfig) -> RedisBackend {
    RedisBackend::connect(RedisConfig::new(redis.url()), config).await.unwrap()
}

fn data(n: i64) -> SessionData {
    let mut data = SessionData::new();
    data.insert("n", n).unwrap();
    data
}

async fn seeded(node: &RedisBackend) -> Record {
    match node.create(Create::new(ClientId::generate(), data(1))).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

fn commit(record: &Record, n: i64) -> Commit {
    Commit::new(record, data(n))
}

async fn next(events: &mut Receiver<BackendEvent>) -> SessionEvent {
    tokio::time::timeout(LIMIT, events.recv()).await.expect("an event in time").unwrap().event
}

/// What was told about clients up to the session that is created now.
async fn told(node: &RedisBackend, events: &mut Receiver<BackendEvent>) -> Vec<SessionEvent> {
    let mark = seeded(node).await.client_id;
    let mut told = Vec::new();
    loop {
        let event = next(events).await;
        if event.client_id() == Some(&mark) {
            return told;
        }
        if event.client_id().is_some() {
            told.push(event);
        }
    }
}

fn servers() -> Vec<String> {
    let fetched = ["redis-6.2", "redis-8.2", "valkey-9.1"].map(fetched_server);
    fetched.into_iter().chain([LOCAL_SERVER.to_owned()]).collect()
}

/// Redis before 7 does not ask scripts for replicas.
fn refuses_scripts(program: &str, refusal: Refusal) -> bool {
    !(program.contains("6.2") && refusal == Refusal::TooFewReplicas)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_refuses_is_told_by_nobody_and_what_it_does_afterwards_is() {
    for program in servers() {
        for refusal in Refusal::ALL.into_iter().filter(|one| refuses_scripts(&program, *one)) {
            let redis = Refusal::options().program(&program).start();
            let (a, b) = (
                node(&redis, BackendConfig::default()).await,
                node(&redis, BackendConfig::default()).await,
            );
            let (kept, written, sealed) = (seeded(&a).await, seeded(&a).await, seeded(&a).await);
            let nobody = ClientId::generate();
            let mut events = b.subscribe();
            told(&a, &mut events).await;

            let place = format!("{program}, {}", refusal.name());
            refusal.begin(&redis);
            let create = a.create(Create::new(nobody, data(1))).await;
            assert!(create.is_err(), "{place}: {create:?}");
            let mut seal = commit(&sealed, 2);
            seal.new_id = Some(NewId::Seal);
            for write in [commit(&written, 2), seal] {
                let refused = a.commit(write).await.expect_err(&place);
                assert!(
                    matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Store),
                    "{place}"
                );
            }
            // Redis that is full takes an end: it frees.
            if refusal != Refusal::Full {
                let destroy = a.destroy(DestroyTarget::Session(kept.session_id)).await;
                assert!(destroy.is_err(), "{place}: {destroy:?}");
            }
            refusal.end(&redis);
            let heard = told(&a, &mut events).await;
            assert!(heard.is_empty(), "{place}: {heard:?}");

            assert!(
                matches!(a.commit(commit(&written, 3)).await.unwrap(), Committed::Written(_)),
                "{place}"
            );
            assert!(
                matches!(next(&mut events).await, SessionEvent::Set(set) if set.client_id == written.client_id)
            );
            assert!(a.destroy(DestroyTarget::Session(kept.session_id)).await.unwrap(), "{place}");
            assert!(
                matches!(next(&mut events).await, SessionEvent::Destroy(end) if end.client_id == kept.client_id)
            );
            assert!(
                matches!(a.load(&[sealed.session_id], None).await.unwrap(), Loaded::Found(_)),
                "{place}"
            );
            a.shutdown().await;
            b.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_while_redis_refuses_writes_and_reads_go_on() {
    for program in servers() {
        for refusal in Refusal::ALL.into_iter().filter(|one| refuses_scripts(&program, *one)) {
            let place = format!("{program}, {}", refusal.name());
            let redis = Refusal::options().program(&program).start();
            let node = node(&redis, BackendConfig::default()).await;
            let kept = seeded(&node).await;
            node.health().await.expect(&place);
            refusal.begin(&redis);
            let error = node.health().await.expect_err(&place);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{place}");
            let read = node.load(&[kept.session_id], None).await;
            // Redis that lost its primary can refuse reads, too.
            assert!(matches!(read, Ok(Loaded::Found(_))) || refusal == Refusal::Replica, "{place}");
            refusal.end(&redis);
            node.health().await.expect(&place);
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_and_nodes_come_and_go_while_redis_is_full() {
    for program in servers() {
        let redis = RedisOptions::new().program(&program).start();
        let a = node(&redis, BackendConfig::default()).await;
        let mut config = BackendConfig::default();
        config.lifetime.max_age = Duration::from_secs(2);
        let short = node(&redis, config).await;
        let (logged_out, leased, held) = (seeded(&a).await, seeded(&a).await, seeded(&a).await);
        let lease = a.acquire(&held.client_id, WAIT).await.unwrap().lease;
        let expiring = seeded(&short).await;
        let mut events = a.subscribe();
        told(&a, &mut events).await;
        Refusal::Full.begin(&redis);

        assert!(
            a.destroy(DestroyTarget::Session(logged_out.session_id)).await.unwrap(),
            "{program}"
        );
        assert!(
            a.load(&[logged_out.session_id], None).await.unwrap()
                == Loaded::Missing { superseded: false }
        );
        // As a handler ends it.
        let acquired = a.acquire(&leased.client_id, WAIT).await.unwrap();
        let target = DestroyTarget::Leased(leased.client_id, leased.generation, acquired.lease);
        assert!(a.destroy(target).await.unwrap(), "{program}");
        a.release(&held.client_id, lease);
        let again = a.acquire(&held.client_id, WAIT).await.unwrap();
        assert!(a.renew(&held.client_id, again.lease).await.unwrap());
        assert!(a.touch(&held.client_id, held.generation).await.unwrap().is_some(), "{program}");
        a.heartbeat(&NodeStats::default()).await.unwrap();
        let late = node(&redis, BackendConfig::default()).await;
        late.heartbeat(&NodeStats::default()).await.unwrap();
        assert_eq!(a.nodes().await.unwrap().len(), 2, "{program}");

        let mut ends = Vec::new();
        while ends.len() < 3 {
            if let SessionEvent::Destroy(end) = next(&mut events).await {
                ends.push((end.client_id, end.reason));
            }
        }
        assert_eq!(
            ends,
            [
                (logged_out.client_id, DestroyReason::Destroyed),
                (leased.client_id, DestroyReason::Destroyed),
                (expiring.client_id, DestroyReason::Expired)
            ],
            "{program}"
        );
        let refused = a.commit(commit(&held, 2)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{program}: {refused}");
        Refusal::Full.end(&redis);
        for node in [a, short, late] {
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_values_at_our_keys_stand_in_nobodys_way() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    config.lease_duration = Duration::from_secs(1);
    let node = node(&redis, config).await;
    let foreign: [(&str, &str, &[&str]); 9] = [
        ("a record that is cut off", "s", &["SET", "KEY", "x"]),
        ("a record that is a hash", "s", &["HSET", "KEY", "v", "many"]),
        ("a lease that is a list", "l", &["RPUSH", "KEY", "x"]),
        ("a lease that is a hash", "l", &["HSET", "KEY", "a", "b"]),
        ("a lease without an end", "l", &["SET", "KEY", "somebody"]),
        ("a line that is a text", "q", &["SET", "KEY", "x"]),
        ("a line that is a hash", "q", &["HSET", "KEY", "a", "b"]),
        ("a line with a foreign entry", "q", &["RPUSH", "KEY", "x"]),
        ("a mapping that is a list", "m", &["RPUSH", "KEY", "x"]),
    ];
    for (what, part, command) in foreign {
        let record = seeded(&node).await;
        let key = format!("io-session:{{{}}}:{part}", record.client_id.as_str());
        if part != "s" || command[0] != "SET" {
            redis.cli(&["DEL", &key]);
        }
        let command: Vec<&str> =
            command.iter().map(|word| if *word == "KEY" { key.as_str() } else { word }).collect();
        redis.cli(&command);
        let acquired = node.acquire(&record.client_id, WAIT).await;
        let acquired = acquired.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut write = commit(&record, 2);
        (write.lease, write.release) = (Some(acquired.lease), true);
        let written = node.commit(write).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        match part {
            // Who can't be read is over.
            "s" => assert_eq!(written, Committed::Ended, "{what}"),
            _ => assert!(matches!(written, Committed::Written(_)), "{what}: {written:?}"),
        }
        node.release(&record.client_id, acquired.lease);
        assert!(
            node.acquire(&record.client_id, WAIT).await.is_ok(),
            "{what}: the lease is free again"
        );
        let after = node.destroy(DestroyTarget::Client(record.client_id)).await;
        assert!(after.is_ok(), "{what}: {after:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_time_to_live_was_taken_away_ends_at_its_end() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    config.lifetime.max_age = Duration::from_secs(2);
    let node = node(&redis, config).await;
    // With a socket here, and without one.
    for watched in [true, false] {
        let record = seeded(&node).await;
        if watched {
            node.watch(&record.client_id).await.unwrap();
        }
        let mut events = node.subscribe();
        let key = format!("io-session:{{{}}}:s", record.client_id.as_str());
        assert_eq!(redis.cli(&["PERSIST", &key]), "1");
        let end = async {
            loop {
                if let SessionEvent::Destroy(end) = next(&mut events).await {
                    return end;
                }
            }
        };
        let end = tokio::time::timeout(LIMIT, end).await.expect("its end is told");
        assert_eq!((end.client_id, end.reason), (record.client_id, DestroyReason::Expired));
        assert_eq!(redis.cli(&["EXISTS", &key]), "0");
        if watched {
            node.unwatch(&record.client_id);
        }
    }
    node.shutdown().await;
}
