//! A client with one session, which several callers use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{Answer, Browser};
use crate::history::WriteOutcome;
use crate::sockets::{Socket, Sockets};

/// A call that a node can't answer now.
const PATIENCE: Duration = Duration::from_secs(20);
/// A node that still does not answer by then never will.
const ANSWERS: Duration = Duration::from_secs(60);

/// A client, its session, and a socket at each node that took one.
#[derive(Debug)]
pub struct User {
    /// Its cookies.
    pub browser: Browser,
    /// Its id.
    pub client: String,
    /// The id of its only session.
    pub session: String,
    /// Its sockets.
    pub sockets: Vec<Socket>,
    leaving: AtomicBool,
}

/// The session that a session route names, and what its counter says.
pub(super) fn count(answer: &Answer) -> Option<(String, i64)> {
    Some((answer.session_id()?.to_owned(), answer.session()["n"].as_i64()?))
}

impl User {
    /// A new client that begins its session at this node; nothing if the node can't now.
    pub(super) fn begin(url: &str) -> Option<(Browser, String, WriteOutcome)> {
        let browser = Browser::new(&[url]);
        let answer = browser.try_post("/session/inc", &Value::Null).ok()?;
        let (session, n) = count(&answer)?;
        let client = answer.json["clientId"].as_str()?.to_owned();
        Some((browser, client, WriteOutcome::Counted { session, n }))
    }

    /// One who has begun, with a socket at each node that takes it.
    pub(super) fn sit_down(
        (browser, client, session): (Browser, String, String),
        urls: &[String],
        sockets: &Sockets,
    ) -> Self {
        let open = |url: &String| sockets.try_open(&browser, url, PATIENCE);
        let sockets = urls.iter().filter_map(open).collect();
        Self { browser, client, session, sockets, leaving: AtomicBool::new(false) }
    }

    /// Whether this caller is the one who takes the user away.
    pub(super) fn leaves(&self) -> bool {
        !self.leaving.swap(true, Ordering::SeqCst)
    }

    /// Reads the session over HTTP.
    pub(super) fn read(&self, url: &str) -> Option<WriteOutcome> {
        let answer = self.browser.at(url).try_get("/session").ok()?;
        count(&answer).map(|(session, n)| WriteOutcome::Read { session, n })
    }

    /// Counts in the session over HTTP, with its lease held for this long; never begins another.
    ///
    /// # Panics
    /// If the node answers what it must not.
    pub(super) fn count_by_http(&self, url: &str, hold: Duration) -> Option<WriteOutcome> {
        let session = self.session.clone();
        let path = format!("/probe/hold?ms={}", hold.as_millis());
        match self.browser.at(url).try_post(&path, &Value::Null) {
            Ok(answer) if answer.status == 200 => {
                Some(WriteOutcome::Counted { session, n: answer.json.as_f64()? as i64 })
            }
            // It says that it was not done.
            Ok(answer) if [404, 409].contains(&answer.status) => None,
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text);
                Some(WriteOutcome::IndeterminateCounted { session })
            }
            Err(_) => Some(WriteOutcome::IndeterminateCounted { session }),
        }
    }

    /// Counts in the session by one of its sockets.
    pub(super) fn count_by_socket(&self, at: usize) -> Option<WriteOutcome> {
        let session = self.session.clone();
        let socket = self.sockets.get(at).filter(|socket| socket.connected())?;
        let Ok(answer) = socket.begin("session:inc", &[]).recv_timeout(PATIENCE) else {
            return Some(WriteOutcome::IndeterminateCounted { session });
        };
        match answer["ok"].as_bool() {
            Some(true) => {
                Some(WriteOutcome::Counted { session, n: answer["session"]["n"].as_i64()? })
            }
            _ if answer["error"] == "missing-session" => None,
            _ => Some(WriteOutcome::IndeterminateCounted { session }),
        }
    }

    /// Logs out at this node.
    pub(super) fn log_out(&self, url: &str) -> WriteOutcome {
        let session = self.session.clone();
        match self.browser.at(url).try_post("/logout", &Value::Null) {
            Ok(answer) if answer.status == 200 => WriteOutcome::Ended { session },
            _ => WriteOutcome::IndeterminateEnded { session },
        }
    }

    /// When this socket was told of the session's end, each time.
    pub(super) fn ends(&self, socket: &Socket) -> Vec<Instant> {
        let told = socket.messages().into_iter();
        told.filter(|m| m.name == "session:destroy" && m.payload["sessionId"] == self.session)
            .map(|message| message.at)
            .collect()
    }

    /// What a socket still gets of the session, though it has ended; `null` if its node can't say for
    /// too long. Nothing if it is told that there is none, or closed.
    pub(super) fn still_gets(&self, socket: &Socket) -> Option<Value> {
        let deadline = Instant::now() + ANSWERS;
        while socket.connected() && Instant::now() < deadline {
            let answer = socket.begin("session:get", &[]).recv_timeout(PATIENCE);
            match answer {
                Ok(answer) if answer["ok"] == json!(true) => return Some(answer),
                Ok(answer) if answer["error"] == json!("missing-session") => return None,
                // Redis may be away.
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        socket.connected().then_some(Value::Null)
    }
}
