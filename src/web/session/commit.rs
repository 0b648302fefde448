//! What a request's session writes, and what its cookie is to be then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use super::cookie_action::CookieAction;
use crate::bridge::{Outcome, UnitOfWork};
use crate::error::{ErrorKind, Result};
use crate::session::{MaxAge, Record, Renewal};
use crate::web::cookies::SessionCookie;

/// How much earlier than its session a cookie may end before it is sent again: a hundredth of the
/// session's life, so that a session in use does not set a cookie with each write. Cookies count
/// whole seconds, so at least one; at most a minute.
fn cookie_slack(ttl: Duration) -> Duration {
    (ttl / 100).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

impl Session {
    /// The commit at the end of the request. An unchanged session is renewed only if it `may_renew`.
    pub(in crate::web) async fn commit(&self, may_renew: bool) -> Result<()> {
        if self.inner.unavailable {
            // What could not be read is not renewed, and every change was refused.
            return Ok(());
        }
        self.lock().committed = true;
        self.write(may_renew).await
    }

    /// Notes a write that came too late.
    pub(super) fn judged<T>(&self, written: Result<T>) -> Result<T> {
        written.inspect_err(|error| {
            if error.kind() == ErrorKind::SessionEnded {
                self.lock().late = true;
            }
        })
    }

    pub(super) async fn write(&self, may_renew: bool) -> Result<()> {
        let _writing = self.inner.writing.lock().await;
        let (client, snapshot) = {
            let state = self.lock();
            (state.client, state.unit.clone())
        };
        let bridge = &self.inner.bridge;
        // Only a renewal asks how long the cookie still lives.
        let renews = bridge.options().lifetime.renewal != Renewal::OnWrite;
        let cookie = self.inner.cookie.filter(|_| renews).and_then(|cookie| cookie.left());
        let outcome = bridge.commit_unit(client, &snapshot, cookie, may_renew).await;
        match self.judged(outcome)? {
            // Whatever was changed meanwhile is there.
            Outcome::Unchanged if !snapshot.save => {}
            outcome => self.settle(&snapshot, &snapshot, outcome),
        }
        Ok(())
    }

    /// Takes over what was written, below the changes made since the write began.
    pub(super) fn settle(&self, snapshot: &UnitOfWork, written: &UnitOfWork, outcome: Outcome) {
        let mut state = self.lock();
        let since = snapshot.data.changes_to(&state.unit.data);
        let mut next = match outcome {
            Outcome::Unchanged => written.clone(),
            Outcome::Stored { record, own } => {
                state.client = record.client_id;
                state.late = false;
                if own {
                    state.cookie = CookieAction::Set(record.clone());
                    state.written = Some(Instant::now());
                }
                let holds = if own { Some(record.session_id) } else { written.holds };
                let id = record.session_id;
                UnitOfWork { holds, ..UnitOfWork::new(record, id) }
            }
            Outcome::Gone { client, ended } => {
                state.client = client;
                if ended {
                    state.cookie = CookieAction::Clear;
                }
                UnitOfWork::default()
            }
        };
        next.save = state.unit.save && !snapshot.save;
        next.data.apply(&since);
        // What was asked for while the write was under way is still to be done.
        if !snapshot.destroy && state.unit.destroy {
            next.destroy = next.base.is_some();
        }
        if state.unit.new_id > snapshot.new_id {
            next.new_id = state.unit.new_id;
        }
        if snapshot.max_age != state.unit.max_age {
            next.max_age = state.unit.max_age;
        }
        state.unit = next;
    }

    pub(in crate::web) fn cookie_action(&self) -> CookieAction {
        self.lock().cookie.clone()
    }

    /// Whether the request's last write came after the session had ended elsewhere: the ids that
    /// it knows are dead, and other answers have newer ones.
    pub(in crate::web) fn is_late(&self) -> bool {
        self.lock().late
    }

    /// How long ago the record was written whose cookie is to be sent.
    pub(in crate::web) fn written_ago(&self) -> Duration {
        self.lock().written.map_or(Duration::ZERO, |written| written.elapsed())
    }

    /// The record whose cookie is to be sent again although this request did not write it: the
    /// session outlives the cookie, for it was prolonged where no cookie could be set, or `stale`
    /// says that the key that signed the cookie is about to go.
    pub(in crate::web) fn to_send_again(&self, stale: bool) -> Option<Arc<Record>> {
        let state = self.lock();
        let base = state.unit.base.as_ref()?;
        let cookie = self.inner.cookie.filter(|cookie| cookie.id == base.session_id)?;
        (stale || is_outlived(cookie, base)).then(|| base.clone())
    }

    /// Whether the request's own cookie opens this record and lives long enough.
    pub(in crate::web) fn has_cookie_of(&self, record: &Record) -> bool {
        let own = self.inner.cookie.filter(|cookie| cookie.id == record.session_id);
        own.is_some_and(|cookie| !is_outlived(cookie, record))
    }

    /// The cookie that opened the session.
    pub(in crate::web) fn opened_by(&self) -> Option<SessionCookie> {
        self.inner.cookie
    }
}

/// Whether the cookie ends before its session, or not as it does.
fn is_outlived(cookie: SessionCookie, record: &Record) -> bool {
    match (cookie.left(), record.max_age == MaxAge::Browser) {
        (Some(left), false) => left + cookie_slack(record.ttl) < record.remaining,
        (None, true) => false,
        _ => true,
    }
}
