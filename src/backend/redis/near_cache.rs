//! Sessions that this node has read, as long as announcements keep them current.
//!
//! A client whose session is here is subscribed like one with a socket. A session is served from here
//! only if it was read, or written by this node, while its client was subscribed, no announcement of a
//! newer state has come since, no announcement may have been missed since, and that was not too long
//! ago.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::config::NearCache as Limits;
use super::pubsub::interest::Interest;
use super::pubsub::message::Announcement;
use crate::session::{ClientId, Generation, Record, SessionEvent};

/// What an entry takes beside its data.
const OVERHEAD: u64 = 1024;

/// The share of a node in memory that no entry goes below, so that their number has a bound too.
fn least_room(limits: &Limits) -> u64 {
    let entries = u64::try_from(limits.max_entries).unwrap_or(u64::MAX);
    limits.max_bytes.div_ceil(entries.max(1)).max(OVERHEAD)
}

pub(super) struct NearCache {
    entries: Cache<ClientId, Arc<Slot>, ByRoom>,
    /// Room of an entry whose session's size is not known.
    room: u64,
    max_bytes: u64,
    interest: Arc<Interest>,
    max_age: Duration,
    /// Grows whenever announcements may have been missed: what is older is served no more.
    epoch: AtomicU64,
}

#[derive(Clone)]
struct ByRoom;

impl Weighter<ClientId, Arc<Slot>> for ByRoom {
    fn weight(&self, _: &ClientId, slot: &Arc<Slot>) -> u64 {
        slot.room
    }
}

/// A client that is subscribed as long as this is there. Once it is out of the cache it never comes back:
/// it would not know of what was announced meanwhile.
struct Slot {
    client: ClientId,
    /// Bytes that it counts for: a session that takes more gets a slot of its own.
    room: u64,
    interest: Arc<Interest>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// The version that was announced last, and in which epoch.
    announced: Option<(Generation, u64)>,
    announced_in: u64,
    /// Announcements so far.
    count: u64,
}

struct Known {
    record: Record,
    at: Instant,
    epoch: u64,
}

impl Known {
    fn is_current(&self, epoch: u64, max_age: Duration) -> bool {
        self.epoch == epoch && self.at.elapsed() <= max_age
    }
}

/// The version of a session that has ended.
const ENDED: u64 = u64::MAX;

/// What a look found.
pub(super) enum Look {
    Hit(Record),
    Miss(Fill),
}

/// A read that begins now, and may fill the gap.
pub(super) struct Fill {
    slot: Arc<Slot>,
    count: u64,
    epoch: u64,
    subscribed: bool,
}

impl NearCache {
    pub(super) fn new(limits: Limits, interest: Arc<Interest>) -> Self {
        let Limits { max_entries, max_bytes, max_age } = limits;
        Self {
            entries: Cache::with_weighter(max_entries, max_bytes, ByRoom),
            room: least_room(&limits),
            max_bytes,
            interest,
            max_age,
            epoch: AtomicU64::new(0),
        }
    }

    /// The client's session, if this node knows it.
    pub(super) fn look(&self, client: &ClientId) -> Look {
        let epoch = self.epoch();
        let slot = self.entries.get(client).unwrap_or_else(|| self.begin(client, self.room));
        let count = {
            let mut state = slot.lock();
            let fresh = state.known.as_ref().and_then(|known| {
                let current = known.is_current(epoch, self.max_age);
                current.then(|| known.record.later(known.at.elapsed())).flatten()
            });
            if let Some(record) = fresh {
                return Look::Hit(record);
            }
            state.known = None;
            state.count
        };
        let subscribed = self.interest.is_subscribed(client);
        Look::Miss(Fill { slot, count, epoch, subscribed })
    }

    /// Keeps what was read.
    pub(super) fn fill(&self, fill: Fill, record: &Record) {
        let Fill { slot, count, epoch, subscribed } = fill;
        if !subscribed || epoch != self.epoch() {
            return;
        }
        self.keep(&slot, record, epoch, |state| {
            state.count == count || state.is_announced_before(record)
        });
    }

