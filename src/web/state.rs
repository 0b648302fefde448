//! One request on its way through the layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::cookies::{CookieKit, Incoming};
use super::reject;
use super::session::{CookieAction, Session};
use crate::backend::Loaded;
use crate::bridge::{Anomaly, Handshake, Secure, SessionBridge, Unit, WhenUnavailable};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, SessionId};

/// What the layer keeps of a request until its response.
pub(super) struct RequestState {
    pub(super) bridge: SessionBridge,
    pub(super) started: Instant,
    incoming: Incoming,
    client: Mutex<Client>,
    /// The backend was asked who the client is, and did not say: it is not asked again.
    unreachable: Option<Error>,
    session: OnceCell<Session>,
    /// The session was wanted and could not be loaded.
    refused: AtomicBool,
    https: bool,
    engine_io: bool,
}

#[derive(Clone, Copy)]
struct Client {
    id: ClientId,
    /// The response has to carry the cookie, whether or not it is rolled.
    send: bool,
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
        let (client, unreachable) = match client_of(&bridge, &incoming).await {
            Ok(client) => (client, None),
            Err(error) => {
                tracing::warn!(%error, "the client of a session could not be looked up");
                (Client { id: ClientId::generate(), send: false }, Some(error))
            }
        };
        Self {
            bridge,
            started: Instant::now(),
            incoming,
            client: Mutex::new(client),
            unreachable,
            session: OnceCell::new(),
            refused: AtomicBool::new(false),
            https,
            engine_io,
        }
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client_id(&self) -> ClientId {
        self.client().id
    }

    pub(super) fn handshake(&self) -> Handshake {
        Handshake {
            bridge: self.bridge.clone(),
            client: self.client_id(),
            presented: self.presented(),
        }
    }

    fn presented(&self) -> Option<SessionId> {
        self.incoming.session.map(|session| session.id)
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
            return Ok(Session::unavailable(self.bridge.clone(), self.client_id(), self.started));
        }
        if away {
            self.bridge.counters().errors.add(1);
        }
        self.refused.store(true, Ordering::Relaxed);
        Err(error)
    }

    async fn load(&self) -> Result<Session> {
        let client = self.client_id();
        let mut session = Session::new(self.bridge.clone(), client, self.started, Unit::default());
        let Some(id) = self.presented() else { return Ok(session) };
        if let Some(error) = &self.unreachable {
            return Err(error.without_source());
        }
        self.bridge.counters().loads.add(1);
        match self.bridge.backend().load(&id, Some(&client)).await? {
            Loaded::Found(record) => {
                let owner = record.client_id;
                if owner != client {
                    // The session cookie is the credential, the client cookie follows it.
                    self.bridge.anomaly(Anomaly::PairMismatch);
                    *self.client() = Client { id: owner, send: true };
                }
                let unit = Unit::new(Some(record));
                session = Session::new(self.bridge.clone(), owner, self.started, unit);
            }
            Loaded::Missing { superseded } => {
                if !superseded {
                    self.bridge.anomaly(Anomaly::UnknownSession);
                    session.plan_cookie(CookieAction::Clear);
                }
            }
        }
        Ok(session)
    }

    /// Commits, and puts the cookies on the response; or makes it the answer of a failed commit.
    pub(super) async fn finish<B: Default>(
        &self,
        kit: &CookieKit,
        mut response: Response<B>,
    ) -> Response<B> {
        let retry_after = self.bridge.options().retry_after;
        reject::settle_retry_after(&mut response, retry_after);
        if let Err(error) = self.commit().await {
            if is_away(&error) {
                self.bridge.counters().errors.add(1);
            }
            tracing::warn!(%error, "the session was not saved; the response is an error instead");
            response = Response::new(B::default());
            *response.status_mut() = reject::status_of(error.kind());
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                reject::set_retry_after(response.headers_mut(), retry_after);
            }
        }
        self.set_cookies(kit, response.headers_mut());
        response
    }

    async fn commit(&self) -> Result<()> {
        if let Some(session) = self.session.get() {
            return session.commit().await;
        }
        let lifetime = &self.bridge.options().lifetime;
        let renews = lifetime.rolling || lifetime.renew;
        // One that could not be loaded a moment ago would only make the answer later still.
        let refused = self.refused.load(Ordering::Relaxed);
        if !renews || refused || self.engine_io || self.presented().is_none() {
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
        let options = self.bridge.options();
        let secure = match options.secure {
            Secure::Yes => true,
            Secure::No => false,
            Secure::Auto => self.https,
        };
        let action = self.session.get().map_or(CookieAction::Keep, Session::cookie_action);
        let had_cookie = self.incoming.session.is_some() || self.incoming.bad_session;
        let set = match action {
            CookieAction::Set(record) => Some(record),
            CookieAction::Clear if had_cookie => {
                kit.clear_session(headers, secure);
                None
            }
            CookieAction::Keep if self.incoming.bad_session => {
                kit.clear_session(headers, secure);
                None
            }
            // The key that signed it is about to go.
            CookieAction::Keep if self.incoming.session.is_some_and(|session| session.stale) => {
                self.session.get().and_then(Session::base)
            }
            CookieAction::Clear | CookieAction::Keep => None,
        };
        if let Some(record) = &set {
            let age = (record.max_age != MaxAge::Browser).then_some(record.remaining);
            kit.set_session(headers, &record.session_id, age, secure);
            if !headers.contains_key(CACHE_CONTROL) {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
        }
        let client = *self.client();
        // What a shared cache hands to others must not name one of them.
        let shared = set.is_none() && is_public(headers);
        // A new id in place of one that could not be found out would lose that one.
        let settled = self.unreachable.is_none();
        if settled && !shared && (client.send || options.client_always_roll) {
            kit.set_client(headers, &client.id, options.client_max_age, secure);
        }
    }
}

/// Who a request comes from: only a session cookie without its client cookie needs a look at the
/// store.
async fn client_of(bridge: &SessionBridge, incoming: &Incoming) -> Result<Client> {
    let fresh = || Client { id: ClientId::generate(), send: true };
    Ok(match (&incoming.client, &incoming.session) {
        (Some(client), _) => Client { id: client.id, send: client.stale },
        (None, None) => fresh(),
        (None, Some(session)) => match bridge.backend().client_of(&session.id).await? {
            Some(id) => {
                bridge.anomaly(Anomaly::PairMismatch);
                Client { id, send: true }
            }
            None => fresh(),
        },
    })
}

/// Whether the session, and not the request, is the trouble.
fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Store | ErrorKind::Unavailable)
}

/// Whether shared caches may keep the response.
fn is_public(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|directive| {
            let name = directive.split('=').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case("public") || name.eq_ignore_ascii_case("s-maxage")
        })
    })
}
