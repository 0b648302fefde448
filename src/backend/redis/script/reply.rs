//! What Redis answers.
//!
//! The first item of every array is a status or a version of ours: an array whose first item is
//! a word such as `message` would be taken for a pushed message by the client library.

use std::time::Duration;

use fred::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Generation, MaxAge, PreviousId, Record, SessionData, SessionId};

/// The fields that a read asks for, in the order of [`Fields`].
pub(crate) const FIELDS: [&str; 10] =
    ["v", "gen", "sid", "created", "ttl", "exp", "mode", "sealed", "prev", "data"];
/// Where the data stands among them: last.
const DATA: usize = FIELDS.len() - 1;

/// Where a record's fields stand in a reply: behind the time.
const RECORD: std::ops::Range<usize> = 1..FIELDS.len() + 1;

/// A script's reply: a status, and what comes with it.
pub(crate) struct Reply {
    script: &'static str,
    pub(crate) status: i64,
    rest: Vec<Value>,
}

impl Reply {
    pub(crate) fn new(script: &'static str, value: Value) -> Result<Self> {
        let mut items = match value {
            Value::Array(items) => items.into_iter(),
            other => vec![other].into_iter(),
        };
        let status = items.next().and_then(|status| status.as_i64());
        let status = status.ok_or_else(|| odd(script, "no status"))?;
        Ok(Self { script, status, rest: items.collect() })
    }

    pub(crate) fn unexpected(&self) -> Error {
        odd(self.script, "a status that it does not have")
    }

    pub(crate) fn number(&self, at: usize) -> Option<i64> {
        self.rest.get(at).and_then(Value::as_i64)
    }

    pub(crate) fn text(&self, at: usize) -> Option<String> {
        self.rest.get(at).and_then(Value::as_string)
    }

    pub(crate) fn items(&self) -> &[Value] {
        &self.rest
    }

    /// The time of Redis, where the first item is one.
    pub(crate) fn now(&self) -> Option<i64> {
        self.number(0)
    }

    /// The record that follows the time.
    pub(crate) fn record(&self, client: &ClientId) -> Result<Stored> {
        let incomplete = || odd(self.script, "an incomplete record");
        let now = self.now().ok_or_else(incomplete)?;
        Ok(Fields(self.rest.get(RECORD).ok_or_else(incomplete)?).record(client, now))
    }

    /// [`record`](Self::record) of a reply that leaves out the data, which is this.
    pub(crate) fn record_of(&self, client: &ClientId, data: SessionData) -> Result<Record> {
        let incomplete = || odd(self.script, "an incomplete record");
        let now = self.now().ok_or_else(incomplete)?;
        let fields = Fields(self.rest.get(RECORD).ok_or_else(incomplete)?);
        fields.with(client, now, data).ok_or_else(incomplete)
    }

    /// Whether the pointer from the session's id to its client has to be set.
    pub(crate) fn wants_pointer(&self) -> bool {
        self.number(RECORD.end) == Some(1)
    }

    /// The id that the session had before.
    pub(crate) fn previous(&self) -> Option<SessionId> {
        SessionId::parse(&self.text(RECORD.end + 1)?).ok()
    }
}

/// What is stored of a session.
pub(crate) enum Stored {
    Live(Record),
    /// Its end is long over, although Redis still has it: somebody took its time to live away.
    Over,
    /// Not a record of ours; why.
    Corrupt(Error),
}

/// How far a record's end may be over while Redis still has it: the clock of Redis is estimated.
const SLACK: u64 = 1000;

/// The fields of a record, in the order of [`FIELDS`].
pub(crate) struct Fields<'a>(pub(crate) &'a [Value]);

