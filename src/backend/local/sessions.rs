//! The changes of a client's session. Each locks the client, does the store's work, moves the
//! mapping and publishes the event, in this order and before the next one begins.

use std::time::Duration;

use tokio::sync::broadcast;

use super::clients::{SlotRef, Slots};
use super::codec::{self, Decoded, millis};
use crate::backend::deadlines::Deadlines;
use crate::backend::{
    BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget, Loaded, NewId,
};
use crate::error::{Error, Result};
use crate::session::{
    Cleanup, ClientId, DestroyReason, Generation, Record, SessionDestroy, SessionEvent, SessionId,
    SessionSet,
};
use crate::store::{SessionStore, StoredSession, now_ms};

#[derive(Debug)]
pub(super) struct Sessions<S> {
    pub(super) store: S,
    pub(super) config: BackendConfig,
    pub(super) slots: Slots,
    pub(super) deadlines: Deadlines,
    pub(super) events: broadcast::Sender<BackendEvent>,
}

impl<S: SessionStore> Sessions<S> {
    pub(super) fn new(store: S, config: BackendConfig) -> Self {
        let (events, _) = broadcast::channel(config.event_capacity);
        Self { store, config, slots: Slots::default(), deadlines: Deadlines::default(), events }
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
            self.publish_seen(&winner, false, true);
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

    pub(super) async fn create(&self, create: Create) -> Result<Created> {
        let slot = self.slots.slot(&create.client);
        let _op = slot.op.lock().await;
        let mode = create.max_age.validate()?;
        if let Some(existing) = self.current_or_stored(&slot).await? {
            return Ok(match create.joins(&existing) {
                true => Created::Exists(existing),
                false => Created::Occupied,
            });
        }
        let ttl = self.config.lifetime.ttl(mode, create.sealed, create.age);
        if ttl.is_zero() {
            return Err(Error::ended());
        }
        let record = Record {
            session_id: SessionId::generate(),
            client_id: create.client,
            generation: Generation::random(),
            sealed: create.sealed,
            previous: Vec::new(),
            version: 1,
            data: create.data,
            max_age: create.max_age,
            age: create.age,
            ttl,
            remaining: ttl,
        };
        self.write(&record).await?;
        self.map(&slot, &record);
        self.publish_set(&record, true, None);
        Ok(Created::New(record))
    }

    pub(super) async fn commit(&self, commit: Commit) -> Result<Committed> {
        let slot = self.slots.slot(&commit.client);
        let _op = slot.op.lock().await;
        let Some(old) = self.current(&slot).await? else { return Ok(Committed::Ended) };
        if old.generation != commit.generation {
            return Ok(Committed::Ended);
        }
        if commit.lease.is_some_and(|lease| !slot.lease.owns(lease)) {
            return Ok(Committed::LeaseLost);
        }
        if commit.version.is_some_and(|version| version != old.version) {
            return Ok(Committed::Conflict(old));
        }
        let new_id = commit.new_id.filter(|new_id| match new_id {
            NewId::Renew { from } => old.session_id == *from,
            NewId::Seal => true,
        });
        let seals = new_id == Some(NewId::Seal);
        let sealed = old.sealed || seals;
        let ttl = self.config.lifetime.ttl(commit.max_age.validate()?, sealed, old.age);
        if ttl.is_zero() {
            self.remove(&old.session_id).await?;
            self.end(&slot, DestroyReason::Expired);
            return Ok(Committed::Ended);
        }
        let overlap = if seals { Duration::ZERO } else { self.config.renew_overlap };
        let (session_id, previous) = match new_id {
            Some(_) => (SessionId::generate(), old.previous_after(overlap)),
            None => (old.session_id, old.previous),
        };
        let (old_id, old_generation) = (old.session_id, old.generation);
        let record = Record {
            session_id,
            generation: if seals { Generation::random() } else { old_generation },
            sealed,
            previous,
            version: old.version.wrapping_add(1),
            data: commit.data,
            max_age: commit.max_age,
            ttl,
            remaining: ttl,
            ..old
        };
        // The new record first: a crash in between leaves two, and the newer one wins.
        self.write(&record).await?;
        if new_id.is_some() {
            self.remove_late(&old_id).await;
        }
        self.map(&slot, &record);
        if seals {
            self.publish_sealed(&record, old_id, old_generation);
        }
        self.publish_set(&record, false, new_id.map(|_| old_id));
        if let Some(lease) = commit.lease.filter(|_| commit.release) {
            slot.lease.release(lease, self.config.lease_duration);
        }
        Ok(Committed::Written(record))
    }

    pub(super) async fn touch(
        &self,
        client: ClientId,
        generation: Generation,
    ) -> Result<Option<Record>> {
        let slot = self.slots.slot(&client);
        let _op = slot.op.lock().await;
        let Some(mut record) = self.current(&slot).await? else { return Ok(None) };
        if record.generation != generation {
            return Ok(None);
        }
        let ttl = self.config.lifetime.ttl(record.max_age, record.sealed, record.age);
        record.ttl = ttl;
        record.remaining = ttl;
        let expires_at = now_ms().saturating_add(millis(ttl));
        let touched = self.store.touch(&record.session_id, expires_at, millis(ttl)).await;
        if !touched.map_err(|e| Error::store("renewing a session failed", e))? {
            self.end(&slot, DestroyReason::External);
            return Ok(None);
        }
        self.map(&slot, &record);
        Ok(Some(record))
    }

    pub(super) async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        let client = match target {
            DestroyTarget::Client(client)
            | DestroyTarget::Generation(client, _)
            | DestroyTarget::Leased(client, ..) => client,
            DestroyTarget::Session(id) => match self.slots.client_of(&id) {
                Some(client) => client,
                None => match self.read(&id).await?.and_then(|stored| stored.client_id) {
                    Some(client) => client,
                    None => return Ok(false),
                },
            },
        };
        let slot = self.slots.slot(&client);
        let _op = slot.op.lock().await;
        if let DestroyTarget::Leased(_, _, lease) = target
            && !slot.lease.owns(lease)
        {
            return Err(Error::lease_lost());
        }
        let found = match self.current(&slot).await? {
            Some(record) => Some(record),
            // Ending needs no attaching first, which would publish the begin of a session.
            None => match target {
                DestroyTarget::Session(id) => self.stored_record(&slot, &id).await?,
                DestroyTarget::Client(_)
                | DestroyTarget::Generation(..)
                | DestroyTarget::Leased(..) => {
                    let found = self.store.find_by_client(&client).await;
                    match found.map_err(|e| Error::store("looking for a session failed", e))? {
                        Some(id) => self.stored_record(&slot, &id).await?,
                        None => None,
                    }
                }
            },
        };
        let Some(record) = found.filter(|record| match target {
            DestroyTarget::Client(_) => true,
            DestroyTarget::Generation(_, generation) | DestroyTarget::Leased(_, generation, _) => {
                record.generation == generation
            }
            DestroyTarget::Session(id) => record.opens_by(&id),
        }) else {
            return Ok(false);
        };
        self.remove(&record.session_id).await?;
        self.slots.unmap(&slot);
        self.publish_end(
            client,
            record.session_id,
            Some(record.generation),
            DestroyReason::Destroyed,
        );
        Ok(true)
    }

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
        if let Some(deadline) = self.slots.map(slot, record) {
            self.deadlines.push(deadline, slot.client);
        }
    }

    /// Unmaps the client's session and publishes its end.
    pub(super) fn end(&self, slot: &SlotRef<'_>, reason: DestroyReason) {
        if let Some(ended) = self.slots.unmap(slot) {
            self.publish_end(slot.client, ended.session_id, Some(ended.generation), reason);
        }
    }

    fn publish(&self, event: BackendEvent) {
        // An error says that there is no subscriber.
        let _ = self.events.send(event);
    }

    fn publish_state(&self, event: SessionSet, record: &Record, version: Option<u64>) {
        self.publish(BackendEvent {
            generation: Some(record.generation),
            version,
            sealed: record.sealed,
            ..BackendEvent::plain(SessionEvent::Set(event))
        });
    }

    /// Publishes what is no new version: a first use, or a notice.
    pub(super) fn publish_seen(&self, record: &Record, is_new: bool, is_init: bool) {
        let node = self.config.node.clone();
        let event = SessionSet::new(record.client_id, record.session_id, is_new, is_init, node);
        self.publish_state(event, record, None);
    }

    /// Publishes a change.
    fn publish_set(&self, record: &Record, is_new: bool, previous: Option<SessionId>) {
        let node = self.config.node.clone();
        let begins = is_new || previous.is_some();
        let mut event = SessionSet::new(record.client_id, record.session_id, is_new, begins, node);
        event.previous_id = previous;
        self.publish_state(event, record, Some(record.version));
    }

    /// Publishes the end of what this sealed session was before.
    fn publish_sealed(&self, record: &Record, id: SessionId, generation: Generation) {
        let node = self.config.node.clone();
        let end = SessionDestroy::new(record.client_id, id, DestroyReason::Sealed, node);
        let event = BackendEvent::end(end, Some(generation));
        self.publish(BackendEvent { successor: Some(record.generation), ..event });
    }

    pub(super) fn publish_end(
        &self,
        client: ClientId,
        id: SessionId,
        generation: Option<Generation>,
        reason: DestroyReason,
    ) {
        let event = SessionDestroy::new(client, id, reason, self.config.node.clone());
        self.publish(BackendEvent::end(event, generation));
    }

    pub(super) fn publish_cleanup(&self, cleared: u64) {
        let event = Cleanup::new(cleared, self.config.node.clone());
        self.publish(BackendEvent::plain(SessionEvent::Cleanup(event)));
    }
}

/// Whether `a` is the later state of one session, or the later session of one client.
fn newer(a: &Record, b: &Record) -> bool {
    if a.had(&b.session_id) || b.had(&a.session_id) {
        return a.had(&b.session_id);
    }
    if a.generation == b.generation { a.version > b.version } else { a.age < b.age }
}
