//! What one kind of fault did: a row of the table.

use std::fmt;
use std::time::Duration;

use super::delivery_check::DeliveryCheck;
use super::fault::Fault;
use crate::history::Totals;

/// The figures of one kind of fault.
#[derive(Debug, Clone)]
pub struct Report {
    /// The kind.
    pub fault: Fault,
    /// What clients did meanwhile.
    pub totals: Totals,
    /// Acknowledged updates that are lost; those that Redis itself lost are not counted.
    pub lost: usize,
    /// What nodes announced and was not done.
    pub undone: Vec<String>,
    /// Ends of sessions, and how they were told.
    pub told: DeliveryCheck,
    /// How long it took after each fault until all was well again.
    pub healing: Vec<Duration>,
    /// What is wrong besides.
    pub problems: Vec<String>,
}

impl Report {
    /// All that should not be.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        problems.extend(self.told.problems.iter().cloned());
        problems.extend(self.undone.iter().cloned());
        if self.lost > 0 {
            problems.push(format!("{} acknowledged updates are lost", self.lost));
        }
        let DeliveryCheck { sockets, told, left, .. } = self.told;
        if told != sockets {
            problems.push(format!("{told} of {sockets} sockets were told in time and once"));
        }
        if left > 0 {
            problems.push(format!("{left} sockets are left on sessions that have ended"));
        }
        problems
    }

    /// Checks that nothing is wrong, and that there was anything to look at.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn check(&self) {
        let problems = self.problems();
        assert!(problems.is_empty(), "{}:\n{}", self.fault.name(), problems.join("\n"));
        assert!(self.totals.counted > 10 * self.healing.len(), "a load: {:?}", self.totals);
        assert!(self.told.sockets >= self.told.ended, "sockets to be told: {:?}", self.told);
    }

    /// The time within which this share of the faults had healed.
    fn healed(&self, percent: usize) -> Duration {
        let mut sorted = self.healing.clone();
        sorted.sort();
        let at = (sorted.len() * percent).div_ceil(100);
        sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// A row of a table in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {}/{} in {} s | {} | {:.1} / {:.1} s |",
            self.fault.name(),
            self.healing.len(),
            self.totals.counted,
            self.lost,
            self.undone.len(),
            self.told.ended,
            self.told.told,
            self.told.sockets,
            self.fault.bound().as_secs(),
            self.told.left,
            self.healed(50).as_secs_f64(),
            self.healed(99).as_secs_f64(),
        )
    }
}

/// The head of the table in Markdown.
pub fn table() -> &'static str {
    "| fault | times | acknowledged updates | lost | announced but not done | sessions ended | sockets notified within bound | sockets left on dead sessions | p50 / p99 to recover |\n\
     |---|---|---|---|---|---|---|---|---|"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lost: usize, told: usize, left: usize) -> Report {
        let undone = Vec::new();
        Report {
            fault: Fault::Flushed,
            totals: Totals { counted: 100, ..Totals::default() },
            lost,
            undone,
            told: DeliveryCheck { ended: 2, sockets: 6, told, left, problems: Vec::new() },
            healing: [3, 1, 2].map(Duration::from_secs).into(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn whatever_should_not_be_is_a_problem() {
        row(0, 6, 0).check();
        let undone = Report { undone: vec!["a phantom".to_owned()], ..row(0, 6, 0) };
        for bad in [row(1, 6, 0), row(0, 5, 0), row(0, 6, 1), undone] {
            assert_eq!(bad.problems().len(), 1);
        }
        let idle = Report { totals: Totals::default(), ..row(0, 6, 0) };
        assert!(std::panic::catch_unwind(|| idle.check()).is_err());
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_head() {
        let text = row(0, 6, 0).to_string();
        assert_eq!(text.matches('|').count(), table().lines().next().unwrap().matches('|').count());
        assert!(text.contains("| 3 | 100 | 0 | 0 | 2 | 6/6 in 10 s | 0 | 2.0 / 3.0 s |"), "{text}");
    }
}
