//! The connections that carry commands.

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use fred::clients::WithOptions;
use fred::prelude::*;
use fred::types::Key;
use tokio::time::Instant;

use crate::backend::redis::connection::again::{
    Again, PAUSE, by_digest, is_moving, is_unknown_script, run_once,
};
use crate::backend::redis::connection::clock::RedisClock;
use crate::backend::redis::connection::replication::{ReplicatedPool, Sent};
use crate::backend::redis::error::{Answered, failed, is_lost, is_timeout, is_unsent};
use crate::backend::redis::script::argument::millis;
use crate::backend::redis::script::reply::Reply;
use crate::backend::redis::script::{Script, Scripts};
use crate::error::Result;

/// A pool of connections, and the clock on their other side.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) pool: Pool,
    /// The connections for changes, if those wait for replicas.
    pub(crate) replicated: Option<ReplicatedPool>,
    pub(crate) clock: RedisClock,
    pub(crate) scripts: Scripts,
    /// Slots are spread over several servers.
    pub(crate) clustered: bool,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

/// Which of so many connections the keys with this key's hash tag take.
fn lane_of(key: &[u8], lanes: usize) -> usize {
    let after = |mark: u8, key: &[u8]| key.iter().position(|byte| *byte == mark).map(|at| at + 1);
    let rest = after(b'{', key).map_or(key, |begin| &key[begin..]);
    let tag = after(b'}', rest).map_or(key, |end| &rest[..end]);
    let mut hasher = DefaultHasher::new();
    tag.hash(&mut hasher);
    usize::try_from(hasher.finish() % (lanes.max(1) as u64)).unwrap_or(0)
}

impl Commands {
    /// Whether nothing has to follow the script of a change.
    pub(crate) fn is_one_step(&self) -> bool {
        !self.clustered && self.replicated.is_none()
    }

