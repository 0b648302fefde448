//! What has to be true of recorders.

use std::collections::{BTreeMap, HashMap};

use crate::event_recorder::RecordedEvent;

/// A recorder's events by session, in order; a session that was sealed or renewed goes on under its
/// first id.
pub fn by_session(told: &[RecordedEvent]) -> BTreeMap<String, Vec<RecordedEvent>> {
    let mut first: HashMap<&str, String> = HashMap::new();
    let mut sessions: BTreeMap<String, Vec<RecordedEvent>> = BTreeMap::new();
    for event in told {
        let Some(session) = event.session() else { continue };
        if let RecordedEvent::Set { previous: Some(previous), .. } = event {
            let root = first.get(previous.as_str()).cloned().unwrap_or_else(|| previous.clone());
            first.insert(session, root);
        }
        let root = first.get(session).cloned().unwrap_or_else(|| session.to_owned());
        sessions.entry(root).or_default().push(event.clone());
    }
    sessions
}

/// All nodes told the same of each session, in the same order.
///
/// # Panics
/// With the first difference.
#[track_caller]
pub fn assert_same(recorders: &[Vec<RecordedEvent>]) {
    let Some((first, others)) = recorders.split_first() else { return };
    let first = by_session(first);
    for (at, other) in others.iter().enumerate() {
        let other = by_session(other);
        for session in first.keys().chain(other.keys()) {
            let (one, two) = (first.get(session), other.get(session));
            assert!(
                one == two,
                "nodes differ on the session {session}\nn0: {one:#?}\nn{}: {two:#?}",
                at + 1
            );
        }
    }
}

/// Each session begins once, first, and ends at most once, last, or goes on sealed under another
/// id at once; and nothing was missed. Holds for sessions that began after the recorder did.
///
/// # Panics
/// With the first session of which this is not true.
#[track_caller]
pub fn assert_sound(told: &[RecordedEvent]) {
    let missed = told
        .iter()
        .find(|event| matches!(event, RecordedEvent::Lagged(_) | RecordedEvent::Gap { .. }));
    assert_eq!(missed, None, "events were missed");
    for (session, events) in by_session(told) {
        let last = events.len() - 1;
        for (at, event) in events.iter().enumerate() {
            let begins = matches!(event, RecordedEvent::Set { is_new: true, is_init: true, .. });
            assert_eq!(begins, at == 0, "{session} begins once, first: {events:#?}");
            let goes_on = matches!(
                events.get(at + 1),
                Some(RecordedEvent::Set { previous: Some(previous), is_new: false, is_init: true, .. })
                    if event.session() == Some(previous)
            );
            if event.reason() == Some("sealed") {
                assert!(goes_on, "{session} was sealed, and ends there: {events:#?}");
            } else {
                assert!(event.reason().is_none() || at == last, "{session} goes on: {events:#?}");
            }
        }
    }
}
