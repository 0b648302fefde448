//! Changes that wait until replicas have them.
//!
//! `WAIT` speaks of what its own connection wrote. On another one, or on the one that took its place
//! after a failover, it would say yes to anything. So it follows its change at once, to the same
//! server, and counts for nothing if there was a new connection in between. `WAIT` holds up whatever
//! comes after it, so these connections do nothing else: one change at a time on each, and a change that finds
//! none free gives up before anything is sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fred::prelude::*;
use fred::types::{CustomCommand, Key};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::backend::redis::config::Replicas;
use crate::backend::redis::error::{Answered, closed, failed};
use crate::backend::redis::script::argument::millis;
use crate::error::{Error, ErrorKind, Result};

/// The connections for changes.
#[derive(Debug)]
pub(crate) struct ReplicatedPool {
    pub(crate) pool: Pool,
    wanted: Replicas,
    idle: Mutex<Vec<Client>>,
    turns: Semaphore,
    /// How long an answer may take.
    timeout: Duration,
}

/// A connection that is one change's for now.
pub(crate) struct PooledConnection<'a> {
    replicated: &'a ReplicatedPool,
    pub(crate) client: Client,
    _permit: SemaphorePermit<'a>,
}

impl Drop for PooledConnection<'_> {
    fn drop(&mut self) {
        // Before the permit: the one that gets the permit finds it.
        self.replicated.idle().push(self.client.clone());
    }
}

/// A change's own answer, and what `WAIT` said.
pub(crate) type Sent = (Value, Answered<Value>);

impl ReplicatedPool {
    pub(crate) fn new(pool: Pool, wanted: Replicas, timeout: Duration) -> Self {
        let idle = pool.clients().to_vec();
        let turns = Semaphore::new(idle.len());
        Self { pool, wanted, idle: Mutex::new(idle), turns, timeout }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is free, waited for as long as an answer may take.
    pub(crate) async fn connection(&self) -> Result<PooledConnection<'_>> {
        let permit = tokio::time::timeout(self.timeout, self.turns.acquire())
            .await
            .map_err(|_| {
                let text = format!(
                    "other changes wait for replicas, and no connection was free within {:?}; nothing was changed",
                    self.timeout
                );
                Error::new(ErrorKind::Unavailable, text)
            })?
            .map_err(|_| closed())?;
        // There are as many of them as permits.
        let client = self.idle().pop().ok_or_else(closed)?;
        Ok(PooledConnection { replicated: self, client, _permit: permit })
    }

    /// Sends a command that writes to the slot of this key, and `WAIT` right behind it.
    ///
    /// Not as a pipeline of the client library: it would hand one that nobody waits for any more to
    /// a connection that comes back later.
    pub(crate) async fn send(
        &self,
        client: &Client,
        command: &'static str,
        key: &Key,
        arguments: Vec<Value>,
    ) -> Answered<Sent> {
        let options = Options {
            timeout: Some(self.timeout + self.wanted.wait),
            cluster_node: server_of(client, key)?,
            ..Options::default()
        };
        let server = client.with_options(&options);
        let custom = |name| CustomCommand::new_static(name, None::<u16>, false);
        let limits = [i64::from(self.wanted.count), millis(self.wanted.wait)];
        let reconnects = client.reconnect_rx();
        let change = server.custom::<Value, _>(custom(command), arguments);
        let wait = server.custom::<Value, _>(custom("WAIT"), limits.to_vec());
        // In this order: the first is handed over before the second is looked at.
        let (change, waited) = futures_util::future::join(change, wait).await;
        let change = change?;
        // A new connection is reported before anything is sent over it.
        let same = reconnects.is_empty();
        Ok((change, if same { waited } else { Err(lost("the connection was lost in between")) }))
    }

    /// Whether enough replicas have the change.
    pub(crate) fn check_replicas(&self, waited: Answered<Value>) -> Result<()> {
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
    pub(crate) async fn check(&self) -> Result<()> {
        let wait = CustomCommand::new_static("WAIT", None::<u16>, false);
        let asked: Answered<Value> = self.pool.next().custom(wait, vec![0_i64, 1]).await;
        asked.map(drop).map_err(|error| failed("WAIT", error))
    }
}

fn lost(what: &'static str) -> fred::error::Error {
    fred::error::Error::new(fred::error::ErrorKind::IO, what)
}

/// Where a key is in a cluster, as far as the client knows: both commands have to go there, not to
/// wherever it is by the time of the second.
fn server_of(client: &Client, key: &Key) -> Answered<Option<Server>> {
    if !client.is_clustered() {
        return Ok(None);
    }
    let slot = fred::util::redis_keyslot(key.as_bytes());
    let known = client.cached_cluster_state();
    let server = known.and_then(|cluster| cluster.get_server(slot).cloned());
    server.map(Some).ok_or_else(|| lost("no server has the slot"))
}
