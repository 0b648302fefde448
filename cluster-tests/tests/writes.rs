//! What a write costs Redis, and that what the node prepares is never written over something newer.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Commit, Committed, Create, Created, NewId};
use axum_io_session::session::{Record, SessionData};
use cluster_tests::{PREFIX, Redis};

async fn node(redis: &Redis, config: BackendConfig) -> RedisBackend {
    RedisBackend::connect(RedisConfig::new(redis.url()).prefix(PREFIX), config).await.unwrap()
}

async fn begun(node: &RedisBackend) -> Record {
    match node.create(Create::new(ClientId::generate(), SessionData::new())).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

fn data(number: u64) -> SessionData {
    let mut data = SessionData::new();
    data.insert("number", number).unwrap();
    data
}

async fn written(node: &RedisBackend, commit: Commit) -> Record {
    match node.commit(commit).await.unwrap() {
        Committed::Written(record) => record,
        other => panic!("{other:?}"),
    }
}

fn key(record: &Record) -> String {
    format!("{PREFIX}:{{{}}}:s", record.client_id.as_str())
}

/// When the record says that it ends, and when Redis ends it.
fn ends(redis: &Redis, record: &Record) -> (i64, i64) {
    const END: &str = "return string.format('%.0f', struct.unpack('>I6', redis.call('GETRANGE', KEYS[1], 14, 19)))";
    let said = redis.cli(&["EVAL", END, "1", &key(record)]);
    let kept = redis.cli(&["PEXPIRETIME", &key(record)]);
    (said.parse().unwrap(), kept.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_changes_the_data_alone_compares_stores_and_publishes() {
    let redis = Redis::start();
    let node = node(&redis, BackendConfig::default()).await;
    let record = begun(&node).await;
    // The first one loads the script.
    let record = written(&node, Commit::new(&record, data(1))).await;
    let mut monitor = redis.monitor();
    let record = written(&node, Commit::new(&record, data(2))).await;
    let key = key(&record);
    let run = monitor.run(&redis);
    let about_it = run.iter().filter(|command| command.contains(record.client_id.as_str()));
    let names: Vec<_> = about_it.map(|command| command.split('"').nth(1).unwrap()).collect();
    assert_eq!(names, ["EVALSHA", "GETRANGE", "SET", "PUBLISH"], "{key}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_keeps_the_longer_life_that_another_request_gave_meanwhile() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    config.lifetime.max_age = Duration::from_secs(20);
    let node = node(&redis, config).await;
    let read = begun(&node).await;
    let (begin, _) = ends(&redis, &read);
    // More than a hundredth of its life: less does not move the end.
    tokio::time::sleep(Duration::from_millis(400)).await;
    node.touch(&read.client_id, read.generation).await.unwrap().expect("it lives");
    let (touched, kept) = ends(&redis, &read);
    assert!(touched > begin && kept == touched, "{begin} {touched} {kept}");
    let after = written(&node, Commit::new(&read, data(1))).await;
    let (said, kept) = ends(&redis, &after);
    assert!(said >= touched && kept == said, "{touched} {said} {kept}");
    assert_eq!(after.version, read.version + 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_moves_the_end_once_that_is_worth_it_and_never_back() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    config.lifetime.max_age = Duration::from_secs(20);
    let node = node(&redis, config).await;
    let mut record = begun(&node).await;
    let (mut last, mut moved) = (0, 0);
    for number in 0..30 {
        record = written(&node, Commit::new(&record, data(number))).await;
        let (said, kept) = ends(&redis, &record);
        assert!(said >= last && kept == said, "{last} {said} {kept}");
        moved += usize::from(last > 0 && said > last);
        last = said;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!((1..=20).contains(&moved), "it moved {moved} times in 30 writes");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_ids_stay_with_a_session_that_is_written() {
    let redis = Redis::start();
    let node = node(&redis, BackendConfig::default()).await;
    let first = begun(&node).await;
    let mut sealing = Commit::new(&first, data(1));
    sealing.new_id = Some(NewId::Seal);
    let mut record = written(&node, sealing).await;
    for number in 2..5 {
        record = written(&node, Commit::new(&record, data(number))).await;
        assert!(record.sealed && record.had(&first.session_id), "{record:?}");
    }
    let there = node.watch(&record.client_id).await.unwrap().unwrap();
    assert_eq!((there.stamp.as_bytes(), &there.data), (record.stamp.as_bytes(), &data(4)));
    assert_eq!(there.previous, record.previous);
    node.unwatch(&record.client_id);
    node.shutdown().await;
}
