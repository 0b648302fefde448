//! What leads to a session, its pointer and the list of ends, is there as long as the session.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{
    Backend, BackendConfig, Commit, Committed, Create, Created, DestroyTarget, Loaded,
};
use axum_io_session::session::{MaxAge, Record, SessionData};
use cluster_tests::{PREFIX, Redis, RedisCluster, until};

const LIMIT: Duration = Duration::from_secs(30);

async fn node(url: &str) -> RedisBackend {
    let place = RedisConfig::new(url).prefix(PREFIX);
    RedisBackend::connect(place, BackendConfig::default()).await.unwrap()
}

async fn seeded(node: &RedisBackend, max_age: MaxAge) -> Record {
    let mut create = Create::new(ClientId::generate(), SessionData::new());
    create.max_age = max_age;
    match node.create(create).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

fn pointer(record: &Record) -> String {
    format!("{PREFIX}:sid:{}", record.session_id.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_max_age_grows_is_found_by_its_id_as_long_as_it_lives() {
    let (single, cluster) = (Redis::start(), RedisCluster::start());
    for url in [single.url(), cluster.url()] {
        let node = node(&url).await;
        let hour = Duration::from_secs(3600);
        let record = seeded(&node, MaxAge::After(Duration::from_secs(1))).await;
        let mut grown = Commit::new(&record, SessionData::new());
        grown.max_age = MaxAge::After(hour);
        assert!(matches!(node.commit(grown).await.unwrap(), Committed::Written(_)));
        let key = pointer(&record);
        let server = match url.contains("cluster") {
            true => &cluster.servers()[cluster.primary_of(&key)],
            false => &single,
        };
        let left: u128 = server.cli(&["PTTL", &key]).parse().unwrap();
        assert!(left >= hour.as_millis(), "{url}: {left} ms");
        assert!(node.destroy(DestroyTarget::Session(record.session_id)).await.unwrap(), "{url}");
        assert_eq!(server.cli(&["EXISTS", &key]), "0", "{url}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_pointer_that_can_not_be_set_is_set_later_and_fails_nothing() {
    let cluster = RedisCluster::start();
    let node = node(&cluster.url()).await;
    let refuse = |replicas: &str| {
        cluster.servers()[0].cli(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
    };
    let record_key = |record: &Record| format!("{PREFIX}:{{{}}}:s", record.client_id.as_str());
    // More than there are.
    refuse("5");
    let mut refused = None;
    // Records of that primary are refused, others' pointers may be.
    for _ in 0..64 {
        let create = Create::new(ClientId::generate(), SessionData::new());
        let key = format!("{PREFIX}:{{{}}}:s", create.client.as_str());
        let created = node.create(create).await;
        if cluster.primary_of(&key) == 0 {
            assert!(created.is_err(), "{created:?}");
            continue;
        }
        let Created::New(record) = created.unwrap() else { panic!("it is new") };
        if cluster.primary_of(&pointer(&record)) == 0 {
            refused = Some(record);
            break;
        }
    }
    let record = refused.expect("one of 64 pointers has that primary");
    assert_ne!(cluster.primary_of(&record_key(&record)), 0);
    let exists = || cluster.servers()[0].cli(&["EXISTS", &pointer(&record)]);
    assert_eq!(exists(), "0");
    refuse("0");
    until("the pointer is set", LIMIT, || (exists() == "1").then_some(()));
    let loaded = node.load(&[record.session_id], None).await.unwrap();
    assert!(matches!(loaded, Loaded::Found(_)), "{loaded:?}");
    node.shutdown().await;
}
