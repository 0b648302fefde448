//! Tokens of leases.

use std::fmt;
use std::str::FromStr;

use rand::Rng as _;

/// Proof that a lease was granted: a different one each time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(u128);

impl LeaseToken {
    /// A new token.
    pub fn random() -> Self {
        let mut raw = [0u8; 16];
        rand::rng().fill_bytes(&mut raw);
        Self(u128::from_le_bytes(raw))
    }
}

#[cfg(feature = "redis")]
impl LeaseToken {
    /// As text, for a store's use.
    pub(crate) fn text(self) -> String {
        self.to_string()
    }
}

/// 32 hexadecimal digits, for the place that keeps leases. Knowing a token is enough to use its lease:
/// it belongs in no log.
impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no lease token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidToken(());

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a lease token: expected 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for InvalidToken {}

/// Reads what `Display` writes, and nothing else.
impl FromStr for LeaseToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidToken> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match u128::from_str_radix(text, 16) {
            Ok(token) if canonical && text.len() == 32 => Ok(Self(token)),
            _ => Err(InvalidToken(())),
        }
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({:06x}..)", self.0 >> 104)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_token_reads_back_from_its_text_and_from_no_other() {
        let token = LeaseToken::random();
        let text = token.to_string();
        assert_eq!((text.len(), text.parse()), (32, Ok(token)));
        assert!(!format!("{token:?}").contains(&text));
        for other in ["", &text[1..], &format!("{text}0"), &"G".repeat(32), &"A".repeat(32)] {
            assert_eq!(other.parse::<LeaseToken>(), Err(InvalidToken(())), "{other}");
        }
        assert!(format!("+{}", &text[1..]).parse::<LeaseToken>().is_err());
    }
}
