//! Changes that wait until replicas have them.
//!
//! `WAIT` speaks of what its own connection wrote. On another one, or on the one that took its place
//! after a failover, it would say yes to anything. So a change and its `WAIT` are sent together, on
//! connections that do nothing else, for `WAIT` holds up whatever follows it: one change at a time on
//! each, and whoever finds none free gives up before anything is sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::config::Replicas;
use super::link::Answered;
use super::scripts::failed;
use super::shared::{closed, millis};
use crate::error::{Error, ErrorKind, Result};

/// The connections for changes.
#[derive(Debug)]
pub(super) struct Replicated {
    pub(super) pool: Pool,
    wanted: Replicas,
    idle: Mutex<Vec<Client>>,
    turns: Semaphore,
    /// How long an answer may take.
    timeout: Duration,
}

/// A connection that is one change's for now.
pub(super) struct Turn<'a> {
    replicated: &'a Replicated,
    pub(super) client: Client,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Before the permit: whoever gets that one finds it.
        self.replicated.idle().push(self.client.clone());
    }
}

/// A change's own answer, and what `WAIT` said.
pub(super) type Sent = (Value, Answered<Value>);

impl Replicated {
    pub(super) fn new(pool: Pool, wanted: Replicas, timeout: Duration) -> Self {
        let idle = pool.clients().to_vec();
        let turns = Semaphore::new(idle.len());
        Self { pool, wanted, idle: Mutex::new(idle), turns, timeout }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is free and connected, waited for as long as an answer may take.
    pub(super) async fn turn(&self) -> Result<Turn<'_>> {
        let none = |what: &str| {
            let text = format!(
                "{what} within {:?}, over which changes wait for replicas; nothing was changed",
                self.timeout
            );
            Error::new(ErrorKind::Unavailable, text)
        };
        let deadline = Instant::now() + self.timeout;
        let permit = timeout_at(deadline, self.turns.acquire())
            .await
            .map_err(|_| none("no connection was free"))?
            .map_err(|_| closed())?;
        // There are as many of them as permits.
        let client = self.idle().pop().ok_or_else(closed)?;
        let turn = Turn { replicated: self, client, _permit: permit };
        // What is handed to a client that has no connection runs when it has one again, whether or
        // not somebody still waits for it.
        while !turn.client.is_connected() {
            timeout_at(deadline, turn.client.wait_for_connect())
                .await
                .map_err(|_| none("there was no connection"))?
                .map_err(|error| failed("connect", error))?;
        }
        Ok(turn)
    }

    /// Sends a command that writes to one slot, and `WAIT` right behind it.
    pub(super) async fn send(
        &self,
        client: &Client,
        command: &'static str,
        key: &str,
        arguments: Vec<Value>,
    ) -> Answered<Sent> {
        // By the slot both go to the same server of a cluster.
        let slot = ClusterHash::Custom(fred::util::redis_keyslot(key.as_bytes()));
        let options =
            Options { timeout: Some(self.timeout + self.wanted.wait), ..Options::default() };
        let together = client.pipeline().with_options(&options);
        let change = CustomCommand::new_static(command, slot.clone(), false);
        let () = together.custom(change, arguments).await?;
        let wait = CustomCommand::new_static("WAIT", slot, false);
        let limits = [i64::from(self.wanted.count), millis(self.wanted.wait)];
        let () = together.custom(wait, limits.to_vec()).await?;
        let mut answers = together.try_all::<Value>().await.into_iter();
        let lost = || fred::error::Error::new(fred::error::ErrorKind::IO, "no answer");
        // A connection that broke is one error for both.
        let change = answers.next().unwrap_or_else(|| Err(lost()))?;
        Ok((change, answers.next().unwrap_or_else(|| Err(lost()))))
    }

    /// Whether enough replicas have the change.
    pub(super) fn judge(&self, waited: Answered<Value>) -> Result<()> {
        let have = waited.and_then(Value::convert::<u32>).map_err(|error| failed("WAIT", error))?;
        if have >= self.wanted.count {
            return Ok(());
        }
        let Replicas { count, wait } = self.wanted;
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the change was made, but {have} of {count} replicas said within {wait:?} that they have it: a failover may or may not lose it"
            ),
        ))
    }

    /// Finds out at the start whether the user may do this.
    pub(super) async fn check(&self) -> Result<()> {
        let wait = CustomCommand::new_static("WAIT", None::<u16>, false);
        let asked: Answered<Value> = self.pool.next().custom(wait, vec![0_i64, 1]).await;
        asked.map(drop).map_err(|error| failed("WAIT", error))
    }
}
