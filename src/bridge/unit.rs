//! A request's view of its session, and how it becomes everybody's.

use std::time::Duration;

use tokio::time::Instant;

use super::core::SessionBridge;
use super::leased::Held;
use super::options::OnConflict;
use crate::backend::{Commit, Committed, Create, Created, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Changes, ClientId, MaxAge, Record, SessionData};

/// A session as one request sees it: what was loaded, and what the request made of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unit {
    /// What is stored as far as the request knows.
    pub(crate) base: Option<Record>,
    /// The data with the request's changes.
    pub(crate) data: SessionData,
    /// The max age that the request sets.
    pub(crate) max_age: Option<MaxAge>,
    /// The request wants a new id.
    pub(crate) rotate: bool,
    /// The request ends what was loaded; `data` is then a new session's.
    pub(crate) destroy: bool,
    /// The request wants a write whether or not something changed.
    pub(crate) save: bool,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Nothing, for nothing changed.
    Unchanged,
    /// The session is stored; its cookie is to be sent if `own`. A session that somebody else
    /// gave a new id meanwhile keeps that id to whoever asked for it.
    Stored { record: Record, own: bool },
    /// The session is gone; its cookie is to be cleared.
    Gone,
}

impl Unit {
    pub(crate) fn new(base: Option<Record>) -> Self {
        let data = base.as_ref().map(|record| record.data.clone()).unwrap_or_default();
        Self { base, data, ..Self::default() }
    }

    fn loaded_data(&self) -> SessionData {
        match &self.base {
            Some(base) if !self.destroy => base.data.clone(),
            _ => SessionData::new(),
        }
    }

    /// What the request changed.
    fn changes(&self) -> Changes {
        self.loaded_data().changes_to(&self.data)
    }

    fn max_age(&self) -> MaxAge {
        let loaded = self.base.as_ref().filter(|_| !self.destroy).map(|base| base.max_age);
        self.max_age.or(loaded).unwrap_or_default()
    }
}

impl SessionBridge {
    /// Makes a unit's changes everybody's. `since` is how long ago the request began.
    pub(crate) async fn commit_unit(
        &self,
        client: ClientId,
        unit: &Unit,
        since: Duration,
    ) -> Result<Outcome> {
        self.commit_held(client, unit, since, None).await
    }

    /// [`commit_unit`](Self::commit_unit) under a lease, which a write gives back.
    pub(super) async fn commit_held(
        &self,
        client: ClientId,
        unit: &Unit,
        since: Duration,
        lease: Option<&Held<'_>>,
    ) -> Result<Outcome> {
        let mut gone = false;
        let base = match &unit.base {
            Some(base) if unit.destroy => {
                let target = Target::Generation(client, base.generation);
                self.backend().destroy(target).await?;
                gone = true;
                None
            }
            base => base.as_ref(),
        };
        let Some(base) = base else {
            if unit.data.is_empty() {
                return Ok(if gone { Outcome::Gone } else { Outcome::Unchanged });
            }
            // What was destroyed a moment ago in this very request is not there to be joined.
            return self.create_unit(client, unit, since, lease).await;
        };
        let changes = unit.changes();
        if changes.is_empty() && !unit.rotate && unit.max_age() == base.max_age {
            if unit.save || self.options().lifetime.renews(base) {
                return Ok(match self.backend().touch(&client, base.generation).await? {
                    Some(record) => {
                        let own = record.session_id == base.session_id;
                        Outcome::Stored { record, own }
                    }
                    None => Outcome::Gone,
                });
            }
            return Ok(Outcome::Unchanged);
        }
        let record = self.write(base, unit, &changes, lease).await?;
        let own = unit.rotate || record.session_id == base.session_id;
        Ok(Outcome::Stored { record, own })
    }

    async fn create_unit(
        &self,
        client: ClientId,
        unit: &Unit,
        since: Duration,
        lease: Option<&Held<'_>>,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        loop {
            let create = Create {
                client,
                data: unit.data.clone(),
                max_age: unit.max_age(),
                since: since + begun.elapsed(),
            };
            let existing = match self.backend().create(create).await? {
                Created::New(record) => {
                    self.counters().created.add(1);
                    return Ok(Outcome::Stored { record, own: true });
                }
                Created::Exists(existing) => existing,
            };
            // Somebody was first: this request's data joins that session.
            let mut joined = Unit::new(Some(existing.clone()));
            let changes = SessionData::new().changes_to(&unit.data);
            joined.data.apply(&changes);
            joined.max_age = unit.max_age;
            match self.write(&existing, &joined, &changes, lease).await {
                Ok(record) => return Ok(Outcome::Stored { record, own: true }),
                // It ended before we could join: begin again.
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    if begun.elapsed() > self.options().wait_limit {
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
            rotate: unit.rotate,
        };
        let deadline = Instant::now() + self.options().wait_limit;
        loop {
            match self.backend().commit(commit.clone()).await? {
                Committed::Done(record) => {
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
        since: Duration,
        change: impl FnOnce(&mut SessionData) -> R,
    ) -> Result<(R, Unit, Outcome)> {
        let begun = Instant::now();
        let held = Held::acquire(self, client).await?;
        let mut unit = unit.clone();
        let ends = unit.destroy;
        if ends {
            // The session ends first: the update is the new one's.
            let end = Unit { data: SessionData::new(), ..unit.clone() };
            self.commit_unit(client, &end, since).await?;
            unit = Unit { base: None, destroy: false, ..unit };
        } else {
            unit = rebase(unit, held.record(), since + begun.elapsed())?;
        }
        let result = change(&mut unit.data);
        let since = since + begun.elapsed();
        let outcome = match self.commit_held(client, &unit, since, Some(&held)).await? {
            Outcome::Unchanged if ends => Outcome::Gone,
            outcome => outcome,
        };
        Ok((result, unit, outcome))
    }
}

/// The unit's changes on top of the newest record.
fn rebase(unit: Unit, newest: Option<&Record>, since: Duration) -> Result<Unit> {
    let newest = match (&unit.base, newest) {
        (Some(base), Some(newest)) if base.generation == newest.generation => newest,
        (Some(_), _) => return Err(Error::ended()),
        (None, Some(newest)) if Create::joins(newest.age, since) => newest,
        // A session from before this request: without its cookie it stays closed.
        (None, _) => return Ok(unit),
    };
    let mut data = newest.data.clone();
    data.apply(&unit.changes());
    Ok(Unit { base: Some(newest.clone()), data, ..unit })
}
