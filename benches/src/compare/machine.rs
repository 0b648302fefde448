//! What the machine does, from `/proc`.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;

/// Linux counts CPU time for programs in hundredths of a second on all machines.
const TICKS: f64 = 100.0;

/// CPU time in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// Of all processes.
    pub(crate) busy: f64,
    /// What the hypervisor gave to others.
    pub(crate) steal: f64,
}

impl Cpu {
    pub(crate) fn read() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> =
            first.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect();
        // user nice system idle iowait irq softirq steal
        let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
            return Err("/proc/stat has no line that can be read".into());
        };
        let busy = (user + nice + system + irq + softirq) / TICKS;
        Ok(Self { busy, steal: steal / TICKS })
    }
}

/// CPU time of a process, in seconds.
pub(crate) fn process(pid: u32) -> Result<f64> {
    let fields = stat_fields(&pid.to_string())?;
    Ok((fields[11] + fields[12]) / TICKS)
}

/// CPU time of this process and of the children that it waited for, in seconds.
pub(crate) fn own() -> Result<f64> {
    let fields = stat_fields("self")?;
    Ok(fields[11..15].iter().sum::<f64>() / TICKS)
}

/// The fields behind the name in parentheses: user and system time are at 11 and 12, those of
/// children at 13 and 14.
fn stat_fields(pid: &str) -> Result<Vec<f64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> =
        fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    if fields.len() < 15 {
        return Err(format!("/proc/{pid}/stat can't be read").into());
    }
    Ok(fields)
}

/// Waits until nothing else uses the CPUs, at most for this long.
pub(crate) fn wait_until_quiet(patience: Duration) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(100);
    const QUIET: f64 = 0.15;
    let end = Instant::now() + patience;
    loop {
        let before = Cpu::read()?;
        std::thread::sleep(LOOK);
        let after = Cpu::read()?;
        let used = after.busy - before.busy + after.steal - before.steal;
        if used / LOOK.as_secs_f64() <= QUIET || Instant::now() >= end {
            return Ok(());
        }
    }
}

/// What the figures were measured on and with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) redis: String,
}

impl Machine {
    pub(crate) fn read(redis: String) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = cpu.unwrap_or("unknown CPU").trim_start_matches([' ', '\t', ':']).into();
        Self {
            date: output("date", &["--utc", "+%Y-%m-%d"]),
            cpu,
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: output("uname", &["-sr"]),
            rustc: output("rustc", &["--version"]),
            redis,
        }
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}
