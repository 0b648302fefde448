//! Whether sockets are told of ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guest::Guest;
use super::world::{LIMIT, World};
use crate::ledger::Came;
use crate::wait::until;

/// A guest whose session has ended, or perhaps has.
#[derive(Debug)]
pub(super) struct Left {
    guest: Arc<Guest>,
    at: Instant,
    sure: bool,
}

/// How the ends of sessions were told to their sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Sessions that ended.
    pub ended: usize,
    /// Their sockets that stayed connected.
    pub sockets: usize,
    /// Those that were told, in time and once.
    pub told: usize,
    /// Those that go by a session that has ended, or were never told.
    pub left: usize,
    /// What else is wrong.
    pub problems: Vec<String>,
}

impl World {
    /// A guest's session has ended. Whose it was gets told later, see [`settle`](Self::settle).
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn has_left(&self, guest: &Arc<Guest>, at: Instant, sure: bool) {
        self.left.lock().unwrap().push(Left { guest: guest.clone(), at, sure });
    }

    /// Waits until each socket of those who left `old` ago is told of its session's end: at the
    /// latest so long after the end, or after `since` if that is later.
    ///
    /// # Panics
    /// If no node serves.
    pub fn settle(&self, since: Instant, bound: Duration, old: Duration) -> Told {
        let mut told = Told::default();
        let left: Vec<Left> = {
            let mut left = self.left.lock().unwrap();
            let (gone, stay) = left.drain(..).partition(|left| left.at.elapsed() >= old);
            *left = stay;
            gone
        };
        for Left { guest, at, sure } in left {
            let at = if sure { at } else { self.ended_at(&guest, at, &mut told) };
            told.ended += 1;
            told.look(&guest, at.max(since) + bound);
            self.seen.lock().unwrap().push(guest);
        }
        told
    }

    /// When a session ended that perhaps had ended by then; it has now.
    fn ended_at(&self, guest: &Arc<Guest>, at: Instant, told: &mut Told) -> Instant {
        let alive = until("a node serves", LIMIT, || {
            let answer = guest.browser.at(&self.urls[0]).try_get("/session").ok()?;
            (answer.status == 200).then(|| answer.session_id() == Some(&guest.session))
        });
        if !alive {
            return at;
        }
        if guest.sockets.iter().any(|socket| !guest.ends(socket).is_empty()) {
            told.problems.push(format!("{} lives, and its end was told", guest.session));
        }
        until("a session ends", LIMIT, || {
            let begun = Instant::now();
            let came = guest.log_out(&self.urls[0]);
            let ended = matches!(came, Came::Ended { .. });
            self.ledger.note(begun, came);
            ended.then(Instant::now)
        })
    }

    /// Closes the sockets of all who have left. What was told them twice is counted.
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn close(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let mut problems = Vec::new();
        for guest in seen {
            for socket in &guest.sockets {
                let times = guest.ends(socket).len();
                if times > 1 {
                    problems.push(format!("the end of {} was told {times} times", guest.session));
                }
                socket.close();
            }
        }
        problems
    }
}

impl Told {
    /// Waits until the sockets of a guest whose session has ended are told.
    fn look(&mut self, guest: &Guest, due: Instant) {
        for socket in guest.sockets.iter().filter(|socket| socket.connected()) {
            while guest.ends(socket).is_empty() && socket.connected() && Instant::now() < due {
                std::thread::sleep(Duration::from_millis(15));
            }
            let still_gets = guest.still_gets(socket);
            if !socket.connected() {
                // Its node was killed: nobody is left to be told.
                continue;
            }
            let ends = guest.ends(socket);
            self.sockets += 1;
            if ends.len() == 1 && ends[0] <= due {
                self.told += 1;
            } else {
                let late = ends.first().map(|at| at.saturating_duration_since(due));
                let session = &guest.session;
                self.problems.push(format!(
                    "the end of {session} was told {} times, {late:?} late",
                    ends.len()
                ));
            }
            if let Some(answer) = &still_gets {
                self.problems.push(format!("a socket of {} still gets {answer}", guest.session));
            }
            if still_gets.is_some() || ends.is_empty() {
                self.left += 1;
            }
        }
    }

    /// Adds the figures of others.
    pub fn add(&mut self, other: Self) {
        self.ended += other.ended;
        self.sockets += other.sockets;
        self.told += other.told;
        self.left += other.left;
        self.problems.extend(other.problems);
    }
}
