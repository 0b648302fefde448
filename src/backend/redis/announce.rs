//! What nodes tell each other.

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
enum Announced {
    Set {
        cid: ClientId,
        r#gen: Value,
        sid: SessionId,
        v: Value,
        left: Value,
        prev: Option<SessionId>,
        new: bool,
        init: bool,
        node: String,
    },
    Destroy {
        cid: ClientId,
        r#gen: Value,
        sid: SessionId,
        reason: String,
        node: String,
    },
    /// Several that a sweep found at once.
    Ends {
        ends: Vec<Ended>,
        reason: String,
        node: String,
    },
    Cleanup {
        cleared: u64,
        node: String,
    },
}

#[derive(Debug, Deserialize)]
struct Ended {
    cid: ClientId,
    r#gen: Value,
    sid: SessionId,
}

/// An event, and the version and time to live of the record after it.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) event: BackendEvent,
    pub(super) version: u64,
    pub(super) left: Duration,
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
        "external" => DestroyReason::External,
        "corrupt" => DestroyReason::Corrupt,
        "reconciled" => DestroyReason::Reconciled,
        _ => DestroyReason::Destroyed,
    }
}

fn ended(ended: &Ended, why: &str, node: &NodeId) -> Option<Announcement> {
    let end = SessionDestroy::new(ended.cid, ended.sid, reason(why), node.clone());
    let generation = Some(Generation::from_number(number(&ended.r#gen)?));
    let event = BackendEvent { event: SessionEvent::Destroy(end), generation };
    Some(Announcement { event, version: 0, left: Duration::ZERO })
}

/// Reads what was announced; `None` for what is no announcement.
pub(super) fn read(text: &str) -> Option<Vec<Announcement>> {
    match serde_json::from_str(text).ok()? {
        Announced::Set { cid, r#gen, sid, v, left, prev, new, init, node } => {
            let mut set = SessionSet::new(cid, sid, new, init, NodeId::new(&node).ok()?);
            set.previous_id = prev;
            let generation = Some(Generation::from_number(number(&r#gen)?));
            Some(vec![Announcement {
                event: BackendEvent { event: SessionEvent::Set(set), generation },
                version: number(&v)?,
                left: Duration::from_millis(number(&left).unwrap_or(0)),
            }])
        }
        Announced::Destroy { cid, r#gen, sid, reason: why, node } => {
            let one = Ended { cid, r#gen, sid };
            Some(vec![ended(&one, &why, &NodeId::new(&node).ok()?)?])
        }
        Announced::Ends { ends, reason: why, node } => {
            let node = NodeId::new(&node).ok()?;
            ends.iter().map(|end| ended(end, &why, &node)).collect()
        }
        Announced::Cleanup { cleared, node } => {
            let cleanup = Cleanup::new(cleared, NodeId::new(&node).ok()?);
            let event = BackendEvent { event: SessionEvent::Cleanup(cleanup), generation: None };
            Some(vec![Announcement { event, version: 0, left: Duration::ZERO }])
        }
    }
}

/// The announcement of a cleanup.
pub(super) fn cleanup(cleared: u64, node: &NodeId) -> String {
    serde_json::json!({ "kind": "cleanup", "cleared": cleared, "node": node }).to_string()
}
