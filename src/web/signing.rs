//! Signing keys of one cookie.

use std::fmt;

use cookie::{Cookie, CookieJar, Key};

/// Bytes that a signature puts in front of a value.
pub(super) const SIGNATURE: usize = 44;

/// The keys of one cookie name: the first signs, all verify.
///
/// The `cookie` crate signs values only. Keys derived from the name as well keep a value signed
/// for one cookie from being taken for another's.
#[derive(Clone)]
pub(super) struct KeyRing {
    name: String,
    /// Empty: values are not signed.
    keys: Vec<Key>,
}

impl KeyRing {
    pub(super) fn new(name: &str, masters: &[Vec<u8>]) -> Self {
        let derive = |master: &Vec<u8>| {
            // A label of fixed length and the name's length keep the parts apart, whatever the
            // name and the key contain.
            let mut input = b"axum-io-session cookie signing 1".to_vec();
            input.extend((name.len() as u64).to_be_bytes());
            input.extend(name.as_bytes());
            input.extend(master);
            Key::derive_from(&input)
        };
        Self { name: name.to_owned(), keys: masters.iter().map(derive).collect() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the signature in front of each value.
    pub(super) fn overhead(&self) -> usize {
        if self.keys.is_empty() { 0 } else { SIGNATURE }
    }

    /// The value as it goes into the cookie.
    pub(super) fn sign(&self, value: &str) -> String {
        let Some(key) = self.keys.first() else { return value.to_owned() };
        let mut jar = CookieJar::new();
        jar.signed_mut(key).add(Cookie::new(self.name.clone(), value.to_owned()));
        jar.get(&self.name).map(|cookie| cookie.value().to_owned()).unwrap_or_default()
    }

    /// The verified value, and whether it is to be signed anew. The comparison takes the same
    /// time wherever the signatures differ.
    pub(super) fn verify(&self, signed: &str) -> Option<(String, bool)> {
        if self.keys.is_empty() {
            return Some((signed.to_owned(), false));
        }
        let jar = CookieJar::new();
        self.keys.iter().enumerate().find_map(|(index, key)| {
            let cookie = Cookie::new(self.name.clone(), signed.to_owned());
            jar.signed(key).verify(cookie).map(|cookie| (cookie.value().to_owned(), index > 0))
        })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(name: &str, keys: &[&str]) -> KeyRing {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        KeyRing::new(name, &keys)
    }

    #[test]
    fn every_key_verifies_and_only_the_first_is_current() {
        let old = ring("sid", &["old"]);
        let both = ring("sid", &["new", "old"]);
        assert_eq!(both.verify(&old.sign("v")), Some(("v".into(), true)));
        assert_eq!(both.verify(&both.sign("v")), Some(("v".into(), false)));
        assert_eq!(ring("sid", &["new"]).verify(&old.sign("v")), None);
    }

    #[test]
    fn a_value_signed_for_another_cookie_is_refused() {
        let (session, client) = (ring("sid", &["k"]), ring("sid.cid", &["k"]));
        assert_eq!(session.verify(&client.sign("v")), None);
        assert_eq!(client.verify(&session.sign("v")), None);
    }

    #[test]
    fn a_signature_has_the_length_that_readers_expect() {
        assert_eq!(ring("sid", &["k"]).sign("value").len(), SIGNATURE + 5);
    }

    proptest! {
        #[test]
        fn any_change_of_a_signed_value_is_refused(at in 0usize..87, with in 0x21u8..0x7f) {
            let ring = ring("sid", &["k"]);
            let signed = ring.sign(crate::SessionId::generate().as_str());
            let mut bytes = signed.clone().into_bytes();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(ring.verify(&changed), None);
        }

        #[test]
        fn no_text_verifies_by_chance(text in "\\PC{0,120}") {
            prop_assert_eq!(ring("sid", &["k"]).verify(&text), None);
        }
    }
}
