//! A custom store: one file for each session, in a folder.
//!
//! Run it: cargo run --example custom_store
//! Try it: curl -c jar -b jar -X POST localhost:3000/visit && ls /tmp/sessions

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::{Router, routing::post};
use axum_io_session::store::{SessionStore, SetOutcome, StoreResult, StoredSession};
use axum_io_session::{Error, Session, SessionBridge, SessionId};

struct FolderStore {
    folder: PathBuf,
}

impl FolderStore {
    /// An id is base64url of a fixed length, and so safe as a file name.
    fn path(&self, id: &SessionId) -> PathBuf {
        self.folder.join(id.as_str())
    }
}

impl SessionStore for FolderStore {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        match tokio::fs::read(self.path(id)).await {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let before = self.get(id).await?.filter(|old| u128::from(old.expires_at) > now);
        // A reader sees the old file or the new one, never a part.
        let temporary = self.path(id).with_extension("new");
        tokio::fs::write(&temporary, serde_json::to_vec(&session)?).await?;
        tokio::fs::rename(&temporary, self.path(id)).await?;
        Ok(if before.is_some() { SetOutcome::Updated } else { SetOutcome::Created })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        match tokio::fs::remove_file(self.path(id)).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

async fn visit(session: Session) -> Result<String, Error> {
    let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(format!("{visits} visits\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join("sessions");
    tokio::fs::create_dir_all(&folder).await?;
    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        .store(FolderStore { folder })
        .build()
        .await?;
    let app = Router::new().route("/visit", post(visit)).layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum_io_session::store::conformance;

    #[tokio::test]
    async fn it_keeps_the_contract() -> Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        conformance::check(async || {
            let folder = root.path().join(SessionId::generate().as_str());
            std::fs::create_dir(&folder).unwrap_or_default();
            FolderStore { folder }
        })
        .await;
        Ok(())
    }
}
