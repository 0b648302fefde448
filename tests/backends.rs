//! Backends keep their contract, and the suite that says so finds what breaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum_io_session::backend::{
    Backend, BackendConfig, Commit, Committed, Create, Created, DestroyTarget, Loaded, NewId,
    conformance,
};
use axum_io_session::session::Record;
use axum_io_session::store::{
    FileStore, LiveStore, SessionStore, SetOutcome, StoreResult, StoredSession,
};
use axum_io_session::{ClientId, ErrorKind, MaxAge, SessionBridge, SessionId};
use support::faulty::{Faulty, single};
use support::probe::ProbeStore;

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_live_store() {
    conformance::check(async |config| single(LiveStore::new(), config)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_file_store() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    conformance::check(async |config| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(n.to_string());
        single(FileStore::open(path).await.unwrap(), config)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_a_store_with_the_least_abilities() {
    conformance::check(async |config| {
        single(ProbeStore::new().without_list().without_find(), config)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_finds_each_fault() {
    let faults = [
        ("ignores versions", "an older version is a conflict"),
        ("ignores leases", "its owner can do no harm"),
        ("keeps leases", "gives the lease back with it"),
        ("forgets nodes", "a heartbeat lists its node"),
        ("gives no new ids", "a renewed id is the same session"),
        ("has no overlap", "opens it for the overlap"),
        ("renews for a late renewal", "of several renewals of one id one is done"),
        ("never seals", "sealing is a new session"),
        ("keeps the generation", "sealing is a new session"),
        ("creates open sessions only", "a sealed session is never joined"),
        ("tells no seal", "what sealing publishes"),
        ("tells no successor", "what sealing publishes"),
        ("forgets earlier ids", "sealing is a new session"),
        ("remembers all ids", "a dead id is not taken for a late one"),
        ("loads only the first id", "the first that lives is loaded"),
        ("begins with no age", "a session can begin with an age"),
        ("has one life for all", "may live shorter than a sealed one"),
        ("forgets max ages", "own max age stays"),
        ("revives", "revives nothing"),
        ("joins anything", "joined only while it is young"),
        ("joins nothing", "end in one open session"),
        ("joins sealed sessions", "a sealed session is never joined"),
        ("replaces live sessions", "a live session is never replaced"),
        ("tells twice", "is published once"),
        ("tells touches", "publishes nothing"),
        ("forgets ends", "by whatever name"),
        ("always ends", "true once and false after that"),
        ("one line for all", "do not wait for each other"),
        ("waits for ever", "a wait ends at its limit"),
        ("never renews", "its owner can do no harm"),
        ("never releases", "lose nothing"),
        ("knows nothing", "known without asking"),
        ("watches without a look", "known without asking"),
        ("watches for ever", "nothing stays in memory"),
        ("never stops", "after a shutdown"),
    ];
    let runs = faults.map(async |(fault, rule)| {
        let failures = conformance::failures(async |config| Faulty::make(fault, config)).await;
        assert!(failures.iter().any(|failure| failure.contains(rule)), "{fault}: {failures:#?}");
    });
    futures_util::future::join_all(runs).await;
    let none = conformance::failures(async |config| Faulty::make("none", config)).await;
    assert_eq!(none, Vec::<String>::new());
}

// ---- a store that misbehaves ---------------------------------------------------------------

/// Panics when it is to write.
struct Panicking;

impl SessionStore for Panicking {
    async fn get(&self, _: &SessionId) -> StoreResult<Option<StoredSession>> {
        Ok(None)
    }
    async fn set(&self, _: &SessionId, _: StoredSession) -> StoreResult<SetOutcome> {
        panic!("a store that panics on purpose");
    }
    async fn destroy(&self, _: &SessionId) -> StoreResult<bool> {
        Ok(false)
    }
}

#[tokio::test]
async fn a_store_that_panics_is_an_error_and_blocks_nobody() {
    let bridge = SessionBridge::builder().signing_keys([support::KEY]).store(Panicking);
    let bridge = bridge.build().await.unwrap();
    let app = support::app::app(&bridge);
    let mut browser = support::http::Browser::new();
    for _ in 0..3 {
        let answer = browser.post(&app, "/merge", r#"{"a":1}"#).await;
        assert_eq!(answer.status.as_u16(), 503);
        assert!(browser.get(&app, "/read").await.status.is_success());
    }
    assert_eq!(bridge.stats().tables["clients"], 0);
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing_and_tells_nothing() {
    let store = ProbeStore::new();
    let backend = single(store.clone(), BackendConfig::default());
    let mut told = backend.subscribe();
    let client = ClientId::generate();
    let create = Create::new(client, Default::default());
    store.set_broken(true);
    let error = backend.create(create.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(std::error::Error::source(&error).unwrap().is::<support::probe::Broken>());
    store.set_broken(false);
    assert_eq!(backend.session_of(&client).await.unwrap(), None);
    assert!(told.try_recv().is_err());
    assert!(matches!(backend.create(create).await.unwrap(), Created::New(_)));
    backend.shutdown().await;
}

#[tokio::test]
async fn a_record_without_a_client_goes_to_the_first_that_presents_it() {
    let store = LiveStore::new();
    let backend = single(store.clone(), BackendConfig::default());
    let (id, client) = (SessionId::generate(), ClientId::generate());
    let foreign = StoredSession::new(r#"{"made":"elsewhere"}"#, u64::MAX / 2, 1000);
    store.set(&id, foreign).await.unwrap();
    let nobody = backend.load(&[id], None).await.unwrap();
    assert_eq!(nobody, Loaded::Missing { superseded: false });
    let Loaded::Found(record) = backend.load(&[id], Some(&client)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!(record.client_id, client);
    let other = ClientId::generate();
    let Loaded::Found(again) = backend.load(&[id], Some(&other)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!((again.client_id, again.generation), (client, record.generation));
    backend.shutdown().await;
}

// ---- after a restart -----------------------------------------------------------------------

async fn over_file(path: &Path) -> Arc<dyn Backend> {
    single(FileStore::open(path).await.unwrap(), BackendConfig::default())
}

async fn begun(backend: &dyn Backend) -> Record {
    match backend.create(Create::new(ClientId::generate(), Default::default())).await.unwrap() {
        Created::New(record) => record,
        other => panic!("{other:?}"),
    }
}

async fn with_new_id(backend: &dyn Backend, record: &Record, new_id: NewId) -> Record {
    let mut commit = Commit::new(record, record.data.clone());
    commit.new_id = Some(new_id);
    match backend.commit(commit).await.unwrap() {
        Committed::Written(record) => record,
        other => panic!("{other:?}"),
    }
}

/// The session that an id opens, as another process finds it.
async fn opened(backend: &dyn Backend, id: SessionId, client: &ClientId) -> Loaded {
    backend.load(&[id], Some(client)).await.unwrap()
}

fn is(loaded: &Loaded, expected: &Record) -> bool {
    matches!(loaded, Loaded::Found(found) if found.session_id == expected.session_id
        && found.generation == expected.generation
        && found.sealed == expected.sealed)
}

#[tokio::test]
async fn a_file_remembers_over_a_restart_what_was_sealed_and_which_ids_were_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let backend = over_file(&path).await;
    let open = begun(&*backend).await;
    let renewal = NewId::Renew { from: open.session_id };
    let renewed = with_new_id(&*backend, &open, renewal).await;
    let sealed = with_new_id(&*backend, &renewed, NewId::Seal).await;
    let other = begun(&*backend).await;
    let renewal = NewId::Renew { from: other.session_id };
    let other_renewed = with_new_id(&*backend, &other, renewal).await;
    backend.shutdown().await;
    drop(backend);
    // Whatever comes first finds it.
    for first in 0..4 {
        let backend = over_file(&path).await;
        let client = sealed.client_id;
        for step in 0..4 {
            match (first + step) % 4 {
                0 | 1 => {
                    let late = [open.session_id, renewed.session_id][(first + step) % 2];
                    let missing = Loaded::Missing { superseded: true };
                    assert_eq!(opened(&*backend, late, &client).await, missing, "{first}");
                }
                2 => {
                    let mut create = Create::new(client, Default::default());
                    create.join = Duration::from_secs(3600);
                    let created = backend.create(create).await.unwrap();
                    assert_eq!(created, Created::Occupied, "{first}");
                }
                _ => assert!(is(&opened(&*backend, sealed.session_id, &client).await, &sealed)),
            }
        }
        let client = other.client_id;
        let overlap = opened(&*backend, other.session_id, &client).await;
        assert!(is(&overlap, &other_renewed), "{first}: {overlap:?}");
        assert!(is(&opened(&*backend, other_renewed.session_id, &client).await, &other_renewed));
        backend.shutdown().await;
    }
}

#[tokio::test]
async fn a_crash_while_a_session_is_sealed_leaves_only_the_sealed_one_to_be_reached() {
    for (first, hinted) in [("old", true), ("old", false), ("sealed", true), ("sealed", false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions");
        let backend = over_file(&path).await;
        let open = begun(&*backend).await;
        let id = open.session_id;
        backend.shutdown().await;
        drop(backend);
        let store = FileStore::open(&path).await.unwrap();
        let before = store.get(&id).await.unwrap().unwrap();
        store.close().await.unwrap();
        drop(store);
        let backend = over_file(&path).await;
        assert!(is(&backend.load(&[id], None).await.unwrap(), &open));
        let sealed = with_new_id(&*backend, &open, NewId::Seal).await;
        backend.shutdown().await;
        drop(backend);
        // The new record is written before the old one is removed: a crash in between leaves both.
        let store = FileStore::open(&path).await.unwrap();
        let after = store.get(&sealed.session_id).await.unwrap().unwrap();
        assert!(store.get(&id).await.unwrap().is_none());
        store.set(&id, before).await.unwrap();
        store.set(&sealed.session_id, after).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let backend = over_file(&path).await;
        let hint = Some(&open.client_id).filter(|_| hinted);
        let ids = match first {
            "old" => [id, sealed.session_id],
            _ => [sealed.session_id, id],
        };
        for id in ids.into_iter().chain(ids) {
            let loaded = backend.load(&[id], hint).await.unwrap();
            match id == sealed.session_id {
                true => assert!(is(&loaded, &sealed), "{first}, {hinted}: {loaded:?}"),
                false => assert_eq!(loaded, Loaded::Missing { superseded: true }),
            }
        }
        assert_eq!(backend.session_of(&open.client_id).await.unwrap(), Some(sealed.session_id));
        assert!(!backend.destroy(DestroyTarget::Session(id)).await.unwrap());
        backend.shutdown().await;
        drop(backend);
        let left = FileStore::open(&path).await.unwrap();
        let left = left.list(None, 10).await.unwrap().unwrap();
        assert_eq!(left.iter().map(|entry| entry.id).collect::<Vec<_>>(), [sealed.session_id]);
    }
}

#[tokio::test]
async fn deadlines_are_kept_for_live_sessions_only() {
    let backend = single(LiveStore::new(), BackendConfig::default());
    let deadlines = || {
        let tables = backend.table_sizes();
        tables.iter().find(|(name, _)| *name == "deadlines").map(|(_, size)| *size)
    };
    for _ in 0..100 {
        let record = begun(&*backend).await;
        // A shorter life has an earlier deadline, and a sealed session another generation.
        let mut commit = Commit::new(&record, record.data.clone());
        commit.max_age = MaxAge::After(Duration::from_secs(60));
        let Committed::Written(record) = backend.commit(commit).await.unwrap() else { panic!() };
        let record = with_new_id(&*backend, &record, NewId::Seal).await;
        assert_eq!(deadlines(), Some(1));
        let ended = backend.destroy(DestroyTarget::Session(record.session_id)).await;
        assert!(ended.unwrap());
        assert_eq!(deadlines(), Some(0));
    }
    backend.shutdown().await;
}
