//! The connections that carry commands.

use std::future::Future;
use std::time::Duration;

use fred::prelude::*;
use tokio::time::Instant;

use super::clock::RedisClock;
use super::reply::{FIELDS, Reply};
use super::scripts::{Script, failed};
use crate::error::Result;

/// Between two tries while a slot is moved.
const PAUSE: Duration = Duration::from_millis(50);

/// A pool of connections, and the clock on their other side.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) pool: Pool,
    pub(super) clock: RedisClock,
    /// Slots are spread over several servers.
    pub(super) clustered: bool,
    /// How long an answer may take.
    pub(super) timeout: Duration,
}

/// What the client library returns.
pub(super) type Answered<T> = std::result::Result<T, fred::error::Error>;

fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// Redis refused this since the slot lives elsewhere, for good or for its other half of the keys.
fn is_moving(error: &fred::error::Error) -> bool {
    error.details() == "Too many redirections." || error.details().starts_with("TRYAGAIN")
}

impl Link {
    /// Asks Redis. In a cluster, a question that was refused since its slot is being moved, or has
    /// been, is asked again for as long as an answer may take: it did nothing.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn(Client) -> F) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        // The same connections each time: they are the ones that learn of the move.
        let client = self.pool.next();
        let deadline = Instant::now() + self.timeout;
        loop {
            match ask(client.clone()).await {
                Err(error) if self.clustered && is_moving(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// Runs a script, and loads it if Redis does not know it: at first, after a restart, or after
    /// a flush of the script cache.
    pub(super) async fn run(
        &self,
        script: &'static Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let value = self
            .ask(|client| {
                let (keys, arguments) = (keys.clone(), arguments.clone());
                async move {
                    let digest = script.digest.as_str();
                    match client.evalsha(digest, keys.clone(), arguments.clone()).await {
                        // Nothing ran: an `EVAL` runs it and loads it, wherever its slot is.
                        Err(error) if is_unknown_script(&error) => {
                            client.eval(script.text, keys, arguments).await
                        }
                        ran => ran,
                    }
                }
            })
            .await;
        Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)
    }

    /// A record's fields; all null if there is none. A key that is no hash is `None`.
    pub(super) async fn fields(&self, key: String) -> Result<Option<Vec<Value>>> {
        let read = self.ask(|client| {
            let key = key.clone();
            async move { client.hmget(key, FIELDS.to_vec()).await }
        });
        match read.await {
            Ok(values) => Ok(Some(values)),
            Err(error) if error.details().starts_with("WRONGTYPE") => Ok(None),
            Err(error) => Err(failed("HMGET", error)),
        }
    }

    /// Asks Redis for its time.
    pub(super) async fn look_at_the_clock(&self) -> Result<()> {
        let reply = self.run(&super::scripts::CLOCK, Vec::new(), Vec::new()).await?;
        self.observe(&reply);
        Ok(())
    }

    /// Takes over the time that a reply carries first.
    pub(super) fn observe(&self, reply: &Reply) {
        if let Some(now) = reply.now() {
            self.clock.observe(now);
        }
    }
}