impl Fields<'_> {
    /// Whether there is anything.
    pub(crate) fn is_missing(&self) -> bool {
        self.0.iter().all(Value::is_null)
    }

    pub(crate) fn record(&self, client: &ClientId, now: i64) -> Stored {
        let text = self.0.get(DATA).and_then(Value::as_bytes_str);
        let data = match text.as_deref().map(SessionData::from_json) {
            Some(Ok(data)) => data,
            Some(Err(error)) => return Stored::Corrupt(error),
            None => SessionData::new(),
        };
        match self.with(client, now, data) {
            Some(_) if self.is_over(now) => Stored::Over,
            Some(record) if text.is_some() => Stored::Live(record),
            _ => Stored::Corrupt(Error::new(ErrorKind::InvalidData, "a field is missing or odd")),
        }
    }

    fn is_over(&self, now: i64) -> bool {
        let ends = self.0.get(5).and_then(Value::as_u64).unwrap_or(0);
        ends.saturating_add(SLACK) < u64::try_from(now).unwrap_or(0)
    }

    fn with(&self, client: &ClientId, now: i64, data: SessionData) -> Option<Record> {
        let number = |at: usize| self.0.get(at)?.as_u64();
        let text = |at: usize| self.0.get(at)?.as_bytes_str();
        let since = |then: u64| u64::try_from(now).unwrap_or(0).saturating_sub(then);
        let until = |then: u64| then.saturating_sub(u64::try_from(now).unwrap_or(0));
        Some(Record {
            session_id: SessionId::parse(&text(2)?).ok()?,
            client_id: *client,
            generation: Generation::from_number(number(1)?),
            sealed: number(7)? == 1,
            previous: previous_from(&text(8)?, now)?,
            version: number(0)?,
            data,
            max_age: mode_from(&text(6)?),
            age: Duration::from_millis(since(number(3)?)),
            ttl: Duration::from_millis(number(4)?),
            // Redis says that it is alive: at least for this moment.
            remaining: Duration::from_millis(until(number(5)?).max(1)),
        })
    }
}

/// Earlier ids as the scripts write them: "sid:until sid:until ..".
fn previous_from(text: &str, now: i64) -> Option<Vec<PreviousId>> {
    let now = u64::try_from(now).unwrap_or(0);
    let entry = |entry: &str| {
        let (id, until) = entry.split_once(':')?;
        let until: u64 = until.parse().ok()?;
        let opens_for = Duration::from_millis(until.saturating_sub(now));
        Some(PreviousId { session_id: SessionId::parse(id).ok()?, opens_for })
    };
    text.split_ascii_whitespace().map(entry).collect()
}

fn odd(script: &str, what: &str) -> Error {
    Error::new(ErrorKind::Store, format!("the script `{script}` answered with {what}"))
}

/// A session's own max age as text: milliseconds, or a word.
pub(crate) fn mode_text(mode: MaxAge) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(values: [&str; 10]) -> Vec<Value> {
        values.iter().map(|value| Value::from(*value)).collect()
    }

    #[test]
    fn a_records_times_are_relative_to_the_clock_of_redis() {
        let (client, id) = (ClientId::generate(), SessionId::generate());
        let (before, first) = (SessionId::generate(), SessionId::generate());
        let previous = format!("{}:1500 {}:0", before.as_str(), first.as_str());
        let values = fields([
            "3",
            "77",
            id.as_str(),
            "1000",
            "500",
            "1700",
            "browser",
            "1",
            &previous,
            "{\"n\":1}",
        ]);
        let Stored::Live(record) = Fields(&values).record(&client, 1200) else { panic!("live") };
        assert_eq!((record.version, record.generation), (3, Generation::from_number(77)));
        assert_eq!(record.age, Duration::from_millis(200));
        assert_eq!(record.remaining, Duration::from_millis(500));
        assert_eq!((record.session_id, record.max_age), (id, MaxAge::Browser));
        assert!(record.sealed && record.opens_by(&before) && record.had(&first));
        assert_eq!(record.previous[0].opens_for, Duration::from_millis(300));
        assert!(!record.opens_by(&first));
        let late = Fields(&values).record(&client, 1800);
        assert!(matches!(late, Stored::Live(record) if !record.remaining.is_zero()));
        assert!(matches!(Fields(&values).record(&client, 9000), Stored::Over));
    }

    #[test]
    fn own_max_ages_survive_as_text() {
        for mode in [MaxAge::Default, MaxAge::Browser, MaxAge::After(Duration::from_millis(1500))] {
            assert_eq!(mode_from(&mode_text(mode)), mode);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_stored_is_a_record_or_corrupt(
            values in proptest::collection::vec("[ -~]{0,40}|[0-9]{1,20}", 0..12), now in any::<i64>(),
        ) {
            let values: Vec<Value> = values.iter().map(|value| Value::from(value.as_str())).collect();
            let stored = Fields(&values).record(&ClientId::generate(), now);
            prop_assert!(values.len() >= 10 || matches!(stored, Stored::Corrupt(_)));
        }
    }
}
