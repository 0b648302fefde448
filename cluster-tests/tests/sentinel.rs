//! Redis behind sentinels.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend as _, BackendConfig};
use cluster_tests::{Cluster, Redis, Sentinels, Sockets, until};
use support::user::{FOUND, HEALS, User, is_copied};

/// The primary, whose keys both replicas have by now.
fn copied_primary(redis: &Sentinels) -> &Redis {
    let [primary, replicas @ ..] = redis.servers() else { panic!("three servers") };
    replicas.iter().for_each(|replica| is_copied(primary, replica));
    primary
}

/// Everybody is served, and told of changes and ends, now that this server is the primary.
fn all_goes_on_at(heir: &Redis, people: &[User]) {
    for person in people {
        person.is_served_by_all();
        person.is_told_once_of_each_change();
    }
    // It was asked to tell of keys too.
    people[0].is_deleted_by_others(heir);
    people[1].logs_out();
}

#[test]
fn the_contract_is_kept_behind_sentinels() {
    let redis = Sentinels::start();
    support::keeps_the_contract(&redis.url());
}

#[test]
fn nodes_sessions_and_sockets_survive_the_death_of_the_primary() {
    let mut redis = Sentinels::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    let sockets = Sockets::start();
    let people: Vec<User> = (0..4).map(|_| User::new(&cluster, &sockets)).collect();
    let lost = User::new(&cluster, &sockets);
    copied_primary(&redis);

    // The nodes see nothing of what happens now.
    cluster.nodes().iter().for_each(cluster_tests::Node::freeze);
    redis.server(0).kill();
    let heir = until("a replica takes over", HEALS, || {
        let replicas = &redis.servers()[1..];
        replicas.iter().find(|server| server.cli(&["ROLE"]).starts_with("master"))
    });
    assert_eq!(heir.cli(&["DEL", &lost.key("s"), &lost.key("m")]), "2");
    cluster.nodes().iter().for_each(cluster_tests::Node::thaw);

    lost.ends(FOUND);
    all_goes_on_at(heir, &people);
    cluster.stop();
}

#[test]
fn nodes_leave_a_primary_whose_place_another_one_took_although_it_lives_and_takes_writes() {
    let redis = Sentinels::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    let sockets = Sockets::start();
    let people: Vec<User> = (0..4).map(|_| User::new(&cluster, &sockets)).collect();
    let primary = copied_primary(&redis);
    // The sentinels can't make it a replica, which would close its connections.
    assert_eq!(primary.cli(&["ACL", "SETUSER", "default", "-replicaof", "-slaveof"]), "OK");
    let heir = &redis.servers()[redis.fail_over()];
    until("no node is at the old primary", HEALS, || {
        let clients = primary.ask(&["CLIENT", "LIST"])?;
        (!clients.contains("user=app")).then_some(())
    });
    assert!(primary.cli(&["ROLE"]).starts_with("master"));
    all_goes_on_at(heir, &people);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_backend_that_was_shut_down_or_dropped_although_a_sentinel_is_away() {
    let redis = Sentinels::start();
    // Nothing listens there.
    let url = format!("{}&node=127.0.0.1:1", redis.url());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for shut_down in [true, false] {
        let place = RedisConfig::new(&url);
        let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
        redis.are_listened_to("default", 1);
        if shut_down {
            backend.shutdown().await;
        }
        drop(backend);
        redis.are_listened_to("default", 0);
        until("all tasks are over", Duration::from_secs(20), || (tasks() == before).then_some(()));
    }
}
