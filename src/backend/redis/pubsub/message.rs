//! Messages between nodes: what happened to sessions, and requests to all nodes.
//!
//! A message is bytes: a kind, a flag or reason, and, in most, the client and the node that acted
//! (`who`). Scripts append the rest (`script/lua/include/message.lua`).
//!
//! | kind | flag | rest | says |
//! |---|---|---|---|
//! | `S` | 1 new, 2 first use of the mapping, 4 a notice, 8 previous id follows | who, now, header, previous id | a session was created or changed |
//! | `X` | 0 | who, old generation, old id, now, header | a sealed session took the place of another |
//! | `D` | reason | who, generation, id | a session ended |
//! | `E` | reason | node, then for each: client, generation, id | sessions ended |
//! | `C` | 0 | node, number | a cleanup removed so many |
//! | `R` | 0 | | all nodes are to reconcile |
//! | `L` | 0 | | the node that swept has given that up |
//! | `P` | reason | client | the nodes that know this client's session are to probe it |
//!
//! `who` is the client's id, the length of the node's name (1 byte) and the name.

use std::time::Duration;

use crate::backend::BackendEvent;
use crate::backend::redis::record::{Fields, Header, put_number};
use crate::session::{
    Cleanup, ClientId, DestroyReason, Generation, NodeId, SessionDestroy, SessionEvent, SessionSet,
};

/// What was said.
#[derive(Debug)]
pub(crate) enum Message {
    Happened(Vec<Announcement>),
    /// Sockets' sessions are to be compared with Redis: the node that listens to what others do
    /// to records could not for a while.
    Reconcile,
    /// The node that swept has given that up: another one takes over.
    Resigned,
    /// This client's session is gone. A node that knows it from a socket is to probe and name it.
    ProbeRequest(ClientId, DestroyReason),
}

/// An event, and the version and time to live of the record after it.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) event: BackendEvent,
    pub(crate) version: u64,
    pub(crate) left: Duration,
}

/// Codes of reasons, in messages and in arguments of scripts.
const REASONS: [DestroyReason; 8] = [
    DestroyReason::Destroyed,
    DestroyReason::Expired,
    DestroyReason::Evicted,
    DestroyReason::Replaced,
    DestroyReason::Sealed,
    DestroyReason::External,
    DestroyReason::Corrupt,
    DestroyReason::Reconciled,
];

/// The code of a reason.
pub(crate) fn code(reason: DestroyReason) -> u8 {
    let at = REASONS.iter().position(|known| *known == reason).unwrap_or(0);
    u8::try_from(at).unwrap_or(0)
}

fn reason(code: u8) -> DestroyReason {
    REASONS.get(usize::from(code)).copied().unwrap_or(DestroyReason::Destroyed)
}

/// The client concerned and the node that acts, as scripts are given them.
pub(crate) fn who(client: &ClientId, node: &NodeId) -> Vec<u8> {
    let mut out = Vec::with_capacity(ClientId::LEN + 1 + node.as_str().len());
    put_who(&mut out, client, node);
    out
}

fn put_who(out: &mut Vec<u8>, client: &ClientId, node: &NodeId) {
    out.extend_from_slice(client.as_str().as_bytes());
    put_node(out, node);
}

/// A node's name, its length in front.
pub(crate) fn put_node(out: &mut Vec<u8>, node: &NodeId) {
    // Names have at most 64 characters.
    out.push(u8::try_from(node.as_str().len()).unwrap_or(u8::MAX));
    out.extend_from_slice(node.as_str().as_bytes());
}

fn node(fields: &mut Fields<'_>) -> Option<NodeId> {
    let length = usize::try_from(fields.number(1)?).ok()?;
    NodeId::new(std::str::from_utf8(fields.bytes(length)?).ok()?).ok()
}

impl Announcement {
    fn ended(end: SessionDestroy, generation: Generation) -> Self {
        let event = BackendEvent::end(end, Some(generation));
        Self { event, version: 0, left: Duration::ZERO }
    }

    /// A state of a session that was written at `now`.
    fn set(set: SessionSet, header: &Header, now: u64) -> Self {
        let event = BackendEvent {
            generation: Some(header.generation),
            version: Some(header.version),
            sealed: header.sealed,
            ..BackendEvent::plain(SessionEvent::Set(set))
        };
        let left = Duration::from_millis(header.end.saturating_sub(now));
        Self { event, version: header.version, left }
    }
}

/// Reads a message; `None` for what is none.
pub(crate) fn read(message: &[u8]) -> Option<Message> {
    let mut fields = Fields(message);
    let kind = fields.bytes(1)?.first().copied()?;
    let flag = fields.bytes(1)?.first().copied()?;
    let happened = match kind {
        b'S' => vec![read_set(&mut fields, flag)?],
        b'X' => read_sealed(&mut fields)?.into(),
        b'D' => {
            let (client, node) = (fields.client()?, node(&mut fields)?);
            vec![read_end(&mut fields, client, flag, &node)?]
        }
        b'E' => {
            let node = node(&mut fields)?;
            let mut ends = Vec::with_capacity(fields.0.len() / 74);
            while !fields.0.is_empty() {
                let client = fields.client()?;
                ends.push(read_end(&mut fields, client, flag, &node)?);
            }
            ends
        }
        b'C' => {
            let node = node(&mut fields)?;
            let cleanup = Cleanup::new(fields.number(6)?, node);
            let event = BackendEvent::plain(SessionEvent::Cleanup(cleanup));
            vec![Announcement { event, version: 0, left: Duration::ZERO }]
        }
        b'R' => return Some(Message::Reconcile),
        b'L' => return Some(Message::Resigned),
        b'P' => return Some(Message::ProbeRequest(fields.client()?, reason(flag))),
        _ => return None,
    };
    Some(Message::Happened(happened))
}

