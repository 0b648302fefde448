//! What a session cookie holds.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::session::SessionId;

/// Digits of a session cookie's end.
const END_DIGITS: usize = 12;

/// What a session cookie holds: the id, and when the browser drops the cookie. The server can't
/// ask a browser for that, and has to send the cookie again when its session lives longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::web) struct SessionCookie {
    pub(in crate::web) id: SessionId,
    /// Seconds since the Unix epoch; `None` for a cookie that ends with the browser.
    ends: Option<u64>,
}

impl SessionCookie {
    /// Lengths of the text, without a signature.
    pub(super) const LENGTHS: RangeInclusive<usize> =
        SessionId::LEN..=SessionId::LEN + 1 + END_DIGITS;

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, ends) = match text.split_once('.') {
            Some((id, ends)) => {
                let digits = (1..=END_DIGITS).contains(&ends.len())
                    && ends.bytes().all(|byte| byte.is_ascii_digit());
                (id, Some(ends.parse().ok().filter(|_| digits)?))
            }
            None => (text, None),
        };
        Some(Self { id: SessionId::parse(id).ok()?, ends })
    }

    /// How long the browser still keeps the cookie, by this node's clock.
    pub(in crate::web) fn left(&self) -> Option<Duration> {
        self.ends.map(|ends| Duration::from_secs(ends).saturating_sub(now()))
    }
}

/// The time since the Unix epoch, by this node's clock.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
