//! What every store has to do: a suite for authors of a [`SessionStore`].
//!
//! Run it in a test of your own:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use axum_io_session::store::{LiveStore, conformance};
//!
//! conformance::check(async || LiveStore::new()).await;
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)] // a suite fails by panicking

use std::collections::BTreeSet;
use std::time::Duration;

use super::{SessionStore, SetOutcome, StoredPreviousId, StoredSession, now_ms};
use crate::session::{ClientId, Generation, MaxAge, SessionId};

/// Runs all checks, each on a fresh, empty store from `make`.
///
/// Optional abilities (`list`, `find_by_client`) are checked if the store has them.
///
/// # Panics
/// With the sentence that the store breaks, or if one of its operations fails.
pub async fn check<S: SessionStore>(make: impl AsyncFn() -> S) {
    an_unknown_id_has_no_record(&make().await).await;
    a_record_comes_back_exactly_as_it_was_written(&make().await).await;
    a_write_tells_whether_it_created(&make().await).await;
    a_write_replaces_the_whole_record(&make().await).await;
    ids_are_compared_exactly(&make().await).await;
    destroying_removes_and_tells_whether_there_was_something(&make().await).await;
    touching_moves_the_expiry_and_nothing_else(&make().await).await;
    a_touch_of_nothing_is_false_and_creates_nothing(&make().await).await;
    a_listing_is_complete_and_ordered_and_includes_the_expired(&make().await).await;
    a_clients_newest_record_is_found(&make().await).await;
    parallel_work_on_different_records_loses_nothing(&make().await).await;
    a_reader_beside_a_writer_sees_whole_records(&make().await).await;
    housekeeping_harms_no_live_record(&make().await).await;
}

const HOUR: u64 = 60 * 60 * 1000;

fn live(session: &str) -> StoredSession {
    StoredSession::new(session, now_ms() + HOUR, HOUR)
}

/// Earlier ids, the newest of which still opens the session.
fn previous(count: usize) -> Vec<StoredPreviousId> {
    let until = |n| if n == 0 { now_ms() + HOUR } else { 0 };
    (0..count).map(|n| StoredPreviousId { id: SessionId::generate(), until: until(n) }).collect()
}

async fn get<S: SessionStore>(store: &S, id: &SessionId) -> Option<StoredSession> {
    store.get(id).await.expect("`get` works")
}

async fn set<S: SessionStore>(store: &S, id: &SessionId, session: StoredSession) -> SetOutcome {
    store.set(id, session).await.expect("`set` works")
}

async fn an_unknown_id_has_no_record<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    assert_eq!(get(store, &id).await, None, "an unknown id has no record");
}

async fn a_record_comes_back_exactly_as_it_was_written<S: SessionStore>(store: &S) {
    let big = format!(r#"{{"big":"{}"}}"#, "é漢".repeat(100_000));
    let texts = [
        "{}",
        r#"{"":"empty key","nul":"\u0000","lines":"\u2028\u2029","astral":"😀"}"#,
        "{\"raw\":\"\u{2028}\u{7f}\",\"spaces\" :  1 }",
        r#"{"__proto__":{"a":1},"n":-0.1,"big":9007199254740993}"#,
        // A store keeps the text, whatever it is worth.
        "not json",
        "",
        &big,
    ];
    let ages = [MaxAge::Default, MaxAge::Browser, MaxAge::After(Duration::from_millis(1500))];
    for (index, text) in texts.into_iter().enumerate() {
        let id = SessionId::generate();
        let mut record = live(text);
        record.created_at = 1_234_567_890_123;
        record.version = u64::MAX - index as u64;
        record.generation = (index % 2 == 0).then(Generation::random);
        record.client_id = (index % 3 != 0).then(ClientId::generate);
        record.max_age = ages[index % ages.len()];
        record.sealed = index % 2 == 1;
        record.previous = previous(index % 4);
        set(store, &id, record.clone()).await;
        let read = get(store, &id).await.expect("a written record is there");
        assert!(
            read == record,
            "a record comes back exactly as it was written; number {index} does not"
        );
    }
}

async fn a_write_tells_whether_it_created<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    assert_eq!(set(store, &id, live("{}")).await, SetOutcome::Created, "the first write creates");
    assert_eq!(set(store, &id, live("{}")).await, SetOutcome::Updated, "the second one updates");
    store.destroy(&id).await.expect("`destroy` works");
    let again = set(store, &id, live("{}")).await;
    assert_eq!(again, SetOutcome::Created, "a write after a destroy creates");
    let expired = SessionId::generate();
    set(store, &expired, StoredSession::new("{}", now_ms() - 1, HOUR)).await;
    let over = set(store, &expired, live("{}")).await;
    assert_eq!(over, SetOutcome::Created, "a write over an expired record creates");
}

