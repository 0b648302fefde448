//! A session's data: a JSON object, cheap to clone, compared by value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, ErrorKind};

/// A JSON object.
pub type Map = serde_json::Map<String, Value>;

/// How deep a session may nest, the session object itself counted as 1. What is stored can so be
/// read back (serde_json reads 128 levels) and be sent inside a message.
pub const MAX_DEPTH: usize = 100;

/// A session's data: a JSON object.
///
/// Clones share memory until one of them is changed. Equality is by value: the order of keys
/// plays no part. No key has a meaning to this crate (`__proto__`, `maxAge` or `_expire` are
/// plain data).
///
/// Integers are exact from -2^63 to 2^64 - 1. JSON text may hold greater ones: they become the nearest
/// `f64`, as fractions do. Keep long numbers that must be exact, such as ids, as text; scripts in
/// browsers count exactly only to 2^53.
///
/// ```
/// use axum_io_session::SessionData;
///
/// let mut data = SessionData::new();
/// data.insert("n", 1)?;
/// assert_eq!(data.get::<u32>("n")?, Some(1));
/// assert_eq!(data.to_json(), r#"{"n":1}"#);
///
/// let long = SessionData::from_json(r#"{"n":18446744073709551617}"#)?;
/// assert_eq!(long.get::<f64>("n")?, Some(18446744073709551616.0));
/// assert!(data.insert("n", u128::MAX).is_err());
/// # Ok::<(), axum_io_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct SessionData(Arc<Map>);

impl SessionData {
    /// An empty object.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a JSON object.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) for anything but an object.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(map.into()),
            other => Err(Error::new(
                ErrorKind::InvalidData,
                format!("a session is a JSON object, not {}", kind_of(&other)),
            )),
        }
    }

    /// Serializes a struct or a map.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if it can't be serialized or is no JSON object.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Self::from_value(to_value(value)?)
    }

    /// Reads the text of a JSON object.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) for broken JSON, too much nesting, or anything but
    /// an object.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text).map_err(|e| {
            Error::new(ErrorKind::InvalidData, "not readable as JSON").with_source(e)
        })?;
        Self::from_value(value)
    }

    /// The value under `key` as a `T`; `None` if there is none.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if the value is no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.0.get(key).map(|value| decode(value, key)).transpose()
    }

    /// The JSON value under `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets `key`; returns what was there.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if `value` can't be serialized; nothing changes.
    pub fn insert<T: Serialize>(
        &mut self,
        key: impl Into<String>,
        value: T,
    ) -> Result<Option<Value>, Error> {
        let value = to_value(&value)?;
        Ok(self.as_map_mut().insert(key.into(), value))
    }

    /// Removes `key`; returns what was there.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        if self.0.contains_key(key) { self.as_map_mut().remove(key) } else { None }
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The whole session as a `T`.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if the data is no `T`.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&*self.0).map_err(|e| {
            Error::new(
                ErrorKind::InvalidData,
                format!("the session is no {}", std::any::type_name::<T>()),
            )
            .with_source(e)
        })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The object.
    pub fn as_map(&self) -> &Map {
        &self.0
    }

    /// The object, to change it. Copies it first if clones share it.
    pub fn as_map_mut(&mut self) -> &mut Map {
        Arc::make_mut(&mut self.0)
    }

    /// The object as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.as_ref().clone())
    }

    /// The JSON text.
    pub fn to_json(&self) -> String {
        // A map with text keys always serializes.
        serde_json::to_string(&*self.0).unwrap_or_default()
    }

    /// About how many bytes this takes in memory.
    #[cfg(feature = "redis")]
    pub(crate) fn memory(&self) -> u64 {
        /// A node of the tree, and its share of the allocations.
        const NODE: usize = 48;
        fn of(value: &Value) -> usize {
            NODE + match value {
                Value::String(text) => text.len(),
                Value::Array(values) => values.iter().map(of).sum(),
                Value::Object(map) => map.iter().map(|(key, value)| key.len() + of(value)).sum(),
                Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            }
        }
        let bytes: usize = self.0.iter().map(|(key, value)| NODE + key.len() + of(value)).sum();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Checks nesting and length, and returns the JSON text.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) beyond [`MAX_DEPTH`],
    /// [`PayloadTooLarge`](ErrorKind::PayloadTooLarge) for more than `max_payload` bytes.
    pub fn encode(&self, max_payload: usize) -> Result<String, Error> {
        // Before serializing, which recurses.
        if !shallower_than(&self.0, MAX_DEPTH) {
            return Err(Error::new(
                ErrorKind::InvalidData,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let text = self.to_json();
        if text.len() > max_payload {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                format!("{} bytes of JSON, `max_payload` is {max_payload}", text.len()),
            ));
        }
        Ok(text)
    }

    /// What leads from `self` to `newer`, by top-level keys.
    pub fn changes_to(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        if Arc::ptr_eq(&self.0, &newer.0) {
            return changes;
        }
        for (key, value) in newer.0.iter() {
            if self.0.get(key) != Some(value) {
                changes.keys.insert(key.clone(), Some(value.clone()));
            }
        }
        for key in self.0.keys() {
            if !newer.0.contains_key(key) {
                changes.keys.insert(key.clone(), None);
            }
        }
        changes
    }

    /// Applies changes made to another state of this session.
    pub fn apply(&mut self, changes: &Changes) {
        for (key, change) in &changes.keys {
            match change {
                Some(value) => {
                    self.as_map_mut().insert(key.clone(), value.clone());
                }
                None => {
                    self.remove(key);
                }
            }
        }
    }
}

