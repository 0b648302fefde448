//! What every backend has to do: a suite for authors of a [`Backend`].
//!
//! It assumes neither one process nor exact times: where something takes its time, it waits
//! with a generous limit. Run it in a test of your own:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use axum_io_session::backend::{Backend, conformance, local::LocalBackend};
//! use axum_io_session::store::LiveStore;
//!
//! conformance::check(async |config| {
//!     Arc::new(LocalBackend::new(LiveStore::new(), config)) as Arc<dyn Backend>
//! })
//! .await;
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)] // a suite fails by panicking

mod ends;
mod identity;
mod leases;
mod records;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{
    Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget,
    Loaded, NewId, NodeStats,
};
use crate::session::{ClientId, MaxAge, Record, SessionData, SessionEvent, SessionId};

/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(30);

type Run = for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>;

/// One rule, and what shows it.
struct Check {
    rule: &'static str,
    config: fn(&mut BackendConfig),
    run: Run,
}

/// `checks! { "rule" [config] => |world| body; .. }`
macro_rules! checks {
    ($($rule:literal $([$config:expr])? => |$world:ident| $body:block)*) => {
        pub(super) fn checks() -> Vec<super::Check> {
            vec![$(super::Check {
                rule: $rule,
                config: { #[allow(unused_mut, unused_assignments)]
                    let mut config: fn(&mut crate::backend::BackendConfig) = |_| {};
                    $(config = $config;)? config },
                run: |$world| Box::pin(async move $body),
            }),*]
        }
    };
}
use checks;

/// Runs all checks, each on a fresh, empty backend from `make` that follows the given
/// configuration. The checks run side by side, for many of them have to wait; the backends must
/// not disturb each other.
///
/// # Panics
/// With all rules that the backend breaks.
pub async fn check(make: impl AsyncFn(BackendConfig) -> Arc<dyn Backend>) {
    let failed = failures(make).await;
    let list = failed.join("\n  ");
    assert!(failed.is_empty(), "the backend breaks {} rules:\n  {list}", failed.len());
}

/// Runs all checks like [`check`], and returns the rules that the backend breaks.
pub async fn failures(make: impl AsyncFn(BackendConfig) -> Arc<dyn Backend>) -> Vec<String> {
    let all = [records::checks(), identity::checks(), leases::checks(), ends::checks()];
    let runs = all.into_iter().flatten().map(async |check| {
        let mut config = BackendConfig::default();
        (check.config)(&mut config);
        let backend = make(config.clone()).await;
        let world = World { published: backend.subscribe().into(), backend, config };
        let run = AssertUnwindSafe((check.run)(&world)).catch_unwind();
        let failure = match tokio::time::timeout(2 * LIMIT, run).await {
            Ok(Ok(())) => None,
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Some(format!("{}: {}", check.rule, text.unwrap_or("it panicked")))
            }
            Err(_) => Some(format!("{}: it hangs", check.rule)),
        };
        world.backend.shutdown().await;
        failure
    });
    futures_util::future::join_all(runs).await.into_iter().flatten().collect()
}

/// A fresh backend, and what it publishes from the beginning.
struct World {
    backend: Arc<dyn Backend>,
    published: tokio::sync::Mutex<broadcast::Receiver<BackendEvent>>,
    config: BackendConfig,
}

fn data(n: i64) -> SessionData {
    let mut data = SessionData::new();
    data.insert("n", n).unwrap();
    data
}

fn number(record: &Record) -> i64 {
    record.data.get("n").unwrap().unwrap()
}

fn commit(record: &Record, n: i64) -> Commit {
    Commit {
        client: record.client_id,
        generation: record.generation,
        version: Some(record.version),
        data: data(n),
        max_age: record.max_age,
        lease: None,
        release: false,
        new_id: None,
    }
}

/// A renewal by who holds the session's id.
fn renewal(record: &Record) -> NewId {
    NewId::Renew { from: record.session_id }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    in_time(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

impl World {
    /// A create that joins open sessions of at most this age.
    async fn create(&self, client: ClientId, n: i64, join: Duration) -> Created {
        let create = Create { join, ..Create::new(client, data(n)) };
        self.backend.create(create).await.unwrap()
    }

    /// A new client with a sealed session.
    async fn sealed(&self, n: i64) -> Record {
        let create = Create { sealed: true, ..Create::new(ClientId::generate(), data(n)) };
        match self.backend.create(create).await.unwrap() {
            Created::New(record) => record,
            other => panic!("a client without a session gets a new one, not {other:?}"),
        }
    }

    /// A new client with a session.
    async fn seeded(&self, n: i64) -> Record {
        match self.create(ClientId::generate(), n, Duration::ZERO).await {
            Created::New(record) => record,
            other => panic!("a client without a session gets a new one, not {other:?}"),
        }
    }

    async fn find(&self, id: &SessionId) -> Option<Record> {
        match self.backend.load(std::slice::from_ref(id), None).await.unwrap() {
            Loaded::Found(record) => Some(record),
            Loaded::Missing { .. } => None,
        }
    }

    async fn done(&self, commit: Commit) -> Record {
        match self.backend.commit(commit).await.unwrap() {
            Committed::Written(record) => record,
            other => panic!("a commit that nothing speaks against is done, not {other:?}"),
        }
    }

    async fn destroy(&self, record: &Record) -> bool {
        self.backend.destroy(DestroyTarget::Session(record.session_id)).await.unwrap()
    }

    /// Waits until this was published of a client since the last call, and nothing else.
    async fn expect_published(&self, client: &ClientId, expected: &[&str]) {
        let mut published = self.published.lock().await;
        let mut list = Vec::new();
        let mut mark = None;
        loop {
            if list.len() >= expected.len() && mark.is_none() {
                // What should not have been published gets its chance: until the event of another
                // client is there, and a moment longer.
                mark = Some(self.seeded(0).await.client_id);
            }
            let event = in_time("events", published.recv()).await.expect("no event is lost");
            let of = event.event.client_id();
            if of == Some(client) {
                list.push(shown(&event.event));
            } else if of.is_some() && of == mark.as_ref() {
                break;
            }
        }
        let quiet = Instant::now() + Duration::from_millis(50);
        while let Ok(Ok(event)) = tokio::time::timeout_at(quiet, published.recv()).await {
            if event.event.client_id() == Some(client) {
                list.push(shown(&event.event));
            }
        }
        assert_eq!(list, expected, "what is published");
    }
}

/// An event in a few words.
fn shown(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Set(set) => match (set.is_new, set.is_init, set.previous_id) {
            (true, true, None) => "created".into(),
            (false, true, None) => "attached".into(),
            (false, true, Some(_)) => "new id".into(),
            (false, false, None) => "changed".into(),
            odd => format!("odd flags {odd:?}"),
        },
        SessionEvent::Destroy(end) => end.reason.as_str().into(),
        SessionEvent::Cleanup(cleanup) => format!("cleanup {}", cleanup.cleared),
        SessionEvent::Gap(_) => "gap".into(),
    }
}
