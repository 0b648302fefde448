//! Whether sockets are told of ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::user::User;
use super::workload::{LIMIT, Workload};
use crate::history::WriteOutcome;
use crate::wait::until;

/// A user whose session has ended, or perhaps has.
#[derive(Debug)]
pub(super) struct Left {
    user: Arc<User>,
    at: Instant,
    sure: bool,
}

/// How the ends of sessions were told to their sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryCheck {
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

impl Workload {
    /// A user's session has ended. Whose it was gets told later, see [`settle`](Self::settle).
    ///
    /// # Panics
    /// If a caller has panicked.
    pub fn has_left(&self, user: &Arc<User>, at: Instant, sure: bool) {
        self.left.lock().unwrap().push(Left { user: user.clone(), at, sure });
    }

    /// Waits until each socket of those who left `old` ago is told of its session's end: at the
    /// latest so long after the end, or after `since` if that is later.
    ///
    /// # Panics
    /// If no node serves.
    pub fn settle(&self, since: Instant, bound: Duration, old: Duration) -> DeliveryCheck {
        let mut told = DeliveryCheck::default();
        let left: Vec<Left> = {
            let mut left = self.left.lock().unwrap();
            let (gone, stay) = left.drain(..).partition(|left| left.at.elapsed() >= old);
            *left = stay;
            gone
        };
        for Left { user, at, sure } in left {
            let at = if sure { at } else { self.ended_at(&user, at, &mut told) };
            told.ended += 1;
            told.look(&user, at.max(since) + bound);
            self.seen.lock().unwrap().push(user);
        }
        told
    }

    /// When a session ended that perhaps had ended by then; it has now.
    fn ended_at(&self, user: &Arc<User>, at: Instant, told: &mut DeliveryCheck) -> Instant {
        let alive = until("a node serves", LIMIT, || {
            let answer = user.browser.at(&self.urls[0]).try_get("/session").ok()?;
            (answer.status == 200).then(|| answer.session_id() == Some(&user.session))
        });
        if !alive {
            return at;
        }
        if user.sockets.iter().any(|socket| !user.ends(socket).is_empty()) {
            told.problems.push(format!("{} lives, and its end was told", user.session));
        }
        until("a session ends", LIMIT, || {
            let begun = Instant::now();
            let outcome = user.log_out(&self.urls[0]);
            let ended = matches!(outcome, WriteOutcome::Ended { .. });
            self.history.note(begun, outcome);
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
        for user in seen {
            for socket in &user.sockets {
                let times = user.ends(socket).len();
                if times > 1 {
                    problems.push(format!("the end of {} was told {times} times", user.session));
                }
                socket.close();
            }
        }
        problems
    }
}

impl DeliveryCheck {
    /// Waits until the sockets of a user whose session has ended are told.
    fn look(&mut self, user: &User, due: Instant) {
        for socket in user.sockets.iter().filter(|socket| socket.connected()) {
            while user.ends(socket).is_empty() && socket.connected() && Instant::now() < due {
                std::thread::sleep(Duration::from_millis(15));
            }
            let still_gets = user.still_gets(socket);
            if !socket.connected() {
                // Its node was killed: nobody is left to be told.
                continue;
            }
            let ends = user.ends(socket);
            self.sockets += 1;
            if ends.len() == 1 && ends[0] <= due {
                self.told += 1;
            } else {
                let late = ends.first().map(|at| at.saturating_duration_since(due));
                let session = &user.session;
                self.problems.push(format!(
                    "the end of {session} was told {} times, {late:?} late",
                    ends.len()
                ));
            }
            if let Some(answer) = &still_gets {
                self.problems.push(format!("a socket of {} still gets {answer}", user.session));
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
