//! One request on its way through the layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Response, StatusCode};
use tokio::sync::OnceCell;

use super::caching;
use super::cookies::{CookieKit, Incoming};
use super::reject;
use super::session::{CookieAction, Session};
use crate::backend::Loaded;
use crate::bridge::{
    Anomaly, ClientCookie, EngineConnection, Handshake, OwnEnds, Secure, SessionBridge, Unit,
    WhenUnavailable,
};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, SessionId};

/// What the layer keeps of a request until its response.
pub(super) struct RequestState {
    pub(super) bridge: SessionBridge,
    incoming: Incoming,
    presented: Arc<[SessionId]>,
    client: Mutex<Client>,
    /// The backend was asked who the client is, and did not say: it is not asked again.
    unreachable: Option<Error>,
    session: OnceCell<Session>,
    /// The session was wanted and could not be loaded.
    refused: AtomicBool,
    /// The handler asked for the client id.
    asked_for_client: AtomicBool,
    ends: OwnEnds,
    https: bool,
    engine_io: bool,
    engine: Option<Arc<EngineConnection>>,
}

#[derive(Clone, Copy)]
struct Client {
    id: ClientId,
    send: Send,
}

/// Whether the response carries the client cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Send {
    /// It must, whether or not cookies are rolled: the id is new, or signed by an old key.
    Must,
    /// As the option says.
    May,
    /// It must not: the id stands in for one that could not be found out, or that is none of this
    /// request's business.
    Never,
}

