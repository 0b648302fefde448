//! The extractor.

use std::fmt;
use std::future::Future;

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use super::close::CloseCodes;
use super::socket::SessionSocket;
use super::task;
use crate::web::Session;

/// Takes a WebSocket handshake, with the session of its cookies.
///
/// # Rejections
/// Those of [`WebSocketUpgrade`] and of [`Session`].
#[must_use = "the connection begins with the response of `on_upgrade`"]
pub struct SessionUpgrade {
    upgrade: WebSocketUpgrade,
    session: Session,
    codes: CloseCodes,
    required: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for SessionUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        // First, for it costs nothing.
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(IntoResponse::into_response)?;
        let session = Session::from_request_parts(parts, state).await;
        let session = session.map_err(IntoResponse::into_response)?;
        Ok(Self { upgrade, session, codes: CloseCodes::default(), required: false })
    }
}

impl SessionUpgrade {
    /// The session of the handshake's request. What is changed is committed before the connection begins.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sets what connections are closed with.
    pub fn close_codes(mut self, codes: CloseCodes) -> Self {
        self.codes = codes;
        self
    }

    /// Closes a connection that has no session when it begins, with
    /// [`CloseCodes::refused`], before its handler is called. Pages see that code; of an answer with
    /// 401 a browser's `WebSocket` says nothing.
    pub fn require_session(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets limits and protocols of axum's own extractor.
    pub fn configure(
        mut self,
        configure: impl FnOnce(WebSocketUpgrade) -> WebSocketUpgrade,
    ) -> Self {
        self.upgrade = configure(self.upgrade);
        self
    }

    /// Answers the handshake, and calls `handler` with the connection. A shutdown of the bridge closes
    /// the connection, and drops handlers that run on after it.
    #[must_use = "the connection begins with this response"]
    pub fn on_upgrade<F, Fut>(self, handler: F) -> Response
    where
        F: FnOnce(SessionSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade, session, codes, required } = self;
        upgrade.on_upgrade(move |socket| task::run(socket, session, codes, required, handler))
    }
}

impl fmt::Debug for SessionUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionUpgrade").field("codes", &self.codes).finish_non_exhaustive()
    }
}
