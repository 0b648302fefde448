//! Ends the sessions of this node's own sockets in time.
//!
//! Redis drops a record whose time is over when a command touches it, or much later. So each node
//! probes the sessions of its sockets at their very end; one of all nodes sweeps the rest.

use std::sync::Arc;
use std::time::Duration;

use super::probe::{BATCH, ProbeOutcome, clean, probe_all};
use crate::backend::redis::context::Context;
use crate::backend::redis::view::Input;
use crate::session::{ClientId, DestroyReason};

/// Sessions that could not be probed are probed again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Timer {
    context: Arc<Context>,
}

impl Timer {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Ends sessions until the task is dropped.
    pub(crate) async fn run(self) {
        loop {
            let due = self.context.view.due(BATCH).await;
            self.end(&due).await;
        }
    }

    async fn end(&self, due: &[ClientId]) {
        let Self { context } = self;
        let probed = match probe_all(context, due.iter().copied(), DestroyReason::Expired).await {
            Ok(probed) => probed,
            Err(error) => {
                tracing::debug!(%error, "sessions could not be probed and will be again");
                context.view.apply_all(due.iter().map(|client| Input::ProbeFailed(*client, AGAIN)));
                return;
            }
        };
        let results = probed.iter().map(|(client, outcome)| Input::Probed(*client, *outcome));
        context.view.apply_all(results);
        let expired = |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::Expired(_));
        let over: Vec<_> = probed.into_iter().filter(|(_, outcome)| expired(outcome)).collect();
        if let Err(error) = clean(context, &over).await {
            tracing::debug!(%error, "ended sessions were not tidied up; the sweep will do it");
        }
    }
}
