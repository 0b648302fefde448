//! Load: clients who read, count and log out over all nodes, by HTTP and by sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::Raised;
use super::delivery_check::Left;
use super::user::{User, count};
use crate::history::{History, WriteOutcome};
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

/// All clients. Each seat has one user; after the end of its session another one takes the seat.
#[derive(Debug)]
pub struct Workload {
    pub(super) urls: Vec<String>,
    sockets: Sockets,
    /// What was done, and what came of it.
    pub history: History,
    seats: Vec<Mutex<Arc<User>>>,
    pub(super) left: Mutex<Vec<Left>>,
    pub(super) seen: Mutex<Vec<Arc<User>>>,
    /// Read while something is done, or while somebody sits down: who writes is alone.
    acting: RwLock<()>,
    coming: RwLock<()>,
    over: AtomicBool,
}

impl Workload {
    /// All seats of nodes at these URLs are taken.
    ///
    /// # Panics
    /// If the nodes do not serve, or Node.js is missing.
    pub fn open(urls: &[&str], random: &mut Random) -> Self {
        let mut workload = Self {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            sockets: Sockets::start(),
            history: History::default(),
            seats: Vec::new(),
            left: Mutex::default(),
            seen: Mutex::default(),
            acting: RwLock::default(),
            coming: RwLock::default(),
            over: AtomicBool::new(false),
        };
        workload.seats = (0..SEATS).map(|_| Mutex::new(workload.user(random))).collect();
        workload
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
    pub fn user(&self, random: &mut Random) -> Arc<User> {
        let _coming = self.coming.read().unwrap();
        let (browser, client, session) = until("a session begins", LIMIT, || {
            let begun = Instant::now();
            let (browser, client, outcome) = User::begin(self.url(random))?;
            let session = outcome.session().to_owned();
            self.history.note(begun, outcome);
            Some((browser, client, session))
        });
        Arc::new(User::sit_down((browser, client, session), &self.urls, &self.sockets))
    }

    fn url(&self, random: &mut Random) -> &str {
        &self.urls[random.below(self.urls.len())]
    }

    fn act(&self, seat: usize, random: &mut Random) {
        let user = self.seats[seat].lock().unwrap().clone();
        let url = self.url(random);
        let begun = Instant::now();
        let outcome = match random.below(100) {
            0..30 => user.read(url),
            30..65 => user.count_by_http(url, HOLD),
            65..97 => user.count_by_socket(random.below(user.sockets.len())),
            _ => {
                let outcome = user.log_out(url);
                let sure = matches!(outcome, WriteOutcome::Ended { .. });
                self.history.note(begun, outcome);
                self.leaves(seat, &user, sure, random);
                None
            }
        };
        if let Some(outcome) = outcome {
            self.history.note(begun, outcome);
        }
    }

    /// Counts in a user's session at this node until that is acknowledged, or the session is gone.
    ///
    /// # Panics
    /// If neither comes about in time.
    pub fn count(&self, user: &User, at: usize) {
        until("a session is written", LIMIT, || {
            let begun = Instant::now();
            let outcome = user.count_by_http(&self.urls[at], HOLD);
            let done = !matches!(outcome, Some(WriteOutcome::IndeterminateCounted { .. }));
            if let Some(outcome) = outcome {
                self.history.note(begun, outcome);
            }
            done.then_some(())
        });
    }

    /// Holds a user's session at this node for a while, then counts.
    ///
    /// # Panics
    /// If the node answers what it must not.
    pub fn hold(&self, user: &User, at: usize, length: Duration) {
        let begun = Instant::now();
        if let Some(outcome) = user.count_by_http(&self.urls[at], length) {
            self.history.note(begun, outcome);
        }
    }

    /// Logs a user without a seat out at this node. Whether that is acknowledged.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn log_out(&self, user: &Arc<User>, at: usize) -> bool {
        let begun = Instant::now();
        let outcome = user.log_out(&self.urls[at]);
        let sure = matches!(outcome, WriteOutcome::Ended { .. });
        self.history.note(begun, outcome);
        if sure {
            self.has_left(user, Instant::now(), true);
        }
        sure
    }

    /// The sessions of all seats are gone, but for those that began a moment ago.
    ///
    /// # Panics
    /// If the nodes do not serve in time.
    pub fn all_are_lost(&self, random: &mut Random) {
        for seat in 0..SEATS {
            let user = self.seats[seat].lock().unwrap().clone();
            self.leaves(seat, &user, false, random);
        }
    }

    fn leaves(&self, seat: usize, user: &Arc<User>, sure: bool, random: &mut Random) {
        let at = Instant::now();
        if user.leaves() {
            let next = self.user(random);
            *self.seats[seat].lock().unwrap() = next;
            self.has_left(user, at, sure);
        }
    }

    /// The clients that have a session, with its id.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn live(&self) -> Vec<(String, String)> {
        let users = self.seats.iter().map(|seat| seat.lock().unwrap().clone());
        users.map(|user| (user.client.clone(), user.session.clone())).collect()
    }

    /// The load is over: each session that nobody ended is there on each node, with what was
    /// acknowledged, and sockets see what HTTP sees. Then all of them end.
    ///
    /// # Panics
    /// If a node does not serve in time.
    pub fn finish(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for seat in &self.seats {
            let user = seat.lock().unwrap().clone();
            let mut last = None;
            for url in &self.urls {
                let begun = Instant::now();
                let answer = until("all nodes serve again", LIMIT, || {
                    let answer = user.browser.at(url).try_get("/session").ok();
                    answer.filter(|answer| answer.status == 200)
                });
                match count(&answer) {
                    Some((session, n)) if session == user.session => {
                        last = Some(n);
                        self.history.note(begun, WriteOutcome::Read { session, n });
                    }
                    other => problems.push(format!("{} is gone: {other:?}", user.session)),
                }
            }
            for socket in user.sockets.iter().filter(|socket| socket.connected()) {
                if !user.ends(socket).is_empty() {
                    problems.push(format!("{} lives, and its end was told", user.session));
                }
                let seen = socket.call("session:get", &[]);
                if seen["session"]["n"].as_i64() != last {
                    problems.push(format!("a socket of {} sees {seen}", user.session));
                }
            }
            self.has_left(&user, Instant::now(), false);
        }
        problems
    }
}
