//! Sessions by id, from plain code.

use serde::Serialize;

use super::core::Core;
use super::lease_guard::LeaseGuard;
use super::own_ends::{self, Ended};
use super::unit_of_work::UnitOfWork;
use super::write;
use crate::backend::{DestroyTarget, Loaded};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Generation, MaxAge, Record, SessionData, SessionId};

/// A copy of a session's data.
pub(super) async fn get(core: &Core, session: &SessionId) -> Result<Option<SessionData>> {
    Ok(find(core, std::slice::from_ref(session)).await?.map(|record| record.data))
}

/// Replaces the data of a session.
pub(super) async fn set_by_id<T: Serialize>(
    core: &Core,
    session: &SessionId,
    data: T,
    max_age: Option<MaxAge>,
) -> Result<()> {
    let (data, max_age) = checked(&data, max_age)?;
    match find(core, std::slice::from_ref(session)).await? {
        Some(record) => set(core, record.client_id, Some(record.generation), data, max_age).await,
        None => Err(creating_prohibited()),
    }
}

/// Replaces the data of the client's session.
pub(super) async fn set_by_client_id<T: Serialize>(
    core: &Core,
    client: &ClientId,
    data: T,
    max_age: Option<MaxAge>,
) -> Result<()> {
    let (data, max_age) = checked(&data, max_age)?;
    set(core, *client, None, data, max_age).await
}

/// Ends a session.
pub(super) async fn destroy_by_id(core: &Core, session: &SessionId) -> Result<bool> {
    let own = own_session(core, |ids| ids.contains(session).then(|| vec![*session])).await?;
    let done = core.backend.destroy(DestroyTarget::Session(*session)).await?;
    if done {
        let sealed = own.is_some_and(|own| own.sealed);
        own_ends::note(Ended::Session { id: *session, sealed });
    }
    Ok(done)
}

/// Ends the client's session.
pub(super) async fn destroy_by_client_id(core: &Core, client: &ClientId) -> Result<bool> {
    let own = own_session(core, |ids| (!ids.is_empty()).then(|| ids.to_vec())).await?;
    let done = core.backend.destroy(DestroyTarget::Client(*client)).await?;
    if done {
        own_ends::note(Ended::Client(*client));
        if let Some(own) = own.filter(|own| own.client_id == *client) {
            own_ends::note(Ended::Session { id: own.session_id, sealed: own.sealed });
        }
    }
    Ok(done)
}

async fn find(core: &Core, sessions: &[SessionId]) -> Result<Option<Record>> {
    Ok(match core.backend.load(sessions, None).await? {
        Loaded::Found(record) => Some(record),
        Loaded::Missing { .. } => None,
    })
}

/// The live session of the request that runs here, if it is one of those wanted: a caller that
/// ends it by its id has to know whether it was sealed.
async fn own_session(
    core: &Core,
    wanted: impl FnOnce(&[SessionId]) -> Option<Vec<SessionId>>,
) -> Result<Option<Record>> {
    match wanted(&own_ends::presented()) {
        Some(ids) => find(core, &ids).await,
        None => Ok(None),
    }
}

async fn set(
    core: &Core,
    client: ClientId,
    generation: Option<Generation>,
    data: SessionData,
    max_age: Option<MaxAge>,
) -> Result<()> {
    let lease = LeaseGuard::acquire(core, client).await?;
    let same = |now: Generation| generation.is_none_or(|wanted| wanted == now);
    let Some(record) = lease.record().filter(|record| same(record.generation)) else {
        return Err(creating_prohibited());
    };
    let unit = UnitOfWork { data, max_age, ..UnitOfWork::new(record.clone(), record.session_id) };
    if unit.leaves(record) {
        // It may be what another caller left, and not be stored yet.
        lease.settled().await?;
        let touched = core.backend.touch(&client, record.generation).await?;
        return touched.map(drop).ok_or_else(Error::ended);
    }
    write::write(core, record, &unit, || unit.changes(), Some(&lease)).await.map(drop)
}

fn checked<T: Serialize>(
    data: &T,
    max_age: Option<MaxAge>,
) -> Result<(SessionData, Option<MaxAge>)> {
    let max_age = max_age.map(MaxAge::validate).transpose()?;
    Ok((SessionData::from_serialize(data)?, max_age))
}

fn creating_prohibited() -> Error {
    Error::new(ErrorKind::SessionMissing, "setting by id never creates a session")
}
