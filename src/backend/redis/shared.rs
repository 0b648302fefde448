//! The operations, each one script.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::prelude::*;
use fred::types::sorted_sets::Ordering as ScoreOrdering;
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;

use super::announce;
use super::keys::Keys;
use super::scripts::{Reply, Scripts, failed, mode_text};
use super::watched::WatchedClients;
use crate::backend::lease::LeaseQueue;
use crate::backend::{
    BackendConfig, BackendEvent, Commit, Committed, Create, Created, LeaseToken, Loaded, Target,
};
use crate::error::Result;
use crate::session::{
    ClientId, DestroyReason, Generation, MaxAge, Record, SessionDestroy, SessionEvent, SessionId,
};

/// How long an end can still be named after it.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// Clients that a cleanup looks at in one go.
const CLEANUP_PAGE: i64 = 256;

pub(super) struct Shared {
    pub(super) config: BackendConfig,
    pub(super) keys: Keys,
    pub(super) pool: Pool,
    pub(super) scripts: Scripts,
    pub(super) events: broadcast::Sender<BackendEvent>,
    pub(super) watched: WatchedClients,
    /// The lines in front: of each client one caller of this node at a time goes to Redis.
    pub(super) lines: Mutex<HashMap<ClientId, Arc<LeaseQueue>>>,
    /// Those of this node that wait for a lease, by token.
    pub(super) waiters: Mutex<HashMap<String, oneshot::Sender<()>>>,
    /// Whether this node sweeps.
    pub(super) sweeping: AtomicBool,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Shared {
    /// What most scripts are given first.
    fn head(&self, client: &ClientId) -> Vec<Value> {
        vec![
            self.keys.announcements().into(),
            self.config.node.as_str().into(),
            client.as_str().into(),
        ]
    }

    fn with_grace(&self, client: &ClientId) -> Vec<Value> {
        let mut head = self.head(client);
        head.push(millis(GRACE).into());
        head
    }

    fn both(&self, client: &ClientId) -> Vec<String> {
        vec![self.keys.record(client), self.keys.mapping(client)]
    }

    fn idle(&self, mode: MaxAge) -> Value {
        millis(self.config.lifetime.ttl(mode, Duration::ZERO).min(match mode {
            MaxAge::After(own) => own,
            _ => self.config.lifetime.max_age,
        }))
        .into()
    }

    fn cap(&self) -> Value {
        self.config.lifetime.absolute_max_age.map_or(0, millis).into()
    }

    /// The record of a reply; an unreadable one is ended.
    async fn record_of(&self, client: &ClientId, reply: &Reply) -> Result<Option<Record>> {
        match reply.record(client)? {
            Ok(record) => {
                self.watched.record(&record);
                Ok(Some(record))
            }
            Err(error) => {
                tracing::warn!(%error, "a stored session is unreadable and ends");
                self.end(client, DestroyReason::Corrupt, None, None).await?;
                Ok(None)
            }
        }
    }

    // ---- lines ---------------------------------------------------------------------------

    /// The client's line on this node.
    pub(super) fn line(&self, client: &ClientId) -> Arc<LeaseQueue> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(*client).or_default().clone()
    }

