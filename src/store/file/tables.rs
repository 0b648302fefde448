//! What is in the file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `sessions` | session id | the record as JSON |
//! | `expiry` | session id | expiry and time to live: a renewal does not rewrite the record |
//! | `due` | expiry, session id | nothing: records in the order of their end |
//! | `clients` | client id | the session that was written last |

use std::ops::Bound;

use redb::{
    Database, Error, ReadOnlyTable, ReadTransaction, ReadableTable as _, Table, TableDefinition,
    WriteTransaction,
};

use super::super::{StoreEntry, StoredSession};
use crate::session::{ClientId, SessionId};

const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const EXPIRY: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("expiry");
const DUE: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("due");
const CLIENTS: TableDefinition<'_, &str, &str> = TableDefinition::new("clients");

/// Makes the tables, so that readers find them.
pub(super) fn prepare(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn record(bytes: &[u8], (expires_at, ttl): (u64, u64)) -> StoredSession {
    match serde_json::from_slice::<StoredSession>(bytes) {
        Ok(mut record) => {
            record.expires_at = expires_at;
            record.ttl = ttl;
            record
        }
        // No JSON object either: a reader ends it, instead of failing again and again.
        Err(_) => StoredSession::new("", u64::MAX, 0),
    }
}

/// The tables for reading.
pub(super) struct Reader {
    sessions: ReadOnlyTable<&'static str, &'static [u8]>,
    expiry: ReadOnlyTable<&'static str, (u64, u64)>,
    clients: ReadOnlyTable<&'static str, &'static str>,
}

impl Reader {
    pub(super) fn new(transaction: &ReadTransaction) -> Result<Self, Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            expiry: transaction.open_table(EXPIRY)?,
            clients: transaction.open_table(CLIENTS)?,
        })
    }

    pub(super) fn get(&self, id: &SessionId) -> Result<Option<StoredSession>, Error> {
        let (Some(bytes), Some(expiry)) =
            (self.sessions.get(id.as_str())?, self.expiry.get(id.as_str())?)
        else {
            return Ok(None);
        };
        Ok(Some(record(bytes.value(), expiry.value())))
    }

    pub(super) fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<StoreEntry>, Error> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
        let mut page = Vec::new();
        for row in self.expiry.range::<&str>((from, Bound::Unbounded))? {
            if page.len() == limit {
                break;
            }
            let (id, expiry) = row?;
            if let Ok(id) = SessionId::parse(id.value()) {
                page.push(StoreEntry { id, expires_at: expiry.value().0 });
            }
        }
        Ok(page)
    }

    pub(super) fn find_by_client(&self, client: &ClientId) -> Result<Option<SessionId>, Error> {
        let id = self.clients.get(client.as_str())?;
        Ok(id.and_then(|id| SessionId::parse(id.value()).ok()))
    }
}

/// The tables for writing.
pub(super) struct Tables<'t> {
    sessions: Table<'t, &'static str, &'static [u8]>,
    expiry: Table<'t, &'static str, (u64, u64)>,
    due: Table<'t, (u64, &'static str), ()>,
    clients: Table<'t, &'static str, &'static str>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            expiry: transaction.open_table(EXPIRY)?,
            due: transaction.open_table(DUE)?,
            clients: transaction.open_table(CLIENTS)?,
        })
    }

    /// Writes a record; returns when the one before it expires, if there was one.
    pub(super) fn set(
        &mut self,
        id: &SessionId,
        session: &StoredSession,
        json: &[u8],
    ) -> Result<Option<u64>, Error> {
        let key = id.as_str();
        self.sessions.insert(key, json)?;
        let before = self.move_expiry(key, session.expires_at, session.ttl)?;
        if let Some(client) = &session.client_id {
            self.clients.insert(client.as_str(), key)?;
        }
        Ok(before)
    }

    /// Moves the expiry; `false` if there is no record.
    pub(super) fn touch(&mut self, id: &SessionId, at: u64, ttl: u64) -> Result<bool, Error> {
        let key = id.as_str();
        if self.expiry.get(key)?.is_none() {
            return Ok(false);
        }
        self.move_expiry(key, at, ttl)?;
        Ok(true)
    }

    fn move_expiry(&mut self, key: &str, at: u64, ttl: u64) -> Result<Option<u64>, Error> {
        let before = self.expiry.insert(key, (at, ttl))?.map(|old| old.value().0);
        if let Some(before) = before {
            self.due.remove((before, key))?;
        }
        self.due.insert((at, key), ())?;
        Ok(before)
    }

    /// Removes a record; `false` if there is none.
    pub(super) fn destroy(&mut self, id: &str) -> Result<bool, Error> {
        let at = self.expiry.remove(id)?.map(|old| old.value().0);
        if let Some(at) = at {
            self.due.remove((at, id))?;
        }
        let client = self.sessions.remove(id)?.and_then(|bytes| {
            serde_json::from_slice::<StoredSession>(bytes.value()).ok()?.client_id
        });
        if let Some(client) = client {
            let points_here =
                self.clients.get(client.as_str())?.is_some_and(|session| session.value() == id);
            if points_here {
                self.clients.remove(client.as_str())?;
            }
        }
        Ok(at.is_some())
    }

    /// Removes up to `limit` records that expired before `before`.
    pub(super) fn purge(&mut self, before: u64, limit: usize) -> Result<(), Error> {
        let mut ids = Vec::new();
        for row in self.due.range::<(u64, &str)>(..(before, ""))?.take(limit) {
            ids.push(row?.0.value().1.to_owned());
        }
        for id in ids {
            self.destroy(&id)?;
        }
        Ok(())
    }
}
