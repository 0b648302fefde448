//! One kind of fault, several times, under load.

use std::time::Duration;

use super::fault::{Fault, LEASE};
use super::ground::{Ground, NODES};
use super::heal::heal;
use super::row::Row;
use super::told::Told;
use super::world::World;
use crate::random::Random;
use crate::wait::until;

/// What has to come about for a fault to be what its name says.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than a lease, and so than most commands wait.
const FOR_A_WHILE: Duration = Duration::from_secs(3);
/// How long a lease is held that somebody else needs; the holder is struck meanwhile.
const HOLD: Duration = Duration::from_millis(700);

/// Does this to three nodes under load, so many times, and looks what came of it.
///
/// # Panics
/// If something does not come about at all: a node that never serves again, for one.
pub fn measure(fault: Fault, times: usize, random: &mut Random) -> Row {
    let flags = ["--lease", LEASE, "--audit", fault.audit()];
    let mut ground = Ground::start(fault.kind(), &flags);
    let urls: Vec<String> = ground.cluster.urls().into_iter().map(str::to_owned).collect();
    let world = World::open(&urls.iter().map(String::as_str).collect::<Vec<_>>(), random);
    let mut told = Told::default();
    let mut chosen = random.part();
    let healing = world.load(random, || {
        (0..times)
            .map(|time| {
                std::thread::sleep(Duration::from_millis(100 + chosen.below(400) as u64));
                once(fault, time % NODES, &mut ground, &world, &mut told, &mut chosen)
            })
            .collect()
    });
    let mut problems = world.finish();
    told.add(world.settle(std::time::Instant::now(), fault.bound(), Duration::ZERO));
    problems.extend(world.close());
    problems.extend(ground.told_twice());
    problems.extend(world.ledger.problems());
    let (totals, lost) = (world.ledger.totals(), world.ledger.lost());
    Row { fault, totals, lost, told, healing, problems }
}

/// Returns how long it took to heal.
fn once(
    fault: Fault,
    at: usize,
    ground: &mut Ground,
    world: &World,
    told: &mut Told,
    random: &mut Random,
) -> Duration {
    let other = (at + 1) % NODES;
    // Somebody whose session ends as soon as it has happened.
    let leaver = world.guest(random);
    let mut gone = false;
    let end = std::thread::scope(|scope| {
        if fault.needs_a_lease() {
            let held = &leaver;
            scope.spawn(move || world.hold(held, at, HOLD));
            until("the lease is held", LIMIT, || ground.is_held(&leaver.client).then_some(()));
        }
        let mut meanwhile = || {
            if fault.needs_a_lease() {
                world.count(&leaver, other);
            }
            gone = !fault.loses_data() && world.log_out(&leaver, other);
        };
        if fault.fails_over() {
            // What no replica has is lost with the primary: that is not promised.
            world.between_acts(|| {
                ground.is_copied();
                ground.kill_primary(at);
            });
        }
        let mut strike = || fault.strike(ground, at, FOR_A_WHILE, &mut meanwhile);
        if fault.loses_data() { world.with_nobody_coming(strike) } else { strike() }
    });
    let took = heal(ground, end);
    if fault.loses_data() {
        world.has_left(&leaver, end, true);
        world.all_are_lost(random);
        gone = true;
    }
    if !gone {
        until("a logout is acknowledged", LIMIT, || world.log_out(&leaver, other).then_some(()));
    }
    told.add(world.settle(end, fault.bound(), Duration::ZERO));
    ground.is_whole();
    took
}
