//! When nodes hear of ends that nobody causes, with many live sessions in Redis.
//!
//! Run it: cargo bench -p cluster-tests --bench on_time -- 100000
//!
//! Three nodes (backends) on one Redis. Sessions that live long fill it; probes with short lives
//! follow, one half with a socket on one of the nodes. Printed is how long after a probe's deadline
//! each node heard its end. The deadline is taken from the answer to its creation, so the figures
//! are early by at most the way of one answer. Then as many sessions as are given second
//! (default 100000) end within one instant, and at last the node that sweeps dies. Before all
//! that it is counted what nodes at rest ask of Redis.
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

async fn node(redis: &Redis) -> Node {
    let mut config = BackendConfig::default();
    config.event_capacity = 262_144;
    Arc::new(RedisBackend::connect(RedisConfig::new(redis.url()), config).await.unwrap())
}

/// Seconds of processor time that Redis has used.
fn redis_time(redis: &Redis) -> f64 {
    let info = redis.cli(&["INFO", "cpu"]);
    let seconds = |name: &str| -> f64 {
        info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    seconds("used_cpu_user:") + seconds("used_cpu_sys:")
}

/// Seconds of processor time that this process has used, if the system says so.
fn own_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths: see proc_pid_stat(5).
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// What nodes at rest ask of Redis.
async fn at_rest(redis: &Redis) {
    let mut nodes = Vec::new();
    for count in [1, 3, 12] {
        while nodes.len() < count {
            nodes.push(node(redis).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (begun, used) = (Instant::now(), redis_time(redis));
        redis.cli(&["CONFIG", "RESETSTAT"]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let scripts = redis.commandstats().get("evalsha").copied().unwrap_or(0);
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "at rest, {count:>2} nodes: {:>5.1} scripts a second, {:>4.1} ms of Redis' time",
            scripts as f64 / seconds,
            (redis_time(redis) - used) * 1000.0 / seconds,
        );
    }
    for node in nodes {
        node.shutdown().await;
    }
}

async fn create(node: &Node, age: Duration) -> (ClientId, Instant) {
    let client = ClientId::generate();
    let mut data = SessionData::new();
    data.insert("name", "somebody").unwrap();
    let max_age = MaxAge::After(age);
    let mut create = Create::new(client, data);
    create.max_age = max_age;
    match node.create(create).await.unwrap() {
        Created::New(record) => (client, Instant::now() + record.remaining),
        other => panic!("{other:?}"),
    }
}

/// Hears the ends of these clients' sessions, each with the time since its deadline. Which one it was
/// is looked up when all are there: that is no work of a node.
async fn hear(mut told: Receiver<BackendEvent>, due: HashMap<ClientId, Instant>) -> Vec<Duration> {
    let mut heard = Vec::with_capacity(due.len());
    let limit = tokio::time::sleep(Duration::from_secs(90));
    tokio::pin!(limit);
    while heard.len() < due.len() {
        tokio::select! {
            biased;
            event = told.recv() => match event {
                Ok(event) => {
                    if let SessionEvent::Destroy(end) = event.event {
                        heard.push((end.client_id, Instant::now()));
                    }
                }
                Err(lag) => println!("  a listener: {lag}"),
            },
            () = &mut limit => {
                println!("  {} ends were never heard", due.len() - heard.len());
                break;
            }
        }
    }
    let late =
        |(client, at): (ClientId, Instant)| Some(at.saturating_duration_since(*due.get(&client)?));
    heard.into_iter().filter_map(late).collect()
}

/// What all of them heard.
async fn hear_all(
    told: Vec<Receiver<BackendEvent>>,
    due: &HashMap<ClientId, Instant>,
) -> Vec<Duration> {
    let heard = told.into_iter().map(|told| tokio::spawn(hear(told, due.clone())));
    let mut late = Vec::new();
    for heard in heard.collect::<Vec<_>>() {
        late.extend(heard.await.unwrap());
    }
    late.sort();
    late
}

/// Sessions that end from two seconds on, one after the other.
async fn probes(nodes: &[Node]) -> HashMap<ClientId, Instant> {
    let mut due = HashMap::new();
    for n in 0..PROBES {
        let age = Duration::from_millis(2000 + (n as u64 * 7919) % 6000);
        let (client, deadline) = create(&nodes[n % nodes.len()], age).await;
        due.insert(client, deadline);
    }
    due
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
    at_rest(&redis).await;
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..NODES {
        nodes.push(node(&redis).await);
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
        let due = probes(&nodes).await;
        if with_socket {
            for (n, client) in due.keys().enumerate() {
                nodes[n % NODES].watch(client).await.unwrap();
            }
        }
        show(what, &hear_all(told, &due).await);
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
    let left = due.values().min().unwrap().saturating_duration_since(Instant::now());
    tokio::time::sleep(left.saturating_sub(Duration::from_millis(100))).await;
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let (theirs, ours) = (redis_time(&redis), own_time());
    show("ends at one instant", &hear_all(told, &due).await);
    println!(
        "  processor time: Redis {:.2} s, {NODES} nodes {:.2} s; {} scripts",
        redis_time(&redis) - theirs,
        own_time() - ours,
        redis.commandstats().get("evalsha").copied().unwrap_or(0),
    );

    // The first has swept from its start on.
    let others: Vec<_> = nodes[1..].iter().map(|node| node.subscribe()).collect();
    let due = probes(&nodes[1..]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Without a word: its turn is not given back.
    drop(nodes.remove(0));
    show("sessions without, the node that sweeps dies", &hear_all(others, &due).await);
    for node in &nodes {
        node.shutdown().await;
    }
}
