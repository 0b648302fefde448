//! Stores keep their contract, and `FileStore` survives what happens to files and processes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;

use axum_io_session::store::{
    FileStore, LiveStore, SessionStore, SetOutcome, StoreEntry, StoreResult, StoredSession,
    conformance,
};
use axum_io_session::{ErrorKind, SessionId};

fn live(session: &str) -> StoredSession {
    StoredSession::new(session, u64::MAX / 2, 1000)
}

// ---- the contract --------------------------------------------------------------------------

#[tokio::test]
async fn live_store_keeps_the_contract() {
    conformance::check(async || LiveStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    conformance::check(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        FileStore::open(folder.path().join(n.to_string())).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_store_with_all_defaults_keeps_the_contract() {
    conformance::check(async || Broken::default()).await;
}

/// A store without anything asynchronous.
#[derive(Default)]
struct Plain(Mutex<HashMap<SessionId, StoredSession>>);

impl SessionStore for Plain {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        Ok(self.0.lock().unwrap().get(id).cloned())
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        let old = self.0.lock().unwrap().insert(*id, session);
        Ok(match old.filter(|old| old.expires_at > now()) {
            Some(_) => SetOutcome::Updated,
            None => SetOutcome::Created,
        })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        Ok(self.0.lock().unwrap().remove(id).is_some())
    }
}

#[tokio::test]
async fn a_synchronous_store_keeps_the_contract() {
    conformance::check(async || Plain::default()).await;
}

/// A simple store with faults to switch on.
#[derive(Default)]
struct Broken {
    records: tokio::sync::Mutex<HashMap<String, StoredSession>>,
    fault: &'static str,
}

impl Broken {
    fn key(&self, id: &SessionId) -> String {
        match self.fault {
            "case" => id.as_str().to_lowercase(),
            _ => id.as_str().to_owned(),
        }
    }
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl SessionStore for Broken {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        tokio::task::yield_now().await;
        Ok(self.records.lock().await.get(&self.key(id)).cloned())
    }

    async fn set(&self, id: &SessionId, mut session: StoredSession) -> StoreResult<SetOutcome> {
        match self.fault {
            "client" => session.client_id = None,
            "max_age" => session.max_age = Default::default(),
            "sealed" => session.sealed = false,
            "previous" => session.previous.truncate(1),
            "trim" => session.session = session.session.trim().replace(" :", ":").into(),
            "torn" => {
                // The text first, the rest later.
                let mut records = self.records.lock().await;
                if let Some(old) = records.get_mut(&self.key(id)) {
                    old.session = session.session.clone();
                    drop(records);
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            _ => {}
        }
        let old = self.records.lock().await.insert(self.key(id), session);
        Ok(match old {
            Some(old) if old.expires_at > now() || self.fault == "expired" => SetOutcome::Updated,
            _ => SetOutcome::Created,
        })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        if self.fault == "undead" {
            return Ok(self.records.lock().await.contains_key(&self.key(id)));
        }
        let removed = self.records.lock().await.remove(&self.key(id)).is_some();
        Ok(removed || self.fault == "always")
    }

    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        if !self.fault.starts_with("list") {
            return Ok(None);
        }
        let records = self.records.lock().await;
        let mut entries: Vec<StoreEntry> = records
            .iter()
            .filter(|(_, record)| self.fault != "list live" || record.expires_at > now())
            .map(|(id, record)| StoreEntry::new(SessionId::parse(id).unwrap(), record.expires_at))
            .filter(|entry| after.is_none_or(|after| entry.id > *after))
            .collect();
        entries.sort_by_key(|entry| entry.id);
        if self.fault == "list unordered" {
            // Not left as it comes: by chance that is in order.
            entries.reverse();
        }
        entries.truncate(if self.fault == "list all" { usize::MAX } else { limit });
        Ok(Some(entries))
    }
}

#[tokio::test]
async fn the_suite_finds_each_fault() {
    for (fault, sentence) in [
        ("case", "ids differ by case"),
        ("client", "exactly as it was written"),
        ("max_age", "exactly as it was written"),
        ("sealed", "exactly as it was written"),
        ("previous", "exactly as it was written"),
        ("trim", "exactly as it was written"),
        ("torn", "one write, not parts of two"),
        ("expired", "over an expired record creates"),
        ("undead", "a write after a destroy creates"),
        ("always", "destroying nothing is false"),
        ("list live", "a listing is complete"),
        ("list unordered", "in the order of their ids"),
        ("list all", "at most `limit`"),
    ] {
        let suite = conformance::check(async move || Broken { fault, ..Default::default() });
        let panic = std::panic::AssertUnwindSafe(suite).catch_unwind().await.expect_err(fault);
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| {
            panic.downcast_ref::<&str>().map(ToString::to_string).unwrap_or_default()
        });
        assert!(text.contains(sentence), "{fault}: {text}");
    }
    conformance::check(async || Broken { fault: "list", ..Default::default() }).await;
}

// ---- the file ------------------------------------------------------------------------------

#[tokio::test]
async fn a_reopened_file_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let ids: Vec<SessionId> = (0..50).map(|_| SessionId::generate()).collect();
    let store = FileStore::open(&path).await.unwrap();
    let writes = ids.iter().enumerate().map(|(n, id)| store.set(id, live(&format!("{n}"))));
    for written in futures_util::future::join_all(writes).await {
        assert_eq!(written.unwrap(), SetOutcome::Created);
    }
    store.touch(&ids[0], u64::MAX / 2 + 77, 7).await.unwrap();
    store.destroy(&ids[1]).await.unwrap();
    store.close().await.unwrap();
    let late = store.set(&ids[1], live("{}")).await.unwrap_err();
    assert!(late.to_string().contains("closed"), "{late}");
    drop(store);
    let store = FileStore::open(&path).await.unwrap();
    assert_eq!(store.get(&ids[0]).await.unwrap().unwrap().expires_at, u64::MAX / 2 + 77);
    assert_eq!(store.get(&ids[1]).await.unwrap(), None);
    for (n, id) in ids.iter().enumerate().skip(2) {
        assert_eq!(store.get(id).await.unwrap().unwrap().session, n.to_string());
    }
}

#[tokio::test]
async fn a_second_opener_gets_a_clear_error_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let store = FileStore::open(&path).await.unwrap();
    let error = FileStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let output = child("open", &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("is open already; one process at a time"), "{text}");
    store.set(&SessionId::generate(), live("{}")).await.unwrap();
}

