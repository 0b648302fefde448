//! A request's view of its session and pending changes, and their commit.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::SessionBridge;
use super::options::{OnConflict, Seal};
use super::own_ends;
use super::with_session::Held;
use crate::backend::{Commit, Committed, Create, Created, DestroyTarget, Loaded, NewId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, ClientId, MaxAge, Record, SessionData, SessionId};

/// A session as one request sees it: what was loaded, and what the request made of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unit {
    /// What is stored as far as the request knows.
    pub(crate) base: Option<Record>,
    /// The id that the request came with or was given: the one its cookie has.
    pub(crate) holds: Option<SessionId>,
    /// The request's cookie has an earlier id of a session that lives on under another one.
    pub(crate) superseded: bool,
    /// How old the session was that this one takes over from.
    pub(crate) age: Duration,
    /// The data with the request's changes.
    pub(crate) data: SessionData,
    /// The max age that the request sets.
    pub(crate) max_age: Option<MaxAge>,
    /// The request wants a new id.
    pub(crate) new_id: Option<WantsId>,
    /// The request ends what was loaded; `data` is then a new session's.
    pub(crate) destroy: bool,
    /// The request wants a write whether or not something changed.
    pub(crate) save: bool,
}

/// Why a request wants a new id. The greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WantsId {
    /// The same session under another id.
    Renew,
    /// A sealed session with its data.
    Seal,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Nothing, for nothing changed.
    Unchanged,
    /// The session is stored; its cookie is to be sent if `own`. A session that another request
    /// gave a new id keeps that id to the request that asked for it.
    Stored { record: Record, own: bool },
    /// There is no session any more.
    Gone {
        /// The client from now on.
        client: ClientId,
        /// This request ended it, so its cookie is to be cleared.
        ended: bool,
    },
}

impl Unit {
    /// The view of a request that opened this session with the id `holds`.
    pub(crate) fn new(base: Record, holds: SessionId) -> Self {
        let data = base.data.clone();
        Self { base: Some(base), holds: Some(holds), data, ..Self::default() }
    }

    /// The view of a late request: its cookie opens nothing any more.
    pub(crate) fn superseded() -> Self {
        Self { superseded: true, ..Self::default() }
    }

    fn loaded_data(&self) -> SessionData {
        match &self.base {
            Some(base) if !self.destroy => base.data.clone(),
            _ => SessionData::new(),
        }
    }

    /// The data of the session that begins where the loaded one ends: what was set after it was
    /// destroyed; or, if it was ended by its id, what the request set before or after. The old
    /// one's data is never part of it.
    fn next_data(&self) -> SessionData {
        if self.destroy {
            return self.data.clone();
        }
        let mut data = SessionData::new();
        data.apply(&self.changes());
        data
    }

    /// What the request changed.
    fn changes(&self) -> Changes {
        self.loaded_data().changes_to(&self.data)
    }

    fn max_age(&self) -> MaxAge {
        let loaded = self.base.as_ref().filter(|_| !self.destroy).map(|base| base.max_age);
        self.max_age.or(loaded).unwrap_or_default()
    }

    /// Whether the request wants anything of the session but to read it.
    fn asks(&self) -> bool {
        self.destroy
            || self.save
            || self.new_id.is_some()
            || self.max_age.is_some()
            || !self.data.is_empty()
    }

    fn seals(&self) -> bool {
        self.new_id == Some(WantsId::Seal)
    }

    /// Whether the request may be given the cookie of what was stored: it asked for a new id, or
    /// it holds this very one, or the session is new.
    fn owns(&self, record: &Record) -> bool {
        self.new_id.is_some() || self.holds.is_none_or(|id| id == record.session_id)
    }
}

impl SessionBridge {
    /// Commits a unit. `cookie` is how long the request's cookie still lives, if that is known, and
    /// `may_renew` whether an unchanged session may be renewed.
    pub(crate) async fn commit_unit(
        &self,
        client: ClientId,
        unit: &Unit,
        cookie: Option<Duration>,
        may_renew: bool,
    ) -> Result<Outcome> {
        let Some(base) = &unit.base else { return self.commit_new(client, unit, None).await };
        let ended_here = own_ends::take(base);
        if unit.destroy || ended_here {
            return self.commit_end(client, base, unit, ended_here).await;
        }
        let changes = unit.changes();
        if changes.is_empty() && unit.new_id.is_none() && unit.max_age() == base.max_age {
            let renews = may_renew && self.options().lifetime.renews(base, cookie);
            if !unit.save && !renews {
                return Ok(Outcome::Unchanged);
            }
            return Ok(match self.backend().touch(&client, base.generation).await? {
                Some(record) => Outcome::Stored { own: unit.owns(&record), record },
                None => Outcome::Gone { client, ended: false },
            });
        }
        self.commit_change(client, base, unit, &changes, None).await
    }

