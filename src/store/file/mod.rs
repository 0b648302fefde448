//! Sessions in one file.

mod private;
mod tables;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _};

use super::{SessionStore, SetOutcome, StoreEntry, StoreResult, StoredSession};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::session::{ClientId, SessionId};
use tables::Reader;
use writer::{Change, Done, Writer};

/// Sessions in one file of an embedded database ([redb](https://docs.rs/redb)): they survive
/// restarts and crashes.
///
/// A write that was acknowledged is on the disk: it is there after the process is killed at any
/// moment, and after a power failure as far as the disk keeps its promise. Writes that come at
/// the same time share one transaction. The file belongs to one process at a time; many nodes
/// need a store that they share.
///
/// Records that expired more than a day ago are dropped a few at a time by later writes; freed
/// space is used again. A clone is the same store.
///
/// ```no_run
/// # async fn start() -> axum_io_session::Result<()> {
/// use axum_io_session::{SessionBridge, store::FileStore};
///
/// let store = FileStore::open("sessions.redb").await?;
/// let bridge = SessionBridge::builder()
///     // Without own keys no cookie would verify after a restart.
///     .signing_keys([std::env::var("SESSION_KEY").unwrap_or_default()])
///     .store(store)
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Arc<Database>,
    writer: Writer,
}

impl FileStore {
    /// Opens the file, or makes it. After a crash this repairs what was not acknowledged.
    ///
    /// Sessions are secrets: on Unix the file is created with mode 0600, whatever the umask allows,
    /// and a session file with wider rights is narrowed to that. If that fails, as with another
    /// user's file, a warning says so and the store works.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the file is open already, here or in another
    /// process; [`Store`](ErrorKind::Store) if it can't be read or is damaged or no session file,
    /// and then it is left as it is.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let opened = path.clone();
        let opening = tokio::task::spawn_blocking(move || open(&opened));
        let database = match opening.await {
            Ok(database) => database?,
            // The database asserts what it reads in some places.
            Err(panic) => return Err(damaged(&path, panic)),
        };
        let database = Arc::new(database);
        let writer = Writer::start(database.clone())
            .map_err(|error| Error::store("the store's thread could not be started", error))?;
        Ok(Self { inner: Arc::new(Inner { path, database, writer }) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Reads on a thread that may block: what is not cached comes from the disk.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, redb::Error> + Send + 'static,
    ) -> StoreResult<T> {
        let database = self.inner.database.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read()?;
            work(&Reader::new(&transaction)?)
        });
        Ok(reading.await??)
    }

    async fn write(&self, change: Change) -> StoreResult<Done> {
        self.inner.writer.write(change).await
    }
}

fn open(path: &Path) -> Result<Database> {
    let file = private::open(path).map_err(|error| damaged(path, error))?;
    // Shares the database's lock, and does not release it when it is closed.
    let rights = file.try_clone().map_err(|error| damaged(path, error))?;
    let create = |file| Builder::new().create_with_backend(FileBackend::new(file)?);
    let database = create(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} is open already; one process at a time can use it: stop the other, or give each its own file",
                path.display()
            ),
        )
        .with_source(error),
        other => damaged(path, other),
    })?;
    tables::prepare(&database).map_err(|error| damaged(path, error))?;
    // Only now is it known to be a session file. Others are left as they are.
    private::narrow(&rights, path);
    Ok(database)
}

fn damaged(path: &Path, error: impl Into<BoxError>) -> Error {
    Error::store(
        format!(
            "{} could not be opened as a session file and was left as it is; move it away or restore a copy",
            path.display()
        ),
        error,
    )
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl SessionStore for FileStore {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        let id = *id;
        self.read(move |reader| reader.get(&id)).await
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        Ok(match self.write(Change::Set(*id, Box::new(session))).await? {
            Done::New => SetOutcome::Created,
            Done::Found | Done::Missing => SetOutcome::Updated,
        })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        Ok(self.write(Change::Destroy(*id)).await? == Done::Found)
    }

    async fn touch(&self, id: &SessionId, expires_at: u64, ttl: u64) -> StoreResult<bool> {
        Ok(self.write(Change::Touch(*id, expires_at, ttl)).await? == Done::Found)
    }

    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        let after = after.copied();
        self.read(move |reader| reader.list(after.as_ref(), limit)).await.map(Some)
    }

    async fn find_by_client(&self, client: &ClientId) -> StoreResult<Option<SessionId>> {
        let client = *client;
        self.read(move |reader| reader.find_by_client(&client)).await
    }

    async fn close(&self) -> StoreResult<()> {
        self.inner.writer.close().await;
        Ok(())
    }
}