#[tokio::test]
async fn damaged_and_foreign_files_are_reported_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let store = FileStore::open(&good).await.unwrap();
    for n in 0..200 {
        store.set(&SessionId::generate(), live(&n.to_string().repeat(500))).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let whole = std::fs::read(&good).unwrap();
    let mut magic = whole.clone();
    magic[2] ^= 0xff;
    let mut header = whole.clone();
    header[64..320].fill(0xaa);
    let cases = [
        ("text", b"this is no session file, but somebody's novel".repeat(500)),
        ("short", b"x".to_vec()),
        ("magic", magic),
        ("header", header),
        ("cut", whole[..5000].to_vec()),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let error = FileStore::open(&path).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Store, "{name}: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(std::error::Error::source(&error).is_some(), "{name}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{name} was changed");
    }
    let missing = folder.path().join("no").join("such").join("folder");
    assert_eq!(FileStore::open(missing).await.unwrap_err().kind(), ErrorKind::Store);
}

/// The rights that a file's mode gives.
#[cfg(unix)]
fn rights(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_rights(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_a_file_from_its_first_moment() {
    let folder = tempfile::tempdir().unwrap();
    let other = |path: &Path, limits: &str| {
        let child = child("open", path);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("umask 0; {limits} exec \"$0\" \"$@\""))
            .arg(child.get_program())
            .args(child.get_args())
            .envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.output().unwrap()
    };
    let path = folder.path().join("sessions");
    let output = other(&path, "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("opened"), "{output:?}");
    assert_eq!(rights(&path), 0o600);

    // The first write ends this process: what it leaves is the file as it was created.
    let path = folder.path().join("begun");
    let output = other(&path, "ulimit -c 0; ulimit -f 0;");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(rights(&path), 0o600);
}

#[cfg(unix)]
#[tokio::test]
async fn a_session_file_with_wider_rights_is_narrowed_and_stays_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let id = SessionId::generate();
    for mode in [0o644, 0o666, 0o2770] {
        let store = FileStore::open(&path).await.unwrap();
        store.set(&id, live("{}")).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        set_rights(&path, mode);
        let store = FileStore::open(&path).await.unwrap();
        assert_eq!(rights(&path), 0o600, "{mode:o}");
        assert_eq!(store.get(&id).await.unwrap().unwrap().session, "{}");
        let output = child("open", &path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("is open already; one process at a time"), "{text}");
        store.close().await.unwrap();
    }

    let foreign = folder.path().join("foreign");
    std::fs::write(&foreign, "somebody's novel").unwrap();
    set_rights(&foreign, 0o644);
    FileStore::open(&foreign).await.unwrap_err();
    assert_eq!(rights(&foreign), 0o644, "no session file, and left as it is");
}

#[tokio::test]
async fn records_that_expired_long_ago_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().join("sessions")).await.unwrap();
    for n in 0..20u64 {
        let writes: Vec<SessionId> = (0..10).map(|_| SessionId::generate()).collect();
        let writes = writes.iter().map(|id| store.set(id, StoredSession::new("{}", 1 + n, 1)));
        futures_util::future::join_all(writes).await;
    }
    support::until("they are dropped", async || {
        store.set(&SessionId::generate(), live("{}")).await.unwrap();
        let all = store.list(None, 10_000).await.unwrap().unwrap();
        all.iter().all(|entry| entry.expires_at > 1000)
    })
    .await;
}