fn read_set(fields: &mut Fields<'_>, flag: u8) -> Option<Announcement> {
    let (client, node) = (fields.client()?, node(fields)?);
    let now = fields.number(6)?;
    let header = Header::read(fields)?;
    let (new, init, notice) = (flag & 1 != 0, flag & 2 != 0, flag & 4 != 0);
    let mut set = SessionSet::new(client, header.session, new, init, node);
    if flag & 8 != 0 {
        set.previous_id = Some(fields.session()?);
    }
    let mut announcement = Announcement::set(set, &header, now);
    if notice {
        // Nothing was written: the version is not new.
        announcement.event.version = None;
    }
    Some(announcement)
}

fn read_sealed(fields: &mut Fields<'_>) -> Option<[Announcement; 2]> {
    let (client, node) = (fields.client()?, node(fields)?);
    let (generation, previous) = (fields.generation()?, fields.session()?);
    let now = fields.number(6)?;
    let header = Header::read(fields)?;
    let end = SessionDestroy::new(client, previous, DestroyReason::Sealed, node.clone());
    let mut end = Announcement::ended(end, generation);
    end.event.successor = Some(header.generation);
    let mut set = SessionSet::new(client, header.session, false, true, node);
    set.previous_id = Some(previous);
    Some([end, Announcement::set(set, &header, now)])
}

fn read_end(
    fields: &mut Fields<'_>,
    client: ClientId,
    code: u8,
    node: &NodeId,
) -> Option<Announcement> {
    let (generation, session) = (fields.generation()?, fields.session()?);
    let end = SessionDestroy::new(client, session, reason(code), node.clone());
    Some(Announcement::ended(end, generation))
}

/// The announcement of a change that was made at `now`, with the header of the record after it.
pub(crate) fn set(client: &ClientId, node: &NodeId, now: u64, header: &[u8]) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(2 + ClientId::LEN + 1 + node.as_str().len() + 6 + header.len());
    out.extend_from_slice(b"S\0");
    put_who(&mut out, client, node);
    put_number(&mut out, now, 6);
    out.extend_from_slice(header);
    out
}

/// The announcement of a cleanup.
pub(crate) fn cleanup(cleared: u64, node: &NodeId) -> Vec<u8> {
    let mut out = b"C\0".to_vec();
    put_node(&mut out, node);
    put_number(&mut out, cleared, 6);
    out
}

/// The request to probe a client's session, which is gone and has no name left in Redis.
pub(crate) fn look(client: &ClientId, reason: DestroyReason) -> Vec<u8> {
    let mut out = vec![b'P', code(reason)];
    out.extend_from_slice(client.as_str().as_bytes());
    out
}

/// The news that nobody sweeps now.
pub(crate) fn resigned() -> Vec<u8> {
    b"L\0".to_vec()
}

/// The request that all nodes reconcile.
pub(crate) fn compare() -> Vec<u8> {
    b"R\0".to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::redis::record::put_generation;
    use crate::session::SessionId;
    use proptest::prelude::*;

    #[test]
    fn a_page_of_ends_is_read_whole_or_not_at_all() {
        let ends: Vec<_> = (0..3).map(|_| (ClientId::generate(), SessionId::generate())).collect();
        let generation = Generation::from_number((1 << 53) - 1);
        let mut page = vec![b'E', code(DestroyReason::Expired)];
        put_node(&mut page, &NodeId::new("n").unwrap());
        for (client, session) in &ends {
            page.extend(client.as_str().bytes());
            put_generation(&mut page, generation);
            page.extend(session.as_str().bytes());
        }
        let Some(Message::Happened(announcements)) = read(&page) else { panic!("a page") };
        let ended = announcements.iter().map(|announcement| match &announcement.event.event {
            SessionEvent::Destroy(end) => {
                assert_eq!(announcement.event.generation, Some(generation));
                assert_eq!(end.reason, DestroyReason::Expired);
                (end.client_id, end.session_id)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(ended.collect::<Vec<_>>(), ends);
        assert!(read(&page[..page.len() - 1]).is_none());
    }

    #[test]
    fn requests_and_cleanups_read_back() {
        let (client, node) = (ClientId::generate(), NodeId::new("a-node").unwrap());
        assert!(matches!(read(&compare()), Some(Message::Reconcile)));
        assert!(matches!(read(&resigned()), Some(Message::Resigned)));
        let look = read(&look(&client, DestroyReason::Evicted));
        assert!(
            matches!(look, Some(Message::ProbeRequest(of, DestroyReason::Evicted)) if of == client)
        );
        let Some(Message::Happened(announcements)) = read(&cleanup(70_000, &node)) else {
            panic!("a cleanup")
        };
        let SessionEvent::Cleanup(cleanup) = &announcements[0].event.event else {
            panic!("a cleanup")
        };
        assert_eq!((cleanup.cleared, &cleanup.node), (70_000, &node));
    }

    #[test]
    fn every_reason_has_a_code_of_its_own() {
        for (at, known) in REASONS.iter().enumerate() {
            assert_eq!(usize::from(code(*known)), at);
            assert_eq!(reason(code(*known)), *known);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(
            kind in "[A-Z]", rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            read(&[kind.as_bytes(), &rest].concat());
        }
    }
}
