//! Session and client ids: fixed size, made by a CSPRNG, parsed strictly.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is no id of the expected length and alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId {
    expected: usize,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an id: expected {} base64url characters", self.expected)
    }
}

impl std::error::Error for InvalidId {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, bytes: $bytes:literal, chars: $chars:literal) => {
        $(#[$doc])*
        ///
        /// `Copy`, and always canonical base64url: any other text is refused by `parse`, so an
        /// id can be part of a key without escaping. `Debug` shows six characters only, and
        /// there is no `Display`: an id is a credential and shall not slip into a log.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $chars]);

        impl $name {
            /// Length in characters.
            pub const LEN: usize = $chars;

            /// A new id from the operating system's seeded CSPRNG.
            pub fn generate() -> Self {
                let mut raw = [0u8; $bytes];
                rand::rng().fill_bytes(&mut raw);
                let mut text = [0u8; $chars];
                // Sizes are constants that fit each other: the id stays all zero otherwise,
                // which the tests exclude.
                let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
                debug_assert_eq!(written, Ok($chars));
                Self(text)
            }

            /// Reads an id.
            ///
            /// # Errors
            /// [`InvalidId`] for a wrong length, a character outside base64url, or a last
            /// character with bits that an encoder never sets.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                Self::parse_bytes(text.as_bytes())
            }

            pub(crate) fn parse_bytes(text: &[u8]) -> Result<Self, InvalidId> {
                const INVALID: InvalidId = InvalidId { expected: $chars };
                let chars: [u8; $chars] = text.try_into().map_err(|_| INVALID)?;
                let mut raw = [0u8; $bytes];
                match URL_SAFE_NO_PAD.decode_slice(chars, &mut raw) {
                    Ok($bytes) => Ok(Self(chars)),
                    _ => Err(INVALID),
                }
            }

            /// Spreads ids over this many places, far cheaper than a hash does. A client that chooses its ids
            /// can make many share a place.
            pub(crate) fn place_among(&self, count: usize) -> usize {
                let mix = |sum: usize, byte: &u8| sum * 31 + usize::from(*byte);
                self.0[..4].iter().fold(0, mix) % count
            }

            /// The id as text. Beware of where it goes: it is a credential.
            pub fn as_str(&self) -> &str {
                // Only base64url characters get in.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), &self.as_str()[..6])
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names one session: 32 random bytes, 43 characters.
    SessionId, bytes: 32, chars: 43
}

id! {
    /// Names one client (a browser profile): 18 random bytes, 24 characters.
    ClientId, bytes: 18, chars: 24
}

/// `length` characters of base64url from a CSPRNG: 6 bits of entropy each.
///
/// ```
/// let token = axum_io_session::generate_uid(24);
/// assert_eq!(token.len(), 24);
/// assert_ne!(token, axum_io_session::generate_uid(24));
/// ```
#[doc(alias = "generateUid")]
pub fn generate_uid(length: usize) -> String {
    let mut raw = vec![0u8; length.div_ceil(4) * 3];
    rand::rng().fill_bytes(&mut raw);
    let mut text = URL_SAFE_NO_PAD.encode(raw);
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn generated_ids_differ_and_read_back() {
        let ids: HashSet<SessionId> = (0..1000).map(|_| SessionId::generate()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!(SessionId::parse(id.as_str()), Ok(id));
            assert_eq!(id.as_str().len(), SessionId::LEN);
        }
        assert_eq!(ClientId::generate().as_str().len(), ClientId::LEN);
        assert_ne!(ClientId::generate(), ClientId::generate());
    }

    #[test]
    fn debug_hides_all_but_six_characters() {
        let id = SessionId::generate();
        let shown = format!("{id:?}");
        assert_eq!(shown, format!("SessionId({}..)", &id.as_str()[..6]));
    }

    #[test]
    fn a_uid_has_the_asked_length() {
        for length in 0..70 {
            assert_eq!(generate_uid(length).len(), length);
        }
    }

    #[test]
    fn an_id_whose_last_character_has_stray_bits_is_refused() {
        let canonical = "A".repeat(43);
        assert!(SessionId::parse(&canonical).is_ok());
        assert!(SessionId::parse(&format!("{}B", "A".repeat(42))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_only_if_it_is_canonical(text in "\\PC{0,60}") {
            if let Ok(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
            }
            if let Ok(id) = ClientId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            }
        }

        #[test]
        fn every_client_sized_base64url_text_is_an_id(text in "[A-Za-z0-9_-]{24}") {
            prop_assert!(ClientId::parse(&text).is_ok());
        }
    }
}
