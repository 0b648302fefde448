//! One request on its way through the layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
use crate::session::{ClientId, MaxAge, Record, SessionId};

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

/// What a response does about the session cookie.
enum Plan {
    /// Sends it.
    Set(Box<Record>),
    /// Clears it, for this request ended the session.
    Clear,
    /// Leaves it as it is.
    Keep,
    /// Leaves it, and the client cookie, for the browser may have newer ones.
    Nothing,
}

/// How long an id that this request wrote counts as current without a look.
const FRESH: Duration = Duration::from_millis(100);

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
            ends: OwnEnds::new(presented.clone()),
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
        let session =
            |client, unit, cookie| Ok(Session::new(self.bridge.clone(), client, unit, cookie));
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
                // The browser may have another one by now.
                self.client().send = Send::Never;
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
        let mut late = false;
        let shareable = caching::is_shareable(response.headers());
        if let Err(error) = self.commit(!shareable).await {
            late = error.kind() == ErrorKind::SessionEnded;
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
        let plan = if late { Plan::Nothing } else { self.plan(shareable).await };
        self.set_cookies(kit, response.headers_mut(), &plan);
        response
    }

    /// `may_renew`: what a shared cache may keep brings no cookie, and so renews nothing.
    async fn commit(&self, may_renew: bool) -> Result<()> {
        if let Some(session) = self.session.get() {
            return self.ends.scope(session.commit(may_renew)).await;
        }
        let lifetime = &self.bridge.options().lifetime;
        let renews = may_renew && (lifetime.rolling || lifetime.renew);
        // One that could not be loaded a moment ago would only make the answer later still.
        let refused = self.refused.load(Ordering::Relaxed);
        if !renews || refused || self.engine_io || self.presented.is_empty() {
            return Ok(());
        }
        // The handler had no use for the session: it is not worth failing for.
        let renewed = match self.session.get_or_try_init(|| self.load()).await {
            Ok(session) => session.commit(true).await,
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "a session was not renewed");
        }
        Ok(())
    }

    /// What the response does about the session cookie.
    async fn plan(&self, shareable: bool) -> Plan {
        let session = self.session.get();
        match session.map_or(CookieAction::Keep, Session::cookie_action) {
            CookieAction::Set(record) => {
                let ago = session.map_or(Duration::ZERO, Session::written_ago);
                match self.is_current(&record, ago < FRESH).await {
                    true => Plan::Set(record),
                    false => Plan::Nothing,
                }
            }
            CookieAction::Clear => Plan::Clear,
            // Ended by its id, and loaded by no extractor.
            CookieAction::Keep if self.ends.own().is_some() => Plan::Clear,
            // A shared cache hands what it keeps to others.
            CookieAction::Keep if shareable => Plan::Keep,
            CookieAction::Keep => {
                let again =
                    session.and_then(|session| session.to_send_again(self.is_stale(session)));
                match again {
                    Some(record) if self.is_current(&record, false).await => Plan::Set(record),
                    // Another answer has its new id, or has cleared the cookie.
                    Some(_) => Plan::Nothing,
                    None => Plan::Keep,
                }
            }
        }
    }

    /// Whether the session still has this id: an answer that took its time must not bring a dead
    /// one back. One that was written a moment ago (`fresh`) is only looked for on this node.
    async fn is_current(&self, record: &Record, fresh: bool) -> bool {
        let backend = self.bridge.backend();
        if let Some(known) = backend.known_session(&record.client_id) {
            return known.session_id == record.session_id;
        }
        if backend.is_local() {
            return false;
        }
        if fresh {
            return true;
        }
        let ids = [record.session_id];
        match backend.load(&ids, Some(&record.client_id)).await {
            Ok(Loaded::Found(now)) => now.session_id == record.session_id,
            Ok(Loaded::Missing { .. }) => false,
            // An outage takes no cookie away.
            Err(_) => true,
        }
    }

    fn set_cookies(&self, kit: &CookieKit, headers: &mut HeaderMap, plan: &Plan) {
        let secure = match self.bridge.options().secure {
            Secure::Yes => true,
            Secure::No => false,
            Secure::Auto => self.https,
        };
        let silent = caching::is_silent(headers);
        let late = matches!(plan, Plan::Nothing);
        match plan {
            Plan::Set(record) => {
                let age = (record.max_age != MaxAge::Browser).then_some(record.remaining);
                kit.set_session(headers, &record.session_id, age, secure);
            }
            Plan::Clear if !self.presented.is_empty() => kit.clear_session(headers, secure),
            Plan::Clear | Plan::Keep | Plan::Nothing => {}
        }
        if matches!(plan, Plan::Set(_) | Plan::Clear) {
            caching::make_private_no_store(headers);
        }
        let shareable = caching::is_shareable(headers);
        if !shareable
            && !late
            && let Some(id) = self.client_to_send(plan)
        {
            kit.set_client(headers, &id, self.bridge.options().client_max_age, secure);
            caching::make_private(headers);
        }
        if self.session.get().is_some() && silent {
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
    fn client_to_send(&self, plan: &Plan) -> Option<ClientId> {
        let before = *self.client();
        let Some(session) = self.session.get() else {
            if self.ends.own() == Some(true) {
                // As after any logout of a sealed session.
                return Some(ClientId::generate());
            }
            return self.sends(before.send, plan).then_some(before.id);
        };
        let now = session.client_id();
        // The commit may have made a session that belongs to another client.
        (now != before.id || self.sends(before.send, plan)).then_some(now)
    }

    fn sends(&self, send: Send, plan: &Plan) -> bool {
        let wanted = self.session.get().is_some()
            || self.asked_for_client.load(Ordering::Relaxed)
            // Engine.IO has to know who a handshake comes from.
            || self.engine.is_some();
        match (send, self.bridge.options().client_cookie) {
            (Send::Never, _) => matches!(plan, Plan::Set(_)),
            (_, ClientCookie::Always) => true,
            (_, ClientCookie::WithSession) => wanted,
            (send, ClientCookie::WhenNew) => send == Send::Must,
        }
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
