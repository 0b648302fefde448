//! Sessions by id, from plain code.

use serde::Serialize;

use super::SessionBridge;
use crate::bridge::access;
use crate::error::Result;
use crate::session::{ClientId, MaxAge, SessionData, SessionId};

impl SessionBridge {
    /// The session that a client has, if it has one.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getSessionId")]
    pub async fn session_id_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        self.core.backend.session_of(client).await
    }

    /// The client that a session belongs to, if there is such a session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getClientId")]
    pub async fn client_id_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        self.core.backend.client_of(session).await
    }

    /// A copy of a session's data; `None` if there is no such session. Takes no lock and does
    /// not extend the session's life.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getById")]
    pub async fn get_by_id(&self, session: &SessionId) -> Result<Option<SessionData>> {
        access::get(&self.core, session).await
    }

    /// [`get_by_id`](Self::get_by_id) of the client's session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getByClientId")]
    pub async fn get_by_client_id(&self, client: &ClientId) -> Result<Option<SessionData>> {
        Ok(self.core.backend.record_of(client).await?.map(|record| record.data))
    }

    /// Replaces a session's data, under the lease. The id stays, its time to live begins again (also if
    /// the data is the same), and `max_age`, if given, is the session's own from now on. Never
    /// creates a session.
    ///
    /// # Errors
    /// [`SessionMissing`](crate::ErrorKind::SessionMissing) if there is no such session,
    /// [`InvalidData`](crate::ErrorKind::InvalidData) for anything that is no JSON object (to end a session
    /// call [`destroy_by_id`](Self::destroy_by_id)),
    /// [`InvalidMaxAge`](crate::ErrorKind::InvalidMaxAge) out of range, and those of
    /// [`with_session`](Self::with_session).
    #[doc(alias = "setById")]
    pub async fn set_by_id<T: Serialize>(
        &self,
        session: &SessionId,
        data: T,
        max_age: Option<MaxAge>,
    ) -> Result<()> {
        access::set_by_id(&self.core, session, data, max_age).await
    }

    /// [`set_by_id`](Self::set_by_id) of the client's session.
    ///
    /// # Errors
    /// Those of [`set_by_id`](Self::set_by_id).
    #[doc(alias = "setByClientId")]
    pub async fn set_by_client_id<T: Serialize>(
        &self,
        client: &ClientId,
        data: T,
        max_age: Option<MaxAge>,
    ) -> Result<()> {
        access::set_by_client_id(&self.core, client, data, max_age).await
    }

    /// Ends a session. `false` if there was none. Does not wait for a handler that holds it: the
    /// handler's write is refused.
    ///
    /// In the handler of a request of this very session it is a logout: the answer clears the
    /// cookie, and what the handler sets belongs to a new session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "destroyById")]
    pub async fn destroy_by_id(&self, session: &SessionId) -> Result<bool> {
        access::destroy_by_id(&self.core, session).await
    }

    /// [`destroy_by_id`](Self::destroy_by_id) of the client's session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "destroyByClientId")]
    pub async fn destroy_by_client_id(&self, client: &ClientId) -> Result<bool> {
        access::destroy_by_client_id(&self.core, client).await
    }
}
