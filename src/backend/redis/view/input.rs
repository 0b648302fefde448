//! What goes into the view, and what comes out.

use std::time::Duration;

use super::probes::ProbeOutcome;
use super::step::Step;
use crate::backend::BackendEvent;
use crate::backend::redis::pubsub::message::Announcement;
use crate::session::{ClientId, DestroyReason, Record, SessionId};

/// What the view is notified of.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A node announced something, this one included.
    Announced(Announcement),
    /// A record was read, or is what a write left.
    Read(&'a Record),
    /// A read of this client found no record.
    Missing(ClientId),
    /// A socket of this client comes, and reads its session next.
    Watched(ClientId),
    /// What it found, and when the read was sent.
    FirstRead(ClientId, Option<&'a Record>, Step),
    /// A socket left, or did not come.
    Unwatched(ClientId),
    /// Redis itself says that something happened to a client's record.
    KeyspaceEvent(ClientId, DestroyReason),
    /// Another node found a session gone that it can't name.
    ProbeRequested(ClientId, DestroyReason),
    /// A client that was due was probed.
    Probed(ClientId, ProbeOutcome),
    /// It could not be probed, and will be after this.
    ProbeFailed(ClientId, Duration),
    /// Announcements may have been lost.
    Gap,
    /// All clients are to be compared.
    CompareAll,
    /// A client that differs from Redis was read again.
    Compared(Comparison<'a>),
}

/// A client's record, read to compare it with what is known.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) client: ClientId,
    /// When the read was sent.
    pub(crate) since: Step,
    pub(crate) record: Option<&'a Record>,
    /// The session whose end was announced by the probe that came with the read.
    pub(crate) announced: Option<SessionId>,
}

/// What to do.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    /// Events to emit, in this order, before those of any later input.
    pub(crate) emit: Vec<BackendEvent>,
    /// Whether there may be something to probe earlier than before: see [`View::next_probe`](super::View::next_probe).
    pub(crate) probe: bool,
    /// Whether there is something to compare: see [`View::take_suspects`](super::View::take_suspects).
    pub(crate) reconcile: bool,
    /// Whether the first deadline comes earlier than before: see [`View::next_deadline`](super::View::next_deadline).
    pub(crate) timer: bool,
}
