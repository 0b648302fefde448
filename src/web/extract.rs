//! Extractors.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use super::request::RequestState;
use super::session::Session;
use crate::bridge::Handshake;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, SessionId};

fn state(parts: &Parts) -> Result<Arc<RequestState>> {
    parts.extensions.get().cloned().ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "the request did not pass the session layer; add `.layer(bridge.layer())` after the route",
        )
    })
}

/// Loads the session. The first extraction of a request costs one read, others nothing.
///
/// # Rejections
/// 503 if the layer is missing, or if the store is away and
/// [`WhenUnavailable::Refuse`](crate::bridge::WhenUnavailable::Refuse), the default, is set.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(state(parts)?.session().await?.clone())
    }
}

/// The client, from its cookie or new with this request. Needs no store, except for a request
/// that has a session cookie but not its client cookie.
impl<S: Send + Sync> FromRequestParts<S> for ClientId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(state(parts)?.wanted_client_id())
    }
}

/// The id of the live session that the request's cookie names, if there is one. Loads the
/// session, and fails as that does; `None` if it is served as anonymous.
impl<S: Send + Sync> OptionalFromRequestParts<S> for SessionId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>> {
        Ok(state(parts)?.session().await?.id())
    }
}

/// What the layer learned from the cookies, without loading anything.
impl<S: Send + Sync> FromRequestParts<S> for Handshake {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(state(parts)?.handshake())
    }
}