    /// Asks Redis something that may be asked twice. A lost connection costs no answer then, and in a
    /// cluster, a question that was refused since its slot is being moved, or has been, is asked again
    /// for as long as an answer may take: it did nothing.
    pub(crate) async fn with_retry<T, F>(
        &self,
        ask: impl Fn(WithOptions<Client>) -> F,
    ) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        let begun = Instant::now();
        let client = self.pool.next_connected();
        match ask(client.with_options(&Options::default())).await {
            // What is rare has a box of its own, here and elsewhere: it would be a part of the future
            // of every command.
            Err(error) if self.may_repeat(&error) => {
                let again = self.again(begun, error);
                Box::pin(again.ask(client, ask)).await
            }
            answered => answered,
        }
    }

    fn again(&self, begun: Instant, error: fred::error::Error) -> Again {
        let Self { clustered, timeout, .. } = *self;
        Again { clustered, timeout, deadline: begun + timeout, error }
    }

    /// Whether a command that failed like this, and may run twice, is worth another try.
    fn may_repeat(&self, error: &fred::error::Error) -> bool {
        is_unsent(error)
            || (is_lost(error) && !is_timeout(error))
            || (self.clustered && is_moving(error))
    }

    /// The connection for the scripts of a client. All of them take the same one, for connections
    /// keep no order between them: the release of a lease whose caller went away would overtake its
    /// acquire, and the lease would stay for as long as it lasts. So they wait for it while it is
    /// being made again.
    fn lane(&self, keys: &[Key]) -> &Client {
        let clients = self.pool.clients();
        let lane = keys.first().and_then(|key| clients.get(lane_of(key.as_bytes(), clients.len())));
        lane.unwrap_or_else(|| self.pool.next_connected())
    }

    /// A connection for what needs no order: this one, if it is there.
    fn or_another<'a>(&'a self, lane: &'a Client) -> &'a Client {
        if lane.is_connected() { lane } else { self.pool.next_connected() }
    }

    /// A connection that works as far as is known, and if possible is another one than this.
    fn another<'a>(&'a self, than: &'a Client) -> &'a Client {
        let mut clients = self.pool.clients().iter();
        let other = clients.find(|client| client.id() != than.id() && client.is_connected());
        other.unwrap_or(than)
    }

    /// Runs a script that may run twice, and loads it if Redis does not know it: at first, after a
    /// restart, or after a flush of the script cache. If its connection is lost it runs once more.
    ///
    /// Each is one write to the connection: the client library flushes after every script. Clones of
    /// keys and arguments are counted references.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let begun = Instant::now();
        let lane = self.lane(&keys);
        // Not by `with_retry`, whose future would hold this one twice.
        let value = match lane.evalsha(script.digest.clone(), keys.clone(), arguments.clone()).await
        {
            Err(error) if is_unknown_script(&error) || self.may_repeat(&error) => {
                let again = self.again(begun, error);
                return Box::pin(again.run(lane, script, keys, arguments)).await;
            }
            ran => ran,
        };
        Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)
    }

    /// Runs a script that must not run twice.
    pub(crate) async fn run_once(
        &self,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let lane = self.lane(&keys);
        let limit = Instant::now() + self.timeout;
        let value = run_once(lane, script, &keys, &arguments, limit).await;
        Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)
    }

    /// Runs a script that changes a session. Whether enough replicas have what it wrote is said
    /// beside its answer, for what goes with the change is to be done in any case: the change is
    /// made.
    ///
    /// If its answer is lost it runs once more, within the same time. A script of a change finds out
    /// by what it is given whether it ran before, and does nothing then; the reply says that it was
    /// [repeated](Reply::repeated).
    pub(crate) async fn change(
        &self,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<(Reply, Result<()>)> {
        if let Some(replicated) = &self.replicated {
            return Box::pin(self.change_on_replicas(replicated, script, keys, arguments)).await;
        }
        let begun = Instant::now();
        let lane = self.lane(&keys);
        // Half of the time is kept for finding out what became of it.
        let options = Options { timeout: Some(self.timeout / 2), ..Options::default() };
        let sent = lane.with_options(&options);
        let value = match by_digest(&sent, script, &keys, &arguments).await {
            Err(error)
                if is_unknown_script(&error) || self.may_repeat(&error) || is_lost(&error) =>
            {
                let again = self.again(begun, error);
                return Box::pin(again.change([lane, self.another(lane)], script, keys, arguments))
                    .await;
            }
            ran => ran,
        };
        Ok((Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)?, Ok(())))
    }

    async fn change_on_replicas(
        &self,
        replicated: &ReplicatedPool,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<(Reply, Result<()>)> {
        let deadline = Instant::now() + self.timeout;
        let mut repeated = false;
        loop {
            let (keys, arguments) = (keys.clone(), arguments.clone());
            match self.change_replicated(replicated, script, keys, arguments).await? {
                Ok((reply, copied)) => return Ok((reply.after(repeated), copied)),
                Err(error) if is_unsent(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if !repeated && is_lost(&error) && Instant::now() < deadline => {
                    repeated = true;
                }
                Err(error) => return Err(failed(script.name, error)),
            }
        }
    }

    async fn change_replicated(
        &self,
        replicated: &ReplicatedPool,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<Answered<(Reply, Result<()>)>> {
        let connection = replicated.connection().await?;
        let ran = self.until_settled(|| {
            let client = &connection.client;
            let mut parts: Vec<Value> = vec![(keys.len() as i64).into()];
            parts.extend(keys.iter().cloned().map(Value::from));
            parts.extend(arguments.iter().cloned());
            let (digest, key) = (script.digest.clone().into(), keys[0].clone());
            async move {
                let by_digest = [vec![digest], parts.clone()].concat();
                match replicated.send(client, "EVALSHA", &key, by_digest).await {
                    Err(error) if is_unknown_script(&error) => {
                        let whole = [vec![script.text.clone().into()], parts].concat();
                        replicated.send(client, "EVAL", &key, whole).await
                    }
                    ran => ran,
                }
            }
        });
        let (answer, waited): Sent = match ran.await {
            Ok(sent) => sent,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok((Reply::new(script.name, answer)?, replicated.check_replicas(waited))))
    }

    /// Asks again in a cluster while the slot is being moved.
    async fn until_settled<T, F>(&self, ask: impl Fn() -> F) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        let deadline = Instant::now() + self.timeout;
        loop {
            match ask().await {
                Err(error) if self.clustered && is_moving(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// Sets a key, and waits for replicas if a change needs it.
    pub(crate) async fn set(
        &self,
        key: &str,
        value: &str,
        life: Duration,
        needed: bool,
    ) -> Result<()> {
        let life = millis(life).max(1);
        let Some(replicated) = self.replicated.as_ref().filter(|_| needed) else {
            let set = self.with_retry(|client| async move {
                client.set(key, value, Some(Expiration::PX(life)), None, false).await
            });
            return set.await.map_err(|e| failed("SET", e));
        };
        let connection = replicated.connection().await?;
        let parts: Vec<Value> = vec![key.into(), value.into(), "PX".into(), life.into()];
        let key = &Key::from(key);
        let set = self.until_settled(|| {
            let (client, parts) = (&connection.client, parts.clone());
            async move { replicated.send(client, "SET", key, parts).await }
        });
        let (_, waited) = set.await.map_err(|e| failed("SET", e))?;
        replicated.check_replicas(waited)
    }

    /// All that has connections for commands.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        let replicated = self.replicated.as_ref().map(|replicated| replicated.pool.clone());
        [self.pool.clone()].into_iter().chain(replicated).collect()
    }

    /// What is stored at a record's key; `Null` if there is nothing. Something else than a string is
    /// no text.
    pub(crate) async fn stored(&self, key: Key) -> Result<Value> {
        let client = self.or_another(self.lane(std::slice::from_ref(&key)));
        self.stored_by(client, key).await
    }

    /// [`stored`](Self::stored), asked over another connection than scripts take, which may be silent.
    pub(crate) async fn stored_elsewhere(&self, key: Key) -> Result<Value> {
        let client = self.another(self.lane(std::slice::from_ref(&key)));
        self.stored_by(client, key).await
    }

    async fn stored_by(&self, client: &Client, key: Key) -> Result<Value> {
        let begun = Instant::now();
        let read = match client.get(key.clone()).await {
            Err(error) if self.may_repeat(&error) => {
                let again = self.again(begun, error);
                let get = |client: WithOptions<Client>| {
                    let key = key.clone();
                    async move { client.get(key).await }
                };
                Box::pin(again.ask(client, get)).await
            }
            read => read,
        };
        match read {
            Err(error) if error.details().starts_with("WRONGTYPE") => Ok(Value::Integer(0)),
            read => read.map_err(|error| failed("GET", error)),
        }
    }

    /// The first so many bytes of what is stored at a record's key; none if there is nothing. Something
    /// else than a string is no record.
    pub(crate) async fn beginning(&self, key: Key, length: usize) -> Result<Value> {
        let read = self.with_retry(|client| {
            let key = key.clone();
            async move { client.getrange::<Value, _>(key, 0, length - 1).await }
        });
        match read.await {
            Err(error) if error.details().starts_with("WRONGTYPE") => Ok(Value::Integer(0)),
            read => read.map_err(|error| failed("GETRANGE", error)),
        }
    }

    /// Asks Redis for its time.
    pub(crate) async fn look_at_the_clock(&self) -> Result<()> {
        let reply = self.run(&self.scripts.clock, Vec::new(), Vec::new()).await?;
        self.observe(&reply);
        Ok(())
    }

    /// Takes over the time that a reply carries first.
    pub(crate) fn observe(&self, reply: &Reply) {
        if let Some(now) = reply.now() {
            self.clock.observe(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_keys_of_a_client_take_one_connection_and_clients_take_all() {
        let lanes: HashSet<usize> = (0..100)
            .map(|client| {
                let of = |part| lane_of(format!("app:{{client{client}}}:{part}").as_bytes(), 4);
                assert!([of("m"), of("l"), of("q")].iter().all(|lane| *lane == of("s")));
                of("s")
            })
            .collect();
        assert_eq!(lanes.len(), 4);
        assert_eq!(lane_of(b"no tag", 1), 0);
    }
}
