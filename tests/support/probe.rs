//! A store that counts, and fails or waits on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum_io_session::store::{
    LiveStore, SessionStore, SetOutcome, StoreEntry, StoreResult, StoredSession,
};
use axum_io_session::{ClientId, SessionId};
use tokio::sync::watch;

#[derive(Clone, Default)]
pub struct ProbeStore {
    pub live: LiveStore,
    switches: Arc<Switches>,
}

#[derive(Default)]
struct Switches {
    broken: AtomicBool,
    no_touch: AtomicBool,
    no_list: AtomicBool,
    no_find: AtomicBool,
    held: watch::Sender<bool>,
    reads: AtomicU64,
    writes: AtomicU64,
    touches: AtomicU64,
    optimized: AtomicU64,
}

#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

impl ProbeStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on each operation fails, or works again.
    pub fn set_broken(&self, broken: bool) {
        self.switches.broken.store(broken, Ordering::SeqCst);
    }

    /// From now on each renewal fails, or works again.
    pub fn set_no_touch(&self, broken: bool) {
        self.switches.no_touch.store(broken, Ordering::SeqCst);
    }

    pub fn without_list(self) -> Self {
        self.switches.no_list.store(true, Ordering::SeqCst);
        self
    }

    pub fn without_find(self) -> Self {
        self.switches.no_find.store(true, Ordering::SeqCst);
        self
    }

    /// From now on each write waits, or goes on.
    pub fn hold_writes(&self, held: bool) {
        self.switches.held.send_replace(held);
    }

    pub fn reads(&self) -> u64 {
        self.switches.reads.load(Ordering::SeqCst)
    }

    pub fn writes(&self) -> u64 {
        self.switches.writes.load(Ordering::SeqCst)
    }

    pub fn touches(&self) -> u64 {
        self.switches.touches.load(Ordering::SeqCst)
    }

    pub fn optimized(&self) -> u64 {
        self.switches.optimized.load(Ordering::SeqCst)
    }

    async fn work(&self) -> StoreResult<()> {
        // Other tasks get their chance in the middle of everything.
        tokio::task::yield_now().await;
        if self.switches.broken.load(Ordering::SeqCst) {
            return Err(Box::new(Broken));
        }
        Ok(())
    }
}

impl SessionStore for ProbeStore {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        self.switches.reads.fetch_add(1, Ordering::SeqCst);
        self.work().await?;
        self.live.get(id).await
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        self.switches.writes.fetch_add(1, Ordering::SeqCst);
        let mut held = self.switches.held.subscribe();
        held.wait_for(|held| !held).await?;
        self.work().await?;
        self.live.set(id, session).await
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        self.work().await?;
        self.live.destroy(id).await
    }

    async fn touch(&self, id: &SessionId, expires_at: u64, ttl: u64) -> StoreResult<bool> {
        self.switches.touches.fetch_add(1, Ordering::SeqCst);
        self.work().await?;
        if self.switches.no_touch.load(Ordering::SeqCst) {
            return Err(Box::new(Broken));
        }
        self.live.touch(id, expires_at, ttl).await
    }

    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        self.work().await?;
        if self.switches.no_list.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.live.list(after, limit).await
    }

    async fn find_by_client(&self, client: &ClientId) -> StoreResult<Option<SessionId>> {
        self.work().await?;
        if self.switches.no_find.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.live.find_by_client(client).await
    }

    async fn optimize(&self, _cleared: u64) -> StoreResult<()> {
        self.switches.optimized.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
