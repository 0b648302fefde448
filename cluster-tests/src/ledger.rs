//! What clients did while things went wrong, and what must be true of it all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Instant;

/// What came of an act, as far as the client can know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // of the fields: the session's id and the count
pub enum Came {
    /// It read this count.
    Read { session: String, n: i64 },
    /// It counted up to this.
    Counted { session: String, n: i64 },
    /// It was to count, and nobody knows whether it did.
    PerhapsCounted { session: String },
    /// It ended the session.
    Ended { session: String },
    /// It was to end the session, and nobody knows whether it did.
    PerhapsEnded { session: String },
}

impl Came {
    /// The session concerned.
    pub fn session(&self) -> &str {
        match self {
            Self::Read { session, .. }
            | Self::Counted { session, .. }
            | Self::PerhapsCounted { session }
            | Self::Ended { session }
            | Self::PerhapsEnded { session } => session,
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    begun: Instant,
    done: Instant,
    came: Came,
}

/// A record of acts by many clients on counters in sessions.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
}

/// What a ledger holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions that anything was done to.
    pub sessions: usize,
    /// Acknowledged counts.
    pub counted: usize,
    /// Counts that may have been done or not.
    pub perhaps: usize,
    /// Acknowledged ends.
    pub ended: usize,
}

impl Ledger {
    /// Notes what came of an act that began at this time and is over now.
    ///
    /// # Panics
    /// Never.
    pub fn note(&self, begun: Instant, came: Came) {
        let entry = Entry { begun, done: Instant::now(), came };
        self.entries.lock().unwrap().push(entry);
    }

    /// How much is in it.
    ///
    /// # Panics
    /// Never.
    pub fn totals(&self) -> Totals {
        let sessions = self.by_session();
        let count = |matches: fn(&Came) -> bool| {
            sessions.values().flatten().filter(|entry| matches(&entry.came)).count()
        };
        Totals {
            sessions: sessions.len(),
            counted: count(|came| matches!(came, Came::Counted { .. })),
            perhaps: count(|came| matches!(came, Came::PerhapsCounted { .. })),
            ended: count(|came| matches!(came, Came::Ended { .. })),
        }
    }

    /// What should not be, for each session of which there is anything: an acknowledged count that
    /// is lost or was done twice, a read that is older than what was acknowledged before it began,
    /// a session that is back after its acknowledged end.
    ///
    /// # Panics
    /// Never.
    pub fn problems(&self) -> Vec<String> {
        let sessions = self.by_session().into_iter();
        sessions
            .filter_map(|(session, entries)| {
                let found =
                    counts(&entries).or_else(|| order(&entries)).or_else(|| revived(&entries))?;
                Some(format!("the session {session}: {found}\n{entries:#?}"))
            })
            .collect()
    }

    /// How many acknowledged counts are lost: their number was given again, or is greater than
    /// what was read in the end.
    ///
    /// # Panics
    /// Never.
    pub fn lost(&self) -> usize {
        self.by_session().values().map(|entries| lost(entries)).sum()
    }

    fn by_session(&self) -> BTreeMap<String, Vec<Entry>> {
        let mut sessions: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in self.entries.lock().unwrap().iter() {
            sessions.entry(entry.came.session().to_owned()).or_default().push(entry.clone());
        }
        sessions
    }
}

fn lost(entries: &[Entry]) -> usize {
    let counted = |entry: &Entry| match entry.came {
        Came::Counted { n, .. } => Some((n, entry.done)),
        _ => None,
    };
    let acknowledged: Vec<(i64, Instant)> = entries.iter().filter_map(counted).collect();
    let numbers: BTreeSet<i64> = acknowledged.iter().map(|(n, _)| *n).collect();
    let again = acknowledged.len() - numbers.len();
    let reads = entries.iter().filter_map(|entry| match entry.came {
        Came::Read { n, .. } => Some((entry.begun, n)),
        _ => None,
    });
    let Some((begun, last)) = reads.max() else { return again };
    let gone = acknowledged.iter().filter(|(n, done)| *n > last && *done < begun);
    again + gone.map(|(n, _)| n).collect::<BTreeSet<_>>().len()
}

