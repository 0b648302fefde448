//! What clients did while things went wrong, and what must be true of it all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::event_recorder::RecordedEvent;

/// What came of an act, as far as the client can know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // of the fields: the session's id and the count
pub enum WriteOutcome {
    /// It read this count.
    Read { session: String, n: i64 },
    /// It counted up to this.
    Counted { session: String, n: i64 },
    /// It was to count, and nobody knows whether it did.
    IndeterminateCounted { session: String },
    /// It ended the session.
    Ended { session: String },
    /// It was to end the session, and nobody knows whether it did.
    IndeterminateEnded { session: String },
}

impl WriteOutcome {
    /// The session concerned.
    pub fn session(&self) -> &str {
        match self {
            Self::Read { session, .. }
            | Self::Counted { session, .. }
            | Self::IndeterminateCounted { session }
            | Self::Ended { session }
            | Self::IndeterminateEnded { session } => session,
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    begun: Instant,
    done: Instant,
    outcome: WriteOutcome,
}

impl Entry {
    /// Whether the session was there when this began, after that time; a read may be so stale.
    fn finds_after(&self, at: Instant, stale: Duration) -> bool {
        match self.outcome {
            WriteOutcome::Read { .. } => self.begun > at + stale,
            WriteOutcome::Counted { .. } => self.begun > at,
            _ => false,
        }
    }

    fn may_change(&self) -> bool {
        matches!(
            self.outcome,
            WriteOutcome::Counted { .. } | WriteOutcome::IndeterminateCounted { .. }
        )
    }
}

/// A record of acts by many clients on counters in sessions.
#[derive(Debug, Default)]
pub struct History {
    entries: Mutex<Vec<Entry>>,
    /// How old a read may be.
    stale: Duration,
}

/// What a history holds.
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

impl History {
    /// Reads may be this old, as from a near cache; counts never.
    pub fn allow_stale_reads(&mut self, stale: Duration) {
        self.stale = stale;
    }

    /// Notes what came of an act that began at this time and is over now.
    ///
    /// # Panics
    /// Never.
    pub fn note(&self, begun: Instant, outcome: WriteOutcome) {
        let entry = Entry { begun, done: Instant::now(), outcome };
        self.entries.lock().unwrap().push(entry);
    }

    /// How much is in it.
    ///
    /// # Panics
    /// Never.
    pub fn totals(&self) -> Totals {
        let sessions = self.by_session();
        let count = |matches: fn(&WriteOutcome) -> bool| {
            sessions.values().flatten().filter(|entry| matches(&entry.outcome)).count()
        };
        Totals {
            sessions: sessions.len(),
            counted: count(|outcome| matches!(outcome, WriteOutcome::Counted { .. })),
            perhaps: count(|outcome| matches!(outcome, WriteOutcome::IndeterminateCounted { .. })),
            ended: count(|outcome| matches!(outcome, WriteOutcome::Ended { .. })),
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
                let found = counts(&entries)
                    .or_else(|| order(&entries, self.stale))
                    .or_else(|| revived(&entries, self.stale))?;
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
        self.by_session().values().map(|entries| lost(entries, self.stale)).sum()
    }

    /// What one node announced of these sessions although it did not happen: the end of one that was
    /// found alive later, and more changes than there were acts that could have made them.
    ///
    /// # Panics
    /// Never.
    pub fn phantoms(&self, told: &[(Instant, RecordedEvent)]) -> Vec<String> {
        let sessions = self.by_session();
        let mut found = Vec::new();
        let mut changes: HashMap<&str, usize> = HashMap::new();
        for (at, event) in told {
            let Some(session) = event.session() else { continue };
            // Begun by a request whose answer was lost: nobody knows anything of it.
            let Some(entries) = sessions.get(session) else { continue };
            if let RecordedEvent::Set { .. } = event {
                *changes.entry(session).or_default() += 1;
            } else if let Some(alive) =
                entries.iter().find(|entry| entry.finds_after(*at, self.stale))
            {
                let outcome = &alive.outcome;
                found.push(format!("the end of {session} was announced, and later {outcome:?}"));
            }
        }
        for (session, announced) in changes {
            let acts = sessions[session].iter().filter(|entry| entry.may_change()).count();
            if announced > acts {
                found.push(format!(
                    "{session}: {announced} changes announced, {acts} acts made any"
                ));
            }
        }
        found
    }

    fn by_session(&self) -> BTreeMap<String, Vec<Entry>> {
        let mut sessions: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in self.entries.lock().unwrap().iter() {
            sessions.entry(entry.outcome.session().to_owned()).or_default().push(entry.clone());
        }
        sessions
    }
}

fn lost(entries: &[Entry], stale: Duration) -> usize {
    let counted = |entry: &Entry| match entry.outcome {
        WriteOutcome::Counted { n, .. } => Some((n, entry.done)),
        _ => None,
    };
    let acknowledged: Vec<(i64, Instant)> = entries.iter().filter_map(counted).collect();
    let numbers: BTreeSet<i64> = acknowledged.iter().map(|(n, _)| *n).collect();
    let again = acknowledged.len() - numbers.len();
    let reads = entries.iter().filter_map(|entry| match entry.outcome {
        WriteOutcome::Read { n, .. } => Some((entry.begun, n)),
        _ => None,
    });
    let Some((begun, last)) = reads.max() else { return again };
    let gone = acknowledged.iter().filter(|(n, done)| *n > last && *done + stale < begun);
    again + gone.map(|(n, _)| n).collect::<BTreeSet<_>>().len()
}

/// Each number is given once, and no number is greater than there were acts to count to it.
fn counts(entries: &[Entry]) -> Option<String> {
    let mut given: HashMap<i64, usize> = HashMap::new();
    let (mut acts, mut greatest) = (0, 0);
    for entry in entries {
        match entry.outcome {
            WriteOutcome::Counted { n, .. } => {
                *given.entry(n).or_default() += 1;
                (acts, greatest) = (acts + 1, greatest.max(n));
            }
            WriteOutcome::IndeterminateCounted { .. } => acts += 1,
            WriteOutcome::Read { n, .. } => greatest = greatest.max(n),
            WriteOutcome::Ended { .. } | WriteOutcome::IndeterminateEnded { .. } => {}
        }
    }
    if let Some((n, times)) = given.into_iter().find(|(_, times)| *times > 1) {
        return Some(format!("{times} callers counted to {n}: updates are lost"));
    }
    (greatest > acts).then(|| format!("{acts} acts counted to {greatest}: one was done twice"))
}

/// What was acknowledged before an act began is seen by it.
fn order(entries: &[Entry], stale: Duration) -> Option<String> {
    let mut counted: Vec<(Instant, i64)> = entries
        .iter()
        .filter_map(|entry| match entry.outcome {
            WriteOutcome::Counted { n, .. } => Some((entry.done, n)),
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
        let (seen, stale) = match entry.outcome {
            WriteOutcome::Counted { n, .. } => (n - 1, Duration::ZERO),
            WriteOutcome::Read { n, .. } => (n, stale),
            _ => continue,
        };
        let before = counted.partition_point(|(done, _)| *done + stale < entry.begun);
        let acknowledged = before.checked_sub(1).map_or(0, |at| counted[at].1);
        if seen < acknowledged {
            return Some(format!("{acknowledged} was acknowledged, and later {seen} was found"));
        }
    }
    None
}

/// Nobody finds a session after its end was acknowledged.
fn revived(entries: &[Entry], stale: Duration) -> Option<String> {
    let end = entries.iter().filter(|entry| matches!(entry.outcome, WriteOutcome::Ended { .. }));
    let end = end.map(|entry| entry.done).min()?;
    let found = entries.iter().find(|entry| entry.finds_after(end, stale))?;
    Some(format!("{:?} after its end", found.outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(n: i64) -> WriteOutcome {
        WriteOutcome::Counted { session: "s".into(), n }
    }

    fn read(n: i64) -> WriteOutcome {
        WriteOutcome::Read { session: "s".into(), n }
    }

    fn ended() -> WriteOutcome {
        WriteOutcome::Ended { session: "s".into() }
    }

    /// One after the other.
    fn history(acts: &[WriteOutcome]) -> History {
        let history = History::default();
        for act in acts {
            // Clocks may stand still between two looks at them.
            let begun = Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            history.note(begun, act.clone());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        history
    }

    #[test]
    fn a_good_history_has_no_fault() {
        let perhaps = WriteOutcome::IndeterminateCounted { session: "s".into() };
        for acts in [
            &[counted(1), read(1), perhaps.clone(), counted(3), ended()][..],
            &[counted(1), perhaps, counted(2)],
        ] {
            let history = history(acts);
            assert_eq!((history.problems(), history.lost()), (vec![], 0));
        }
    }

    fn announced(set: bool) -> (Instant, RecordedEvent) {
        let [client, session, node] = ["c", "s", "n"].map(str::to_owned);
        let event = match set {
            true => {
                let (previous, is_new, is_init) = (None, false, false);
                RecordedEvent::Set { client, session, previous, is_new, is_init, node }
            }
            false => RecordedEvent::Destroy { client, session, reason: "expired".into(), node },
        };
        (Instant::now(), event)
    }

    #[test]
    fn what_a_node_announces_has_happened() {
        let history = history(&[counted(1), read(1), counted(2)]);
        let (set, end) = (announced(true), announced(false));
        let told = [set.clone(), set.clone(), end.clone()];
        assert_eq!(history.phantoms(&told), Vec::<String>::new());
        let found = history.phantoms(&[set.clone(), set.clone(), set]);
        assert!(found.len() == 1 && found[0].contains("3 changes announced, 2 acts"), "{found:?}");
        let begun = Instant::now();
        history.note(begun, read(2));
        let found = history.phantoms(&[end]);
        assert!(found.len() == 1 && found[0].contains("later Read"), "{found:?}");
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
            let history = history(acts);
            let found = history.problems().concat();
            assert!(found.contains(named), "{acts:?}: {found}");
            assert_eq!(history.lost(), lost, "{acts:?}");
        }
    }
}
