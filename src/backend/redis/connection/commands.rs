//! The connections that carry commands.

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use fred::prelude::*;
use fred::types::Key;
use tokio::time::Instant;

use crate::backend::redis::connection::clock::RedisClock;
use crate::backend::redis::connection::replication::{ReplicatedPool, Sent};
use crate::backend::redis::error::{Answered, failed};
use crate::backend::redis::script::argument::millis;
use crate::backend::redis::script::reply::Reply;
use crate::backend::redis::script::{Script, Scripts};
use crate::error::Result;

/// Between two tries while a slot is moved.
const PAUSE: Duration = Duration::from_millis(50);

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

fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// Redis refused this since the slot lives elsewhere, for good or for its other half of the keys.
fn is_moving(error: &fred::error::Error) -> bool {
    error.details() == "Too many redirections." || error.details().starts_with("TRYAGAIN")
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

    /// Asks Redis. In a cluster, a question that was refused since its slot is being moved, or has
    /// been, is asked again for as long as an answer may take: it did nothing.
    pub(crate) async fn with_retry<T, F>(&self, ask: impl Fn(Client) -> F) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        self.with_retry_at(self.pool.next(), ask).await
    }

    /// [`ask`](Self::ask) on one client: its connections are the ones that learn of a move.
    async fn with_retry_at<T, F>(&self, client: &Client, ask: impl Fn(Client) -> F) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        let begun = Instant::now();
        match ask(client.clone()).await {
            // What is rare has a box of its own, here and elsewhere: it would be a part of the future
            // of every command.
            Err(error) if self.clustered && is_moving(&error) => {
                Box::pin(self.ask_again(client, ask, begun + self.timeout, error)).await
            }
            answered => answered,
        }
    }

    async fn ask_again<T, F>(
        &self,
        client: &Client,
        ask: impl Fn(Client) -> F,
        deadline: Instant,
        mut error: fred::error::Error,
    ) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        while Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
            match ask(client.clone()).await {
                Err(again) if is_moving(&again) => error = again,
                answered => return answered,
            }
        }
        Err(error)
    }

    /// The connection for the scripts of a client. All of them take the same one, for connections
    /// keep no order between them: the release of a lease whose caller went away would overtake its
    /// acquire, and the lease would stay for as long as it lasts.
    fn lane(&self, keys: &[Key]) -> &Client {
        let clients = self.pool.clients();
        let lane = keys.first().and_then(|key| clients.get(lane_of(key.as_bytes(), clients.len())));
        match lane {
            Some(lane) if lane.is_connected() => lane,
            _ => self.pool.next(),
        }
    }

    /// Runs a script, and loads it if Redis does not know it: at first, after a restart, or after
    /// a flush of the script cache.
    ///
    /// Each is one write to the connection: the client library flushes after every script. Clones of
    /// keys and arguments are counted references.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let lane = self.lane(&keys);
        // Not by `with_retry_at`, whose future would hold this one twice.
        let value = match lane.evalsha(script.digest.clone(), keys.clone(), arguments.clone()).await
        {
            Err(error) if is_unknown_script(&error) || (self.clustered && is_moving(&error)) => {
                Box::pin(self.run_again(lane, script, keys, arguments)).await
            }
            ran => ran,
        };
        let reply = Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)?;
        Ok(reply)
    }

    async fn run_again(
        &self,
        lane: &Client,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Answered<Value> {
        self.with_retry_at(lane, |client| {
            let (keys, arguments) = (keys.clone(), arguments.clone());
            // Nothing ran: an `EVAL` runs it and loads it, wherever its slot is.
            async move { client.eval(script.text.clone(), keys, arguments).await }
        })
        .await
    }

    /// Runs a script that changes a session. Whether enough replicas have what it wrote is said
    /// beside its answer, for what goes with the change is to be done in any case: the change is
    /// made.
    pub(crate) async fn change(
        &self,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<(Reply, Result<()>)> {
        match &self.replicated {
            None => Ok((self.run(script, keys, arguments).await?, Ok(()))),
            Some(replicated) => {
                Box::pin(self.change_replicated(replicated, script, keys, arguments)).await
            }
        }
    }

    async fn change_replicated(
        &self,
        replicated: &ReplicatedPool,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<(Reply, Result<()>)> {
        let connection = replicated.connection().await?;
        let ran = self.with_retry_at(&connection.client, |client| {
            let mut parts: Vec<Value> = vec![(keys.len() as i64).into()];
            parts.extend(keys.iter().cloned().map(Value::from));
            parts.extend(arguments.iter().cloned());
            let (digest, key) = (script.digest.clone().into(), keys[0].clone());
            async move {
                let by_digest = [vec![digest], parts.clone()].concat();
                match replicated.send(&client, "EVALSHA", &key, by_digest).await {
                    Err(error) if is_unknown_script(&error) => {
                        let whole = [vec![script.text.clone().into()], parts].concat();
                        replicated.send(&client, "EVAL", &key, whole).await
                    }
                    ran => ran,
                }
            }
        });
        let (answer, waited): Sent = ran.await.map_err(|e| failed(script.name, e))?;
        Ok((Reply::new(script.name, answer)?, replicated.check_replicas(waited)))
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
        let set = self.with_retry_at(&connection.client, |client| {
            let parts = parts.clone();
            async move { replicated.send(&client, "SET", key, parts).await }
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
        let lane = self.lane(std::slice::from_ref(&key));
        let read = match lane.get(key.clone()).await {
            Err(error) if self.clustered && is_moving(&error) => {
                let again = self.with_retry_at(lane, |client| {
                    let key = key.clone();
                    async move { client.get(key).await }
                });
                Box::pin(again).await
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
        let lane = self.lane(std::slice::from_ref(&key));
        let read = self.with_retry_at(lane, |client| {
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
