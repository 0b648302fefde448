//! What a response does about the session cookie.

use std::sync::Arc;

use crate::session::Record;

/// What the response does about the session cookie.
#[derive(Debug, Clone)]
pub(in crate::web) enum CookieAction {
    Keep,
    Set(Arc<Record>),
    Clear,
}
