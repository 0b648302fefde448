//! Redis Cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_tests::{Cluster, Node, Redis, RedisCluster, STAY, Sockets, run_js, until};
use support::user::{FOUND, HEALS, User, is_copied};

/// People until each of the first three servers has the session of one.
fn people_everywhere(redis: &RedisCluster, cluster: &Cluster, sockets: &Sockets) -> Vec<User> {
    let mut people = Vec::new();
    let mut owners = BTreeSet::new();
    while owners.len() < 3 {
        let person = User::new(cluster, sockets);
        if owners.insert(redis.primary_of(&person.key("s"))) {
            people.push(person);
        }
    }
    people
}

#[test]
fn the_contract_is_kept_in_a_cluster() {
    let redis = RedisCluster::start();
    support::keeps_the_contract(&redis.url());
}

#[test]
fn three_nodes_share_sessions_in_a_cluster_and_hear_of_keys_on_every_primary() {
    let redis = RedisCluster::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &STAY);
    run_js("http.mjs", &cluster.urls());
    run_js("events.mjs", &cluster.urls());
    cluster.stop();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    listens_once(&redis, &[0, 1, 2]);
    // Connections are lost, servers are not: all at once, and those to one server.
    let lose = |server: &Redis| server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.servers().iter().for_each(|server| drop(lose(server)));
    listens_once(&redis, &[0, 1, 2]);
    for primary in 0..3 {
        lose(&redis.servers()[primary]);
        listens_once(&redis, &[0, 1, 2]);
    }
    for person in people_everywhere(&redis, &cluster, &Sockets::start()) {
        person.is_told_once_of_each_change();
        let owner = &redis.servers()[redis.primary_of(&person.key("s"))];
        person.is_deleted_by_others(owner);
    }
    cluster.stop();
}

/// Each of three nodes hears announcements on one server, and one of them listens to the keys of
/// each primary.
fn listens_once(redis: &RedisCluster, primaries: &[usize]) {
    until("one node listens to all primaries", HEALS, || {
        // A pattern counts once, whoever listens; connections that watch it are counted.
        let watched = |at: &usize| {
            let clients = redis.servers()[*at].ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            clients.unwrap_or_default().matches(" psub=1 ").count() == 1
        };
        primaries.iter().all(watched).then_some(())
    });
    until("each node hears announcements at one server", HEALS, || {
        (redis.subscribers("t:all:0").iter().sum::<usize>() == 3).then_some(())
    });
}

/// The primary on which most nodes hear announcements.
fn home(redis: &RedisCluster) -> usize {
    let subscribers = redis.subscribers("t:all:0");
    (0..3).max_by_key(|&at| subscribers[at]).unwrap()
}

#[test]
fn nodes_sessions_and_sockets_survive_the_death_of_a_primary() {
    let mut redis = RedisCluster::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    let sockets = Sockets::start();
    let people = people_everywhere(&redis, &cluster, &sockets);
    let lost = people_everywhere(&redis, &cluster, &sockets);
    let victim = home(&redis);
    let heir = victim + 3;
    let owned = |people: &[User], owner| {
        people.iter().position(|person| redis.primary_of(&person.key("s")) == owner).unwrap()
    };
    let lost = &lost[owned(&lost, victim)];
    is_copied(&redis.servers()[victim], &redis.servers()[heir]);

    // The nodes see nothing of what happens now.
    cluster.nodes().iter().for_each(Node::freeze);
    redis.server(victim).kill();
    until("the replica takes over", HEALS, || {
        redis.servers()[heir].cli(&["ROLE"]).starts_with("master").then_some(())
    });
    redis.works();
    assert_eq!(redis.servers()[heir].cli(&["DEL", &lost.key("s"), &lost.key("m")]), "2");
    cluster.nodes().iter().for_each(Node::thaw);

    lost.ends(FOUND);
    let primaries: Vec<usize> = (0..3).map(|at| if at == victim { heir } else { at }).collect();
    listens_once(&redis, &primaries);
    for person in &people {
        person.is_served_by_all();
        person.is_told_once_of_each_change();
    }
    for person in &people {
        person.is_deleted_by_others(&redis.servers()[redis.primary_of(&person.key("s"))]);
    }
    cluster.stop();
}

#[test]
fn a_primary_that_freezes_is_left_and_its_return_disturbs_nobody() {
    let redis = RedisCluster::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    let people = people_everywhere(&redis, &cluster, &Sockets::start());
    let victim = home(&redis);
    let heir = victim + 3;
    redis.servers()[victim].pause();
    until("the replica takes over", HEALS, || {
        redis.servers()[heir].cli(&["ROLE"]).starts_with("master").then_some(())
    });
    let primaries: Vec<usize> = (0..3).map(|at| if at == victim { heir } else { at }).collect();
    for person in &people {
        person.is_served_by_all();
    }
    redis.servers()[victim].resume();
    until("it comes back as a replica", HEALS, || {
        redis.servers()[victim].ask(&["ROLE"])?.starts_with("slave").then_some(())
    });
    listens_once(&redis, &primaries);
    for person in &people {
        person.is_told_once_of_each_change();
        person.logs_out();
    }
    cluster.stop();
}

#[test]
fn sessions_are_served_while_their_slot_moves_to_a_new_primary_which_is_then_heard() {
    let mut redis = RedisCluster::start();
    let cluster = Cluster::start_at(&vec![redis.url(); 3], &[]);
    let sockets = Sockets::start();
    let person = User::new(&cluster, &sockets);
    let other = User::new(&cluster, &sockets);
    let added = redis.grow();
    // Somebody else on the new server: answers must not be taken for those of others.
    redis.move_slot_of(&other.key("s"), added, || {});
    std::thread::scope(|scope| {
        let waiting = redis.move_slot_of(&person.key("s"), added, || {
            // Half of its keys are moved: this waits for the other half.
            let waiting = scope.spawn(|| person.is_served_at_the_first_try());
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(700) {
                other.is_served_at_the_first_try();
            }
            assert!(!waiting.is_finished(), "a change of half a session succeeded");
            waiting
        });
        waiting.join().unwrap();
    });
    assert_eq!(redis.primary_of(&person.key("s")), added);
    listens_once(&redis, &[0, 1, 2, added]);
    person.is_told_once_of_each_change();
    person.is_deleted_by_others(&redis.servers()[added]);
    cluster.stop();
}
