//! Load on three nodes while nodes, the network and Redis fail at random; and what is left of it.
//!
//! `FAULT_SECONDS` (default 60, and 30 with a near cache) is how long; `SEED` repeats the choices, though not the timing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_tests::Random;
use cluster_tests::faults::{DeliveryCheck, Fault, Keyspace, LeakCheck, Testbed, Workload};

/// Longer than the time between two audits, with faults in between.
const BOUND: Duration = Duration::from_secs(90);
/// Who left that long ago is looked at, before more nodes are killed and with them the sockets.
const OLD: Duration = Duration::from_secs(5);
/// How long a session lives that nobody writes any more: what nodes that were killed left behind
/// goes then. Under load each is written all the time.
const LIFE: Duration = Duration::from_secs(45);
/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(2);
/// Load without faults at first: memory is compared with what is needed then.
const WARM_UP: Duration = Duration::from_secs(15);

#[test]
fn random_faults_lose_no_acknowledged_update_leave_no_socket_behind_and_nothing_grows() {
    run(&[], 60);
}

#[test]
fn the_same_goes_for_nodes_with_a_near_cache() {
    run(&["--near-cache"], 30);
}

/// Nothing is served for longer than this without being read again.
const STALE: Duration = Duration::from_secs(5);

fn run(flags: &[&str], seconds: u64) {
    let seconds = std::env::var("FAULT_SECONDS").map_or(seconds, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    // Its data survives: all that is acknowledged has to be there.
    let life = format!("{}s", LIFE.as_secs());
    let stale = if flags.is_empty() { Duration::ZERO } else { STALE };
    let flags = [&["--lease", "2s", "--max-age", &life], flags].concat();
    let mut testbed = Testbed::kept(&flags);
    let lease = i64::try_from(LEASE.as_millis()).unwrap();
    let mut keyspaces = 0;
    let mut growth = LeakCheck::idle(&testbed);
    let urls: Vec<String> = testbed.cluster.urls().into_iter().map(str::to_owned).collect();
    let mut workload =
        Workload::open(&urls.iter().map(String::as_str).collect::<Vec<_>>(), &mut random);

    workload.history.allow_stale_reads(stale);
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    let mut told = DeliveryCheck::default();
    let mut problems = Vec::new();
    let mut chosen = random.part();
    workload.load(&mut random, || {
        std::thread::sleep(WARM_UP);
        growth.warm(&testbed);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100 + chosen.below(700) as u64));
            let fault = Fault::SURVIVED[chosen.below(Fault::SURVIVED.len())];
            let for_a_while = Duration::from_millis(200 + chosen.below(2800) as u64);
            fault.strike(&mut testbed, chosen.below(urls.len()), for_a_while, &mut || {});
            *faults.entry(fault.name()).or_default() += 1;
            told.add(workload.settle(Instant::now(), BOUND, OLD));
            problems.extend(workload.close());
            // Away, if it was what failed.
            if let Some(keyspace) = Keyspace::of(testbed.redis()) {
                keyspaces += 1;
                problems.extend(keyspace.problems(lease));
            }
        }
    });
    println!("{faults:#?}");

    // An announcement may have been lost without a trace.
    std::thread::sleep(stale);
    let healed = Instant::now();
    problems.extend(workload.finish());
    told.add(workload.settle(healed, BOUND, Duration::ZERO));
    problems.extend(workload.close());
    problems.extend(testbed.told_twice());
    problems.extend(workload.history.problems());
    for told in testbed.told() {
        problems.extend(workload.history.phantoms(&told));
    }
    // Nobody works any more: leases of before are orphans that run out.
    std::thread::sleep(LEASE);
    let keyspace = Keyspace::of(testbed.redis()).expect("all is well again");
    problems.extend(keyspace.leases().map(|client| format!("{client}'s lease is still held")));
    problems.extend(keyspace.problems(lease));
    problems.append(&mut told.problems);
    let totals = workload.history.totals();
    println!("{totals:?}\n{told:?}\n{keyspaces} looks at all keys, {} findings", problems.len());
    assert!(keyspaces > 0, "the keys were never looked at");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!((workload.history.lost(), told.left), (0, 0));
    assert!(told.told == told.sockets && told.sockets > told.ended, "{told:?}");
    assert!(totals.counted as u64 > 4 * seconds, "the load is worth its name: {totals:?}");

    testbed.stop_listening();
    drop(workload);
    growth.is_none(&testbed, LIFE);
}
