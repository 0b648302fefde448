//! A session's own max age.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// The range of a session's max age: 1 second to 1 year (366 days).
pub const MAX_AGE_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 60 * 60);

/// A session's own max age. It stays with the session until it is set again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MaxAge {
    /// The `max_age` option. This is the default.
    #[default]
    Default,
    /// The cookie has no expiry, so that it ends with the browser; in the store the session
    /// lives as long as the `max_age` option says.
    Browser,
    /// This long since the last write, see [`MAX_AGE_RANGE`].
    After(Duration),
}

impl MaxAge {
    /// Checks the range.
    ///
    /// # Errors
    /// [`InvalidMaxAge`](ErrorKind::InvalidMaxAge) outside [`MAX_AGE_RANGE`].
    pub fn validate(self) -> Result<Self, Error> {
        match self {
            Self::After(age) if !MAX_AGE_RANGE.contains(&age) => Err(Error::new(
                ErrorKind::InvalidMaxAge,
                format!("{age:?}; it must be 1 second to 1 year"),
            )),
            valid => Ok(valid),
        }
    }
}

impl From<Duration> for MaxAge {
    fn from(age: Duration) -> Self {
        Self::After(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn max_age_is_one_second_to_one_year() {
        for bad in [Duration::ZERO, Duration::from_millis(999), HOUR * 24 * 367, Duration::MAX] {
            assert_eq!(MaxAge::After(bad).validate().unwrap_err().kind(), ErrorKind::InvalidMaxAge);
        }
        for good in [Duration::from_secs(1), HOUR * 24 * 366] {
            assert!(MaxAge::After(good).validate().is_ok());
        }
    }
}