    /// Keeps what this node has written, if it would have heard of everything newer.
    pub(super) fn wrote(&self, record: &Record) {
        let Some(slot) = self.entries.peek(&record.client_id) else { return };
        let epoch = self.epoch();
        self.keep(&slot, record, epoch, |state| {
            state.hears(record, epoch) && state.is_announced_before(record)
        });
    }

    /// Keeps a session that is current in its slot, or makes it one with more room, which the next read
    /// fills. What is older goes in any case.
    fn keep(
        &self,
        slot: &Slot,
        record: &Record,
        epoch: u64,
        is_current: impl FnOnce(&State) -> bool,
    ) {
        let room = OVERHEAD + record.data.memory();
        {
            let mut state = slot.lock();
            if !is_current(&state) || room > slot.room {
                state.forget_older(record);
            } else {
                state.learn(record, epoch);
            }
        }
        // Not under the slot's lock: a purge takes the two the other way round.
        let larger = room.checked_next_power_of_two().unwrap_or(room);
        if room > slot.room && larger <= self.max_bytes {
            self.begin(&record.client_id, larger);
        }
    }

    /// The client's session has ended, or may have: what is here goes, and a read that is under way is
    /// not kept.
    pub(super) fn forget(&self, client: &ClientId) {
        self.entries.remove(client);
    }

    /// Removes what is not served any more, and with it the subscriptions to its clients.
    pub(super) fn purge(&self) {
        let epoch = self.epoch();
        self.entries.retain(|_, slot| {
            let state = slot.lock();
            state.known.as_ref().is_some_and(|known| known.is_current(epoch, self.max_age))
        });
    }

    pub(super) fn announced(&self, announcement: &Announcement) {
        let event = &announcement.event;
        let (client, said) = match (&event.event, event.generation) {
            (SessionEvent::Set(set), Some(generation)) => {
                (set.client_id, (generation, announcement.version))
            }
            (SessionEvent::Destroy(end), Some(generation)) => (end.client_id, (generation, ENDED)),
            _ => return,
        };
        if said.1 == ENDED {
            self.forget(&client);
        } else if let Some(slot) = self.entries.peek(&client) {
            slot.lock().announced(said, self.epoch());
        }
    }

    /// Announcements may have been missed.
    pub(super) fn suspend(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// An entry without a session, whose client is subscribed from soon on.
    fn begin(&self, client: &ClientId, room: u64) -> Arc<Slot> {
        self.interest.join(client);
        let slot = Arc::new(Slot {
            client: *client,
            room,
            interest: self.interest.clone(),
            state: Mutex::default(),
        });
        self.entries.insert(*client, slot.clone());
        slot
    }
}

impl fmt::Debug for NearCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.interest.leave(&self.client);
    }
}

impl State {
    /// Whether nothing newer than this record was announced, or of another session.
    fn is_announced_before(&self, record: &Record) -> bool {
        self.announced.is_none_or(|(generation, version)| {
            generation == record.generation && version <= record.version
        })
    }

    /// Whether the client was subscribed before this was written: something older was kept, or this
    /// very write was announced.
    fn hears(&self, written: &Record, epoch: u64) -> bool {
        let said = Some((written.generation, written.version));
        self.known.as_ref().is_some_and(|known| known.epoch == epoch)
            || (self.announced == said && self.announced_in == epoch)
    }

    fn is_newer_than(&self, record: &Record) -> bool {
        self.known.as_ref().is_some_and(|Known { record: known, .. }| {
            known.generation == record.generation && known.version > record.version
        })
    }

    fn learn(&mut self, record: &Record, epoch: u64) {
        if !self.is_newer_than(record) {
            self.known = Some(Known { record: record.clone(), at: Instant::now(), epoch });
        }
    }

