//! Takes the samples: all contestants of a workload one after the other, and that again and again.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::figures::Results;
use crate::load::{Outcome, Target};
use crate::machine::{self, Cpu, Machine};
use crate::options::Options;
use crate::plan::{Contestant, Load, Workload};
use crate::redis_info::RedisInfo;
use crate::{Result, figures};

/// A sample is disturbed if others had more than this of one CPU, by steal or by foreign processes.
const DISTURBED: f64 = 0.1;
/// The load on each contestant before the first sample; wrk takes whole seconds.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often a sample is taken at most, if it was disturbed each time.
const TRIES: usize = 3;

/// What one load on one contestant showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) workload: &'static str,
    pub(crate) contestant: Contestant,
    pub(crate) round: usize,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Requests in a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of all nodes for a request, in microseconds.
    pub(crate) server_us: f64,
    pub(crate) redis_us: f64,
    pub(crate) client_us: f64,
    /// Commands that Redis ran for a request, those inside scripts included.
    pub(crate) commands: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
    pub(crate) scripts: f64,
    /// How long one script took in Redis, in microseconds.
    pub(crate) script_us: f64,
    /// Hot loads: the part of the acknowledged increments that is in the session afterwards.
    pub(crate) kept: Option<f64>,
    /// What the hypervisor and foreign processes had, in CPUs.
    pub(crate) foreign: f64,
    pub(crate) disturbed: bool,
}

impl Sample {
    /// CPU time of all processes for a request, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.server_us + self.redis_us + self.client_us
    }
}

