//! The connections that carry commands.

use fred::prelude::*;

use super::clock::RedisClock;
use super::reply::{FIELDS, Reply};
use super::scripts::{Script, failed};
use crate::error::Result;

/// A pool of connections, and the clock on their other side.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) pool: Pool,
    pub(super) clock: RedisClock,
    /// Slots are spread over several servers.
    pub(super) clustered: bool,
}

impl Link {
    /// Runs a script, and loads it if Redis does not know it: at first, after a restart, or after
    /// a flush of the script cache.
    pub(super) async fn run(
        &self,
        script: &'static Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let client = self.pool.next();
        let ran: std::result::Result<Value, fred::error::Error> =
            client.evalsha(script.digest.as_str(), keys.clone(), arguments.clone()).await;
        let value = match ran {
            // Nothing ran: an `EVAL` runs it and loads it, wherever its slot is.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                client.eval(script.text, keys, arguments).await
            }
            ran => ran,
        };
        Reply::new(script.name, value.map_err(|e| failed(script.name, e))?)
    }

    /// A record's fields; all null if there is none. A key that is no hash is `None`.
    pub(super) async fn fields(&self, key: String) -> Result<Option<Vec<Value>>> {
        let read: std::result::Result<Vec<Value>, fred::error::Error> =
            self.pool.next().hmget(key, FIELDS.to_vec()).await;
        match read {
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
