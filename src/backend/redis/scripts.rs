//! The scripts, and what their replies mean.

use std::time::Duration;

use fred::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Generation, MaxAge, Record, SessionData, SessionId};

/// A script with its digest.
#[derive(Debug, Clone)]
pub(super) struct Script {
    name: &'static str,
    text: String,
    digest: String,
}

macro_rules! scripts {
    ($($name:ident),*) => {
        /// All scripts.
        #[derive(Debug, Clone)]
        pub(super) struct Scripts { $(pub(super) $name: Script),* }

        impl Scripts {
            /// Loads all scripts. Each is loaded again by whoever misses it: after a restart or
            /// a flush of the script cache.
            pub(super) async fn load(pool: &Pool) -> Result<Self> {
                Ok(Self { $($name: Script::load(
                    pool,
                    stringify!($name),
                    concat!(include_str!("lua/prelude.lua"), include_str!(concat!("lua/", stringify!($name), ".lua"))),
                ).await?),* })
            }
        }
    };
}
scripts!(
    load, create, commit, touch, destroy, resolve, acquire, release, renew, notify, sweep, due
);

impl Script {
    async fn load(pool: &Pool, name: &'static str, text: &str) -> Result<Self> {
        let digest: String = pool.script_load(text).await.map_err(|e| failed(name, e))?;
        Ok(Self { name, text: text.to_owned(), digest })
    }

    /// Runs the script, and loads it again if Redis has lost it.
    pub(super) async fn run(
        &self,
        pool: &Pool,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Reply> {
        let ran: std::result::Result<Value, fred::error::Error> =
            pool.evalsha(self.digest.as_str(), keys.clone(), arguments.clone()).await;
        let value = match ran {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                pool.eval(self.text.as_str(), keys, arguments).await
            }
            ran => ran,
        };
        Reply::new(self.name, value.map_err(|e| failed(self.name, e))?)
    }
}

/// An error of Redis: out of reach, or an answer that should not be.
pub(super) fn failed(what: &str, error: fred::error::Error) -> Error {
    use fred::error::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::IO
        | Kind::Timeout
        | Kind::Canceled
        | Kind::Backpressure
        | Kind::Routing
        | Kind::Cluster
        | Kind::Sentinel => ErrorKind::Unavailable,
        _ => ErrorKind::Store,
    };
    Error::new(kind, format!("Redis failed at `{what}`")).with_source(error)
}

/// A script's reply: a status, and what comes with it.
pub(super) struct Reply {
    script: &'static str,
    pub(super) status: i64,
    rest: Vec<Value>,
}

impl Reply {
    fn new(script: &'static str, value: Value) -> Result<Self> {
        let mut items = match value {
            Value::Array(items) => items.into_iter(),
            other => vec![other].into_iter(),
        };
        let status = items.next().and_then(|status| status.as_i64());
        let status = status.ok_or_else(|| odd(script, "no status"))?;
        Ok(Self { script, status, rest: items.collect() })
    }

    pub(super) fn unexpected(&self) -> Error {
        odd(self.script, "a status that it does not have")
    }

    pub(super) fn number(&self, at: usize) -> Option<i64> {
        self.rest.get(at).and_then(Value::as_i64)
    }

    pub(super) fn text(&self, at: usize) -> Option<String> {
        self.rest.get(at).and_then(Value::as_string)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.rest.iter().filter_map(Value::as_string)
    }

    /// The record that follows the status. `Ok(Err(..))` for one that can't be read.
    pub(super) fn record(&self, client: &ClientId) -> Result<std::result::Result<Record, Error>> {
        let missing = || odd(self.script, "an incomplete record");
        let number = |at: usize| {
            let value = self.rest.get(at).ok_or_else(missing)?;
            value.as_u64().ok_or_else(missing)
        };
        let text = |at: usize| self.text(at).ok_or_else(missing);
        let now = number(0)?;
        let remaining = self.number(1).ok_or_else(missing)?;
        let session = text(4)?;
        let data = match SessionData::from_json(&text(8)?) {
            Ok(data) => data,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Record {
            session_id: SessionId::parse(&session).map_err(|e| missing().with_source(e))?,
            client_id: *client,
            generation: Generation::from_number(number(3)?),
            version: number(2)?,
            data,
            max_age: mode_from(&text(7)?),
            age: Duration::from_millis(now.saturating_sub(number(5)?)),
            ttl: Duration::from_millis(number(6)?),
            remaining: Duration::from_millis(u64::try_from(remaining).unwrap_or(0)),
        }))
    }
}

fn odd(script: &str, what: &str) -> Error {
    Error::new(ErrorKind::Store, format!("the script `{script}` answered with {what}"))
}

/// A session's own max age as text: milliseconds, or a word.
pub(super) fn mode_text(mode: MaxAge) -> String {
    match mode {
        MaxAge::Default => "default".into(),
        MaxAge::Browser => "browser".into(),
        MaxAge::After(age) => age.as_millis().to_string(),
    }
}

fn mode_from(text: &str) -> MaxAge {
    match text.parse() {
        Ok(millis) => MaxAge::After(Duration::from_millis(millis)),
        Err(_) if text == "browser" => MaxAge::Browser,
        Err(_) => MaxAge::Default,
    }
}
