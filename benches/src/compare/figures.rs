//! Medians and ratios.

use serde::Serialize;

use crate::machine::Machine;
use crate::options::Options;
use crate::plan::{Contestant, Workload};
use crate::samples::Sample;

#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) taken: usize,
    pub(crate) disturbed: usize,
    pub(crate) figures: Vec<Figure>,
    pub(crate) samples: Vec<Sample>,
}

/// The medians of one contestant in one workload.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) workload: &'static str,
    pub(crate) contestant: Contestant,
    /// Requests in a second, divided by those of the contestant that is 1.00, in the same round.
    pub(crate) ratio: f64,
    /// The same by CPU: that of server, Redis and client for a request of the contestant that is 1.00,
    /// divided by the contestant's own. Foreign load changes it less.
    pub(crate) cpu_ratio: f64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_us: f64,
    pub(crate) redis_us: f64,
    pub(crate) client_us: f64,
    pub(crate) commands: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
    pub(crate) script_us: f64,
    pub(crate) kept: Option<f64>,
    /// The part of the requests that was refused.
    pub(crate) errors: f64,
    /// Samples that the medians are of.
    pub(crate) samples: usize,
    /// All samples were disturbed, and the medians are of these.
    pub(crate) disturbed: bool,
}

impl Results {
    pub(crate) fn figure(&self, workload: &str, contestant: Contestant) -> Option<&Figure> {
        let mut figures = self.figures.iter();
        figures.find(|figure| figure.workload == workload && figure.contestant == contestant)
    }
}

pub(crate) fn results(
    machine: Machine,
    options: &Options,
    workloads: &[(&Workload, Vec<Contestant>)],
    samples: Vec<Sample>,
) -> Results {
    let mut figures = Vec::new();
    for (workload, contestants) in workloads {
        let of = |contestant: Contestant| -> Vec<&Sample> {
            let samples = samples.iter().filter(|sample| sample.workload == workload.name);
            samples.filter(|sample| sample.contestant == contestant).collect()
        };
        let baseline = of(contestants[0]);
        figures.extend(
            contestants.iter().filter_map(|contestant| figure(&baseline, &of(*contestant))),
        );
    }
    Results {
        machine,
        seconds: options.seconds,
        rounds: samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0),
        taken: samples.len(),
        disturbed: samples.iter().filter(|sample| sample.disturbed).count(),
        figures,
        samples,
    }
}

/// `None`: there are no samples.
fn figure(baseline: &[&Sample], samples: &[&Sample]) -> Option<Figure> {
    let first = samples.first()?;
    let clean: Vec<&Sample> = samples.iter().copied().filter(|sample| !sample.disturbed).collect();
    let disturbed = clean.is_empty();
    let used = if disturbed { samples.to_vec() } else { clean };
    let median_of = |value: fn(&Sample) -> f64| median(used.iter().map(|s| value(s)).collect());
    let (requests, errors) = used.iter().fold((0, 0), |(requests, errors), sample| {
        (requests + sample.requests, errors + sample.errors)
    });
    let kept: Vec<f64> = used.iter().filter_map(|sample| sample.kept).collect();
    Some(Figure {
        workload: first.workload,
        contestant: first.contestant,
        ratio: ratio(baseline, samples, |base, own| own.rate / base.rate),
        cpu_ratio: ratio(baseline, samples, |base, own| base.cpu_us() / own.cpu_us()),
        rate: median_of(|sample| sample.rate),
        p50_ms: median_of(|sample| sample.p50_ms),
        p99_ms: median_of(|sample| sample.p99_ms),
        server_us: median_of(|sample| sample.server_us),
        redis_us: median_of(|sample| sample.redis_us),
        client_us: median_of(|sample| sample.client_us),
        commands: median_of(|sample| sample.commands),
        bytes_in: median_of(|sample| sample.bytes_in),
        bytes_out: median_of(|sample| sample.bytes_out),
        script_us: median_of(|sample| sample.script_us),
        kept: if kept.is_empty() { None } else { Some(median(kept)) },
        errors: errors as f64 / requests.max(1) as f64,
        samples: used.len(),
        disturbed,
    })
}

/// Pairs of one round are near in time, so what slows down the machine for longer than a sample is
/// in both. Pairs with a disturbed sample count only if there are no others.
fn ratio(baseline: &[&Sample], samples: &[&Sample], of: fn(&Sample, &Sample) -> f64) -> f64 {
    let pairs = |disturbed_too: bool| -> Vec<f64> {
        let pairs = samples.iter().filter_map(|sample| {
            let base = baseline.iter().find(|base| base.round == sample.round)?;
            let clean = !sample.disturbed && !base.disturbed;
            (clean || disturbed_too).then(|| of(base, sample))
        });
        pairs.collect()
    };
    let clean = pairs(false);
    median(if clean.is_empty() { pairs(true) } else { clean })
}

/// Not a number if there are no values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