    fn forget_older(&mut self, record: &Record) {
        if !self.is_newer_than(record) {
            self.known = None;
        }
    }

    fn announced(&mut self, said: (Generation, u64), epoch: u64) {
        self.count += 1;
        (self.announced, self.announced_in) = (Some(said), epoch);
        if self.known.as_ref().is_some_and(|known| !self.is_announced_before(&known.record)) {
            self.known = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendEvent;
    use crate::session::{DestroyReason, NodeId, SessionId};

    const MINUTE: Duration = Duration::from_secs(60);

    fn record(version: u64) -> Record {
        let (id, client) = (SessionId::generate(), ClientId::generate());
        Record { version, ..Record::new(id, client, Generation::random(), MINUTE * 10) }
    }

    fn later(record: &Record, version: u64) -> Record {
        Record { version, ..record.clone() }
    }

    /// A cache whose interest is subscribed as soon as somebody joins.
    struct World(NearCache);

    impl World {
        fn new(max_age: Duration) -> Self {
            let limits = Limits { max_age, ..Limits::default() };
            Self(NearCache::new(limits, Arc::new(Interest::new(false))))
        }

        fn subscribe(&self) {
            let batch = self.0.interest.take();
            self.0.interest.finish(&batch);
        }

        fn miss(&self, record: &Record) -> Fill {
            match self.0.look(&record.client_id) {
                Look::Miss(fill) => fill,
                Look::Hit(record) => panic!("{record:?}"),
            }
        }

        fn version(&self, record: &Record) -> Option<u64> {
            match self.0.look(&record.client_id) {
                Look::Hit(record) => Some(record.version),
                Look::Miss(_) => None,
            }
        }

        fn with(record: &Record) -> Self {
            let world = Self::new(MINUTE);
            world.miss(record);
            world.subscribe();
            world.0.fill(world.miss(record), record);
            assert_eq!(world.version(record), Some(record.version));
            world
        }

        fn announce(&self, record: &Record) {
            let event = BackendEvent::created(record, &NodeId::random());
            let (version, left) = (record.version, record.remaining);
            self.0.announced(&Announcement { event, version, left });
        }

        fn announce_end(&self, record: &Record) {
            let event = BackendEvent::ended(record, DestroyReason::Destroyed, &NodeId::random());
            self.0.announced(&Announcement { event, version: 0, left: Duration::ZERO });
        }
    }

    #[test]
    fn a_read_that_was_sent_before_its_client_was_subscribed_is_not_kept() {
        let (world, read) = (World::new(MINUTE), record(1));
        let fill = world.miss(&read);
        world.subscribe();
        world.0.fill(fill, &read);
        assert_eq!(world.version(&read), None);
        world.0.fill(world.miss(&read), &read);
        assert_eq!(world.version(&read), Some(1));
    }

    #[test]
    fn a_read_that_an_announcement_overtook_is_kept_only_if_it_is_as_new() {
        let (world, read) = (World::new(MINUTE), record(1));
        world.miss(&read);
        world.subscribe();
        let fill = world.miss(&read);
        world.announce(&later(&read, 2));
        world.0.fill(fill, &read);
        assert_eq!(world.version(&read), None);
        let fill = world.miss(&read);
        world.announce(&later(&read, 3));
        world.0.fill(fill, &later(&read, 3));
        assert_eq!(world.version(&read), Some(3));
        world.0.forget(&read.client_id);
        let fill = world.miss(&read);
        world.announce_end(&read);
        world.0.fill(fill, &later(&read, 3));
        assert_eq!(world.version(&read), None);
    }

    #[test]
    fn what_is_announced_replaces_older_versions_and_all_of_another_session() {
        let read = record(2);
        let world = World::with(&read);
        world.announce(&later(&read, 1));
        world.announce(&read);
        assert_eq!(world.version(&read), Some(2), "it is not older");
        world.announce(&later(&read, 3));
        assert_eq!(world.version(&read), None);
        let world = World::with(&read);
        world.announce(&Record { client_id: read.client_id, ..record(1) });
        assert_eq!(world.version(&read), None);
        let world = World::with(&read);
        world.announce_end(&read);
        assert_eq!(world.version(&read), None);
        world.0.wrote(&later(&read, 3));
        assert_eq!(world.version(&read), None, "an answer that was late brings nothing back");
    }

    #[test]
    fn a_write_of_this_node_is_kept_unless_a_newer_one_could_have_been_missed() {
        let read = record(1);
        let world = World::with(&read);
        world.0.wrote(&later(&read, 2));
        assert_eq!(world.version(&read), Some(2));
        world.announce(&later(&read, 4));
        world.0.wrote(&later(&read, 3));
        assert_eq!(world.version(&read), None);
        world.0.wrote(&later(&read, 4));
        assert_eq!(world.version(&read), Some(4), "announced before its answer was here");
        // Written before its client was subscribed.
        let (world, new) = (World::new(MINUTE), record(1));
        world.miss(&new);
        world.subscribe();
        world.0.wrote(&new);
        assert_eq!(world.version(&new), None);
    }

    #[test]
    fn nothing_from_before_a_gap_is_served_and_no_read_that_a_gap_overtook_is_kept() {
        let read = record(1);
        let world = World::with(&read);
        world.0.purge();
        assert_eq!(world.0.len(), 1);
        world.0.suspend();
        let fill = world.miss(&read);
        world.0.suspend();
        world.0.fill(fill, &read);
        assert_eq!(world.version(&read), None);
        world.0.fill(world.miss(&read), &read);
        assert_eq!(world.version(&read), Some(1));
        // A new connection, on which nothing is subscribed yet.
        world.0.interest.lost();
        world.0.suspend();
        world.0.fill(world.miss(&read), &read);
        assert_eq!(world.version(&read), None);
        world.subscribe();
        world.0.fill(world.miss(&read), &read);
        assert_eq!(world.version(&read), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_served_for_longer_than_its_bound_or_its_session_lives() {
        let short = Record { remaining: Duration::from_secs(5), ..record(1) };
        for (read, lives) in [(record(1), 60), (short, 4)] {
            let world = World::with(&read);
            tokio::time::advance(Duration::from_secs(lives)).await;
            assert_eq!(world.version(&read), Some(1));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(world.version(&read), None);
        }
    }

    #[test]
    fn entries_and_bytes_have_a_bound_and_what_goes_is_left() {
        for (max_entries, max_bytes, most) in
            [(100, 50 * OVERHEAD, 50), (100, 10_000 * OVERHEAD, 100), (1, OVERHEAD, 1)]
        {
            let limits = Limits { max_entries, max_bytes, max_age: MINUTE };
            let near = NearCache::new(limits, Arc::new(Interest::new(false)));
            for _ in 0..10_000 {
                near.look(&ClientId::generate());
            }
            assert!(near.len() <= most, "{} of {most}", near.len());
            let batch = near.interest.take();
            near.interest.finish(&batch);
            near.purge();
            assert_eq!(near.len(), 0, "none of them has a session");
        }
    }

    #[test]
    fn a_session_that_outgrows_its_room_gets_more_and_one_that_has_no_room_is_not_kept() {
        let of = |bytes: usize| {
            let mut read = record(1);
            read.data.insert("text", "x".repeat(bytes)).unwrap();
            read
        };
        let world = World::new(MINUTE);
        for (bytes, kept) in [(100_000, true), (200 << 20, false)] {
            let read = of(bytes);
            world.miss(&read);
            world.subscribe();
            // The first read that is kept finds out how large it is.
            for _ in 0..2 {
                if let Look::Miss(fill) = world.0.look(&read.client_id) {
                    world.0.fill(fill, &read);
                }
            }
            assert_eq!(world.version(&read).is_some(), kept, "{bytes} bytes");
        }
    }
}
