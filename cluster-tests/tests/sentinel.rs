//! Redis behind sentinels.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use cluster_tests::{Cluster, Sentinels, Sockets, until};
use support::person::{FOUND, HEALS, Person, is_copied};

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
    let people: Vec<Person> = (0..4).map(|_| Person::new(&cluster, &sockets)).collect();
    let lost = Person::new(&cluster, &sockets);
    let [primary, replicas @ ..] = redis.servers() else { panic!("three servers") };
    replicas.iter().for_each(|replica| is_copied(primary, replica));

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
    for person in &people {
        person.is_served_by_all();
        person.is_told_once_of_each_change();
    }
    // The new primary was asked to tell of keys too.
    people[0].is_deleted_by_others(heir);
    people[1].logs_out();
    cluster.stop();
}
