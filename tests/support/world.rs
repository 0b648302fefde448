//! A bridge over a probe store, and an application around it.

use axum_io_session::{ClientId, SessionBridge, SessionEvent, SessionId};

use super::app::app;
use super::http::Browser;
use super::probe::ProbeStore;
use super::{KEY, next};

pub struct World {
    pub bridge: SessionBridge,
    pub store: ProbeStore,
    pub app: axum::Router,
}

pub async fn world() -> World {
    world_of(ProbeStore::new()).await
}

pub async fn world_of(store: ProbeStore) -> World {
    let bridge =
        SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap();
    World { app: app(&bridge), bridge, store }
}

impl World {
    /// A browser with a session, and its ids. Streams that are opened from now on tell nothing of
    /// how it came about.
    pub async fn seeded(&self, body: &str) -> (Browser, SessionId, ClientId) {
        let mut browser = Browser::new();
        let mut events = self.bridge.events();
        browser.post(&self.app, "/merge", body).await;
        let session = browser.get(&self.app, "/id").await.body.parse().unwrap();
        let client = browser.get(&self.app, "/client").await.body.parse().unwrap();
        // An answer may overtake the event of the same change.
        while !matches!(next(&mut events).await, SessionEvent::Set(e) if e.session_id == session) {}
        (browser, session, client)
    }
}

pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
