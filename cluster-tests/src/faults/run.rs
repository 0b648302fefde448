//! One kind of fault, several times, under load.

use std::time::{Duration, Instant};

use super::delivery_check::DeliveryCheck;
use super::fault::{Fault, LEASE};
use super::recovery::heal;
use super::report::Report;
use super::testbed::{NODES, Testbed};
use super::workload::Workload;
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
pub fn measure(fault: Fault, times: usize, random: &mut Random) -> Report {
    let flags = ["--lease", LEASE, "--audit", fault.audit()];
    let mut testbed = Testbed::start(fault.kind(), &flags);
    let urls: Vec<String> = testbed.cluster.urls().into_iter().map(str::to_owned).collect();
    let workload = Workload::open(&urls.iter().map(String::as_str).collect::<Vec<_>>(), random);
    let mut told = DeliveryCheck::default();
    let mut chosen = random.part();
    let healing = workload.load(random, || {
        (0..times)
            .map(|time| {
                std::thread::sleep(Duration::from_millis(100 + chosen.below(400) as u64));
                once(fault, time % NODES, &mut testbed, &workload, &mut told, &mut chosen)
            })
            .collect()
    });
    let undone = undone(fault, &testbed, &workload);
    let mut problems = workload.finish();
    told.add(workload.settle(Instant::now(), fault.bound(), Duration::ZERO));
    problems.extend(workload.close());
    problems.extend(testbed.told_twice());
    problems.extend(workload.history.problems());
    let (totals, lost) = (workload.history.totals(), workload.history.lost());
    Report { fault, totals, lost, undone, told, healing, problems }
}

/// What was announced and not done. The last ends may still be on their way.
fn undone(fault: Fault, testbed: &Testbed, workload: &Workload) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let undone = testbed.undone(&workload.live(), fault.refuses());
        if undone.is_empty() || Instant::now() >= deadline {
            return undone;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns how long it took to heal.
fn once(
    fault: Fault,
    at: usize,
    testbed: &mut Testbed,
    workload: &Workload,
    told: &mut DeliveryCheck,
    random: &mut Random,
) -> Duration {
    let other = (at + 1) % NODES;
    // Somebody whose session ends as soon as it has happened.
    let leaver = workload.user(random);
    let mut gone = false;
    let end = std::thread::scope(|scope| {
        if fault.needs_a_lease() {
            let held = &leaver;
            scope.spawn(move || workload.hold(held, at, HOLD));
            until("the lease is held", LIMIT, || testbed.is_held(&leaver.client).then_some(()));
        }
        let mut meanwhile = || {
            if fault.needs_a_lease() {
                workload.count(&leaver, other);
            }
            gone = !fault.loses_data() && workload.log_out(&leaver, other);
        };
        if fault.fails_over() {
            // What no replica has is lost with the primary: that is not promised.
            workload.between_acts(|| {
                testbed.is_copied();
                testbed.kill_primary(at);
            });
        }
        let mut strike = || fault.strike(testbed, at, FOR_A_WHILE, &mut meanwhile);
        if fault.loses_data() { workload.with_nobody_coming(strike) } else { strike() }
    });
    let took = heal(testbed, end);
    if fault.loses_data() {
        workload.has_left(&leaver, end, true);
        workload.all_are_lost(random);
        gone = true;
    }
    if !gone {
        until("a logout is acknowledged", LIMIT, || workload.log_out(&leaver, other).then_some(()));
    }
    told.add(workload.settle(end, fault.bound(), Duration::ZERO));
    testbed.is_whole();
    took
}