    /// Ends what the unit loaded, and begins what it holds now.
    async fn commit_end(
        &self,
        client: ClientId,
        base: &Record,
        unit: &Unit,
        ended_here: bool,
    ) -> Result<Outcome> {
        let target = DestroyTarget::Generation(client, base.generation);
        let ended = ended_here || self.backend().destroy(target).await?;
        if !ended && self.is_superseded(base).await? {
            // Sealed meanwhile: a logout that logs nobody out must not look like one.
            return Err(Error::ended());
        }
        // Sockets and cached pages may still know the client of a sealed session: what begins
        // now is none of theirs, whichever of several requests ended it.
        let client = if base.sealed { ClientId::generate() } else { client };
        let next = Unit {
            data: unit.next_data(),
            max_age: unit.max_age,
            new_id: unit.new_id,
            ..Unit::default()
        };
        match self.commit_new(client, &next, None).await? {
            Outcome::Unchanged => Ok(Outcome::Gone { client, ended }),
            outcome => Ok(outcome),
        }
    }

    /// Creates a session for a unit that loaded none, if it has data.
    async fn commit_new(
        &self,
        client: ClientId,
        unit: &Unit,
        lease: Option<&Held<'_>>,
    ) -> Result<Outcome> {
        // Whoever asks something of a session that lives on under another id is told so; only a
        // login with data of its own can go its own way.
        if unit.superseded && unit.asks() && (!unit.seals() || unit.data.is_empty()) {
            return Err(Error::ended());
        }
        if unit.data.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        self.create_unit(client, unit, unit.age, lease).await
    }