/// Top-level keys that were set or removed between two states of a session.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Changes {
    keys: BTreeMap<String, Option<Value>>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Number of keys set or removed.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Each changed key with its new value, or `None` if it was removed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Value>)> {
        self.keys.iter().map(|(key, change)| (key.as_str(), change.as_ref()))
    }
}

impl PartialEq for SessionData {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl From<Map> for SessionData {
    fn from(map: Map) -> Self {
        Self(Arc::new(map))
    }
}

impl TryFrom<Value> for SessionData {
    type Error = Error;
    fn try_from(value: Value) -> Result<Self, Error> {
        Self::from_value(value)
    }
}

impl From<SessionData> for Value {
    fn from(data: SessionData) -> Self {
        Self::Object(Arc::unwrap_or_clone(data.0))
    }
}

impl fmt::Debug for SessionData {
    // Values stay out of logs: sessions hold personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for SessionData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SessionData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value)
        .map_err(|e| Error::new(ErrorKind::InvalidData, "not serializable").with_source(e))
}

fn decode<T: DeserializeOwned>(value: &Value, key: &str) -> Result<T, Error> {
    T::deserialize(value).map_err(|e| {
        Error::new(
            ErrorKind::InvalidData,
            format!("the value under {key:?} is no {}", std::any::type_name::<T>()),
        )
        .with_source(e)
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Without recursion: the data may be as deep as its maker liked.
fn shallower_than(map: &Map, limit: usize) -> bool {
    let nests = |value: &&Value| value.is_array() || value.is_object();
    let mut open: Vec<(&Value, usize)> =
        map.values().filter(nests).map(|value| (value, 2)).collect();
    while let Some((value, depth)) = open.pop() {
        if depth > limit {
            return false;
        }
        match value {
            Value::Array(items) => {
                open.extend(items.iter().filter(nests).map(|item| (item, depth + 1)));
            }
            Value::Object(map) => {
                open.extend(map.values().filter(nests).map(|item| (item, depth + 1)));
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn data(value: Value) -> SessionData {
        SessionData::from_value(value).unwrap()
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9f64..1e9).prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c_]{0,3}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn session() -> impl Strategy<Value = SessionData> {
        prop::collection::btree_map("[a-f]|__proto__|toJSON|", json_value(), 0..6)
            .prop_map(|m| m.into_iter().collect::<Map>().into())
    }

    proptest! {
        #[test]
        fn applying_the_changes_gives_the_newer_state(old in session(), new in session()) {
            let mut state = old.clone();
            state.apply(&old.changes_to(&new));
            prop_assert_eq!(state, new);
        }

        #[test]
        fn changes_are_empty_exactly_for_equal_states(old in session(), new in session()) {
            prop_assert_eq!(old.changes_to(&new).is_empty(), old == new);
        }

        #[test]
        fn changes_of_disjoint_keys_commute(base in session(), x in json_value(), y in json_value()) {
            let (mut one, mut two) = (base.clone(), base.clone());
            one.insert("x", x).unwrap();
            two.insert("y", y).unwrap();
            let (mut a, mut b) = (one.clone(), two.clone());
            a.apply(&base.changes_to(&two));
            b.apply(&base.changes_to(&one));
            prop_assert_eq!(a, b);
        }

        #[test]
        fn text_reads_back_as_the_same_data(state in session()) {
            let text = state.encode(usize::MAX).unwrap();
            prop_assert_eq!(SessionData::from_json(&text).unwrap(), state);
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC{0,64}") {
            let _ = SessionData::from_json(&text);
        }
    }

    #[test]
    fn the_order_of_keys_is_no_change() {
        let a = SessionData::from_json(r#"{"a":1,"b":2}"#).unwrap();
        let b = SessionData::from_json(r#"{"b":2,"a":1}"#).unwrap();
        assert_eq!(a, b);
        assert!(a.changes_to(&b).is_empty());
    }

    #[test]
    fn a_change_to_a_clone_leaves_the_first_alone() {
        let first = data(json!({"n": 1}));
        let mut second = first.clone();
        second.insert("n", 2).unwrap();
        assert_eq!(first.get::<i64>("n").unwrap(), Some(1));
    }

    #[test]
    fn only_objects_are_sessions() {
        for value in [json!(null), json!([1]), json!("x"), json!(1), json!(true)] {
            let error = SessionData::from_value(value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn nesting_is_limited_and_far_beyond_does_not_overflow() {
        let nest = |levels: usize| -> SessionData {
            let mut value = json!(1);
            for _ in 0..levels {
                value = Value::Array(vec![value]);
            }
            Map::from_iter([("deep".to_owned(), value)]).into()
        };
        let deepest = nest(MAX_DEPTH - 1);
        let text = deepest.encode(usize::MAX).unwrap();
        assert_eq!(SessionData::from_json(&text).unwrap(), deepest);
        assert_eq!(nest(MAX_DEPTH).encode(usize::MAX).unwrap_err().kind(), ErrorKind::InvalidData);
        let abyss = nest(20_000);
        assert_eq!(abyss.encode(usize::MAX).unwrap_err().kind(), ErrorKind::InvalidData);
        // Dropping it recurses inside serde_json, which is its maker's business.
        std::mem::forget(abyss);
    }

    #[test]
    fn the_payload_limit_counts_bytes_of_json_and_includes_the_limit() {
        let state = data(json!({"a": "é"}));
        assert_eq!(state.to_json().len(), 10);
        assert!(state.encode(10).is_ok());
        assert_eq!(state.encode(9).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    }

    #[test]
    fn debug_shows_keys_but_no_values() {
        assert_eq!(format!("{:?}", data(json!({"token": "secret"}))), r#"{"token"}"#);
    }
}
