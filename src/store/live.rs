//! Sessions in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{SessionStore, SetOutcome, StoreResult, StoredSession};
use crate::session::SessionId;

/// Sessions in memory.
#[derive(Debug, Default)]
pub struct LiveStore {
    records: Mutex<HashMap<SessionId, StoredSession>>,
}

impl LiveStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl SessionStore for LiveStore {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        Ok(self.records.lock().unwrap().get(id).cloned())
    }
    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        Ok(match self.records.lock().unwrap().insert(*id, session) {
            None => SetOutcome::Created,
            Some(_) => SetOutcome::Updated,
        })
    }
    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        Ok(self.records.lock().unwrap().remove(id).is_some())
    }
}
