//! Following a client while one of its connections attaches.

use std::sync::Arc;

use super::attach::{self, AttachmentGuard};
use super::attachment::Attachment;
use super::core::Core;
use crate::error::Result;
use crate::session::{ClientId, Generation, Record, SessionId};

/// A client that is watched, with its session as it was then: no change falls in between. The watch
/// ends with this, unless an attachment takes it over.
pub(crate) struct Watch<'a> {
    core: &'a Arc<Core>,
    client: ClientId,
    record: Option<Record>,
    ends: bool,
}

impl<'a> Watch<'a> {
    pub(super) async fn begin(core: &'a Arc<Core>, client: ClientId) -> Result<Self> {
        core.counters.loads.add(1);
        let record = core.backend.watch(&client).await?;
        Ok(Self { core, client, record, ends: true })
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn opens_by(&self, session: &SessionId) -> bool {
        self.record.as_ref().is_some_and(|record| record.opens_by(session))
    }

    pub(crate) fn session(&self) -> Option<(Generation, SessionId)> {
        self.record.as_ref().map(|record| (record.generation, record.session_id))
    }

    /// Attaches a connection of this client, and leaves the watch to it. `None`: the session that it
    /// was to begin with has ended.
    pub(crate) fn attach(mut self, attachment: Attachment) -> Option<AttachmentGuard> {
        self.ends = false;
        attach::attach_socket(self.core, attachment)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.ends {
            self.core.backend.unwatch(&self.client);
        }
    }
}
