//! How long a node takes to compare all its sockets with Redis. `CLIENTS` says how many there are.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Create, Created};
use axum_io_session::session::{SessionData, SessionEvent};
use cluster_tests::{PREFIX, Redis};
use futures_util::stream::{self, StreamExt as _};

/// What is promised for 100,000 sockets, in a build without optimisations.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a session's data.
const DATA: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_gap_all_sockets_are_compared_in_time_and_no_data_is_read() {
    let count = std::env::var("CLIENTS").map_or(10_000, |text| text.parse().unwrap());
    let redis = Redis::start();
    let place = RedisConfig::new(redis.url()).prefix(PREFIX).audit_interval(100 * LIMIT);
    let mut config = BackendConfig::default();
    config.event_capacity = 2 * count;
    let node = RedisBackend::connect(place, config).await.unwrap();
    let clients: Vec<_> = (0..count).map(|_| ClientId::generate()).collect();
    let mut data = SessionData::new();
    data.insert("text", "x".repeat(DATA)).unwrap();
    let begin = async |client: &ClientId| {
        let created = node.create(Create::new(*client, data.clone())).await.unwrap();
        assert!(matches!(created, Created::New(_)));
        node.watch(client).await.unwrap();
    };
    stream::iter(&clients).for_each_concurrent(256, begin).await;

    let sent = || {
        let info = redis.cli(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().trim().parse::<usize>().unwrap()
    };
    let compared = || redis.commandstats().get("getrange").copied().unwrap_or(0);
    let (bytes, before, begun) = (sent(), compared(), Instant::now());
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    while compared() < before + count as u64 {
        assert!(begun.elapsed() < LIMIT, "{} of {count} are compared", compared() - before);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (took, each) = (begun.elapsed(), (sent() - bytes) / count);
    println!("{count} sockets without a difference: {took:?}, {each} bytes each");
    assert!(each < DATA / 2, "{each} bytes for each client");

    let mut events = node.subscribe();
    redis.cli(&["FLUSHALL"]);
    let begun = Instant::now();
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut ended = 0;
    while ended < count {
        let left = LIMIT.saturating_sub(begun.elapsed());
        let event = tokio::time::timeout(left, events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("{ended} of {count} ended")).unwrap();
        ended += usize::from(matches!(event.event, SessionEvent::Destroy(_)));
    }
    println!("{count} sockets whose sessions are gone: {:?}", begun.elapsed());
    node.shutdown().await;
}
