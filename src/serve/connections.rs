//! All connections of a server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Connection;

type Table = HashMap<u64, Arc<Connection>>;

/// The connections that are open, as many as the system lets the process have. Upgraded ones are among
/// them: nothing else here reaches those.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    open: Arc<Mutex<Table>>,
}

/// A connection's place in the table, as long as its socket is open.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    connection: Arc<Connection>,
    table: Connections,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection under a number that no other has.
    pub(super) fn enter(&self, number: u64) -> Entry {
        let connection = Arc::new(Connection::new());
        self.table().insert(number, connection.clone());
        Entry { number, connection, table: self.clone() }
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    pub(super) fn abort_all(&self) {
        // Outside the lock: a task that is woken may drop its socket at once.
        let all: Vec<_> = self.table().values().cloned().collect();
        for connection in all {
            connection.abort();
        }
    }
}

impl Entry {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.table().remove(&self.number);
    }
}
