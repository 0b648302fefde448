//! Reads that a node serves from its memory, and when it does not.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{NearCache, RedisBackend, RedisConfig};
use axum_io_session::backend::{
    Backend, BackendConfig, Commit, Committed, Create, Created, DestroyTarget, Loaded, NewId,
};
use axum_io_session::session::{Record, SessionData};
use cluster_tests::{PREFIX, Proxy, Redis, RedisCluster};

const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any test, so that no read is served anew for its age alone.
const LONG: Duration = Duration::from_secs(600);

async fn node(url: &str, bounds: Option<NearCache>) -> RedisBackend {
    let mut config = RedisConfig::new(url).prefix(PREFIX);
    if let Some(bounds) = bounds {
        config = config.near_cache(bounds);
    }
    let node = RedisBackend::connect(config, BackendConfig::default()).await.unwrap();
    node.listen_to_all(false).await.unwrap();
    node
}

fn bounds(max_age: Duration) -> NearCache {
    let mut bounds = NearCache::default();
    bounds.max_age = max_age;
    bounds
}

async fn begun(node: &RedisBackend) -> Record {
    match node.create(Create::new(ClientId::generate(), SessionData::new())).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn load(node: &RedisBackend, record: &Record) -> Option<Record> {
    match node.load(&[record.session_id], Some(&record.client_id)).await.unwrap() {
        Loaded::Found(record) => Some(record),
        _ => None,
    }
}

async fn written(node: &RedisBackend, record: &Record, number: u64) -> Record {
    let mut data = record.data.clone();
    data.insert("number", number).unwrap();
    match node.commit(Commit::new(record, data)).await.unwrap() {
        Committed::Written(record) => record,
        other => panic!("{other:?}"),
    }
}

/// Commands of sessions that Redis was asked for so far; not those of nodes and their sweep.
fn asked(redis: &Redis) -> u64 {
    redis.commandstats().iter().filter(|(name, _)| *name == "get").map(|(_, calls)| calls).sum()
}

/// Reads until that asks Redis for nothing any more.
async fn cached(redis: &Redis, node: &RedisBackend, record: &Record) {
    let begun = Instant::now();
    loop {
        let before = asked(redis);
        assert!(load(node, record).await.is_some());
        if asked(redis) == before {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "it is never served from memory");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads until it is as wanted.
async fn until(
    node: &RedisBackend,
    record: &Record,
    what: &str,
    wanted: impl Fn(Option<&Record>) -> bool,
) {
    let begun = Instant::now();
    while !wanted(load(node, record).await.as_ref()) {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_here_is_read_without_a_command_and_written_with_one_script() {
    let redis = Redis::start();
    let node = node(&redis.url(), Some(bounds(LONG))).await;
    let record = begun(&node).await;
    cached(&redis, &node, &record).await;
    let before = asked(&redis);
    for number in 1..=50 {
        let read = load(&node, &record).await.unwrap();
        let now = written(&node, &read, number).await;
        assert_eq!(
            load(&node, &record).await.unwrap().data,
            now.data,
            "own writes are seen at once"
        );
    }
    assert_eq!(asked(&redis), before);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_elsewhere_is_seen_and_an_end_elsewhere_is_served_no_more() {
    let (single, cluster) = (Redis::start(), RedisCluster::start());
    for url in [single.url(), cluster.url()] {
        let (here, there) = (node(&url, Some(bounds(LONG))).await, node(&url, None).await);
        let mut record = begun(&there).await;
        for number in 1..=20 {
            load(&here, &record).await.unwrap();
            load(&here, &record).await.unwrap();
            record = written(&there, &record, number).await;
            until(&here, &record, "the change is seen", |read| {
                read.is_some_and(|read| read.version == record.version)
            })
            .await;
        }
        // Another id of the same session, and a sealed session in its place.
        let mut renewal = Commit::new(&record, record.data.clone());
        renewal.new_id = Some(NewId::Renew { from: record.session_id });
        let Committed::Written(renewed) = there.commit(renewal).await.unwrap() else { panic!() };
        assert!(load(&here, &renewed).await.is_some(), "an id that is not here yet is asked for");
        let mut seal = Commit::new(&renewed, renewed.data.clone());
        seal.new_id = Some(NewId::Seal);
        let Committed::Written(sealed) = there.commit(seal).await.unwrap() else { panic!() };
        until(&here, &renewed, "the open session is served no more", |read| read.is_none()).await;
        assert!(load(&here, &sealed).await.is_some());
        load(&here, &sealed).await.unwrap();
        assert!(there.destroy(DestroyTarget::Client(sealed.client_id)).await.unwrap());
        until(&here, &sealed, "the end is seen", |read| read.is_none()).await;
        for _ in 0..100 {
            assert!(load(&here, &sealed).await.is_none(), "it never comes back");
        }
        here.shutdown().await;
        there.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_from_before_a_gap_and_nothing_for_longer_than_the_bound() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let url = proxy.redis_url();
    let max_age = Duration::from_secs(1);
    let (forever, bounded) =
        (node(&url, Some(bounds(LONG))).await, node(&url, Some(bounds(max_age))).await);
    let there = node(&redis.url(), None).await;
    let record = begun(&there).await;
    cached(&redis, &forever, &record).await;
    // All connections are new ones from now on: what was announced meanwhile is lost.
    proxy.cut();
    let record = written(&there, &record, 1).await;
    proxy.heal();
    until(&forever, &record, "what is older than the gap goes", |read| {
        read.is_some_and(|read| read.version == record.version)
    })
    .await;
    // A change that nobody is told of.
    cached(&redis, &bounded, &record).await;
    let key = format!("{PREFIX}:{{{}}}:s", record.client_id.as_str());
    let newer = "return redis.call('SETRANGE', KEYS[1], 13, string.char(200))";
    redis.cli(&["EVAL", newer, "1", &key]);
    until(&bounded, &record, "what is too old is read anew", |read| {
        read.is_some_and(|read| read.version == 200)
    })
    .await;
    for node in [forever, bounded, there] {
        node.shutdown().await;
    }
}
