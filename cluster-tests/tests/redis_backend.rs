//! The Redis backend keeps the contract that every backend keeps.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Create, Created, conformance};
use axum_io_session::session::{MaxAge, SessionEvent};
use cluster_tests::{Redis, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_backend_keeps_the_contract() {
    let redis = Redis::start();
    let count = AtomicUsize::new(0);
    conformance::check(async |config| {
        let prefix = format!("t{}", count.fetch_add(1, Ordering::Relaxed));
        let place = RedisConfig::new(redis.url()).prefix(prefix).pool_size(1);
        Arc::new(RedisBackend::connect(place, config).await.unwrap()) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_left_by_a_backend_that_was_shut_down_or_only_dropped() {
    let redis = Redis::start();
    // One is this very look.
    let connections = || redis.cli(&["CLIENT", "LIST"]).trim().lines().count() - 1;
    assert_eq!(connections(), 0);
    for shut_down in [true, false] {
        let place = RedisConfig::new(redis.url()).pool_size(3);
        let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
        assert_eq!(connections(), 4);
        if shut_down {
            backend.shutdown().await;
        }
        drop(backend);
        until("all connections are closed", Duration::from_secs(20), || {
            (connections() == 0).then_some(())
        });
    }
}

async fn session(node: &RedisBackend, max_age: MaxAge) -> ClientId {
    let client = ClientId::generate();
    let mut create = Create::new(client, Default::default());
    create.max_age = max_age;
    let created = node.create(create).await.unwrap();
    assert!(matches!(created, Created::New(_)));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_two_nodes_makes_neither_look_at_its_other_clients() {
    let redis = Redis::start();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let place = RedisConfig::new(redis.url()).pool_size(1);
        nodes.push(RedisBackend::connect(place, BackendConfig::default()).await.unwrap());
    }
    let mut others = Vec::new();
    for _ in 0..20 {
        let client = session(&nodes[0], MaxAge::Default).await;
        nodes[0].watch(&client).await.unwrap();
        nodes[1].watch(&client).await.unwrap();
        others.push(client);
    }
    let mut monitor = redis.monitor();
    for _ in 0..5 {
        let mut told: Vec<_> = nodes.iter().map(Backend::subscribe).collect();
        let client = session(&nodes[0], Duration::from_secs(1).into()).await;
        nodes[0].watch(&client).await.unwrap();
        nodes[1].watch(&client).await.unwrap();
        for told in &mut told {
            let ended = async {
                loop {
                    if let SessionEvent::Destroy(end) = told.recv().await.unwrap().event {
                        assert_eq!(end.client_id, client);
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the end is told");
        }
        nodes.iter().for_each(|node| node.unwatch(&client));
    }
    // What the last end made them do is done by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = monitor.sent(&redis);
    let of_others = |line: &&String| others.iter().any(|client| line.contains(client.as_str()));
    let looks: Vec<_> = sent.iter().filter(of_others).collect();
    assert!(looks.is_empty(), "{} commands, such as {:?}", looks.len(), looks[0]);
    for node in nodes {
        node.shutdown().await;
    }
}
