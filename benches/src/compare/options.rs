//! The command line.

use std::time::Duration;

use crate::Result;
use crate::plan::{Contestant, WORKLOADS, Workload};

pub(crate) const HELP: &str = "\
benches/run [--quick] [--only NAME]... [--docs]

  --quick      two minutes: short samples, two rounds
  --only NAME  only this workload or this contestant; may be given several times.
               The contestant that is 1.00 always takes part.
  --docs       rewrites the tables of docs/PERFORMANCE.md, and docs/performance.svg
  --list       the names
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) docs: bool,
    /// Length of a sample in whole seconds.
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    /// How long sampling may take; no sample is begun after it.
    pub(crate) limit: Duration,
    /// How long a sample waits for the machine to become quiet.
    pub(crate) patience: Duration,
    only: Vec<String>,
}

impl Options {
    /// `None`: the help is wanted.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self {
            docs: false,
            seconds: 2,
            rounds: 5,
            limit: Duration::from_secs(9 * 60),
            patience: Duration::from_secs(3),
            only: Vec::new(),
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => {
                    options.seconds = 1;
                    options.rounds = 2;
                    options.limit = Duration::from_secs(100);
                    options.patience = Duration::from_millis(500);
                }
                "--only" => options.only.push(name(args.next())?),
                "--docs" => options.docs = true,
                "--list" => {
                    let workloads = WORKLOADS.iter().map(|workload| workload.name);
                    println!("workloads: {}", workloads.collect::<Vec<_>>().join(", "));
                    let contestants = Contestant::ALL.iter().map(|contestant| contestant.name());
                    println!("contestants: {}", contestants.collect::<Vec<_>>().join(", "));
                    std::process::exit(0);
                }
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown option {other}\n{HELP}").into()),
            }
        }
        if options.docs && !options.only.is_empty() {
            return Err("--docs needs all figures: leave out --only".into());
        }
        Ok(Some(options))
    }

    /// The workloads that are wanted, each with the contestants that are wanted.
    pub(crate) fn workloads(&self) -> Vec<(&'static Workload, Vec<Contestant>)> {
        let named = |name: &str| self.only.iter().any(|only| only == name);
        let some_workload = WORKLOADS.iter().any(|workload| named(workload.name));
        let some_contestant = Contestant::ALL.iter().any(|contestant| named(contestant.name()));
        let wanted = WORKLOADS.iter().filter(|workload| !some_workload || named(workload.name));
        wanted
            .map(|workload| {
                let contestants = workload.contestants.iter().copied().filter(|contestant| {
                    let baseline = *contestant == workload.contestants[0];
                    baseline || !some_contestant || named(contestant.name())
                });
                (workload, contestants.collect::<Vec<_>>())
            })
            .filter(|(_, contestants)| !some_contestant || contestants.len() > 1)
            .collect()
    }
}

fn name(given: Option<String>) -> Result<String> {
    let name = given.ok_or("--only needs a name")?;
    let known = WORKLOADS.iter().any(|workload| workload.name == name)
        || Contestant::ALL.iter().any(|contestant| contestant.name() == name);
    if known { Ok(name) } else { Err(format!("--only {name}: no such name, see --list").into()) }
}
