//! A command that failed and is worth another try.
//!
//! A connection that breaks takes the answers with it that were on their way: whether their commands ran
//! is not known. What may run twice is asked once more. The script of a change runs once more, too: it is
//! given what it writes (generation, id, version), so it finds whether it is there already.

use std::future::Future;
use std::time::Duration;

use fred::clients::WithOptions;
use fred::prelude::*;
use fred::types::{CustomCommand, Key};
use tokio::time::Instant;

use crate::backend::redis::error::{Answered, failed, is_lost, is_timeout, is_unsent};
use crate::backend::redis::script::Script;
use crate::backend::redis::script::reply::Reply;
use crate::error::Result;

/// Between two tries while a slot is moved, or there is no connection.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The client, for a command whose answer may come until then.
pub(super) fn until(client: &Client, limit: Instant) -> Answered<WithOptions<Client>> {
    let left = limit.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "Out of time."));
    }
    let options = Options { timeout: Some(left), ..Options::default() };
    Ok(client.with_options(&options))
}

pub(super) fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}

/// Redis refused this since the slot lives elsewhere, for good or for its other half of the keys.
pub(super) fn is_moving(error: &fred::error::Error) -> bool {
    error.details() == "Too many redirections." || error.details().starts_with("TRYAGAIN")
}

/// Runs a script by its digest. As a custom command: the client library's own `evalsha` and `eval` leave
/// the options of a client aside, and with them the limit.
pub(super) async fn by_digest(
    client: &WithOptions<Client>,
    script: &Script,
    keys: &[Key],
    arguments: &[Value],
) -> Answered<Value> {
    let digest = Value::from(script.digest.clone());
    run(client, "EVALSHA", digest, keys, arguments).await
}

/// Runs a script by its text, which also loads it.
async fn by_text(
    client: &WithOptions<Client>,
    script: &Script,
    keys: &[Key],
    arguments: &[Value],
) -> Answered<Value> {
    run(client, "EVAL", script.text.clone().into(), keys, arguments).await
}

fn run(
    client: &WithOptions<Client>,
    command: &'static str,
    script: Value,
    keys: &[Key],
    arguments: &[Value],
) -> impl Future<Output = Answered<Value>> {
    let slot = keys.first().map(|key| fred::util::redis_keyslot(key.as_bytes()));
    let mut parts = Vec::with_capacity(2 + keys.len() + arguments.len());
    parts.extend([script, Value::from(keys.len() as i64)]);
    parts.extend(keys.iter().cloned().map(Value::from));
    parts.extend(arguments.iter().cloned());
    client.custom(CustomCommand::new_static(command, slot, false), parts)
}

/// Runs a script, by its text if Redis does not know it.
pub(super) async fn run_once(
    client: &Client,
    script: &Script,
    keys: &[Key],
    arguments: &[Value],
    limit: Instant,
) -> Answered<Value> {
    match by_digest(&until(client, limit)?, script, keys, arguments).await {
        Err(error) if is_unknown_script(&error) => {
            by_text(&until(client, limit)?, script, keys, arguments).await
        }
        ran => ran,
    }
}

/// What is left to do after the first try.
pub(super) struct Again {
    pub(super) clustered: bool,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    /// What the last try came to.
    pub(super) error: fred::error::Error,
}

impl Again {
    /// Waits until the next try, if one is worth it. A command that may have run runs once more, not
    /// more often; one that was not sent, or came to the wrong server, as long as there is time.
    async fn pause(&self, repeated: &mut bool) -> bool {
        let error = &self.error;
        if is_lost(error) && !is_unsent(error) {
            return !std::mem::replace(repeated, true) && Instant::now() < self.deadline;
        }
        if !(is_unsent(error) || (self.clustered && is_moving(error))) {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        Instant::now() < self.deadline
    }

    /// Asks again what may be asked twice, over the same connection, which is being made again: others
    /// may be lost as well and not know it yet.
    pub(super) async fn ask<T, F>(
        mut self,
        client: &Client,
        ask: impl Fn(WithOptions<Client>) -> F,
    ) -> Answered<T>
    where
        F: Future<Output = Answered<T>>,
    {
        let mut repeated = false;
        while self.pause(&mut repeated).await {
            match ask(until(client, self.deadline)?).await {
                Err(error) => self.error = error,
                answered => return answered,
            }
        }
        Err(self.error)
    }

    /// Runs a script again that may run twice, over the same connection: see `Commands::lane`.
    pub(super) async fn run(
        mut self,
        lane: &Client,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let mut repeated = false;
        while is_unknown_script(&self.error) || self.pause(&mut repeated).await {
            // By its text, wherever its slot is now.
            let Ok(again) = until(lane, self.deadline) else { break };
            match by_text(&again, script, &keys, &arguments).await {
                Err(error) => self.error = error,
                Ok(value) => return Ok(Reply::new(script.name, value)?.after(repeated)),
            }
        }
        Err(failed(script.name, self.error))
    }

    /// Runs the script of a change again; after a silence over another connection, for what a change
    /// finds does not depend on their order.
    pub(super) async fn change(
        mut self,
        [lane, another]: [&Client; 2],
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<(Reply, Result<()>)> {
        let mut repeated = false;
        while is_unknown_script(&self.error) || self.pause(&mut repeated).await {
            let client = if is_timeout(&self.error) { another } else { lane };
            let half = Instant::now() + self.timeout / 2;
            let limit = if repeated { self.deadline } else { half.min(self.deadline) };
            let ran = run_once(client, script, &keys, &arguments, limit).await;
            match ran {
                Err(error) => self.error = error,
                Ok(value) => return Ok((Reply::new(script.name, value)?.after(repeated), Ok(()))),
            }
        }
        Err(failed(script.name, self.error))
    }
}
