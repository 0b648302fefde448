//! Random interleavings of what Redis does with what arrives of it, against a simple model.

use proptest::prelude::*;

use super::world::{CLIENTS, Event, Receives, World};
use crate::backend::redis::view::Input;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let any = 0..8usize;
    let event = prop_oneof![
        4 => any.clone().prop_map(Event::Begin),
        4 => any.clone().prop_map(Event::Write),
        2 => any.clone().prop_map(Event::Seal),
        3 => any.clone().prop_map(Event::End),
        1 => any.clone().prop_map(Event::Vanish),
        1 => any.clone().prop_map(Event::Failover),
        10 => (1..4usize).prop_map(Event::Deliver),
        2 => any.clone().prop_map(Event::Duplicate),
        1 => (1..4usize).prop_map(Event::Lose),
        1 => Just(Event::Gap),
        4 => any.clone().prop_map(Event::Read),
        4 => any.clone().prop_map(Event::ReadArrives),
        1 => any.clone().prop_map(Event::Watch),
        1 => any.clone().prop_map(Event::Watched),
        1 => any.clone().prop_map(Event::Unwatch),
        2 => any.clone().prop_map(Event::Compare),
        2 => any.clone().prop_map(Event::Compared),
        1 => any.prop_map(Event::Keyspace),
        2 => (1..100u64).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 1..80)
}

fn run(receives: Receives, events: &[Event]) {
    let mut world = World::new(receives);
    for event in events {
        world.step(*event);
    }
    world.settle();
    let pending = world.clients.iter().any(|client| client.vanished.is_some());
    if !pending && !world.lost {
        world.check_all_known();
    }
    // What was lost is found because of the gap, what others did by the audit, and nothing else.
    let before: Vec<_> = world.lives.iter().map(|life| life.emitted.len()).collect();
    world.apply(if world.lost { Input::Gap } else { Input::CompareAll });
    world.settle();
    world.check_all_known();
    let after: Vec<_> = world.lives.iter().map(|life| life.emitted.len()).collect();
    assert!(world.lost || before == after, "the audit emitted a change that was not missed");
    for client in 0..CLIENTS {
        world.probe(client);
    }
    world.settle();
    world.check_all_emitted();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_change_and_each_end_is_emitted_once_in_order_and_nothing_that_ended_stays_known(
        receives in prop_oneof![Just(Receives::Nothing), Just(Receives::Ends), Just(Receives::All)],
        events in events(),
    ) {
        run(receives, &events);
    }
}