/// Each number is given once, and no number is greater than there were acts to count to it.
fn counts(entries: &[Entry]) -> Option<String> {
    let mut given: HashMap<i64, usize> = HashMap::new();
    let (mut acts, mut greatest) = (0, 0);
    for entry in entries {
        match entry.came {
            Came::Counted { n, .. } => {
                *given.entry(n).or_default() += 1;
                (acts, greatest) = (acts + 1, greatest.max(n));
            }
            Came::PerhapsCounted { .. } => acts += 1,
            Came::Read { n, .. } => greatest = greatest.max(n),
            Came::Ended { .. } | Came::PerhapsEnded { .. } => {}
        }
    }
    if let Some((n, times)) = given.into_iter().find(|(_, times)| *times > 1) {
        return Some(format!("{times} callers counted to {n}: updates are lost"));
    }
    (greatest > acts).then(|| format!("{acts} acts counted to {greatest}: one was done twice"))
}

/// What was acknowledged before an act began is seen by it.
fn order(entries: &[Entry]) -> Option<String> {
    let mut counted: Vec<(Instant, i64)> = entries
        .iter()
        .filter_map(|entry| match entry.came {
            Came::Counted { n, .. } => Some((entry.done, n)),
            _ => None,
        })
        .collect();
    counted.sort_unstable();
    // The greatest number acknowledged up to each time.
    let mut greatest = 0;
    for (_, n) in &mut counted {
        greatest = greatest.max(*n);
        *n = greatest;
    }
    for entry in entries {
        let before = counted.partition_point(|(done, _)| *done < entry.begun);
        let acknowledged = before.checked_sub(1).map_or(0, |at| counted[at].1);
        let seen = match entry.came {
            Came::Counted { n, .. } => n - 1,
            Came::Read { n, .. } => n,
            _ => continue,
        };
        if seen < acknowledged {
            return Some(format!("{acknowledged} was acknowledged, and later {seen} was found"));
        }
    }
    None
}

/// Nobody finds a session after its end was acknowledged.
fn revived(entries: &[Entry]) -> Option<String> {
    let end = entries.iter().filter(|entry| matches!(entry.came, Came::Ended { .. }));
    let end = end.map(|entry| entry.done).min()?;
    let found = entries.iter().find(|entry| {
        entry.begun > end && matches!(entry.came, Came::Read { .. } | Came::Counted { .. })
    })?;
    Some(format!("{:?} after its end", found.came))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(n: i64) -> Came {
        Came::Counted { session: "s".into(), n }
    }

    fn read(n: i64) -> Came {
        Came::Read { session: "s".into(), n }
    }

    fn ended() -> Came {
        Came::Ended { session: "s".into() }
    }

    /// One after the other.
    fn ledger(acts: &[Came]) -> Ledger {
        let ledger = Ledger::default();
        for act in acts {
            // Clocks may stand still between two looks at them.
            let begun = Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            ledger.note(begun, act.clone());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        ledger
    }

    #[test]
    fn a_good_history_has_no_fault() {
        let perhaps = Came::PerhapsCounted { session: "s".into() };
        for acts in [
            &[counted(1), read(1), perhaps.clone(), counted(3), ended()][..],
            &[counted(1), perhaps, counted(2)],
        ] {
            let ledger = ledger(acts);
            assert_eq!((ledger.problems(), ledger.lost()), (vec![], 0));
        }
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        for (acts, named, lost) in [
            (&[counted(1), counted(1)][..], "updates are lost", 1),
            (&[counted(1), counted(3)], "done twice", 0),
            (&[counted(2), counted(1)], "later 0 was found", 0),
            (&[counted(1), counted(2), counted(3), read(1)], "later 1 was found", 2),
            (&[counted(1), ended(), read(1)], "after its end", 0),
        ] {
            let ledger = ledger(acts);
            let found = ledger.problems().concat();
            assert!(found.contains(named), "{acts:?}: {found}");
            assert_eq!(ledger.lost(), lost, "{acts:?}");
        }
    }
}
