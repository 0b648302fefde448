//! Sockets that come to one node while their session ends on another.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, Create, Created, DestroyTarget};
use axum_io_session::session::SessionData;
use cluster_tests::{Cluster, PREFIX, Proxy, Redis, Sockets, until};

const LIMIT: Duration = Duration::from_secs(30);
const ROUNDS: u64 = 60;

#[test]
fn a_socket_that_comes_beside_a_logout_on_another_node_is_never_left_on_the_ended_session() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &["--audit", "10m"]);
    let sockets = Sockets::start();
    let mut saw = 0;
    for round in 0..ROUNDS {
        let browser = cluster.browser();
        browser.post("/session/inc").ok();
        let leaver = browser.at(cluster[0].url());
        let leaving = std::thread::spawn(move || {
            // From before the socket's handshake to after its connect.
            std::thread::sleep(Duration::from_micros(500 * round));
            leaver.post("/logout").ok();
        });
        let socket = sockets.try_open(&browser, cluster[1].url(), LIMIT);
        leaving.join().unwrap();
        let Some(socket) = socket else { continue };
        let told = || socket.messages().iter().any(|message| message.name == "session:destroy");
        if socket.connected() && socket.call("session:get", &[])["ok"] == true || told() {
            saw += 1;
            until("it is told", LIMIT, || told().then_some(()));
            until("it is disconnected", LIMIT, || (!socket.connected()).then_some(()));
        }
    }
    println!("{saw} of {ROUNDS} sockets saw their session before it ended");
}

/// A node whose network to Redis can be held up.
async fn node(url: String) -> RedisBackend {
    let place = RedisConfig::new(url).prefix(PREFIX).pool_size(1).audit_interval(10 * LIMIT);
    let node = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
    node.listen_to_all(false).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_whose_announcement_is_late_is_told_to_a_socket_that_read_it() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let (writer, other) = (node(redis.url()).await, node(proxy.redis_url()).await);
    let client = ClientId::generate();
    // Subscribed by an earlier socket, so that the next one only reads.
    other.watch(&client).await.unwrap();
    for _ in 0..3 {
        let created = writer.create(Create::new(client, SessionData::new())).await.unwrap();
        assert!(matches!(created, Created::New(_)));
        let mut events = other.subscribe();
        proxy.hold_messages();
        let read = other.watch(&client).await.unwrap().expect("a session");
        assert!(writer.destroy(DestroyTarget::Client(client)).await.unwrap());
        assert_eq!(
            other.cached_session(&client).map(|known| known.generation),
            Some(read.generation)
        );
        proxy.heal();
        loop {
            let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
            if event.destroy_reason().is_some() {
                assert_eq!(event.generation, Some(read.generation));
                break;
            }
        }
        assert_eq!(other.cached_session(&client), None);
        other.unwatch(&client);
    }
    for one in [writer, other] {
        one.shutdown().await;
    }
}
