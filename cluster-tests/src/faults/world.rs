//! Load: clients who read, count and log out over all nodes, by HTTP and by sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::Raised;
use super::guest::{Guest, count};
use super::told::Left;
use crate::ledger::{Came, Ledger};
use crate::random::Random;
use crate::sockets::Sockets;
use crate::wait::until;

/// A node that is away is back by then.
pub(super) const LIMIT: Duration = Duration::from_secs(90);
/// How long a session's lease is held.
const HOLD: Duration = Duration::from_millis(5);
const SEATS: usize = 5;
/// Of each seat.
const CALLERS: usize = 3;

/// All clients. Each seat has one guest; after the end of its session another one takes the seat.
#[derive(Debug)]
pub struct World {
    pub(super) urls: Vec<String>,
    sockets: Sockets,
    /// What was done, and what came of it.
    pub ledger: Ledger,
    seats: Vec<Mutex<Arc<Guest>>>,
    pub(super) left: Mutex<Vec<Left>>,
    pub(super) seen: Mutex<Vec<Arc<Guest>>>,
    /// Read while something is done, or while somebody sits down: who writes is alone.
    acting: RwLock<()>,
    coming: RwLock<()>,
    over: AtomicBool,
}

impl World {
    /// All seats of nodes at these URLs are taken.
    ///
    /// # Panics
    /// If the nodes do not serve, or Node.js is missing.
    pub fn open(urls: &[&str], random: &mut Random) -> Self {
        let mut world = Self {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            sockets: Sockets::start(),
            ledger: Ledger::default(),
            seats: Vec::new(),
            left: Mutex::default(),
            seen: Mutex::default(),
            acting: RwLock::default(),
            coming: RwLock::default(),
            over: AtomicBool::new(false),
        };
        world.seats = (0..SEATS).map(|_| Mutex::new(world.guest(random))).collect();
        world
    }

    /// Uses the nodes with many callers while `meanwhile` runs; returns what that returns.
    ///
    /// # Panics
    /// If a caller meets what must not be.
    pub fn load<T>(&self, random: &mut Random, meanwhile: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let _over = Raised(&self.over);
            for caller in 0..SEATS * CALLERS {
                let mut random = random.part();
                scope.spawn(move || {
                    while !self.over.load(Ordering::Relaxed) {
                        let _acting = self.acting.read().unwrap();
                        self.act(caller % SEATS, &mut random);
                    }
                });
            }
            meanwhile()
        })
    }

    /// Runs this while nobody is in the middle of anything.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn between_acts<T>(&self, run: impl FnOnce() -> T) -> T {
        let _alone = self.acting.write().unwrap();
        run()
    }

    /// Runs this while nobody is about to get a session and sockets: who loses a session in that
    /// moment has sockets that never had it.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn with_nobody_coming<T>(&self, run: impl FnOnce() -> T) -> T {
        let _alone = self.coming.write().unwrap();
        run()
    }

    /// A new client; a node that is away is asked again, or another one.
    ///
    /// # Panics
    /// If none serves in time.
    pub fn guest(&self, random: &mut Random) -> Arc<Guest> {
        let _coming = self.coming.read().unwrap();
        let (browser, client, session) = until("a session begins", LIMIT, || {
            let begun = Instant::now();
            let (browser, client, came) = Guest::begin(self.url(random))?;
            let session = came.session().to_owned();
            self.ledger.note(begun, came);
            Some((browser, client, session))
        });
        Arc::new(Guest::sit_down((browser, client, session), &self.urls, &self.sockets))
    }

    fn url(&self, random: &mut Random) -> &str {
        &self.urls[random.below(self.urls.len())]
    }

    fn act(&self, seat: usize, random: &mut Random) {
        let guest = self.seats[seat].lock().unwrap().clone();
        let url = self.url(random);
        let begun = Instant::now();
        let came = match random.below(100) {
            0..30 => guest.read(url),
            30..65 => guest.count_by_http(url, HOLD),
            65..97 => guest.count_by_socket(random.below(guest.sockets.len())),
            _ => {
                let came = guest.log_out(url);
                let sure = matches!(came, Came::Ended { .. });
                self.ledger.note(begun, came);
                self.leaves(seat, &guest, sure, random);
                None
            }
        };
        if let Some(came) = came {
            self.ledger.note(begun, came);
        }
    }

    /// Counts in a guest's session at this node until that is acknowledged, or the session is gone.
    ///
    /// # Panics
    /// If neither comes about in time.
    pub fn count(&self, guest: &Guest, at: usize) {
        until("a session is written", LIMIT, || {
            let begun = Instant::now();
            let came = guest.count_by_http(&self.urls[at], HOLD);
            let done = !matches!(came, Some(Came::PerhapsCounted { .. }));
            if let Some(came) = came {
                self.ledger.note(begun, came);
            }
            done.then_some(())
        });
    }

    /// Holds a guest's session at this node for a while, then counts.
    ///
    /// # Panics
    /// If the node answers what it must not.
    pub fn hold(&self, guest: &Guest, at: usize, length: Duration) {
        let begun = Instant::now();
        if let Some(came) = guest.count_by_http(&self.urls[at], length) {
            self.ledger.note(begun, came);
        }
    }

    /// Logs a guest without a seat out at this node. Whether that is acknowledged.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn log_out(&self, guest: &Arc<Guest>, at: usize) -> bool {
        let begun = Instant::now();
        let came = guest.log_out(&self.urls[at]);
        let sure = matches!(came, Came::Ended { .. });
        self.ledger.note(begun, came);
        if sure {
            self.has_left(guest, Instant::now(), true);
        }
        sure
    }

    /// The sessions of all seats are gone, but for those that began a moment ago.
    ///
    /// # Panics
    /// If the nodes do not serve in time.
    pub fn all_are_lost(&self, random: &mut Random) {
        for seat in 0..SEATS {
            let guest = self.seats[seat].lock().unwrap().clone();
            self.leaves(seat, &guest, false, random);
        }
    }

    fn leaves(&self, seat: usize, guest: &Arc<Guest>, sure: bool, random: &mut Random) {
        let at = Instant::now();
        if guest.leaves() {
            let next = self.guest(random);
            *self.seats[seat].lock().unwrap() = next;
            self.has_left(guest, at, sure);
        }
    }

    /// The load is over: each session that nobody ended is there on each node, with what was
    /// acknowledged, and sockets see what HTTP sees. Then all of them end.
    ///
    /// # Panics
    /// If a node does not serve in time.
    pub fn finish(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for seat in &self.seats {
            let guest = seat.lock().unwrap().clone();
            let mut last = None;
            for url in &self.urls {
                let begun = Instant::now();
                let answer = until("all nodes serve again", LIMIT, || {
                    let answer = guest.browser.at(url).try_get("/session").ok();
                    answer.filter(|answer| answer.status == 200)
                });
                match count(&answer) {
                    Some((session, n)) if session == guest.session => {
                        last = Some(n);
                        self.ledger.note(begun, Came::Read { session, n });
                    }
                    other => problems.push(format!("{} is gone: {other:?}", guest.session)),
                }
            }
            for socket in guest.sockets.iter().filter(|socket| socket.connected()) {
                if !guest.ends(socket).is_empty() {
                    problems.push(format!("{} lives, and its end was told", guest.session));
                }
                let seen = socket.call("session:get", &[]);
                if seen["session"]["n"].as_i64() != last {
                    problems.push(format!("a socket of {} sees {seen}", guest.session));
                }
            }
            self.has_left(&guest, Instant::now(), false);
        }
        problems
    }
}
