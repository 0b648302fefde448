//! The answer to a request: the commit, and what it does about cookies and caches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};

use super::caching;
use super::cookies::CookieKit;
use super::rejection;
use super::request::{RequestState, Send, is_away};
use super::session::{CookieAction, Session};
use super::signing::Signature;
use crate::backend::Loaded;
use crate::bridge::{ClientCookie, OwnEnds, Secure};
use crate::error::{Error, Result};
use crate::session::{ClientId, MaxAge, Record, Renewal};

/// What a response does about the session cookie.
enum Plan {
    /// Sends it.
    Set(Arc<Record>),
    /// Clears it, for this request ended the session.
    Clear,
    /// Leaves it as it is.
    Keep,
    /// Leaves it, and the client cookie, for the browser may have newer ones.
    Nothing,
}

/// How long an id that this request wrote counts as current without a look.
const FRESH: Duration = Duration::from_millis(100);

/// The answer to a request.
pub(super) struct Answer<'a> {
    request: &'a RequestState,
    /// What the handler has ended by id.
    ends: OwnEnds,
    /// The handler's response has no field about caches.
    silent: bool,
    /// It allows shared caches to keep it.
    shareable: bool,
}

/// What became of the request's session.
pub(super) struct Settled {
    /// Why the commit failed.
    failed: Option<Error>,
    plan: Plan,
}

impl<'a> Answer<'a> {
    /// `headers` are the handler's.
    pub(super) fn new(request: &'a RequestState, ends: OwnEnds, headers: &HeaderMap) -> Self {
        let silent = caching::is_silent(headers);
        let shareable = !silent && caching::is_shareable(headers);
        Self { request, ends, silent, shareable }
    }

    /// Commits, and decides on the session cookie.
    pub(super) async fn settle(&mut self) -> Settled {
        let failed = self.commit(!self.shareable).await.err();
        Settled { failed, plan: self.plan(self.shareable).await }
    }

    /// Puts the cookies on the response; or makes it the answer of a failed commit.
    pub(super) fn finish<B>(
        &self,
        settled: Settled,
        kit: &CookieKit,
        mut response: Response<B>,
        empty: impl FnOnce() -> B,
    ) -> Response<B> {
        let retry_after = self.request.bridge.options().retry_after;
        rejection::settle_retry_after(&mut response, retry_after);
        let failed = settled.failed.is_some();
        if let Some(error) = settled.failed {
            if is_away(&error) {
                self.request.bridge.counters().errors.add(1);
            }
            let status = rejection::status_of(error.kind());
            response = Response::new(empty());
            *response.status_mut() = status;
            if status.is_client_error() {
                self.request.bridge.counters().client_errors.add(1);
                tracing::debug!(%error, %status, "a session was not saved");
            } else {
                tracing::warn!(%error, "a session was not saved; the response is an error instead");
            }
            if status == StatusCode::SERVICE_UNAVAILABLE {
                rejection::set_retry_after(response.headers_mut(), retry_after);
            }
        }
        self.set_cookies(kit, response.headers_mut(), &settled.plan, self.silent || failed);
        response
    }

    /// `may_renew`: what a shared cache may keep brings no cookie, and so renews nothing.
    async fn commit(&mut self, may_renew: bool) -> Result<()> {
        if let Some(session) = self.request.session.get() {
            if self.ends.is_empty() {
                return session.commit(may_renew).await;
            }
            // The commit makes a logout of what the handler ended.
            let ends = std::mem::take(&mut self.ends);
            let mut commit = Box::pin(ends.scope(session.commit(may_renew)));
            let done = commit.as_mut().await;
            self.ends = OwnEnds::of(commit.as_mut());
            return done;
        }
        let lifetime = &self.request.bridge.options().lifetime;
        let renews = may_renew && lifetime.renewal != Renewal::OnWrite;
        // One that could not be loaded a moment ago would only make the answer later still.
        let refused = self.request.refused.load(Ordering::Relaxed);
        if !renews || refused || self.request.engine_io || self.request.presented.is_empty() {
            return Ok(());
        }
        // The handler had no use for the session: it is not worth failing for.
        let renewed = match self.request.session.get_or_try_init(|| self.request.load()).await {
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
        let session = self.request.session.get();
        if session.is_some_and(Session::is_late) {
            return Plan::Nothing;
        }
        match session.map_or(CookieAction::Keep, Session::cookie_action) {
            // Not needed: and if another request gives the session a new id now, this answer may come
            // after that one's.
            CookieAction::Set(record)
                if self.request.bridge.options().lifetime.renewal != Renewal::EveryResponse
                    && session.is_some_and(|session| {
                        session.has_cookie_of(&record) && !self.is_stale(session)
                    }) =>
            {
                Plan::Keep
            }
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
        let backend = self.request.bridge.backend();
        if let Some(known) = backend.cached_session(&record.client_id) {
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

    /// `silent`: the response has no field about caches.
    fn set_cookies(&self, kit: &CookieKit, headers: &mut HeaderMap, plan: &Plan, silent: bool) {
        let secure = match self.request.bridge.options().secure {
            Secure::Yes => true,
            Secure::No => false,
            Secure::Auto => self.request.https,
        };
        let late = matches!(plan, Plan::Nothing);
        match plan {
            Plan::Set(record) => {
                let age = (record.max_age != MaxAge::Browser).then_some(record.remaining);
                kit.set_session(headers, &record.session_id, age, secure);
            }
            Plan::Clear if !self.request.presented.is_empty() => kit.clear_session(headers, secure),
            Plan::Clear | Plan::Keep | Plan::Nothing => {}
        }
        let no_store = matches!(plan, Plan::Set(_) | Plan::Clear);
        if no_store {
            caching::make_private_no_store(headers);
        }
        let shareable = !silent && !no_store && caching::is_shareable(headers);
        let client = if shareable || late { None } else { self.client_to_send(plan) };
        if let Some(id) = client {
            let age = self.request.bridge.options().client_max_age;
            kit.set_client(headers, &id, self.signature_of(&id), age, secure);
        }
        let has_read = self.request.session.get().is_some() && silent;
        if !no_store && (client.is_some() || has_read) {
            caching::make_private(headers);
        }
        if has_read {
            caching::vary_by_cookie(headers);
        }
    }

    /// Whether the cookie that opened the session is signed by a key that is about to go.
    fn is_stale(&self, session: &Session) -> bool {
        let Some(opened) = session.opened_by() else { return false };
        self.request.incoming.sessions.iter().any(|cookie| cookie.value == opened && cookie.stale)
    }

    /// The client id that the response sends, if it sends one.
    fn client_to_send(&self, plan: &Plan) -> Option<ClientId> {
        let before = *self.request.client();
        let Some(session) = self.request.session.get() else {
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

    /// The signature that the client's cookie came with: a rolled cookie needs no other.
    fn signature_of(&self, id: &ClientId) -> Option<Signature> {
        let incoming = &self.request.incoming;
        incoming.client.filter(|client| client.value == *id).and(incoming.client_signature)
    }

    fn sends(&self, send: Send, plan: &Plan) -> bool {
        let wanted = self.request.session.get().is_some()
            || self.request.asked_for_client.load(Ordering::Relaxed)
            // Engine.IO has to know who a handshake comes from.
            || self.request.engine().is_some();
        match (send, self.request.bridge.options().client_cookie) {
            (Send::Never, _) => matches!(plan, Plan::Set(_)),
            (_, ClientCookie::Always) => true,
            (_, ClientCookie::WithSession) => wanted,
            (send, ClientCookie::WhenNew) => send == Send::Must,
        }
    }
}
