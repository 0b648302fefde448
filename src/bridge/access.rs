//! Sessions by id, from plain code.

use serde::Serialize;

use super::handle::SessionBridge;
use super::own_ends::{self, Ended};
use super::unit_of_work::Unit;
use super::with_session::Held;
use crate::backend::{DestroyTarget, Loaded};
use crate::error::{Error, Result};
use crate::session::{ClientId, Generation, MaxAge, Record, SessionData, SessionId};

impl SessionBridge {
    /// The session that a client has, if it has one.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getSessionId")]
    pub async fn session_id_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        self.backend().session_of(client).await
    }

    /// The client that a session belongs to, if there is such a session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getClientId")]
    pub async fn client_id_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        self.backend().client_of(session).await
    }

    /// A copy of a session's data; `None` if there is no such session. Takes no lock and does
    /// not extend the session's life.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getById")]
    pub async fn get_by_id(&self, session: &SessionId) -> Result<Option<SessionData>> {
        Ok(match self.backend().load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.data),
            Loaded::Missing { .. } => None,
        })
    }

    /// [`get_by_id`](Self::get_by_id) of the client's session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "getByClientId")]
    pub async fn get_by_client_id(&self, client: &ClientId) -> Result<Option<SessionData>> {
        match self.session_id_of(client).await? {
            Some(session) => self.get_by_id(&session).await,
            None => Ok(None),
        }
    }

    /// Replaces a session's data, under the lease. The id stays, the life begins anew (also if
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
        let (data, max_age) = checked(&data, max_age)?;
        match self.backend().load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => {
                self.set(record.client_id, Some(record.generation), data, max_age).await
            }
            Loaded::Missing { .. } => Err(creating_prohibited()),
        }
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
        let (data, max_age) = checked(&data, max_age)?;
        self.set(*client, None, data, max_age).await
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
        let own = self.own_session(|ids| ids.contains(session).then(|| vec![*session])).await?;
        let done = self.backend().destroy(DestroyTarget::Session(*session)).await?;
        if done {
            let sealed = own.is_some_and(|own| own.sealed);
            own_ends::note(Ended::Session { id: *session, sealed });
        }
        Ok(done)
    }

    /// [`destroy_by_id`](Self::destroy_by_id) of the client's session.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "destroyByClientId")]
    pub async fn destroy_by_client_id(&self, client: &ClientId) -> Result<bool> {
        let own = self.own_session(|ids| (!ids.is_empty()).then(|| ids.to_vec())).await?;
        let done = self.backend().destroy(DestroyTarget::Client(*client)).await?;
        if done {
            own_ends::note(Ended::Client(*client));
            if let Some(own) = own.filter(|own| own.client_id == *client) {
                own_ends::note(Ended::Session { id: own.session_id, sealed: own.sealed });
            }
        }
        Ok(done)
    }

    /// The live session of the request that runs here, if it is one of those asked for: who ends it
    /// by its id has to know whether it was sealed.
    async fn own_session(
        &self,
        asked: impl FnOnce(&[SessionId]) -> Option<Vec<SessionId>>,
    ) -> Result<Option<Record>> {
        let Some(ids) = asked(&own_ends::presented()) else { return Ok(None) };
        Ok(match self.backend().load(&ids, None).await? {
            Loaded::Found(record) => Some(record),
            Loaded::Missing { .. } => None,
        })
    }

    /// Removes the expired sessions that are still in the store and returns their number. Ends
    /// that were told in time are not among them: those records are gone already.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the store can't list, and those of the store.
    pub async fn cleanup(&self) -> Result<u64> {
        self.backend().cleanup().await
    }

    /// Tells of a session that was written into the store directly, as if this bridge had done
    /// it. Ids that no client is attached to are ignored.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "notifyStoreSet")]
    pub async fn notify_store_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        self.backend().notify_set(session, is_new).await
    }

    /// Tells of a session that was removed from the store directly. Ids that no client is
    /// attached to are ignored.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "notifyStoreDestroy")]
    pub async fn notify_store_destroy(&self, session: &SessionId) -> Result<()> {
        self.backend().notify_destroy(session).await
    }

    /// Tells of a cleanup that the store did by itself.
    #[doc(alias = "notifyStoreCleanup")]
    pub fn notify_store_cleanup(&self, cleared: u64) {
        self.backend().notify_cleanup(cleared);
    }

    async fn set(
        &self,
        client: ClientId,
        generation: Option<Generation>,
        data: SessionData,
        max_age: Option<MaxAge>,
    ) -> Result<()> {
        let held = Held::acquire(self, client).await?;
        let same = |now: Generation| generation.is_none_or(|wanted| wanted == now);
        let Some(record) = held.record().filter(|record| same(record.generation)) else {
            return Err(creating_prohibited());
        };
        let changes = record.data.changes_to(&data);
        if changes.is_empty() && max_age.is_none_or(|age| age == record.max_age) {
            let touched = self.backend().touch(&client, record.generation).await?;
            return touched.map(drop).ok_or_else(Error::ended);
        }
        let unit = Unit { data, max_age, ..Unit::new(record.clone(), record.session_id) };
        self.write(record, &unit, &changes, Some(&held)).await.map(drop)
    }
}

fn checked<T: Serialize>(
    data: &T,
    max_age: Option<MaxAge>,
) -> Result<(SessionData, Option<MaxAge>)> {
    let max_age = max_age.map(MaxAge::validate).transpose()?;
    Ok((SessionData::from_serialize(data)?, max_age))
}

fn creating_prohibited() -> Error {
    Error::new(crate::ErrorKind::SessionMissing, "setting by id never creates a session")
}