    /// Keeps the turn in the client's line.
    pub(super) fn renew_line(&self, client: &ClientId, lease: LeaseToken) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(client) {
            line.renew(lease, self.config.lease);
        }
    }

    /// Leaves the client's line, and drops it with the last.
    pub(super) fn leave_line(&self, client: &ClientId, lease: LeaseToken) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.get(client) else { return };
        line.release(lease, self.config.lease);
        // Nobody else has it: those who are about to stand in it hold it.
        if line.is_idle() && Arc::strong_count(line) == 1 {
            lines.remove(client);
        }
    }

    // ---- reading -------------------------------------------------------------------------

    pub(super) async fn client_record(&self, client: &ClientId) -> Result<Option<Record>> {
        let keys = vec![self.keys.record(client)];
        let reply = self.scripts.load.run(&self.pool, keys, Vec::new()).await?;
        match reply.status {
            1 => self.record_of(client, &reply).await,
            _ => {
                self.watched.end(client, None);
                Ok(None)
            }
        }
    }

    pub(super) async fn hinted(&self, session: &SessionId) -> Result<Option<ClientId>> {
        let client: Option<String> =
            self.pool.get(self.keys.hint(session)).await.map_err(|e| failed("GET", e))?;
        Ok(client.and_then(|client| ClientId::parse(&client).ok()))
    }

    pub(super) async fn load(&self, id: &SessionId, hint: Option<&ClientId>) -> Result<Loaded> {
        let mut superseded = false;
        if let Some(client) = hint {
            match self.client_record(client).await? {
                Some(record) if record.session_id == *id => return Ok(Loaded::Found(record)),
                other => superseded = other.is_some(),
            }
        }
        // Another client's, or none: only now the way by the session's id is needed.
        match self.hinted(id).await? {
            Some(client) if Some(&client) != hint => match self.client_record(&client).await? {
                Some(record) if record.session_id == *id => Ok(Loaded::Found(record)),
                _ => Ok(Loaded::Missing { superseded }),
            },
            _ => Ok(Loaded::Missing { superseded }),
        }
    }

    // ---- writing -------------------------------------------------------------------------

    pub(super) async fn create(&self, create: &Create) -> Result<Created> {
        let mode = create.max_age.validate()?;
        let data = create.data.encode(self.config.max_payload)?;
        let client = &create.client;
        let session = SessionId::generate();
        let mut arguments = self.with_grace(client);
        arguments.extend([
            session.as_str().into(),
            number(Generation::random().number()).into(),
            data.into(),
            mode_text(mode).into(),
            self.idle(mode),
            self.cap(),
            millis(Create::joins_up_to(create.since)).into(),
        ]);
        let reply = self.scripts.create.run(&self.pool, self.both(client), arguments).await?;
        match reply.status {
            1 => {
                let record = reply.record(client)??;
                self.watched.record(&record);
                let due = reply.number(0).unwrap_or(0) + millis(record.remaining);
                futures_util::try_join!(
                    self.point(&record, &reply),
                    self.index(client, due, None),
                    self.unpoint(reply.text(10)),
                )?;
                Ok(Created::New(record))
            }
            2 => match self.record_of(client, &reply).await? {
                Some(record) => Ok(Created::Exists(record)),
                None => Box::pin(self.create(create)).await,
            },
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn commit(&self, commit: &Commit) -> Result<Committed> {
        let mode = commit.max_age.validate()?;
        let data = commit.data.encode(self.config.max_payload)?;
        let client = &commit.client;
        let keys =
            vec![self.keys.record(client), self.keys.mapping(client), self.keys.lease(client)];
        let new_id = commit.rotate.then(SessionId::generate);
        let mut arguments = self.with_grace(client);
        arguments.extend([
            commit.generation.number().to_string().into(),
            commit.version.map(|version| version.to_string()).unwrap_or_default().into(),
            commit.lease.map(LeaseToken::text).unwrap_or_default().into(),
            data.into(),
            mode_text(mode).into(),
            self.idle(mode),
            self.cap(),
            new_id.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
        ]);
        let reply = self.scripts.commit.run(&self.pool, keys, arguments).await?;
        match reply.status {
            1 => {
                let record = reply.record(client)??;
                self.watched.record(&record);
                self.point(&record, &reply).await?;
                self.unpoint(reply.text(10)).await?;
                if mode != MaxAge::Default {
                    // It may end earlier than the index thinks.
                    let due = reply.number(0).unwrap_or(0) + millis(record.remaining);
                    self.index(client, due, Some(ScoreOrdering::LessThan)).await?;
                }
                Ok(Committed::Done(record))
            }
            2 => match self.record_of(client, &reply).await? {
                Some(record) => Ok(Committed::Conflict(record)),
                None => Ok(Committed::Ended),
            },
            3 => Ok(Committed::Ended),
            4 => Ok(Committed::LeaseLost),
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn touch(
        &self,
        client: &ClientId,
        generation: Generation,
    ) -> Result<Option<Record>> {
        let mut arguments = self.with_grace(client);
        arguments.extend([
            generation.number().to_string().into(),
            self.idle(MaxAge::Default),
            self.cap(),
        ]);
        let reply = self.scripts.touch.run(&self.pool, self.both(client), arguments).await?;
        match reply.status {
            1 => {
                let record = self.record_of(client, &reply).await?;
                if let Some(record) = &record {
                    self.point(record, &reply).await?;
                }
                Ok(record)
            }
            3 => Ok(None),
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn destroy(&self, target: Target) -> Result<bool> {
        let (client, session, generation) = match target {
            Target::Client(client) => (client, None, None),
            Target::Generation(client, generation) => (client, None, Some(generation)),
            Target::Session(id) => match self.hinted(&id).await? {
                Some(client) => (client, Some(id), None),
                None => return Ok(false),
            },
        };
        self.end(&client, DestroyReason::Destroyed, session, generation).await
    }

    async fn end(
        &self,
        client: &ClientId,
        reason: DestroyReason,
        session: Option<SessionId>,
        generation: Option<Generation>,
    ) -> Result<bool> {
        let mut arguments = self.head(client);
        arguments.extend([
            reason.as_str().into(),
            session.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
            generation.map(|g| g.number().to_string()).unwrap_or_default().into(),
        ]);
        let reply = self.scripts.destroy.run(&self.pool, self.both(client), arguments).await?;
        if reply.status != 1 {
            return Ok(false);
        }
        self.watched.end(client, generation);
        futures_util::try_join!(self.unpoint(reply.text(0)), self.unindex(client))?;
        Ok(true)
    }

    /// Points from the session's id to its client, if the script asks for it: for twice the
    /// session's time to live, so that most writes need not.
    async fn point(&self, record: &Record, reply: &Reply) -> Result<()> {
        if reply.number(9) != Some(1) {
            return Ok(());
        }
        let expire = Some(Expiration::PX(millis(2 * record.remaining).max(1)));
        let key = self.keys.hint(&record.session_id);
        let client = record.client_id.as_str();
        self.pool.set(key, client, expire, None, false).await.map_err(|e| failed("SET", e))
    }

    /// Removes the pointer of a session's id that is dead.
    async fn unpoint(&self, session: Option<String>) -> Result<()> {
        match session.and_then(|id| SessionId::parse(&id).ok()) {
            Some(id) => self.pool.del(self.keys.hint(&id)).await.map_err(|e| failed("DEL", e)),
            None => Ok(()),
        }
    }

    /// Says when to look at a client's session.
    async fn index(&self, client: &ClientId, at: i64, only: Option<ScoreOrdering>) -> Result<()> {
        #[allow(clippy::cast_precision_loss)] // milliseconds of this era are exact
        let entry = (at as f64, client.as_str());
        let added = self.pool.zadd(self.keys.due(), None, only, false, false, entry).await;
        added.map_err(|e| failed("ZADD", e))
    }

    async fn unindex(&self, client: &ClientId) -> Result<()> {
        let removed = self.pool.zrem(self.keys.due(), client.as_str()).await;
        removed.map_err(|e| failed("ZREM", e))
    }

    // ---- ends ----------------------------------------------------------------------------

    /// Looks at a session that may have ended by itself. `true`: it had, and this told it.
    pub(super) async fn resolve(&self, client: &ClientId, reason: DestroyReason) -> Result<bool> {
        let mut arguments = self.head(client);
        arguments.push(reason.as_str().into());
        let reply = self.scripts.resolve.run(&self.pool, self.both(client), arguments).await?;
        if reply.status == 1 {
            let (left, now) = (reply.number(0).unwrap_or(0), reply.number(1).unwrap_or(0));
            self.index(client, now + left.max(1), None).await?;
            return Ok(false);
        }
        futures_util::try_join!(self.unpoint(reply.text(0)), self.unindex(client))?;
        Ok(reply.status == 2)
    }

    /// One turn of the sweep: how long to wait for the next, or that there is more to do.
    pub(super) async fn sweep(&self, limit: i64, every: Duration) -> Result<Option<Duration>> {
        let keys = vec![self.keys.due(), self.keys.sweeper()];
        let arguments: Vec<Value> = vec![
            self.config.node.as_str().into(),
            limit.into(),
            // Long enough to tell a page of ends, short enough to wait for after a death.
            5000.into(),
            1000.into(),
        ];
        let reply = self.scripts.sweep.run(&self.pool, keys, arguments).await?;
        self.sweeping.store(reply.status == 1, Ordering::Relaxed);
        if reply.status != 1 {
            let left = u64::try_from(reply.number(0).unwrap_or(0)).unwrap_or(0);
            return Ok(Some(Duration::from_millis(left.clamp(20, 1000))));
        }
        let clients: Vec<_> =
            reply.texts().filter_map(|client| ClientId::parse(&client).ok()).collect();
        let looks = clients.iter().map(|client| self.resolve(client, DestroyReason::Expired));
        for looked in futures_util::future::join_all(looks).await {
            looked?;
        }
        let full = i64::try_from(clients.len()).unwrap_or(limit) >= limit;
        Ok((!full).then_some(every))
    }

    pub(super) async fn cleanup(&self) -> Result<u64> {
        let mut cleared = 0;
        loop {
            let keys = vec![self.keys.due()];
            let reply = self.scripts.due.run(&self.pool, keys, vec![CLEANUP_PAGE.into()]).await?;
            let clients: Vec<_> =
                reply.texts().filter_map(|client| ClientId::parse(&client).ok()).collect();
            // Looking takes each off the list, or puts it to a later time.
            for client in &clients {
                cleared += u64::from(self.resolve(client, DestroyReason::Expired).await?);
            }
            if clients.is_empty() {
                break;
            }
        }
        self.announce(announce::cleanup(cleared, &self.config.node)).await?;
        Ok(cleared)
    }

    pub(super) async fn announce(&self, text: String) -> Result<()> {
        let told = self.pool.next().publish(self.keys.announcements(), text).await;
        told.map_err(|e| failed("PUBLISH", e))
    }

    pub(super) async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        let Some(client) = self.hinted(session).await? else { return Ok(()) };
        let mut arguments = self.head(&client);
        arguments.extend([session.as_str().into(), if is_new { "1" } else { "0" }.into()]);
        let keys = vec![self.keys.record(&client)];
        self.scripts.notify.run(&self.pool, keys, arguments).await.map(drop)
    }

    // ---- hearing -------------------------------------------------------------------------

    pub(super) fn hear(&self, text: &str) {
        let Some(announcement) = announce::read(text) else {
            tracing::warn!("an announcement that can't be read");
            return;
        };
        match (&announcement.event.event, announcement.event.generation) {
            (SessionEvent::Set(set), Some(generation)) => self.watched.set(
                &set.client_id,
                generation,
                set.session_id,
                announcement.version,
                Instant::now(),
            ),
            (SessionEvent::Destroy(end), generation) => {
                self.watched.end(&end.client_id, generation);
            }
            _ => {}
        }
        // An error says that nobody listens.
        let _ = self.events.send(announcement.event);
    }

    pub(super) fn granted(&self, token: &str) {
        let waiter = self.waiters.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
        if let Some(waiter) = waiter {
            // Its owner may have gone in this moment; its guard gives the lease back.
            let _ = waiter.send(());
        }
    }

    /// Compares the clients that have a socket here with Redis, and tells what was missed.
    pub(super) async fn reconcile(&self) -> Result<()> {
        for client in self.watched.all() {
            let Some(known) = self.watched.known(&client) else {
                // Reading takes over what there is.
                self.client_record(&client).await?;
                continue;
            };
            let record = self.client_record(&client).await?;
            if record.is_some_and(|record| record.generation == known.generation) {
                continue;
            }
            // If its end was not told at all, this tells everybody; else only this node missed it.
            if !self.resolve(&client, DestroyReason::Reconciled).await? {
                let node = self.config.node.clone();
                let end =
                    SessionDestroy::new(client, known.session_id, DestroyReason::Reconciled, node);
                let event = SessionEvent::Destroy(end);
                let _ =
                    self.events.send(BackendEvent { event, generation: Some(known.generation) });
            }
        }
        Ok(())
    }
}
