//! Each kind of fault, a few times, on three nodes under load: no acknowledged update is lost, each
//! socket of a session that ended is told in time and once, and all heals by itself.
//!
//! `cargo bench -p cluster-tests --bench faults` does the same more often and prints a table.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use cluster_tests::faults::{Fault, measure, table};
use cluster_tests::{Random, Refusal};

fn survives(fault: Fault, times: usize) {
    let row = measure(fault, times, &mut Random::seeded());
    println!("{}\n{row}", table());
    row.check();
}

#[test]
fn a_node_that_is_killed_with_a_lease_holds_nobody_up_for_long() {
    survives(Fault::NodeKilled, 3);
}

#[test]
fn a_node_that_was_frozen_past_its_lease_overwrites_nothing() {
    survives(Fault::NodeFrozen, 3);
}

#[test]
fn a_node_whose_connections_are_cut_misses_no_end() {
    survives(Fault::ConnectionsCut, 4);
}

#[test]
fn a_node_whose_connections_are_half_open_notices_and_misses_no_end() {
    survives(Fault::HalfOpen, 3);
}

#[test]
fn a_node_that_nothing_gets_through_to_for_a_while_misses_no_end() {
    survives(Fault::Stalled, 3);
}

#[test]
fn a_node_that_is_refused_for_a_while_misses_no_end() {
    survives(Fault::Refused, 3);
}

#[test]
fn a_node_with_a_slow_network_loses_nothing() {
    survives(Fault::Slow, 2);
}

#[test]
fn nothing_acknowledged_is_lost_when_redis_is_killed_and_keeps_its_data() {
    survives(Fault::RedisKilled, 3);
}

#[test]
fn nothing_acknowledged_is_lost_when_redis_freezes() {
    survives(Fault::RedisFrozen, 3);
}

#[test]
fn nodes_whose_subscriptions_are_killed_miss_no_end() {
    survives(Fault::SubscriptionsKilled, 4);
}

#[test]
fn forgotten_scripts_are_loaded_again_under_load() {
    survives(Fault::ScriptsForgotten, 5);
}

#[test]
fn all_sockets_are_told_when_redis_comes_back_without_its_data() {
    survives(Fault::RedisEmptied, 3);
}

#[test]
fn all_sockets_are_told_at_the_next_audit_when_everything_is_flushed() {
    survives(Fault::Flushed, 2);
}

#[test]
fn all_sockets_are_told_at_the_next_audit_when_the_database_is_swapped_away() {
    survives(Fault::Swapped, 2);
}

#[test]
fn nothing_that_was_copied_is_lost_when_a_replica_takes_over_behind_sentinels() {
    survives(Fault::SentinelFailover, 2);
}

#[test]
fn nothing_that_was_copied_is_lost_when_a_primary_of_a_cluster_is_killed() {
    survives(Fault::ClusterFailover, 2);
}

#[test]
fn nothing_is_announced_that_redis_refused_for_too_few_replicas() {
    survives(Fault::Refuses(Refusal::TooFewReplicas), 3);
}

#[test]
fn nothing_is_announced_that_redis_refused_for_being_a_replica() {
    survives(Fault::Refuses(Refusal::Replica), 3);
}

#[test]
fn nothing_is_announced_that_redis_refused_for_full_memory() {
    survives(Fault::Refuses(Refusal::Full), 3);
}

#[test]
fn nothing_is_announced_that_redis_refused_for_a_failed_snapshot() {
    survives(Fault::Refuses(Refusal::CantSave), 3);
}

#[test]
fn nothing_is_announced_that_redis_refused_for_a_full_disk() {
    survives(Fault::Refuses(Refusal::DiskFull), 3);
}
