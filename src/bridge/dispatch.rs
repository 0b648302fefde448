//! The task that takes the backend's events, in order.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior};

use super::attach;
use super::core::Core;
use super::delivery;
use super::events::Lagged;
use super::reconcile;
use crate::backend::BackendEvent;
use crate::session::Generation;

/// How often sockets that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Brings each event to sockets and listeners, in order, until the backend or the bridge is gone.
pub(super) async fn dispatch_loop(core: Weak<Core>, mut source: broadcast::Receiver<BackendEvent>) {
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recovery = LagRecovery::default();
    loop {
        tokio::select! {
            biased;
            item = source.recv() => {
                let Some(core) = core.upgrade() else { return };
                match item {
                    Ok(event) => {
                        if !recovery.has_published(&event) {
                            delivery::fan_out(&core, event);
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        publish_lag(&core, missed);
                        recovery.left = Some(source.len());
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                }
                if recovery.is_due() {
                    recovery.found = reconcile::reconcile_sockets(&core);
                }
            }
            _ = sweep.tick() => {
                let Some(core) = core.upgrade() else { return };
                attach::detach_closed_sockets(&core);
            }
        }
    }
}

/// Listeners get a gap of their own.
fn publish_lag(core: &Arc<Core>, missed: u64) {
    core.counters.events_missed.add(missed);
    tracing::warn!(missed, "the bridge fell behind its backend; comparing sockets");
    core.events.publish(Err(Lagged(missed)));
}

/// Events that were lost on the way here. What is still in the buffer is dispatched first:
/// comparing before that would find ends whose events are about to come.
#[derive(Default)]
struct LagRecovery {
    /// How many events come before the comparison.
    left: Option<usize>,
    /// Ends that the comparison found and published. The events of some may still come: the
    /// backend is ahead of what it has published.
    found: HashSet<Generation>,
}

impl LagRecovery {
    fn has_published(&mut self, event: &BackendEvent) -> bool {
        event.destroy_reason().is_some()
            && event.generation.is_some_and(|generation| self.found.remove(&generation))
    }

    /// Counts an event; whether it was the last before the comparison. A buffer that overflowed
    /// is never empty, so there is one.
    fn is_due(&mut self) -> bool {
        match self.left {
            Some(left) if left > 1 => {
                self.left = Some(left - 1);
                false
            }
            Some(_) => {
                self.left = None;
                true
            }
            None => false,
        }
    }
}
