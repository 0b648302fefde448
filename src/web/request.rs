//! One request on its way through the layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::admission::Admitted;
use super::cookies::Incoming;
use super::session::Session;
use crate::backend::Loaded;
use crate::bridge::{
    Anomaly, EngineConnection, Handshake, OwnEnds, SessionBridge, UnitOfWork, WhenUnavailable,
};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, SessionId};

/// What the layer keeps of a request until its response.
pub(super) struct RequestState {
    pub(super) bridge: SessionBridge,
    pub(super) incoming: Incoming,
    pub(super) presented: Arc<[SessionId]>,
    client: Mutex<Client>,
    /// The backend was asked who the client is, and did not say: it is not asked again.
    unreachable: Option<Error>,
    pub(super) session: OnceCell<Session>,
    /// The session was wanted and could not be loaded.
    pub(super) refused: AtomicBool,
    /// The handler asked for the client id.
    pub(super) asked_for_client: AtomicBool,
    pub(super) https: bool,
    pub(super) engine_io: bool,
    engine: Option<Arc<EngineConnection>>,
}

#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) send: Send,
}

/// Whether the response carries the client cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    /// It must, whether or not cookies are rolled: the id is new, or signed by an old key.
    Must,
    /// As the option says.
    May,
    /// It must not: the id stands in for one that could not be found out, or that is none of this
    /// request's business.
    Never,
}

impl RequestState {
    /// `unreachable` says why the backend, which knows who the client is, did not say.
    pub(super) fn new(
        bridge: SessionBridge,
        admitted: Admitted,
        presented: Arc<[SessionId]>,
        client: Client,
        unreachable: Option<Error>,
    ) -> Self {
        let Admitted { incoming, https, engine_io, .. } = admitted;
        bridge.counters().requests.add(1);
        for anomaly in &incoming.anomalies {
            bridge.anomaly(*anomaly);
        }
        Self {
            bridge,
            incoming,
            presented,
            client: Mutex::new(client),
            unreachable,
            session: OnceCell::new(),
            refused: AtomicBool::new(false),
            asked_for_client: AtomicBool::new(false),
            https,
            engine_io,
            engine: None,
        }
    }

    /// Begins the Engine.IO connection of a handshake; `false` if there are too many.
    pub(super) fn begin_engine(&mut self) -> bool {
        let cookieless = self.incoming.client.is_none();
        self.engine = self.bridge.begin_engine(self.client_id(), cookieless);
        self.engine.is_some()
    }

    pub(super) fn engine(&self) -> Option<&Arc<EngineConnection>> {
        self.engine.as_ref()
    }

    pub(super) fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client_id(&self) -> ClientId {
        match self.session.get() {
            Some(session) => session.client_id(),
            None => self.client().id,
        }
    }

    /// The client id, for a handler that wants it.
    pub(super) fn wanted_client_id(&self) -> ClientId {
        self.asked_for_client.store(true, Ordering::Relaxed);
        self.client_id()
    }

    pub(super) fn handshake(&self) -> Handshake {
        Handshake {
            bridge: self.bridge.clone(),
            client: self.client_id(),
            presented: self.presented.clone(),
            engine: self.engine.clone(),
        }
    }

    /// Where it is noted what the request's handler ends by id.
    pub(super) fn own_ends(&self) -> OwnEnds {
        OwnEnds::new(self.presented.clone())
    }

    /// The request's session, loaded at the first call.
    pub(super) async fn session(&self) -> Result<&Session> {
        self.session.get_or_try_init(|| self.load_or_serve_anonymously()).await
    }

    async fn load_or_serve_anonymously(&self) -> Result<Session> {
        let error = match self.load().await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let options = self.bridge.options();
        let away = is_away(&error);
        // A node that stops is not served around: another one has the session.
        if away
            && options.when_unavailable == WhenUnavailable::Anonymous
            && !self.bridge.is_stopping()
        {
            self.bridge.counters().served_anonymously.add(1);
            tracing::warn!(%error, "a session could not be loaded; serving as anonymous");
            return Ok(Session::unavailable(self.bridge.clone(), self.client().id));
        }
        if away {
            self.bridge.counters().errors.add(1);
        }
        self.refused.store(true, Ordering::Relaxed);
        Err(error)
    }

    pub(super) async fn load(&self) -> Result<Session> {
        let client = self.client().id;
        let session =
            |client, unit, cookie| Ok(Session::new(self.bridge.clone(), client, unit, cookie));
        if self.presented.is_empty() {
            return session(client, UnitOfWork::default(), None);
        }
        if let Some(error) = &self.unreachable {
            return Err(error.without_source());
        }
        self.bridge.counters().loads.add(1);
        match self.bridge.backend().load(&self.presented, Some(&client)).await? {
            Loaded::Found(record) => {
                let owner = record.client_id;
                if owner != client {
                    // The session cookie is the credential, the client cookie follows it.
                    self.bridge.anomaly(Anomaly::PairMismatch);
                    *self.client() = Client { id: owner, send: Send::Must };
                }
                let cookies = self.incoming.sessions.iter().map(|session| session.value);
                let cookie = cookies.into_iter().find(|cookie| record.opens_by(&cookie.id));
                let holds = cookie.map_or(record.session_id, |cookie| cookie.id);
                session(owner, UnitOfWork::new(Arc::new(record), holds), cookie)
            }
            Loaded::Missing { superseded: true } => {
                self.bridge.anomaly(Anomaly::SupersededSession);
                // The browser may have another one by now.
                self.client().send = Send::Never;
                session(client, UnitOfWork::superseded(), None)
            }
            Loaded::Missing { superseded: false } => {
                self.bridge.anomaly(Anomaly::UnknownSession);
                session(client, UnitOfWork::default(), None)
            }
        }
    }
}

impl Client {
    /// Who a request comes from. `None` if it has session cookies without their client cookie: only
    /// the backend knows then.
    pub(super) fn of(incoming: &Incoming) -> Option<Self> {
        match &incoming.client {
            Some(client) => {
                let send = if client.stale { Send::Must } else { Send::May };
                Some(Self { id: client.value, send })
            }
            None if incoming.sessions.is_empty() => Some(Self::fresh(Send::Must)),
            None => None,
        }
    }

    /// Asks the backend who presents these ids.
    pub(super) async fn look_up(bridge: &SessionBridge, presented: &[SessionId]) -> Result<Self> {
        Ok(match bridge.backend().load(presented, None).await? {
            Loaded::Found(record) => {
                bridge.anomaly(Anomaly::PairMismatch);
                Self { id: record.client_id, send: Send::Must }
            }
            // Late: the browser has the cookies of another answer, which are not to be replaced.
            Loaded::Missing { superseded: true } => Self::fresh(Send::Never),
            Loaded::Missing { superseded: false } => Self::fresh(Send::Must),
        })
    }

    /// Stands in for a client that could not be looked up.
    pub(super) fn unknown() -> Self {
        Self::fresh(Send::Never)
    }

    fn fresh(send: Send) -> Self {
        Self { id: ClientId::generate(), send }
    }
}

/// Whether the session, and not the request, is the trouble.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Store | ErrorKind::Unavailable)
}
