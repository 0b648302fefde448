//! What faults do to three nodes under load, as a table in Markdown.
//!
//! Run it: cargo bench -p cluster-tests --bench faults -- 10
//!
//! The number is how often each fault is done; after it come parts of the names of faults, if not
//! all are wanted. `--profile dev` before the `--` spares a build with optimization. Fails if
//! anything is lost, told late or twice, or left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark fails by panicking

use std::process::Command;

use cluster_tests::Random;
use cluster_tests::faults::{Fault, measure, table};

fn main() {
    // Cargo adds a flag of its own.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let times = words.next().map_or(10, |word| word.parse().expect("a number of times"));
    let wanted: Vec<String> = words.collect();
    build_nodes();
    let mut random = Random::seeded();
    let mut problems = Vec::new();
    println!("{}", table());
    for fault in Fault::ALL {
        if wanted.is_empty() || wanted.iter().any(|part| fault.name().contains(part)) {
            let row = measure(fault, times, &mut random);
            println!("{row}");
            problems.extend(row.problems().into_iter().map(|p| format!("{}: {p}", fault.name())));
        }
    }
    if !problems.is_empty() {
        eprintln!("{}", problems.join("\n"));
        std::process::exit(1);
    }
}

/// The example's program, in the profile that this one was built in.
fn build_nodes() {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = Command::new(env!("CARGO"))
        // With the features of the tests, for which it need not be built again.
        .args(["build", "--workspace", "--all-features", "--example", "node"])
        .args(["--profile", profile])
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the example node can't be built");
}
