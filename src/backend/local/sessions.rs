//! The changes of a client's session. Each locks the client, does the store's work, moves the
//! mapping and publishes the event, in this order and before the next one begins.

mod changes;

use super::clients::{Mapped, SlotRef, Slots};
use super::codec::{self, Decoded};
use super::publisher::Publisher;
use crate::backend::deadlines::Deadlines;
use crate::backend::{BackendConfig, Loaded};
use crate::error::{Error, Result};
use crate::session::{ClientId, DestroyReason, Generation, Record, SessionId};
use crate::store::{SessionStore, StoredSession, now_ms};

#[derive(Debug)]
pub(super) struct Sessions<S> {
    pub(super) store: S,
    pub(super) config: BackendConfig,
    pub(super) slots: Slots,
    pub(super) deadlines: Deadlines,
    pub(super) publisher: Publisher,
}

impl<S: SessionStore> Sessions<S> {
    pub(super) fn new(store: S, config: BackendConfig) -> Self {
        let publisher = Publisher::new(config.node.clone(), config.event_capacity);
        Self { store, config, slots: Slots::default(), deadlines: Deadlines::default(), publisher }
    }

    // ---- reading -------------------------------------------------------------------------

    pub(super) async fn read(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.store.get(id).await.map_err(|e| Error::store("reading a session failed", e))
    }

    /// An attached, live session, without locking its client.
    pub(super) async fn peek(&self, id: &SessionId) -> Result<Option<Record>> {
        if self.slots.owner(id).is_none() {
            return Ok(None);
        }
        let Some(stored) = self.read(id).await? else { return Ok(None) };
        // Looked up after the read: a session that was rotated or ended meanwhile is not served
        // under its old id.
        let Some((client, generation)) = self.slots.owner(id) else { return Ok(None) };
        Ok(match codec::decode(id, &client, generation, &stored, now_ms()) {
            Decoded::Live(record) => Some(record),
            Decoded::Expired | Decoded::Corrupt(_) => None,
        })
    }

    /// Reads the slot's session; one that turns out to have ended is ended here.
    pub(super) async fn current(&self, slot: &SlotRef<'_>) -> Result<Option<Record>> {
        let Some(current) = slot.current() else { return Ok(None) };
        let id = current.session_id;
        let Some(stored) = self.read(&id).await? else {
            self.end(slot, DestroyReason::External);
            return Ok(None);
        };
        if stored.client_id.is_some_and(|owner| owner != slot.client) {
            self.end(slot, DestroyReason::External);
            return Ok(None);
        }
        match codec::decode(&id, &slot.client, current.generation, &stored, now_ms()) {
            Decoded::Live(record) => {
                self.map(slot, &record);
                Ok(Some(record))
            }
            Decoded::Expired => {
                self.remove(&id).await?;
                self.end(slot, DestroyReason::Expired);
                Ok(None)
            }
            Decoded::Corrupt(error) => {
                self.drop_corrupt(&id, &error).await?;
                self.end(slot, DestroyReason::Corrupt);
                Ok(None)
            }
        }
    }

    /// The client's session, attached if only the store knows of it yet.
    async fn current_or_stored(&self, slot: &SlotRef<'_>) -> Result<Option<Record>> {
        if let Some(record) = self.current(slot).await? {
            return Ok(Some(record));
        }
        let found = self.store.find_by_client(&slot.client).await;
        match found.map_err(|e| Error::store("looking for a client's session failed", e))? {
            Some(id) => self.attach(slot, &id).await,
            None => Ok(None),
        }
    }

    pub(super) async fn live_record(&self, client: ClientId) -> Result<Option<Record>> {
        let slot = self.slots.slot(&client);
        let _op = slot.op.lock().await;
        self.current_or_stored(&slot).await
    }

    pub(super) async fn load(&self, ids: &[SessionId], hint: Option<ClientId>) -> Result<Loaded> {
        let mut superseded = false;
        for id in ids {
            match self.led_to(id, hint).await? {
                Some(record) if record.opens_by(id) => return Ok(Loaded::Found(record)),
                Some(record) => superseded |= record.had(id),
                None => {}
            }
        }
        Ok(Loaded::Missing { superseded })
    }

    /// The live session of the client that an id leads to: the id may be an earlier one.
    async fn led_to(&self, id: &SessionId, hint: Option<ClientId>) -> Result<Option<Record>> {
        let (owner, stored) = match self.slots.client_of(id) {
            Some(owner) => (Some(owner), true),
            None => match self.read(id).await? {
                Some(stored) => (stored.client_id.or(hint), true),
                // Perhaps an earlier id of a session that only the store knows of yet.
                None => (hint, false),
            },
        };
        let Some(owner) = owner else { return Ok(None) };
        let slot = self.slots.slot(&owner);
        let _op = slot.op.lock().await;
        let current = slot.current();
        if !stored || current.is_some_and(|current| current.session_id == *id) {
            return self.current_or_stored(&slot).await;
        }
        self.attach(&slot, id).await
    }