async fn a_write_replaces_the_whole_record<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    let mut first = live(r#"{"a":1,"b":2}"#);
    first.client_id = Some(ClientId::generate());
    first.generation = Some(Generation::random());
    first.max_age = MaxAge::Browser;
    first.sealed = true;
    first.previous = previous(2);
    set(store, &id, first).await;
    let second = live(r#"{"c":3}"#);
    set(store, &id, second.clone()).await;
    assert_eq!(get(store, &id).await, Some(second), "a write replaces the whole record");
}

async fn ids_are_compared_exactly<S: SessionStore>(store: &S) {
    // The last character holds four bits only: the first one differs.
    let lower = SessionId::parse(&format!("a{}", "A".repeat(42))).expect("an id");
    let upper = SessionId::parse(&"A".repeat(43)).expect("an id");
    set(store, &lower, live(r#"{"id":"lower"}"#)).await;
    set(store, &upper, live(r#"{"id":"upper"}"#)).await;
    let read = get(store, &lower).await.expect("a written record is there");
    assert_eq!(read.session, r#"{"id":"lower"}"#, "ids differ by case");
    store.destroy(&upper).await.expect("`destroy` works");
    assert!(get(store, &lower).await.is_some(), "destroying one id leaves the other");
}

async fn destroying_removes_and_tells_whether_there_was_something<S: SessionStore>(store: &S) {
    let (id, other) = (SessionId::generate(), SessionId::generate());
    set(store, &id, live("{}")).await;
    set(store, &other, live("{}")).await;
    assert!(store.destroy(&id).await.expect("`destroy` works"), "destroying a record is true");
    assert_eq!(get(store, &id).await, None, "a destroyed record is gone");
    assert!(!store.destroy(&id).await.expect("`destroy` works"), "destroying nothing is false");
    assert!(get(store, &other).await.is_some(), "other records stay");
}

async fn touching_moves_the_expiry_and_nothing_else<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    let mut record = live(r#"{"a":1}"#);
    record.client_id = Some(ClientId::generate());
    record.version = 7;
    record.sealed = true;
    record.previous = previous(3);
    set(store, &id, record.clone()).await;
    let (at, ttl) = (record.expires_at + 5 * HOUR, 6 * HOUR);
    assert!(store.touch(&id, at, ttl).await.expect("`touch` works"), "touching a record is true");
    record.expires_at = at;
    record.ttl = ttl;
    assert_eq!(get(store, &id).await, Some(record), "a touch moves the expiry and nothing else");
}

async fn a_touch_of_nothing_is_false_and_creates_nothing<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    let touched = store.touch(&id, now_ms() + HOUR, HOUR).await.expect("`touch` works");
    assert!(!touched, "touching nothing is false");
    assert_eq!(get(store, &id).await, None, "touching nothing creates nothing");
}

async fn a_listing_is_complete_and_ordered_and_includes_the_expired<S: SessionStore>(store: &S) {
    let empty = store.list(None, 10).await.expect("`list` works");
    let Some(empty) = empty else { return };
    assert!(empty.is_empty(), "an empty store lists nothing");
    let mut written = BTreeSet::new();
    for n in 0..25u64 {
        let id = SessionId::generate();
        // Just expired ones: a store may drop what expired long ago.
        let at = if n % 5 == 0 { now_ms() - 1 } else { now_ms() + HOUR + n };
        set(store, &id, StoredSession::new("{}", at, HOUR)).await;
        written.insert((id, at));
    }
    let mut listed = BTreeSet::new();
    let mut after: Option<SessionId> = None;
    for _ in 0..30 {
        let page = store.list(after.as_ref(), 4).await.expect("`list` works");
        let page = page.expect("a store that can list always can");
        assert!(page.len() <= 4, "a page has at most `limit` entries");
        let Some(last) = page.last() else { break };
        let mut previous = after;
        for entry in &page {
            assert!(
                previous.is_none_or(|previous| previous < entry.id),
                "entries come in the order of their ids, beginning after `after`"
            );
            previous = Some(entry.id);
            listed.insert((entry.id, entry.expires_at));
        }
        after = Some(last.id);
    }
    assert!(listed == written, "a listing is complete, with each expiry");
}

async fn a_clients_newest_record_is_found<S: SessionStore>(store: &S) {
    let (client, other) = (ClientId::generate(), ClientId::generate());
    let (first, second) = (SessionId::generate(), SessionId::generate());
    let mut record = live("{}");
    record.client_id = Some(client);
    set(store, &first, record.clone()).await;
    let find = async |client| store.find_by_client(client).await.expect("`find_by_client` works");
    let Some(found) = find(&client).await else { return };
    assert_eq!(found, first, "a client's record is found");
    assert_eq!(find(&other).await, None, "a client without a record has none");
    set(store, &second, record).await;
    assert_eq!(find(&client).await, Some(second), "the newest record of a client is found");
    store.destroy(&first).await.expect("`destroy` works");
    assert_eq!(find(&client).await, Some(second), "destroying an older one leaves the newest");
    store.destroy(&second).await.expect("`destroy` works");
    assert_eq!(find(&client).await, None, "a destroyed record is not found");
}

async fn parallel_work_on_different_records_loses_nothing<S: SessionStore>(store: &S) {
    let ids: Vec<SessionId> = (0..100).map(|_| SessionId::generate()).collect();
    let work = ids.iter().enumerate().map(async |(n, id)| {
        set(store, id, live(&format!(r#"{{"n":{n}}}"#))).await;
        if n % 4 == 0 {
            store.destroy(id).await.expect("`destroy` works");
        }
    });
    futures_util::future::join_all(work).await;
    for (n, id) in ids.iter().enumerate() {
        let text = get(store, id).await.map(|record| record.session.to_string());
        let expected = (n % 4 != 0).then(|| format!(r#"{{"n":{n}}}"#));
        assert_eq!(text, expected, "parallel work on different records loses nothing");
    }
}

async fn a_reader_beside_a_writer_sees_whole_records<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    let record = |n: u64| {
        let mut record = live(&format!(r#"{{"n":"{}"}}"#, n.to_string().repeat(1000)));
        record.version = n;
        record
    };
    set(store, &id, record(0)).await;
    let write = async {
        for n in 1..50 {
            set(store, &id, record(n)).await;
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        let mut last = 0;
        for _ in 0..50 {
            let seen = get(store, &id).await.expect("an overwritten record never vanishes");
            let whole = format!(r#"{{"n":"{}"}}"#, seen.version.to_string().repeat(1000));
            assert!(seen.session == whole, "a reader sees one write, not parts of two");
            assert!(seen.version >= last, "a reader never goes back to an older write");
            last = seen.version;
            tokio::task::yield_now().await;
        }
    };
    futures_util::future::join(write, read).await;
    let last = get(store, &id).await.expect("the record is there");
    assert_eq!(last.version, 49, "the last acknowledged write is read");
}

async fn housekeeping_harms_no_live_record<S: SessionStore>(store: &S) {
    let id = SessionId::generate();
    set(store, &id, live("{}")).await;
    for n in 0..50 {
        set(store, &SessionId::generate(), StoredSession::new("{}", 1 + n, 1)).await;
    }
    store.optimize(50).await.expect("`optimize` works");
    assert!(get(store, &id).await.is_some(), "housekeeping harms no live record");
}
