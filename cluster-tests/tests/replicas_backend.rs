//! The backend's part in waiting for replicas: every kind and version of Redis, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::{Duration, Instant};

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Create, Created, DestroyTarget};
use axum_io_session::{ClientId, Error, ErrorKind};
use cluster_tests::{LOCAL_SERVER, PREFIX, Proxy, Redis, RedisCluster, fetched_server, until};
use support::replicas::{has_replicas, pair, pair_of};
use support::user::HEALS;

/// Much later than an answer that waits for nobody.
const LATE: Duration = Duration::from_millis(150);
/// What replicas get.
const WAIT: Duration = Duration::from_millis(800);

#[test]
fn the_contract_is_kept_with_a_replica_and_in_a_cluster_of_them() {
    let (primary, _proxy, _replica) = pair();
    let cluster = RedisCluster::start();
    cluster.servers()[..3].iter().for_each(|primary| has_replicas(primary, 1));
    for url in [primary.url(), cluster.url()] {
        support::keeps_the_contract_with(|prefix| {
            RedisConfig::new(&url).prefix(prefix).wait_for_replicas(1, WAIT)
        });
    }
}

async fn create(backend: &RedisBackend, client: ClientId) -> Result<Created, Error> {
    let data = Default::default();
    backend.create(Create::new(client, data)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_only_the_sessions_of_the_frozen_replica_wait_for_it() {
    let cluster = RedisCluster::start();
    cluster.servers()[..3].iter().for_each(|primary| has_replicas(primary, 1));
    let place = RedisConfig::new(cluster.url()).prefix(PREFIX).wait_for_replicas(1, WAIT);
    let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    let record = |client: &ClientId| format!("{PREFIX}:{{{}}}:s", client.as_str());
    // The pointer to a session may have another primary, so several are tried.
    cluster.servers()[3].pause();
    let (mut done, mut refused) = (0, 0);
    for _ in 0..24 {
        let client = ClientId::generate();
        let primary = cluster.primary_of(&record(&client));
        match create(&backend, client).await {
            Ok(Created::New(record)) => {
                done += 1;
                assert_ne!(primary, 0);
                assert_eq!(record.client_id, client);
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
                refused += u32::from(primary == 0);
            }
        }
    }
    cluster.servers()[3].resume();
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_from_the_beginning_refuse_changes_and_not_the_start() {
    let redis = Redis::start();
    let wait = Duration::from_millis(50);
    let place = RedisConfig::new(redis.url()).wait_for_replicas(1, wait);
    let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    let client = ClientId::generate();
    let error = create(&backend, client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("may or may not"), "{error}");
    // It is there all the same, with all that goes with it.
    let session = backend.session_of(&client).await.unwrap().expect("made");
    assert_eq!(backend.client_of(&session).await.unwrap(), Some(client));
    assert!(!redis.cli(&["ZSCORE", "io-session:{sweep}:due", client.as_str()]).is_empty());
    assert_eq!(redis.cli(&["EXISTS", &format!("io-session:sid:{}", session.as_str())]), "1");
    assert!(backend.table_sizes().iter().all(|(_, size)| *size == 0));
    backend.shutdown().await;
    until("all connections are closed", HEALS, || {
        (redis.cli(&["CLIENT", "LIST"]).trim().lines().count() == 1).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_wait_the_start_says_so() {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-wait"]);
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let place = || RedisConfig::new(&url);
    let waiting = place().wait_for_replicas(1, WAIT);
    let error = RedisBackend::connect(waiting, BackendConfig::default()).await.unwrap_err();
    assert!(error.to_string().contains("WAIT"), "{error}");
    let backend = RedisBackend::connect(place(), BackendConfig::default()).await.unwrap();
    assert!(create(&backend, ClientId::generate()).await.is_ok(), "nobody asks for it otherwise");
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_has_changes_on_its_replica_before_they_are_done() {
    let fetched = ["redis-6.2", "redis-8.2", "valkey-9.1"].map(fetched_server);
    for program in fetched.iter().map(String::as_str).chain([LOCAL_SERVER]) {
        let (primary, proxy, replica) = pair_of(program);
        proxy.delay(LATE);
        // One connection, so that each change is also waited for behind others.
        let place = RedisConfig::new(primary.url()).prefix(PREFIX).pool_size(1);
        let place = place.wait_for_replicas(1, Duration::from_secs(2));
        let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
        for _ in 0..3 {
            let client = ClientId::generate();
            let Created::New(record) = create(&backend, client).await.unwrap() else {
                panic!("{program}: it is new")
            };
            let key = format!("{PREFIX}:{{{}}}:s", client.as_str());
            let pointer = format!("{PREFIX}:sid:{}", record.session_id.as_str());
            assert_eq!(replica.cli(&["EXISTS", &key, &pointer]), "2", "{program}");
            assert!(backend.destroy(DestroyTarget::Client(client)).await.unwrap());
            assert_eq!(replica.cli(&["EXISTS", &key]), "0", "{program}");
        }
        backend.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_given_up_while_there_was_no_connection_is_never_made() {
    let (primary, _link, _replica) = pair();
    let proxy = Proxy::start(&primary.address());
    let place = RedisConfig::new(proxy.redis_url()).timeout(Duration::from_secs(1));
    let place = place.wait_for_replicas(1, WAIT);
    let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    // So that Redis knows the script, and needs no second word to run it.
    create(&backend, ClientId::generate()).await.unwrap();
    proxy.refuse();
    until("the connections are lost", HEALS, || (proxy.connections() == 0).then_some(()));
    // Once it has noticed.
    let begun = Instant::now();
    while backend.health().await.is_ok() {
        assert!(begun.elapsed() < HEALS, "it never noticed");
    }
    let clients: Vec<ClientId> = (0..8).map(|_| ClientId::generate()).collect();
    let tries = clients.iter().map(|client| create(&backend, *client));
    for tried in futures_util::future::join_all(tries).await {
        let error = tried.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    proxy.heal();
    let begun = Instant::now();
    while create(&backend, ClientId::generate()).await.is_err() {
        assert!(begun.elapsed() < HEALS, "it never healed");
    }
    for client in &clients {
        // The connections for reading come back in their own time.
        let found = loop {
            match backend.session_of(client).await {
                Ok(found) => break found,
                Err(error) => assert!(begun.elapsed() < HEALS, "it never healed: {error}"),
            }
        };
        assert_eq!(found, None);
    }
    backend.shutdown().await;
}
