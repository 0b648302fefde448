//! Signing keys of one cookie.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cookie::Key;
use hmac::digest::Key as Block;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Characters that a signature puts in front of a value.
const SIGNATURE: usize = 44;

/// A signature as it stands in a cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature([u8; SIGNATURE]);

impl Signature {
    pub(super) fn as_str(&self) -> &str {
        // Only base64 gets in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// A value whose signature verified.
#[derive(Debug, PartialEq)]
pub(super) struct Proven<'a> {
    pub(super) value: &'a str,
    /// The signature that it came with, if it may be sent again as it is: the first key made it.
    pub(super) signature: Option<Signature>,
    /// The signature is of a key that is no longer the first.
    pub(super) stale: bool,
}

/// The keys of one cookie name: the first signs, all verify.
///
/// The format is that of the `cookie` crate, which signs values only. Keys derived from the name
/// as well keep a value signed for one cookie from being taken for another's.
#[derive(Clone)]
pub(super) struct KeyRing {
    name: String,
    /// States that have taken in their key, which is half of the work of a short signature. Empty:
    /// values are not signed.
    keys: Vec<Hmac<Sha256>>,
}

impl KeyRing {
    pub(super) fn new(name: &str, masters: &[Vec<u8>]) -> Self {
        let keys = masters.iter().map(|master| keyed(&derived(name, master))).collect();
        Self { name: name.to_owned(), keys }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the signature in front of each value.
    pub(super) fn overhead(&self) -> usize {
        if self.keys.is_empty() { 0 } else { SIGNATURE }
    }

    /// What goes in front of the value in its cookie; `None` if values are not signed.
    pub(super) fn sign(&self, value: &str) -> Option<Signature> {
        let mac = self.keys.first()?.clone().chain_update(value).finalize().into_bytes();
        let mut text = [0; SIGNATURE];
        let written = STANDARD.encode_slice(mac, &mut text);
        debug_assert_eq!(written, Ok(SIGNATURE));
        Some(Signature(text))
    }

    /// The value, if one of the keys signed it. The comparison takes the same time wherever the
    /// signatures differ.
    pub(super) fn verify<'a>(&self, signed: &'a str) -> Option<Proven<'a>> {
        if self.keys.is_empty() {
            return Some(Proven { value: signed, signature: None, stale: false });
        }
        let (text, value) = signed.split_at_checked(SIGNATURE)?;
        let text: [u8; SIGNATURE] = text.as_bytes().try_into().ok()?;
        // As much as this many characters could hold.
        let mut mac = [0; SIGNATURE / 4 * 3];
        let length = STANDARD.decode_slice(text, &mut mac).ok()?;
        let mac = mac.get(..length)?;
        let verifies = |key: &Hmac<Sha256>| key.clone().chain_update(value).verify_slice(mac);
        let index = self.keys.iter().position(|key| verifies(key).is_ok())?;
        let stale = index > 0;
        Some(Proven { value, signature: (!stale).then_some(Signature(text)), stale })
    }
}

/// The key of a cookie.
fn derived(name: &str, master: &[u8]) -> Key {
    // A label of fixed length and the name's length keep the parts apart, whatever the name and
    // the key contain.
    let mut input = b"axum-io-session cookie signing 1".to_vec();
    input.extend((name.len() as u64).to_be_bytes());
    input.extend(name.as_bytes());
    input.extend(master);
    Key::derive_from(&input)
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    // HMAC fills a key that is shorter than a block with zeros: so the length can't be wrong.
    let mut block = Block::<Hmac<Sha256>>::default();
    for (to, from) in block.iter_mut().zip(key.signing()) {
        *to = *from;
    }
    Hmac::new(&block)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use cookie::{Cookie, CookieJar};
    use proptest::prelude::*;

    impl KeyRing {
        /// The value as it stands in its cookie.
        pub(in crate::web) fn signed(&self, value: &str) -> String {
            let signature = self.sign(value);
            format!("{}{value}", signature.as_ref().map_or("", Signature::as_str))
        }
    }

    fn ring(name: &str, keys: &[&str]) -> KeyRing {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        KeyRing::new(name, &keys)
    }

    fn verified(ring: &KeyRing, signed: &str) -> Option<(String, bool)> {
        ring.verify(signed).map(|proven| (proven.value.to_owned(), proven.stale))
    }

    #[test]
    fn every_key_verifies_and_only_the_first_is_current() {
        let old = ring("sid", &["old"]);
        let both = ring("sid", &["new", "old"]);
        assert_eq!(verified(&both, &old.signed("v")), Some(("v".into(), true)));
        assert_eq!(verified(&both, &both.signed("v")), Some(("v".into(), false)));
        assert_eq!(verified(&ring("sid", &["new"]), &old.signed("v")), None);
    }

    #[test]
    fn only_a_signature_of_the_first_key_is_sent_again() {
        let (old, both) = (ring("sid", &["old"]), ring("sid", &["new", "old"]));
        assert_eq!(both.verify(&both.signed("v")).unwrap().signature, both.sign("v"));
        assert_eq!(both.verify(&old.signed("v")).unwrap().signature, None);
    }

    #[test]
    fn without_keys_values_are_as_they_are() {
        let ring = ring("sid", &[]);
        assert_eq!((ring.overhead(), ring.sign("v")), (0, None));
        assert_eq!(verified(&ring, "v"), Some(("v".into(), false)));
    }

    #[test]
    fn a_value_signed_for_another_cookie_is_refused() {
        let (session, client) = (ring("sid", &["k"]), ring("sid.cid", &["k"]));
        assert_eq!(session.verify(&client.signed("v")), None);
        assert_eq!(client.verify(&session.signed("v")), None);
    }

    #[test]
    fn a_signature_has_the_length_that_readers_expect() {
        let ring = ring("sid", &["k"]);
        assert_eq!(ring.signed("value").len(), ring.overhead() + 5);
    }

    proptest! {
        #[test]
        fn the_format_is_that_of_the_cookie_crate(value in "[ -~]{0,100}") {
            let ring = ring("sid", &["k"]);
            let key = derived("sid", b"k");
            let mut jar = CookieJar::new();
            jar.signed_mut(&key).add(Cookie::new("sid", value.clone()));
            let signed = jar.get("sid").unwrap().value().to_owned();
            prop_assert_eq!(&ring.signed(&value), &signed);
            prop_assert_eq!(verified(&ring, &signed), Some((value, false)));
        }

        #[test]
        fn any_change_of_a_signed_value_is_refused(at in 0usize..87, with in 0x21u8..0x7f) {
            let ring = ring("sid", &["k"]);
            let signed = ring.signed(crate::SessionId::generate().as_str());
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