    /// Writes to what the unit loaded.
    async fn commit_change(
        &self,
        client: ClientId,
        base: &Record,
        unit: &Unit,
        changes: &Changes,
        lease: Option<&Held<'_>>,
    ) -> Result<Outcome> {
        match self.write(base, unit, changes, lease).await {
            Ok(record) => Ok(Outcome::Stored { own: unit.owns(&record), record }),
            // Another request sealed it first. This one asked for the same, and whichever answer
            // the browser keeps has to be good: a sealed session of its own.
            Err(error)
                if error.kind() == ErrorKind::SessionEnded
                    && unit.seals()
                    && self.is_superseded(base).await? =>
            {
                self.create_unit(client, unit, base.age, None).await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a session that has ended was sealed, and so lives on under another id.
    async fn is_superseded(&self, base: &Record) -> Result<bool> {
        let ids = [base.session_id];
        let now = self.backend().load(&ids, Some(&base.client_id)).await?;
        Ok(matches!(now, Loaded::Missing { superseded: true }))
    }

    /// Creates the unit's session: for its client, or, if that one has a session that may not be
    /// joined, for a new client.
    async fn create_unit(
        &self,
        mut client: ClientId,
        unit: &Unit,
        age: Duration,
        mut lease: Option<&Held<'_>>,
    ) -> Result<Outcome> {
        let sealed = unit.seals() || self.options().seal == Seal::FromStart;
        let begun = Instant::now();
        loop {
            let create = Create {
                client,
                data: unit.data.clone(),
                max_age: unit.max_age(),
                sealed,
                join: if sealed { Duration::ZERO } else { self.options().join_window },
                age,
            };
            let existing = match self.backend().create(create).await? {
                Created::New(record) => {
                    self.counters().created.add(1);
                    return Ok(Outcome::Stored { record, own: true });
                }
                Created::Exists(existing) => existing,
                Created::Occupied => {
                    self.counters().own_ways.add(1);
                    client = ClientId::generate();
                    lease = None;
                    continue;
                }
            };
            // Another request was first, and this one's data joins that session.
            let mut joined = Unit::new(existing.clone(), existing.session_id);
            let changes = SessionData::new().changes_to(&unit.data);
            joined.data.apply(&changes);
            joined.max_age = unit.max_age;
            match self.write(&existing, &joined, &changes, lease).await {
                Ok(record) => return Ok(Outcome::Stored { record, own: true }),
                // It ended, or was sealed, before this one could join: begin again.
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    if begun.elapsed() > self.options().acquire_timeout {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commits until it fits.
    pub(super) async fn write(
        &self,
        base: &Record,
        unit: &Unit,
        changes: &Changes,
        lease: Option<&Held<'_>>,
    ) -> Result<Record> {
        let overwrite = self.options().on_conflict == OnConflict::Overwrite;
        let mut commit = Commit {
            client: base.client_id,
            generation: base.generation,
            version: (!overwrite).then_some(base.version),
            data: unit.data.clone(),
            max_age: unit.max_age(),
            lease: lease.map(Held::lease),
            release: lease.is_some(),
            new_id: unit.new_id.map(|wants| match wants {
                WantsId::Renew => NewId::Renew { from: unit.holds.unwrap_or(base.session_id) },
                WantsId::Seal => NewId::Seal,
            }),
        };
        let deadline = Instant::now() + self.options().acquire_timeout;
        loop {
            match self.backend().commit(commit.clone()).await? {
                Committed::Written(record) => {
                    self.counters().commits.add(1);
                    if let Some(held) = lease {
                        held.released();
                    }
                    return Ok(record);
                }
                Committed::Ended => return Err(Error::ended()),
                Committed::LeaseLost => return Err(Error::lease_lost()),
                Committed::Conflict(newest) => {
                    self.counters().conflicts.add(1);
                    if self.options().on_conflict == OnConflict::Error {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            "load it again and repeat the change",
                        ));
                    }
                    if Instant::now() >= deadline {
                        return Err(Error::new(
                            ErrorKind::Conflict,
                            "other writers were always faster; use `update` for busy sessions",
                        ));
                    }
                    commit.version = Some(newest.version);
                    commit.data = newest.data;
                    commit.data.apply(changes);
                    commit.max_age = unit.max_age.unwrap_or(newest.max_age);
                }
            }
        }
    }

    /// Reads, changes and writes a unit's session under the lease. Returns the unit as it was
    /// written, too.
    pub(crate) async fn update_unit<R>(
        &self,
        client: ClientId,
        unit: &Unit,
        change: impl FnOnce(&mut SessionData) -> R,
    ) -> Result<(R, Unit, Outcome)> {
        let mut unit = unit.clone();
        if unit.superseded && !unit.seals() {
            return Err(Error::ended());
        }
        let ended_here = unit.base.as_ref().is_some_and(own_ends::take);
        if unit.destroy || ended_here {
            unit.data = unit.next_data();
        }
        if let Some(base) = unit.base.take_if(|_| unit.destroy || ended_here) {
            // The session ends first: the update is the new one's.
            let end = Unit { destroy: true, ..Unit::default() };
            let outcome = self.commit_end(client, &base, &end, ended_here).await?;
            let next = match &outcome {
                Outcome::Gone { client, .. } => *client,
                _ => client,
            };
            unit = Unit { destroy: false, holds: None, ..unit };
            let result = change(&mut unit.data);
            return Ok(match self.commit_new(next, &unit, None).await? {
                Outcome::Unchanged => (result, unit, outcome),
                created => (result, unit, created),
            });
        }
        let held = Held::acquire(self, client).await?;
        let mut unit = self.rebase(unit, held.record()).await?;
        let result = change(&mut unit.data);
        let outcome = match &unit.base {
            None => self.commit_new(client, &unit, Some(&held)).await?,
            Some(base) => {
                let changes = unit.changes();
                if changes.is_empty() && unit.new_id.is_none() && unit.max_age() == base.max_age {
                    Outcome::Unchanged
                } else {
                    self.commit_change(client, base, &unit, &changes, Some(&held)).await?
                }
            }
        };
        Ok((result, unit, outcome))
    }

    /// The unit's changes on top of the newest record.
    async fn rebase(&self, unit: Unit, newest: Option<&Record>) -> Result<Unit> {
        let seals = unit.seals() || self.options().seal == Seal::FromStart;
        let newest = match (&unit.base, newest) {
            (Some(base), Some(newest)) if base.generation == newest.generation => newest,
            (Some(base), _) => {
                if unit.seals() && self.is_superseded(base).await? {
                    let age = base.age;
                    return Ok(Unit { base: None, holds: None, superseded: true, age, ..unit });
                }
                return Err(Error::ended());
            }
            (None, Some(newest)) if !seals && newest.is_joinable(self.options().join_window) => {
                newest
            }
            // A session that is not this request's: without its cookie it stays closed.
            (None, _) => return Ok(unit),
        };
        let mut data = newest.data.clone();
        data.apply(&unit.changes());
        Ok(Unit { base: Some(newest.clone()), data, ..unit })
    }
}
