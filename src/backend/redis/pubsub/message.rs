//! What nodes tell each other.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::backend::BackendEvent;
use crate::session::{
    Cleanup, ClientId, DestroyReason, Generation, NodeId, SessionDestroy, SessionEvent, SessionId,
    SessionSet,
};

/// An announcement as the scripts publish it.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Announced<'a> {
    Set {
        cid: ClientId,
        r#gen: Value,
        sid: SessionId,
        v: Value,
        left: Value,
        prev: Option<SessionId>,
        sealed: bool,
        new: bool,
        init: bool,
        node: String,
        /// Told without a change, so that the version is not new.
        #[serde(default)]
        notice: bool,
    },
    /// A sealed session took the place of the session `was`, whose id was `prev`.
    Seal {
        cid: ClientId,
        r#gen: Value,
        sid: SessionId,
        v: Value,
        left: Value,
        prev: SessionId,
        was: Value,
        node: String,
    },
    Destroy {
        cid: ClientId,
        r#gen: Value,
        sid: SessionId,
        reason: String,
        node: String,
    },
    /// Several that a sweep found at once: `cid:gen:sid`, separated by blanks. One text, for a
    /// list would take ten times as long to read.
    Ends {
        #[serde(borrow)]
        ends: Cow<'a, str>,
        reason: String,
        node: String,
    },
    Cleanup {
        cleared: u64,
        node: String,
    },
    Compare {},
    Look {
        cid: ClientId,
        reason: String,
    },
}

/// What was said.
#[derive(Debug)]
pub(crate) enum Said {
    Happened(Vec<Announcement>),
    /// Sockets' sessions are to be compared with Redis: the node that listens to what others do
    /// to records could not for a while.
    Compare,
    /// This client's session is gone. Who knows it from a socket is to look, and to name it.
    Look(ClientId, DestroyReason),
}

/// An event, and the version and time to live of the record after it.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) event: BackendEvent,
    pub(crate) version: u64,
    pub(crate) left: Duration,
}

/// Scripts hold numbers as text at times.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn reason(text: &str) -> DestroyReason {
    match text {
        "expired" => DestroyReason::Expired,
        "evicted" => DestroyReason::Evicted,
        "replaced" => DestroyReason::Replaced,
        "sealed" => DestroyReason::Sealed,
        "external" => DestroyReason::External,
        "corrupt" => DestroyReason::Corrupt,
        "reconciled" => DestroyReason::Reconciled,
        _ => DestroyReason::Destroyed,
    }
}

impl Announcement {
    fn ended(end: SessionDestroy, generation: u64) -> Self {
        let event = BackendEvent::end(end, Some(Generation::from_number(generation)));
        Self { event, version: 0, left: Duration::ZERO }
    }

    /// A state of a session that was written as this version, or only told again.
    fn set(set: SessionSet, generation: u64, sealed: bool, version: u64, left: &Value) -> Self {
        let event = BackendEvent {
            generation: Some(Generation::from_number(generation)),
            version: Some(version),
            sealed,
            ..BackendEvent::plain(SessionEvent::Set(set))
        };
        Self { event, version, left: Duration::from_millis(number(left).unwrap_or(0)) }
    }
}

/// Reads what was announced; `None` for what is no announcement.
pub(crate) fn read(text: &str) -> Option<Said> {
    let happened = match serde_json::from_str(text).ok()? {
        Announced::Set { cid, r#gen, sid, v, left, prev, sealed, new, init, node, notice } => {
            let mut set = SessionSet::new(cid, sid, new, init, NodeId::new(&node).ok()?);
            set.previous_id = prev;
            let mut told = Announcement::set(set, number(&r#gen)?, sealed, number(&v)?, &left);
            if notice {
                told.event.version = None;
            }
            vec![told]
        }
        Announced::Seal { cid, r#gen, sid, v, left, prev, was, node } => {
            let node = NodeId::new(&node).ok()?;
            let end = SessionDestroy::new(cid, prev, DestroyReason::Sealed, node.clone());
            let mut end = Announcement::ended(end, number(&was)?);
            let mut set = SessionSet::new(cid, sid, false, true, node);
            set.previous_id = Some(prev);
            let begun = Announcement::set(set, number(&r#gen)?, true, number(&v)?, &left);
            end.event.successor = begun.event.generation;
            vec![end, begun]
        }
        Announced::Destroy { cid, r#gen, sid, reason: why, node } => {
            let end = SessionDestroy::new(cid, sid, reason(&why), NodeId::new(&node).ok()?);
            vec![Announcement::ended(end, number(&r#gen)?)]
        }
        Announced::Ends { ends, reason: why, node } => {
            let (why, node) = (reason(&why), NodeId::new(&node).ok()?);
            let ended = |end: &str| {
                let (cid, rest) = end.split_once(':')?;
                let (generation, sid) = rest.split_once(':')?;
                let (cid, sid) = (ClientId::parse(cid).ok()?, SessionId::parse(sid).ok()?);
                let end = SessionDestroy::new(cid, sid, why, node.clone());
                Some(Announcement::ended(end, generation.parse().ok()?))
            };
            ends.split(' ').map(ended).collect::<Option<_>>()?
        }
        Announced::Cleanup { cleared, node } => {
            let cleanup = Cleanup::new(cleared, NodeId::new(&node).ok()?);
            let event = BackendEvent::plain(SessionEvent::Cleanup(cleanup));
            vec![Announcement { event, version: 0, left: Duration::ZERO }]
        }
        Announced::Compare {} => return Some(Said::Compare),
        Announced::Look { cid, reason: why } => return Some(Said::Look(cid, reason(&why))),
    };
    Some(Said::Happened(happened))
}

/// The announcement of a cleanup.
pub(crate) fn cleanup(cleared: u64, node: &NodeId) -> String {
    serde_json::json!({ "kind": "cleanup", "cleared": cleared, "node": node }).to_string()
}

/// The announcement that a client's session is gone and needs a name.
pub(crate) fn look(client: &ClientId, reason: DestroyReason) -> String {
    serde_json::json!({ "kind": "look", "cid": client, "reason": reason.as_str() }).to_string()
}

/// The announcement that all nodes are to compare.
pub(crate) fn compare() -> String {
    serde_json::json!({ "kind": "compare" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_ends_is_read_whole_or_not_at_all() {
        let ends: Vec<_> = (0..3).map(|_| (ClientId::generate(), SessionId::generate())).collect();
        let words = ends.iter().map(|(client, session)| {
            format!("{}:18446744073709551615:{}", client.as_str(), session.as_str())
        });
        let page = |ends: &str| {
            serde_json::json!({ "kind": "ends", "ends": ends, "reason": "expired", "node": "n" })
                .to_string()
        };
        let words: Vec<_> = words.collect();
        let Some(Said::Happened(told)) = read(&page(&words.join(" "))) else { panic!("a page") };
        let heard = told.iter().map(|told| match &told.event.event {
            SessionEvent::Destroy(end) => {
                assert_eq!(told.event.generation, Some(Generation::from_number(u64::MAX)));
                assert_eq!(end.reason, DestroyReason::Expired);
                (end.client_id, end.session_id)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(heard.collect::<Vec<_>>(), ends);
        assert!(read(&page(&format!("{} {}", words[0], &words[1][1..]))).is_none());
        assert!(matches!(read(&compare()), Some(Said::Compare)));
    }
}
