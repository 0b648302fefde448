//! Backends keep their contract, and the suite that says so finds what breaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use axum_io_session::backend::{BackendConfig, Create, Created, Loaded, conformance};
use axum_io_session::store::{
    FileStore, LiveStore, SessionStore, SetOutcome, StoreResult, StoredSession,
};
use axum_io_session::{ClientId, ErrorKind, SessionBridge, SessionId};
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
        ("forgets nodes", "a node that says so is there"),
        ("never rotates", "kills the old one"),
        ("forgets max ages", "own max age stays"),
        ("revives", "revives nothing"),
        ("joins anything", "from before the request is replaced"),
        ("tells twice", "is told once"),
        ("tells touches", "tells nothing"),
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
    let bridge = SessionBridge::builder().keys([support::KEY]).store(Panicking);
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
    let create = Create {
        client,
        data: Default::default(),
        max_age: Default::default(),
        since: Duration::ZERO,
    };
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
    let nobody = backend.load(&id, None).await.unwrap();
    assert_eq!(nobody, Loaded::Missing { superseded: false });
    let Loaded::Found(record) = backend.load(&id, Some(&client)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!(record.client_id, client);
    let other = ClientId::generate();
    let Loaded::Found(again) = backend.load(&id, Some(&other)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!((again.client_id, again.generation), (client, record.generation));
    backend.shutdown().await;
}
