//! Where sessions are kept, and what requests do to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use axum_io_session::bridge::SessionBridgeBuilder;
use axum_io_session::session::Map;
use axum_io_session::store::{FileStore, LiveStore};
use axum_io_session::{ClientId, Error, Result, Session, SessionBridge, SessionData, SessionId};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::Barrier;

use crate::support::KEY;
use crate::support::app::{Gate, app, apply, show};
use crate::support::http::{Answer, Browser};

/// Where the sessions of one test are kept.
pub(crate) struct Place {
    folder: Option<tempfile::TempDir>,
    files: AtomicUsize,
}

impl Place {
    pub(crate) fn in_memory() -> Self {
        Self { folder: None, files: AtomicUsize::new(0) }
    }

    pub(crate) fn in_a_file() -> Self {
        Self { folder: Some(tempfile::tempdir().unwrap()), files: AtomicUsize::new(0) }
    }

    pub(crate) async fn world(&self) -> World {
        self.world_of(|builder| builder).await
    }

    /// A bridge over a store of its own, with these options.
    pub(crate) async fn world_of(
        &self,
        options: impl FnOnce(SessionBridgeBuilder) -> SessionBridgeBuilder,
    ) -> World {
        self.store().await.world_of(options).await
    }

    /// A new store.
    pub(crate) async fn store(&self) -> Store {
        match &self.folder {
            None => Store::Live(LiveStore::new()),
            Some(folder) => {
                let file = self.files.fetch_add(1, Ordering::Relaxed).to_string();
                Store::File(FileStore::open(folder.path().join(file)).await.unwrap())
            }
        }
    }
}

#[derive(Clone)]
pub(crate) enum Store {
    Live(LiveStore),
    File(FileStore),
}

impl Store {
    pub(crate) async fn world_of(
        &self,
        options: impl FnOnce(SessionBridgeBuilder) -> SessionBridgeBuilder,
    ) -> World {
        let builder = options(SessionBridge::builder().signing_keys([KEY]));
        let builder = match self.clone() {
            Self::Live(store) => builder.store(store),
            Self::File(store) => builder.store(store),
        };
        let bridge = builder.build().await.unwrap();
        World { app: app(&bridge), bridge }
    }
}

pub(crate) struct World {
    pub bridge: SessionBridge,
    pub app: Router,
}

impl World {
    /// A browser with an open session.
    pub(crate) async fn open(&self, body: &str) -> Browser {
        self.begun("/merge", body).await
    }

    /// A browser with a sealed session.
    pub(crate) async fn sealed(&self, body: &str) -> Browser {
        self.begun("/login", body).await
    }

    async fn begun(&self, uri: &str, body: &str) -> Browser {
        let mut browser = Browser::new();
        let answer = browser.post(&self.app, uri, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        browser
    }

    /// What a browser's cookies open, looked at without keeping what the answer sets.
    pub(crate) async fn seen(&self, browser: &Browser) -> Value {
        browser.clone().get(&self.app, "/read").await.json()
    }

    pub(crate) async fn data(&self, browser: &Browser) -> Value {
        self.seen(browser).await["data"].clone()
    }

    pub(crate) async fn id(&self, browser: &Browser) -> SessionId {
        self.seen(browser).await["id"].as_str().expect("a session").parse().unwrap()
    }

    pub(crate) async fn client(&self, browser: &Browser) -> ClientId {
        self.seen(browser).await["client"].as_str().unwrap().parse().unwrap()
    }

    /// `POST /{what}` acts once the gate lets it: see [`act`].
    pub(crate) fn gated(&self) -> (Router, Gate) {
        let gate = Gate::new();
        let inside = gate.clone();
        let handler = async move |Path(what): Path<String>, session: Session, body: String| {
            inside.stop().await;
            act(&session, &what, &body).await
        };
        (Router::new().route("/{what}", post(handler)).layer(self.bridge.layer()), gate)
    }

    /// Sends all requests side by side, each by a browser of its own with the same cookies. Those
    /// that are `loaded` have all loaded their session before the first of them changes something.
    pub(crate) async fn at_once(
        &self,
        browser: &Browser,
        loaded: bool,
        requests: &[(&'static str, String)],
    ) -> Vec<(Browser, Answer)> {
        let barrier = Arc::new(Barrier::new(if loaded { requests.len() } else { 1 }));
        let handler = async move |Path(what): Path<String>, session: Session, body: String| {
            barrier.wait().await;
            act(&session, &what, &body).await
        };
        let app = Router::new().route("/{what}", post(handler)).layer(self.bridge.layer());
        let sent = requests.iter().cloned().map(|(what, body)| {
            let (app, mut browser) = (app.clone(), browser.clone());
            tokio::spawn(async move {
                let answer = browser.post(&app, &format!("/{what}"), &body).await;
                (browser, answer)
            })
        });
        join_all(sent).await.into_iter().map(|joined| joined.unwrap()).collect()
    }
}

/// Does to the session what a path says.
async fn act(session: &Session, what: &str, body: &str) -> Result<String> {
    match what {
        "read" => {}
        "merge" => apply(session, body)?,
        "update" => {
            let data: Map = SessionData::from_json(body)?.as_map().clone();
            session
                .update(|now| {
                    now.as_map_mut().extend(data);
                    Ok(())
                })
                .await?;
        }
        "replace" => session.replace(SessionData::from_json(body)?)?,
        "login" => {
            apply(session, body)?;
            session.rotate()?;
        }
        "rotate" => session.rotate()?,
        "rotate-and-update" => {
            session.rotate()?;
            let data: Map = SessionData::from_json(body)?.as_map().clone();
            session
                .update(|now| {
                    now.as_map_mut().extend(data);
                    Ok(())
                })
                .await?;
        }
        "seal" => session.seal()?,
        "renew-id" => {
            apply(session, body)?;
            session.renew_id()?;
        }
        "logout" => session.destroy()?,
        "swap" => {
            session.destroy()?;
            apply(session, body)?;
        }
        "join-and-logout" => {
            apply(session, body)?;
            session.save().await?;
            session.destroy()?;
        }
        "age" => {
            apply(session, body)?;
            session.set_max_age(std::time::Duration::from_secs(1000))?;
        }
        other => panic!("no such action: {other}"),
    }
    Ok::<_, Error>(show(session))
}