pub(crate) fn measure(options: &Options) -> Result<Results> {
    let workloads = options.workloads();
    let mut contestants: Vec<_> =
        workloads.iter().flat_map(|(_, contestants)| contestants.iter().copied()).collect();
    contestants.sort_unstable();
    contestants.dedup();
    let targets = contestants.iter().map(|contestant| Target::start(*contestant));
    let mut targets = targets.collect::<Result<Vec<_>>>()?;
    eprintln!("{} contestants run and keep the contract", targets.len());
    let redis = targets.iter().find_map(|target| target.running.redis.as_ref());
    let redis = redis.map_or(Ok("none".into()), |redis| RedisInfo::version(redis.port))?;
    let machine = Machine::read(redis);

    for contestant in &contestants {
        let mut part = workloads.iter().filter(|(_, all)| all.contains(contestant));
        if let Some((workload, _)) = part.next() {
            find(&mut targets, *contestant)?.prepare(workload.load)?.run(WARM_UP)?;
        }
    }
    let of_a_round = workloads.iter().map(|(_, contestants)| contestants.len()).sum();
    let mut schedule = Schedule::new(options, of_a_round);
    let mut samples = Vec::new();
    'rounds: for round in 0..options.rounds {
        for (workload, contestants) in &workloads {
            let mut order = contestants.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            for contestant in order {
                if schedule.is_over() {
                    eprintln!("the time is over in round {}", round + 1);
                    break 'rounds;
                }
                let target = find(&mut targets, contestant)?;
                samples.push(cleanest(target, workload, round, &mut schedule)?);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(figures::results(machine, options, &workloads, samples))
}

fn find(targets: &mut [Target], contestant: Contestant) -> Result<&mut Target> {
    let mut targets = targets.iter_mut();
    let found = targets.find(|target| target.running.contestant == contestant);
    found.ok_or_else(|| "a contestant was not started".into())
}

/// Takes a disturbed sample again, while there is time, and keeps the one with the least disturbance.
fn cleanest(
    target: &mut Target,
    workload: &Workload,
    round: usize,
    schedule: &mut Schedule,
) -> Result<Sample> {
    let mut best = sample(target, workload, round, schedule)?;
    for _ in 1..TRIES {
        if !best.disturbed || !schedule.has_time_to_spare() {
            break;
        }
        let again = sample(target, workload, round, schedule)?;
        if again.foreign < best.foreign {
            best = again;
        }
    }
    schedule.left -= 1;
    Ok(best)
}

/// Spreads the time that is not needed for the samples themselves evenly over them.
struct Schedule {
    seconds: u64,
    patience: Duration,
    end: Instant,
    samples: usize,
    left: usize,
    /// The time to spare at the beginning, in seconds.
    spare: f64,
}

impl Schedule {
    fn new(options: &Options, of_a_round: usize) -> Self {
        let samples = of_a_round * options.rounds;
        let mut schedule = Self {
            seconds: options.seconds,
            patience: options.patience,
            end: Instant::now() + options.limit,
            samples,
            left: samples,
            spare: 0.0,
        };
        schedule.spare = schedule.spare_now().max(0.0);
        schedule
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    fn spare_now(&self) -> f64 {
        /// What a sample takes besides its load, in seconds.
        const OVERHEAD: f64 = 0.4;
        let left = self.end.saturating_duration_since(Instant::now()).as_secs_f64();
        left - self.left as f64 * (self.seconds as f64 + OVERHEAD)
    }

    /// Whether the samples so far used no more than their share.
    fn has_time_to_spare(&self) -> bool {
        let planned = self.spare * self.left as f64 / self.samples.max(1) as f64;
        self.spare_now() >= planned.min(self.spare * 0.99)
    }

    /// How long the next sample may wait for a quiet machine.
    fn patience(&self) -> Duration {
        if self.has_time_to_spare() { self.patience } else { Duration::ZERO }
    }
}

fn sample(
    target: &mut Target,
    workload: &Workload,
    round: usize,
    schedule: &Schedule,
) -> Result<Sample> {
    let hot = matches!(workload.load, Load::Http { hot: true, .. });
    target.renew_sessions()?;
    let target = &*target;
    let mut prepared = target.prepare(workload.load)?;
    let counted = if hot { Some(target.hot_counter()?) } else { None };
    machine::wait_until_quiet(schedule.patience())?;
    let before = Reading::take(target)?;
    let outcome = prepared.run(Duration::from_secs(schedule.seconds))?;
    let after = Reading::take(target)?;
    let kept = match counted {
        Some(counted) => {
            let added = target.hot_counter()?.saturating_sub(counted);
            Some((added as f64 / (outcome.requests - outcome.errors).max(1) as f64).min(1.0))
        }
        None => None,
    };
    Ok(Sample { kept, ..assess(workload.name, target, round, &outcome, &before, &after) })
}

/// All counters at one moment.
struct Reading {
    at: Instant,
    cpu: Cpu,
    servers: f64,
    redis: f64,
    own: f64,
    info: RedisInfo,
}

impl Reading {
    fn take(target: &Target) -> Result<Self> {
        let running = &target.running;
        let servers = running.nodes.iter().map(|node| machine::process(node.pid()));
        let redis = running.redis.as_ref();
        Ok(Self {
            at: Instant::now(),
            cpu: Cpu::read()?,
            servers: servers.sum::<Result<f64>>()?,
            redis: redis.map_or(Ok(0.0), |redis| machine::process(redis.pid))?,
            own: machine::own()?,
            info: redis.map_or(Ok(RedisInfo::default()), |redis| RedisInfo::read(redis.port))?,
        })
    }
}

fn assess(
    workload: &'static str,
    target: &Target,
    round: usize,
    outcome: &Outcome,
    before: &Reading,
    after: &Reading,
) -> Sample {
    let wall = (after.at - before.at).as_secs_f64();
    let servers = after.servers - before.servers;
    let redis = after.redis - before.redis;
    let own = after.own - before.own;
    let used = after.cpu.busy - before.cpu.busy - servers - redis - own;
    let foreign = (used.max(0.0) + after.cpu.steal - before.cpu.steal) / wall;
    let info = after.info.since(before.info);
    let requests = outcome.requests.max(1) as f64;
    Sample {
        workload,
        contestant: target.running.contestant,
        round,
        requests: outcome.requests,
        errors: outcome.errors,
        rate: outcome.requests as f64 / outcome.elapsed,
        p50_ms: outcome.p50_ms,
        p99_ms: outcome.p99_ms,
        server_us: servers / requests * 1e6,
        redis_us: redis / requests * 1e6,
        client_us: own / requests * 1e6,
        commands: info.commands as f64 / requests,
        bytes_in: info.bytes_in as f64 / requests,
        bytes_out: info.bytes_out as f64 / requests,
        scripts: info.scripts as f64 / requests,
        script_us: info.script_micros as f64 / info.scripts.max(1) as f64,
        kept: None,
        foreign,
        disturbed: foreign > DISTURBED,
    }
}
