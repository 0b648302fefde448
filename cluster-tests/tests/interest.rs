//! Nodes are told of the sessions of their own sockets, and of all only while somebody listens.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{
    Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget,
};
use axum_io_session::session::{Record, SessionData, SessionEvent};
use axum_io_session::{ClientId, SessionBridge};
use cluster_tests::{PREFIX, Redis, RedisCluster, until};
use tokio::sync::broadcast::Receiver;

const LIMIT: Duration = Duration::from_secs(30);

fn place(url: &str) -> RedisConfig {
    RedisConfig::new(url).prefix(PREFIX)
}

/// A node, and whether it listens to all.
async fn node(url: &str, all: bool) -> RedisBackend {
    let node = RedisBackend::connect(place(url), BackendConfig::default()).await.unwrap();
    node.listen_to_all(all).await.unwrap();
    node
}

async fn begun(node: &RedisBackend, client: ClientId) -> Record {
    match node.create(Create::new(client, SessionData::new())).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn written(node: &RedisBackend, record: &Record, number: u64) -> Record {
    let mut data = SessionData::new();
    data.insert("number", number).unwrap();
    match node.commit(Commit::new(record, data)).await.unwrap() {
        Committed::Written(record) => record,
        other => panic!("{other:?}"),
    }
}

/// The next event of a session that is in time.
async fn event(events: &mut Receiver<BackendEvent>) -> BackendEvent {
    tokio::time::timeout(LIMIT, events.recv()).await.expect("an event").unwrap()
}

/// Whose each event was, until the sessions of these clients have ended.
async fn recorder<const N: usize>(
    events: &mut Receiver<BackendEvent>,
    clients: [ClientId; N],
) -> Vec<(ClientId, &'static str)> {
    let (mut seen, mut ended) = (Vec::new(), 0);
    while ended < clients.len() {
        match event(events).await.event {
            SessionEvent::Set(set) => seen.push((set.client_id, "set")),
            SessionEvent::Destroy(end) => {
                seen.push((end.client_id, "end"));
                ended += usize::from(clients.contains(&end.client_id));
            }
            _ => {}
        }
    }
    seen
}

fn channels(redis: &Redis) -> usize {
    redis.cli(&["PUBSUB", "CHANNELS", &format!("{PREFIX}:c:*")]).lines().count()
}

fn patterns(redis: &Redis) -> usize {
    redis.cli(&["PUBSUB", "NUMPAT"]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_listener_is_told_of_its_own_sockets_sessions_and_of_nothing_else() {
    let (single, cluster) = (Redis::start(), RedisCluster::start());
    for url in [single.url(), cluster.url()] {
        let (writer, other) = (node(&url, false).await, node(&url, false).await);
        let mut events = other.subscribe();
        let (watched, unwatched) = (ClientId::generate(), ClientId::generate());
        assert_eq!(other.watch(&watched).await.unwrap(), None);
        let mut records = Vec::new();
        for client in [unwatched, watched] {
            records.push(begun(&writer, client).await);
        }
        for number in 0..10 {
            for record in &mut records {
                *record = written(&writer, record, number).await;
            }
        }
        for client in [unwatched, watched] {
            assert!(writer.destroy(DestroyTarget::Client(client)).await.unwrap());
        }
        let seen = recorder(&mut events, [watched]).await;
        let of_watched = seen.iter().filter(|(client, _)| *client == watched).count();
        assert_eq!((of_watched, seen.len()), (12, 12), "{url}");
        other.unwatch(&watched);
        for one in [writer, other] {
            one.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_listener_is_told_of_everything_once() {
    let (single, cluster) = (Redis::start(), RedisCluster::start());
    for url in [single.url(), cluster.url()] {
        let (writer, listener) = (node(&url, false).await, node(&url, true).await);
        let mut events = listener.subscribe();
        let (watched, unwatched) = (ClientId::generate(), ClientId::generate());
        assert_eq!(listener.watch(&watched).await.unwrap(), None);
        for client in [unwatched, watched] {
            let record = begun(&writer, client).await;
            // A notice is the one message that may come twice as it is.
            writer.notify_set(&record.session_id, false).await.unwrap();
            writer.notify_set(&record.session_id, false).await.unwrap();
            written(&writer, &record, 1).await;
            assert!(writer.destroy(DestroyTarget::Client(client)).await.unwrap());
        }
        let seen = recorder(&mut events, [unwatched, watched]).await;
        // In a cluster each client has an order of its own.
        for client in [unwatched, watched] {
            let of_client: Vec<_> =
                seen.iter().filter(|(of, _)| *of == client).map(|(_, kind)| *kind).collect();
            assert_eq!(of_client, ["set", "set", "set", "set", "end"], "{url}");
        }
        for one in [writer, listener] {
            one.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_nobody_causes_reach_sockets_and_listeners_and_nobody_else() {
    let redis = Redis::start();
    let config = || {
        let mut config = BackendConfig::default();
        config.lifetime.max_age = Duration::from_secs(1);
        config
    };
    let mut nodes = Vec::new();
    for all in [false, true, false, false] {
        let node = RedisBackend::connect(place(&redis.url()), config()).await.unwrap();
        node.listen_to_all(all).await.unwrap();
        nodes.push(node);
    }
    let clients: Vec<_> = (0..40).map(|_| ClientId::generate()).collect();
    for client in &clients {
        begun(&nodes[0], *client).await;
    }
    let mut events: Vec<_> = nodes.iter().map(Backend::subscribe).collect();
    nodes[2].watch(&clients[7]).await.unwrap();
    let mut ended = Vec::new();
    while ended.len() < clients.len() {
        if let SessionEvent::Destroy(end) = event(&mut events[1]).await.event {
            assert_eq!(end.reason.as_str(), "expired");
            ended.push(end.client_id);
        }
    }
    let SessionEvent::Destroy(end) = event(&mut events[2]).await.event else { panic!("an end") };
    assert_eq!((end.client_id, end.reason.as_str()), (clients[7], "expired"));
    // All of them are announced by now.
    assert!(events[2].try_recv().is_err() && events[3].try_recv().is_err());
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_another_program_deletes_is_told_although_the_node_that_sweeps_did_not_hear_of_it()
 {
    let redis = Redis::start();
    let (sweeper, other) = (node(&redis.url(), false).await, node(&redis.url(), false).await);
    let mut events = other.subscribe();
    let client = ClientId::generate();
    other.watch(&client).await.unwrap();
    let key = format!("{PREFIX}:{{{}}}:s", client.as_str());
    // The end before is announced a moment before the deletion, which is not its own.
    for _ in 0..3 {
        begun(&sweeper, client).await;
        assert!(sweeper.destroy(DestroyTarget::Client(client)).await.unwrap());
        begun(&sweeper, client).await;
        assert_eq!(redis.cli(&["DEL", &key]), "1");
        for (reason, what) in [("destroyed", "by the API"), ("external", "by hand")] {
            loop {
                if let SessionEvent::Destroy(end) = event(&mut events).await.event {
                    assert_eq!(end.reason.as_str(), reason, "{what}");
                    break;
                }
            }
        }
    }
    for one in [sweeper, other] {
        one.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_subscribed_as_long_as_it_has_sockets_also_on_a_new_connection() {
    let redis = Redis::start();
    let (writer, other) = (node(&redis.url(), false).await, node(&redis.url(), false).await);
    let clients: Vec<_> = (0..2500).map(|_| ClientId::generate()).collect();
    let watch = |client| {
        let other = &other;
        async move { other.watch(client).await.unwrap() }
    };
    futures_util::future::join_all(clients.iter().map(watch)).await;
    assert_eq!(channels(&redis), clients.len());
    let mut events = other.subscribe();
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    // It was away for a moment, and is told so once it hears again.
    while !matches!(event(&mut events).await.event, SessionEvent::Gap(_)) {}
    assert_eq!(channels(&redis), clients.len());
    begun(&writer, clients[1234]).await;
    loop {
        if let SessionEvent::Set(set) = event(&mut events).await.event {
            assert_eq!(set.client_id, clients[1234]);
            break;
        }
    }
    for client in &clients[1..] {
        other.unwatch(client);
    }
    until("only the client with a socket stays", LIMIT, || (channels(&redis) == 1).then_some(()));
    other.unwatch(&clients[0]);
    until("nothing stays", LIMIT, || (channels(&redis) == 0).then_some(()));
    for one in [writer, other] {
        one.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_listens_to_all_while_it_has_listeners() {
    let redis = Redis::start();
    let writer = node(&redis.url(), false).await;
    let builder = SessionBridge::builder().redis(place(&redis.url()));
    let keys = ["a key of at least thirty-two characters"];
    let other = builder.signing_keys(keys).build().await.unwrap();
    // That of keyspace notifications is there all the time.
    until("nobody listens", LIMIT, || (patterns(&redis) == 1).then_some(()));
    let before = other.stats().events;
    let mut events = other.events();
    events.ready().await;
    assert_eq!(patterns(&redis), 2);
    begun(&writer, ClientId::generate()).await;
    let first = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
    assert!(matches!(first, Some(Ok(SessionEvent::Set(_)))), "{first:?}");
    assert_eq!(other.stats().events, before + 1);
    drop(events);
    until("nobody listens any more", LIMIT, || (patterns(&redis) == 1).then_some(()));
    writer.shutdown().await;
    other.shutdown().await;
}