impl RequestState {
    pub(super) async fn new(
        bridge: SessionBridge,
        incoming: Incoming,
        https: bool,
        engine_io: bool,
    ) -> Self {
        bridge.counters().requests.add(1);
        for anomaly in &incoming.anomalies {
            bridge.anomaly(*anomaly);
        }
        let presented: Arc<[SessionId]> =
            incoming.sessions.iter().map(|session| session.value.id).collect();
        let (client, unreachable) = match client_of(&bridge, &incoming, &presented).await {
            Ok(client) => (client, None),
            Err(error) => {
                tracing::warn!(%error, "the client of a session could not be looked up");
                (Client { id: ClientId::generate(), send: Send::Never }, Some(error))
            }
        };
        Self {
            bridge,
            incoming,
            presented,
            client: Mutex::new(client),
            unreachable,
            session: OnceCell::new(),
            refused: AtomicBool::new(false),
            asked_for_client: AtomicBool::new(false),
            ends: OwnEnds::default(),
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

    fn client(&self) -> MutexGuard<'_, Client> {
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

    /// What the request's handler ends by id is noted here.
    pub(super) fn ends(&self) -> &OwnEnds {
        &self.ends
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

    async fn load(&self) -> Result<Session> {
        let client = self.client().id;
        let session = |client, unit, cookie| {
            Ok(Session::new(self.bridge.clone(), client, unit, cookie))
        };
        if self.presented.is_empty() {
            return session(client, Unit::default(), None);
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
                session(owner, Unit::new(record, holds), cookie)
            }
            Loaded::Missing { superseded: true } => {
                self.bridge.anomaly(Anomaly::SupersededSession);
                session(client, Unit::superseded(), None)
            }
            Loaded::Missing { superseded: false } => {
                self.bridge.anomaly(Anomaly::UnknownSession);
                session(client, Unit::default(), None)
            }
        }
    }

    /// Commits, and puts the cookies on the response; or makes it the answer of a failed commit.
    pub(super) async fn finish<B>(
        &self,
        kit: &CookieKit,
        mut response: Response<B>,
        empty: impl FnOnce() -> B,
    ) -> Response<B> {
        let retry_after = self.bridge.options().retry_after;
        reject::settle_retry_after(&mut response, retry_after);
        if let Err(error) = self.commit().await {
            if is_away(&error) {
                self.bridge.counters().errors.add(1);
            }
            let status = reject::status_of(error.kind());
            response = Response::new(empty());
            *response.status_mut() = status;
            if status.is_client_error() {
                self.bridge.counters().client_errors.add(1);
                tracing::debug!(%error, %status, "a session was not saved");
            } else {
                tracing::warn!(%error, "a session was not saved; the response is an error instead");
            }
            if status == StatusCode::SERVICE_UNAVAILABLE {
                reject::set_retry_after(response.headers_mut(), retry_after);
            }
        }
        self.set_cookies(kit, response.headers_mut());
        response
    }

    async fn commit(&self) -> Result<()> {
        if let Some(session) = self.session.get() {
            return self.ends.scope(session.commit()).await;
        }
        let lifetime = &self.bridge.options().lifetime;
        let renews = lifetime.rolling || lifetime.renew;
        // One that could not be loaded a moment ago would only make the answer later still.
        let refused = self.refused.load(Ordering::Relaxed);
        if !renews || refused || self.engine_io || self.presented.is_empty() {
            return Ok(());
        }
        // The handler had no use for the session: it is not worth failing for.
        let renewed = match self.session.get_or_try_init(|| self.load()).await {
            Ok(session) => session.commit().await,
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "a session was not renewed");
        }
        Ok(())
    }

    fn set_cookies(&self, kit: &CookieKit, headers: &mut HeaderMap) {
        let secure = match self.bridge.options().secure {
            Secure::Yes => true,
            Secure::No => false,
            Secure::Auto => self.https,
        };
        let session = self.session.get();
        let silent = caching::is_silent(headers);
        // A shared cache hands what it keeps to others: nothing in it may name one of them.
        let mut shareable = caching::is_shareable(headers);
        let (set, clear) = match session.map_or(CookieAction::Keep, Session::cookie_action) {
            CookieAction::Set(record) => (Some(record), false),
            CookieAction::Clear => (None, true),
            // A session that was ended by its id, and that no extractor loaded.
            CookieAction::Keep if self.ends.any_of(&self.presented, self.client().id) => (None, true),
            CookieAction::Keep if shareable => (None, false),
            CookieAction::Keep => {
                (session.and_then(|session| session.to_send_again(self.is_stale(session))), false)
            }
        };
        if let Some(record) = &set {
            let age = (record.max_age != MaxAge::Browser).then_some(record.remaining);
            kit.set_session(headers, &record.session_id, age, secure);
        } else if clear && !self.presented.is_empty() {
            kit.clear_session(headers, secure);
        }
        if set.is_some() || clear {
            caching::make_private_no_store(headers);
            shareable = false;
        }
        let client = self.client_to_send();
        if !shareable && let Some(id) = client {
            kit.set_client(headers, &id, self.bridge.options().client_max_age, secure);
            caching::make_private(headers);
        }
        if session.is_some() && silent {
            caching::make_private(headers);
            caching::vary_by_cookie(headers);
        }
    }

    /// Whether the cookie that opened the session is signed by a key that is about to go.
    fn is_stale(&self, session: &Session) -> bool {
        let Some(opened) = session.opened_by() else { return false };
        self.incoming.sessions.iter().any(|cookie| cookie.value == opened && cookie.stale)
    }

    /// The client id that the response sends, if it sends one.
    fn client_to_send(&self) -> Option<ClientId> {
        let before = *self.client();
        let session = self.session.get();
        let now = session.map_or(before.id, Session::client_id);
        if now != before.id {
            // The commit made a session that belongs to another client.
            return Some(now);
        }
        let wanted = session.is_some() || self.asked_for_client.load(Ordering::Relaxed);
        let sends = match (before.send, self.bridge.options().client_cookie) {
            (Send::Never, _) => {
                session.is_some_and(|session| matches!(session.cookie_action(), CookieAction::Set(_)))
            }
            (_, ClientCookie::Always) => true,
            // Engine.IO has to know who a handshake comes from.
            (Send::Must, ClientCookie::WithSession) => wanted || self.engine.is_some(),
            (Send::May, ClientCookie::WithSession) => wanted,
            (send, ClientCookie::WhenNew) => send == Send::Must,
        };
        sends.then_some(now)
    }
}

/// Who a request comes from: only session cookies without their client cookie need a look at the
/// store.
async fn client_of(
    bridge: &SessionBridge,
    incoming: &Incoming,
    presented: &[SessionId],
) -> Result<Client> {
    if let Some(client) = &incoming.client {
        let send = if client.stale { Send::Must } else { Send::May };
        return Ok(Client { id: client.value, send });
    }
    let fresh = |send| Client { id: ClientId::generate(), send };
    if presented.is_empty() {
        return Ok(fresh(Send::Must));
    }
    Ok(match bridge.backend().load(presented, None).await? {
        Loaded::Found(record) => {
            bridge.anomaly(Anomaly::PairMismatch);
            Client { id: record.client_id, send: Send::Must }
        }
        // Late: the browser has the cookies of another answer, which are not to be replaced.
        Loaded::Missing { superseded: true } => fresh(Send::Never),
        Loaded::Missing { superseded: false } => fresh(Send::Must),
    })
}

/// Whether the session, and not the request, is the trouble.
fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Store | ErrorKind::Unavailable)
}
