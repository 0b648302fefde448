//! Arguments of scripts and commands.

use std::time::Duration;

use fred::prelude::Value;

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An argument or message that is no text.
pub(crate) fn bytes(bytes: Vec<u8>) -> Value {
    bytes.into_boxed_slice().into()
}
