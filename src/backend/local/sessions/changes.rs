//! What callers do to sessions.

use std::time::Duration;

use super::Sessions;
use crate::backend::local::codec::millis;
use crate::backend::{Commit, Committed, Create, Created, DestroyTarget, NewId};
use crate::error::{Error, Result};
use crate::session::{ClientId, DestroyReason, Generation, Record, SessionId, Stamp};
use crate::store::{SessionStore, now_ms};

impl<S: SessionStore> Sessions<S> {
    pub(in crate::backend::local) async fn create(&self, create: Create) -> Result<Created> {
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
            stamp: Stamp::default(),
        };
        self.write(&record).await?;
        self.map(&slot, &record);
        self.publisher.set(&record, true, None);
        Ok(Created::New(record))
    }

    pub(in crate::backend::local) async fn commit(&self, commit: Commit) -> Result<Committed> {
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
            self.publisher.sealed(&record, old_id, old_generation);
        }
        self.publisher.set(&record, false, new_id.map(|_| old_id));
        if let Some(lease) = commit.lease.filter(|_| commit.release) {
            slot.lease.release(lease, self.config.lease_duration);
        }
        Ok(Committed::Written(record))
    }

    pub(in crate::backend::local) async fn touch(
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

    pub(in crate::backend::local) async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
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
        self.unmap(&slot);
        self.publisher.end(
            client,
            record.session_id,
            Some(record.generation),
            DestroyReason::Destroyed,
        );
        if let DestroyTarget::Leased(_, _, lease) = target {
            slot.lease.release(lease, self.config.lease_duration);
        }
        Ok(true)
    }
}
