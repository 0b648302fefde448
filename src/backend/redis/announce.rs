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
    Cleanup {
        cleared: u64,
        node: String,
    },
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

/// Reads an announcement; `None` for what is none.
pub(super) fn read(text: &str) -> Option<Announcement> {
    let (event, generation, version, left) = match serde_json::from_str(text).ok()? {
        Announced::Set { cid, r#gen, sid, v, left, prev, new, init, node } => {
            let mut set = SessionSet::new(cid, sid, new, init, NodeId::new(&node).ok()?);
            set.previous_id = prev;
            let left = number(&left).unwrap_or(0);
            (SessionEvent::Set(set), Some(number(&r#gen)?), number(&v)?, left)
        }
        Announced::Destroy { cid, r#gen, sid, reason: why, node } => {
            let end = SessionDestroy::new(cid, sid, reason(&why), NodeId::new(&node).ok()?);
            (SessionEvent::Destroy(end), Some(number(&r#gen)?), 0, 0)
        }
        Announced::Cleanup { cleared, node } => {
            (SessionEvent::Cleanup(Cleanup::new(cleared, NodeId::new(&node).ok()?)), None, 0, 0)
        }
    };
    let generation = generation.map(Generation::from_number);
    let left = Duration::from_millis(left);
    Some(Announcement { event: BackendEvent { event, generation }, version, left })
}

/// The announcement of a cleanup.
pub(super) fn cleanup(cleared: u64, node: &NodeId) -> String {
    serde_json::json!({ "kind": "cleanup", "cleared": cleared, "node": node }).to_string()
}
