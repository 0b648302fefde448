//! A session's data as stores keep it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::session::SessionData;

/// A session's data as JSON text: a `str` that is shared by its clones and never changes.
///
/// It remembers what it was made from, so that a store that keeps it in memory
/// ([`LiveStore`](super::LiveStore)) reads sessions without parsing them.
///
/// ```
/// use axum_io_session::store::SessionText;
///
/// let text = SessionText::from(r#"{"n":1}"#);
/// assert_eq!(text, r#"{"n":1}"#);
/// assert_eq!(text.len(), 7);
/// ```
#[derive(Clone)]
pub struct SessionText(Arc<Inner>);

struct Inner {
    text: String,
    /// What the text says, once it was parsed.
    data: OnceLock<SessionData>,
}

impl SessionText {
    /// The text of this data, at most `max_payload` bytes.
    pub(crate) fn encode(data: &SessionData, max_payload: usize) -> Result<Self, Error> {
        let text = data.encode(max_payload)?;
        Ok(Self(Arc::new(Inner { text, data: OnceLock::from(data.clone()) })))
    }

    /// The data, parsed at the first call.
    pub(crate) fn decode(&self) -> Result<SessionData, Error> {
        if let Some(data) = self.0.data.get() {
            return Ok(data.clone());
        }
        let data = SessionData::from_json(&self.0.text)?;
        Ok(self.0.data.get_or_init(|| data).clone())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl Deref for SessionText {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for SessionText {
    fn from(text: String) -> Self {
        Self(Arc::new(Inner { text, data: OnceLock::new() }))
    }
}

impl From<&str> for SessionText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for SessionText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for SessionText {}

impl PartialEq<str> for SessionText {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for SessionText {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for SessionText {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl fmt::Debug for SessionText {
    // Values stay out of logs: sessions hold personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionText({} bytes)", self.len())
    }
}

impl Serialize for SessionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_data_is_read_without_parsing_and_another_once() {
        let mut data = SessionData::new();
        data.insert("n", 1).unwrap();
        let text = SessionText::encode(&data, 100).unwrap();
        assert_eq!(text.decode().unwrap(), data);
        let parsed = SessionText::from(r#"{"n":1}"#);
        assert_eq!(parsed, text);
        let first = parsed.decode().unwrap();
        assert!(std::ptr::eq(first.as_map(), parsed.clone().decode().unwrap().as_map()));
        assert!(SessionText::from("[]").decode().is_err());
    }

    #[test]
    fn debug_shows_no_values() {
        let text = SessionText::from(r#"{"token":"secret"}"#);
        assert_eq!(format!("{text:?}"), "SessionText(18 bytes)");
    }
}