    // ---- attaching -----------------------------------------------------------------------

    /// Makes a stored session its client's current one, unless the client has a newer one. The
    /// result is the client's session then.
    ///
    /// Two records of one client are what a process leaves that dies between writing a session's
    /// new record and removing the old one.
    async fn attach(&self, slot: &SlotRef<'_>, id: &SessionId) -> Result<Option<Record>> {
        let Some(offered) = self.stored_record(slot, id).await? else {
            return self.current(slot).await;
        };
        let mut rival = self.current(slot).await?;
        if rival.is_none() {
            let found = self.store.find_by_client(&slot.client).await;
            let found = found.map_err(|e| Error::store("looking for a client's session failed", e));
            if let Some(other) = found?.filter(|other| other != id) {
                rival = self.stored_record(slot, &other).await?;
            }
        }
        let winner = match rival {
            Some(rival) if newer(&rival, &offered) => {
                self.remove(id).await?;
                rival
            }
            Some(rival) => {
                self.remove(&rival.session_id).await?;
                offered
            }
            None => offered,
        };
        let before = slot.current();
        if before.as_ref().is_none_or(|before| before.session_id != winner.session_id) {
            if before.is_some_and(|before| before.generation != winner.generation) {
                self.end(slot, DestroyReason::Replaced);
            }
            self.map(slot, &winner);
            self.publisher.seen(&winner, false, true);
        }
        Ok(Some(winner))
    }

    /// A live record in the store that may be this client's. Dead ones are removed.
    async fn stored_record(&self, slot: &SlotRef<'_>, id: &SessionId) -> Result<Option<Record>> {
        let Some(stored) = self.read(id).await? else { return Ok(None) };
        if stored.client_id.is_some_and(|owner| owner != slot.client) {
            return Ok(None);
        }
        match codec::decode(id, &slot.client, Generation::random(), &stored, now_ms()) {
            Decoded::Live(record) => Ok(Some(record)),
            Decoded::Expired => {
                self.remove(id).await?;
                Ok(None)
            }
            Decoded::Corrupt(error) => {
                self.drop_corrupt(id, &error).await?;
                Ok(None)
            }
        }
    }

    // ---- writing -------------------------------------------------------------------------

    async fn write(&self, record: &Record) -> Result<()> {
        let stored = codec::encode(record, self.config.max_payload, now_ms())?;
        let written = self.store.set(&record.session_id, stored).await;
        written.map(|_| ()).map_err(|e| Error::store("writing a session failed", e))
    }

    pub(super) async fn remove(&self, id: &SessionId) -> Result<()> {
        let removed = self.store.destroy(id).await;
        removed.map(|_| ()).map_err(|e| Error::store("removing a session failed", e))
    }

    /// Removes a record that is already superseded: a failure leaves one that loses against the
    /// newer one whenever its id is presented, and that expires.
    async fn remove_late(&self, id: &SessionId) {
        if let Err(error) = self.remove(id).await {
            tracing::warn!(%error, "a superseded session stays in the store until it expires");
        }
    }

    async fn drop_corrupt(&self, id: &SessionId, error: &Error) -> Result<()> {
        tracing::warn!(session = ?id, %error, "a stored session is unreadable and ends");
        self.remove(id).await
    }

    // ---- mapping and events -------------------------------------------------------------

    fn map(&self, slot: &SlotRef<'_>, record: &Record) {
        if let Some(change) = self.slots.map(slot, record) {
            if let Some(stale) = change.stale {
                self.deadlines.remove(stale, slot.client);
            }
            self.deadlines.push(change.at, slot.client);
        }
    }

    /// Unmaps the client's session, with its deadline.
    fn unmap(&self, slot: &SlotRef<'_>) -> Option<Mapped> {
        let (ended, queued) = self.slots.unmap(slot)?;
        if let Some(at) = queued {
            self.deadlines.remove(at, slot.client);
        }
        Some(ended)
    }

    /// Unmaps the client's session and publishes its end.
    pub(super) fn end(&self, slot: &SlotRef<'_>, reason: DestroyReason) {
        if let Some(ended) = self.unmap(slot) {
            self.publisher.end(slot.client, ended.session_id, Some(ended.generation), reason);
        }
    }
}

/// Whether `a` is the later state of one session, or the later session of one client.
fn newer(a: &Record, b: &Record) -> bool {
    if a.had(&b.session_id) || b.had(&a.session_id) {
        return a.had(&b.session_id);
    }
    if a.generation == b.generation { a.version > b.version } else { a.age < b.age }
}
