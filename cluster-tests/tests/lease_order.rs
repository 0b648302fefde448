//! Leases are had by who waits for them and by nobody else: their commands keep their order, or do no harm
//! without it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Create, Created, NodeStats};
use axum_io_session::session::SessionData;
use axum_io_session::{ClientId, SessionBridge};
use cluster_tests::{Loss, Monitor, Proxy, Redis, until};

const WAIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(20);
/// One that stays would stay for longer than the test.
const LEASE: Duration = Duration::from_secs(600);

async fn node(url: String) -> RedisBackend {
    let mut config = BackendConfig::default();
    config.lease_duration = LEASE;
    RedisBackend::connect(RedisConfig::new(url).pool_size(1), config).await.unwrap()
}

fn key(client: &ClientId, part: &str) -> String {
    format!("io-session:{{{}}}:{part}", client.as_str())
}

/// The commands that name a client, but for those of scripts.
fn of<'a>(sent: &'a [String], client: &ClientId) -> Vec<&'a str> {
    let named = sent.iter().filter(|line| line.contains(client.as_str()));
    named.filter(|line| !line.contains(" lua]")).map(String::as_str).collect()
}

/// Waits until so many commands that name a client were sent.
fn sent(monitor: &mut Monitor, redis: &Redis, client: &ClientId, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    until("they are sent", LIMIT, || {
        all.extend(monitor.sent(redis));
        (of(&all, client).len() >= count).then_some(())
    });
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_whose_caller_goes_away_leaves_no_lease_behind() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    // One that stays would stay for longer than the test.
    config.lease_duration = Duration::from_secs(600);
    let place = RedisConfig::new(redis.url()).pool_size(8);
    let node = RedisBackend::connect(place, config).await.unwrap();
    let clients: Vec<ClientId> = (0..400).map(|_| ClientId::generate()).collect();
    let mut gone = 0;
    for client in &clients {
        // Long enough for the command to be on its way, and too short for its answer.
        let acquired = tokio::time::timeout(Duration::ZERO, node.acquire(client, WAIT)).await;
        match acquired {
            Ok(acquired) => node.release(client, acquired.unwrap().lease),
            Err(_) => gone += 1,
        }
    }
    let keys: Vec<String> =
        clients.iter().map(|client| format!("io-session:{{{}}}:l", client.as_str())).collect();
    let exist: Vec<&str> = ["EXISTS"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    until("no lease is held", Duration::from_secs(20), || (redis.cli(&exist) == "0").then_some(()));
    assert!(gone > 0, "every answer was faster");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_that_arrives_after_its_release_gets_no_lease() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let node = node(proxy.redis_url()).await;
    let known = ClientId::generate();
    node.release(&known, node.acquire(&known, WAIT).await.unwrap().lease);
    // The late one is lost altogether if its connection is closed before it is passed on.
    let mut client = ClientId::generate();
    let arrives = |client: &ClientId| {
        let (mut monitor, mut all, begun) = (redis.monitor(), Vec::new(), Instant::now());
        proxy.lose(&["EVALSHA", client.as_str()], Loss::Late);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                // It is sent once more, over a new connection, and that one is faster.
                let lease = node.acquire(client, WAIT).await.unwrap().lease;
                node.release(client, lease);
            });
            while of(&all, client).len() < 3 && begun.elapsed() < WAIT {
                all.extend(monitor.sent(&redis));
            }
        });
        of(&all, client).len() >= 3
    };
    let mut tries = 0;
    while !arrives(&client) {
        tries += 1;
        assert!(tries < 5, "no late acquire ever arrives");
        client = ClientId::generate();
    }
    assert_eq!(redis.cli(&["EXISTS", &key(&client, "l")]), "0");
    assert!(node.acquire(&client, WAIT).await.is_ok(), "others get it");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_whose_node_has_lost_its_subscriber_is_not_passed_over_and_asks_again() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let (owner, other) = (node(redis.url()).await, node(proxy.redis_url()).await);
    other.heartbeat(&NodeStats::default()).await.unwrap();
    let client = ClientId::generate();
    let held = owner.acquire(&client, WAIT).await.unwrap().lease;
    let (lease, queue) = (key(&client, "l"), key(&client, "q"));
    let waiting = async { other.acquire(&client, Duration::from_secs(60)).await };
    let meanwhile = async {
        tokio::task::block_in_place(|| {
            until("it waits", LIMIT, || (redis.cli(&["LLEN", &queue]) == "1").then_some(()));
            proxy.refuse();
            until("its subscriber is gone", LIMIT, || {
                let channels = redis.cli(&["PUBSUB", "CHANNELS", "io-session:n:*"]);
                (channels.lines().count() == 1).then_some(())
            });
        });
        owner.release(&client, held);
        tokio::task::block_in_place(|| {
            until("some of its lease is over", LIMIT, || {
                let left: u128 = redis.cli(&["PTTL", &lease]).parse().ok()?;
                let begun = redis.cli(&["EXISTS", &queue]) == "0";
                (begun && left < LEASE.as_millis() - 1500).then_some(())
            });
        });
        proxy.heal();
    };
    let both = futures_util::future::join(waiting, meanwhile);
    // Before anything of the lease, or of the wait, is over.
    let (acquired, ()) = tokio::time::timeout(3 * LIMIT, both).await.unwrap();
    assert!(acquired.is_ok(), "{acquired:?}");
    let left: u128 = redis.cli(&["PTTL", &lease]).parse().unwrap();
    assert!(left > LEASE.as_millis() - 1400, "asked for again, it is extended: {left}");
    owner.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_taken_by_an_acquire() {
    let redis = Redis::start();
    let (owner, other) = (node(redis.url()).await, node(redis.url()).await);
    let client = ClientId::generate();
    let held = owner.acquire(&client, WAIT).await.unwrap().lease;
    let mut monitor = redis.monitor();
    let waiting = async { other.acquire(&client, WAIT).await };
    let release = async {
        tokio::task::block_in_place(|| sent(&mut monitor, &redis, &client, 1));
        owner.release(&client, held);
    };
    let (acquired, ()) = futures_util::future::join(waiting, release).await;
    assert!(acquired.is_ok(), "{acquired:?}");
    // The release, and the second acquire of the one that waited.
    let sent = sent(&mut monitor, &redis, &client, 2);
    assert!(of(&sent, &client).iter().all(|line| line.contains("EVAL")), "{sent:#?}");
    owner.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_by_its_handler_gives_the_lease_back_once() {
    let redis = Redis::start();
    let backend = node(redis.url()).await;
    let bridge = SessionBridge::builder()
        .redis(RedisConfig::new(redis.url()))
        .signing_keys(["0123456789abcdef0123456789abcdef"])
        .build()
        .await
        .unwrap();
    let (mut monitor, mut ended) = (redis.monitor(), None);
    // An unknown script is sent twice: the first time.
    for _ in 0..2 {
        let create = Create::new(ClientId::generate(), SessionData::new());
        let Created::New(record) = backend.create(create).await.unwrap() else {
            panic!("a session");
        };
        bridge.with_session(&record.session_id, async |session| session.destroy()).await.unwrap();
        ended = Some(record.client_id);
    }
    let next = ClientId::generate();
    assert!(backend.acquire(&next, WAIT).await.is_ok());
    bridge.shutdown().await;
    backend.shutdown().await;
    let all = monitor.sent(&redis);
    let scripts: Vec<_> =
        of(&all, &ended.unwrap()).into_iter().filter(|line| line.contains("EVAL")).collect();
    assert_eq!(scripts.len(), 3, "a creation, an acquire and an end: {scripts:#?}");
}