// ---- kill -9 -------------------------------------------------------------------------------

/// This very program, as another process that does what `CHILD` says.
fn child(what: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_other_process", "--nocapture", "--include-ignored"])
        .env("CHILD", what)
        .env("CHILD_PATH", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[tokio::test]
#[ignore = "not a test: the other process of the tests around it"]
async fn the_other_process() {
    let Ok(what) = std::env::var("CHILD") else { return };
    let path = std::env::var("CHILD_PATH").unwrap();
    match FileStore::open(&path).await {
        Ok(store) if what == "write" => {
            let printed = Mutex::new(());
            // Bounded, in case nobody kills it.
            for _ in 0..100_000 {
                let writes = (0..8).map(async |_| {
                    let id = SessionId::generate();
                    store.set(&id, live(id.as_str())).await.unwrap();
                    let _one_line_at_a_time = printed.lock().unwrap();
                    println!("acknowledged {}", id.as_str());
                });
                futures_util::future::join_all(writes).await;
            }
        }
        Ok(_) => println!("opened"),
        Err(error) => println!("{error}"),
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_nine_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let mut acknowledged: Vec<SessionId> = Vec::new();
    for round in 0..8u32 {
        let mut writer = child("write", &path).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap());
        // Somewhere in the middle of a write, at another place each time.
        let stop_after = 20 + 37 * round;
        let mut seen = 0;
        for line in lines.lines().map_while(Result::ok) {
            // Behind whatever the test harness prints.
            if let Some((_, id)) = line.split_once("acknowledged ")
                && let Ok(id) = SessionId::parse(id)
            {
                acknowledged.push(id);
                seen += 1;
            }
            if seen == stop_after {
                std::thread::sleep(Duration::from_micros(u64::from(round) * 300));
                writer.kill().unwrap();
                seen += 1;
            }
        }
        writer.wait().unwrap();
        assert!(seen > stop_after, "round {round}: the writer ended by itself after {seen} writes");
        let store = FileStore::open(&path).await.unwrap();
        for id in &acknowledged {
            let record = store.get(id).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("round {round}: {id:?} is lost"));
            assert_eq!(record.session, id.as_str());
        }
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() > 1000, "only {} writes", acknowledged.len());
}
