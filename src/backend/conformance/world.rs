//! What the rules are written with.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::backend::{
    Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget,
    Loaded, NewId,
};
use crate::session::{ClientId, Record, SessionData, SessionEvent, SessionId};

/// Nothing takes longer.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) type Run = for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>;

/// One rule, and what shows it.
pub(super) struct Check {
    pub(super) rule: &'static str,
    pub(super) config: fn(&mut BackendConfig),
    pub(super) run: Run,
}

/// `checks! { "rule" [config] => |world| body; .. }`
macro_rules! checks {
    ($($rule:literal $([$config:expr])? => |$world:ident| $body:block)*) => {
        pub(super) fn checks() -> Vec<super::world::Check> {
            vec![$(super::world::Check {
                rule: $rule,
                config: { #[allow(unused_mut, unused_assignments)]
                    let mut config: fn(&mut crate::backend::BackendConfig) = |_| {};
                    $(config = $config;)? config },
                run: |$world| Box::pin(async move $body),
            }),*]
        }
    };
}
pub(super) use checks;

/// A fresh backend, and what it publishes from the beginning.
pub(super) struct World {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) published: tokio::sync::Mutex<broadcast::Receiver<BackendEvent>>,
    pub(super) config: BackendConfig,
}

pub(super) fn data(n: i64) -> SessionData {
    let mut data = SessionData::new();
    data.insert("n", n).unwrap();
    data
}

pub(super) fn number(record: &Record) -> i64 {
    record.data.get("n").unwrap().unwrap()
}

pub(super) fn commit(record: &Record, n: i64) -> Commit {
    Commit {
        client: record.client_id,
        generation: record.generation,
        version: Some(record.version),
        data: data(n),
        max_age: record.max_age,
        lease: None,
        release: false,
        new_id: None,
        stamp: record.stamp.clone(),
    }
}

/// A renewal by who holds the session's id.
pub(super) fn renewal(record: &Record) -> NewId {
    NewId::Renew { from: record.session_id }
}

pub(super) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    in_time(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

impl World {
    /// A create that joins open sessions of at most this age.
    pub(super) async fn create(&self, client: ClientId, n: i64, join: Duration) -> Created {
        let create = Create { join, ..Create::new(client, data(n)) };
        self.backend.create(create).await.unwrap()
    }

    /// A new client with a sealed session.
    pub(super) async fn sealed(&self, n: i64) -> Record {
        let create = Create { sealed: true, ..Create::new(ClientId::generate(), data(n)) };
        match self.backend.create(create).await.unwrap() {
            Created::New(record) => record,
            other => panic!("a client without a session gets a new one, not {other:?}"),
        }
    }

    /// A new client with a session.
    pub(super) async fn seeded(&self, n: i64) -> Record {
        match self.create(ClientId::generate(), n, Duration::ZERO).await {
            Created::New(record) => record,
            other => panic!("a client without a session gets a new one, not {other:?}"),
        }
    }

    pub(super) async fn find(&self, id: &SessionId) -> Option<Record> {
        match self.backend.load(std::slice::from_ref(id), None).await.unwrap() {
            Loaded::Found(record) => Some(record),
            Loaded::Missing { .. } => None,
        }
    }

    pub(super) async fn done(&self, commit: Commit) -> Record {
        match self.backend.commit(commit).await.unwrap() {
            Committed::Written(record) => record,
            other => panic!("a commit that nothing speaks against is done, not {other:?}"),
        }
    }

    pub(super) async fn destroy(&self, record: &Record) -> bool {
        self.backend.destroy(DestroyTarget::Session(record.session_id)).await.unwrap()
    }

    /// Waits until this was published of a client since the last call, and nothing else.
    pub(super) async fn expect_published(&self, client: &ClientId, expected: &[&str]) {
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
pub(super) fn shown(event: &SessionEvent) -> String {
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
