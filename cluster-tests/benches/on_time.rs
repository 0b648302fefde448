//! When nodes hear of ends that nobody causes, with many live sessions in Redis.
//!
//! Run it: cargo bench -p cluster-tests --bench on_time -- 100000
//!
//! Three nodes (backends) on one Redis. Sessions that live long fill it; probes with short lives
//! follow, one half with a socket on one of the nodes. Printed is how long after a probe's deadline
//! each node heard its end. The deadline is taken from the answer to its creation, so the figures
//! are early by at most the way of one answer. At last as many sessions as are given second
//! (default 100000) end within one instant.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark fails by panicking

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, BackendEvent, Create, Created};
use axum_io_session::session::{MaxAge, SessionData, SessionEvent};
use cluster_tests::Redis;
use futures_util::StreamExt as _;
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

const NODES: usize = 3;
const PROBES: usize = 400;
const AT_ONCE: usize = 256;

type Node = Arc<dyn Backend>;

async fn create(node: &Node, age: Duration) -> (ClientId, Instant) {
    let client = ClientId::generate();
    let mut data = SessionData::new();
    data.insert("name", "somebody").unwrap();
    let max_age = MaxAge::After(age);
    let create = Create { client, data, max_age, since: Duration::ZERO };
    match node.create(create).await.unwrap() {
        Created::New(record) => (client, Instant::now() + record.remaining),
        other => panic!("{other:?}"),
    }
}

/// Hears the ends of these clients' sessions, each with the time since its deadline.
async fn hear(mut told: Receiver<BackendEvent>, due: HashMap<ClientId, Instant>) -> Vec<Duration> {
    let mut late = Vec::new();
    let mut missed = 0;
    while late.len() + missed < due.len() {
        match tokio::time::timeout(Duration::from_secs(60), told.recv()).await {
            Ok(Ok(event)) => {
                if let SessionEvent::Destroy(end) = event.event
                    && let Some(deadline) = due.get(&end.client_id)
                {
                    late.push(deadline.elapsed());
                }
            }
            Ok(Err(lag)) => println!("  a listener: {lag}"),
            Err(_) => {
                missed = due.len() - late.len();
                println!("  {missed} ends were never heard");
            }
        }
    }
    late.sort();
    late
}

fn show(what: &str, late: &[Duration]) {
    let at = |share: f64| {
        let index = ((late.len() - 1) as f64 * share) as usize;
        late[index].as_secs_f64() * 1000.0
    };
    println!(
        "{what:<44} {:>7} heard  p50 {:>8.1} ms  p99 {:>8.1} ms  max {:>8.1} ms",
        late.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let live = numbers.first().copied().unwrap_or(100_000);
    let instant = numbers.get(1).copied().unwrap_or(100_000);
    let redis = Redis::start();
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..NODES {
        let mut config = BackendConfig::default();
        config.event_capacity = 262_144;
        let place = RedisConfig::new(redis.url());
        nodes.push(Arc::new(RedisBackend::connect(place, config).await.unwrap()));
    }
    let begun = Instant::now();
    // An hour to a day: many, and hardly one of them ends meanwhile.
    futures_util::stream::iter(0..live)
        .for_each_concurrent(AT_ONCE, |n| {
            let node = &nodes[n % NODES];
            let age = Duration::from_secs(3600 + (n % 82_800) as u64);
            async move {
                create(node, age).await;
            }
        })
        .await;
    println!("{live} live sessions, made in {:.1} s", begun.elapsed().as_secs_f64());

    for (what, with_socket) in [("sessions with a socket", true), ("sessions without", false)] {
        let told: Vec<_> = nodes.iter().map(|node| node.subscribe()).collect();
        let mut due = HashMap::new();
        for n in 0..PROBES {
            let age = Duration::from_millis(2000 + (n as u64 * 7919) % 6000);
            let (client, deadline) = create(&nodes[n % NODES], age).await;
            if with_socket {
                nodes[(n + 1) % NODES].watch(&client).await.unwrap();
            }
            due.insert(client, deadline);
        }
        let heard = told.into_iter().map(|told| hear(told, due.clone()));
        let mut late: Vec<_> = futures_util::future::join_all(heard).await.concat();
        late.sort();
        show(what, &late);
        if with_socket {
            due.keys().for_each(|client| {
                nodes.iter().for_each(|node| node.unwatch(client));
            });
        }
    }

    // All at one instant: made one after the other, each with the rest of the time.
    let told: Vec<_> = nodes.iter().map(|node| node.subscribe()).collect();
    let begun = Instant::now();
    let life = Duration::from_secs(5) + Duration::from_micros(instant as u64 * 150);
    let made = futures_util::stream::iter(0..instant)
        .map(|n| {
            let node = &nodes[n % NODES];
            let left = life.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
            async move { create(node, left).await }
        })
        .buffer_unordered(AT_ONCE);
    let due: HashMap<_, _> = made.collect().await;
    let last = due.values().max().copied().unwrap();
    println!(
        "{instant} sessions made in {:.1} s, they end within {:.0} ms",
        begun.elapsed().as_secs_f64(),
        last.duration_since(*due.values().min().unwrap()).as_secs_f64() * 1000.0
    );
    let heard = told.into_iter().map(|told| tokio::spawn(hear(told, due.clone())));
    let mut late = Vec::new();
    for heard in heard.collect::<Vec<_>>() {
        late.extend(heard.await.unwrap());
    }
    late.sort();
    show("ends at one instant", &late);
    for node in &nodes {
        node.shutdown().await;
    }
}
