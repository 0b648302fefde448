//! The real socket.io-client, driven from Rust through `js/relay.mjs`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::js;
use crate::wait::until;

/// Every answer has to come by then.
const LIMIT: Duration = Duration::from_secs(60);

/// A process of Node.js with any number of sockets. Dropping it, and all its sockets, ends it.
#[derive(Debug, Clone)]
pub struct Sockets {
    relay: Arc<Relay>,
}

#[derive(Debug)]
struct Relay {
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    next: AtomicU64,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    answers: Mutex<HashMap<u64, SyncSender<Value>>>,
    /// What each socket said, and when it came.
    sockets: Mutex<HashMap<u64, Vec<(Instant, Value)>>>,
}

/// One socket.
#[derive(Debug, Clone)]
pub struct Socket {
    relay: Arc<Relay>,
    name: u64,
}

/// A message that a socket got.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its name, such as `session:set`.
    pub name: String,
    /// What came with it.
    pub payload: Value,
    /// When it came.
    pub at: Instant,
}

impl Sockets {
    /// Starts the process.
    ///
    /// # Panics
    /// If Node.js is missing.
    pub fn start() -> Self {
        let mut child = Command::new("node")
            .arg("relay.mjs")
            .current_dir(js::folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js is missing: install version 18 or later");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let input = Mutex::new(child.stdin.take());
        let seen = Arc::new(Seen::default());
        let reader = seen.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(line) => reader.take(line),
                    Err(_) => eprintln!("relay.mjs said: {line}"),
                }
            }
        });
        let next = AtomicU64::new(1);
        Self { relay: Arc::new(Relay { child: Mutex::new(child), input, next, seen }) }
    }

    /// Opens a socket with the cookies that the browser has now.
    ///
    /// # Panics
    /// If it does not connect in time.
    pub fn open(&self, browser: &Browser, url: &str) -> Socket {
        self.try_open(browser, url, LIMIT).expect("the socket connects")
    }

    /// [`open`](Self::open) at a node that may be gone; `None` if it does not connect within the
    /// limit.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn try_open(&self, browser: &Browser, url: &str, limit: Duration) -> Option<Socket> {
        let socket = self.begin_open(browser, url);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match socket.state().as_deref() {
                Some("connected") => return Some(socket),
                Some(_) => return None,
                None => std::thread::sleep(Duration::from_millis(15)),
            }
        }
        socket.close();
        None
    }

    fn begin_open(&self, browser: &Browser, url: &str) -> Socket {
        let name = self.relay.number();
        self.relay.seen.sockets.lock().unwrap().insert(name, Vec::new());
        let cookie = browser.cookies();
        self.relay.send(&json!({ "do": "open", "socket": name, "url": url, "cookie": cookie }));
        Socket { relay: self.relay.clone(), name }
    }
}

impl Seen {
    fn take(&self, line: Value) {
        if let Some(id) = line["id"].as_u64() {
            if let Some(waiting) = self.answers.lock().unwrap().remove(&id) {
                // The caller may have given up.
                let _ = waiting.send(line["answer"].clone());
            }
        } else if let Some(name) = line["socket"].as_u64() {
            self.sockets.lock().unwrap().entry(name).or_default().push((Instant::now(), line));
        }
    }
}

impl Relay {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn send(&self, command: &Value) {
        let mut input = self.input.lock().unwrap();
        let input = input.as_mut().expect("there until it is dropped");
        writeln!(input, "{command}").expect("relay.mjs runs");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        // Both fail if it is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Socket {
    /// Sends an event and returns its acknowledgement.
    ///
    /// # Panics
    /// If none comes in time.
    pub fn call(&self, event: &str, payload: &[Value]) -> Value {
        self.begin(event, payload)
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("{event} was not acknowledged in {LIMIT:?}"))
    }

    /// [`call`](Self::call) of something that has to succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn ok(&self, event: &str) -> Value {
        let answer = self.call(event, &[]);
        assert_eq!(answer["ok"], true, "{event}: {answer}");
        answer
    }

    /// Sends an event; its acknowledgement comes through what is returned.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn begin(&self, event: &str, payload: &[Value]) -> Receiver<Value> {
        let id = self.relay.number();
        let (sender, answer) = sync_channel(1);
        self.relay.seen.answers.lock().unwrap().insert(id, sender);
        self.relay.send(&json!({
            "do": "call", "socket": self.name, "id": id, "event": event, "payload": payload,
        }));
        answer
    }

    /// The messages so far.
    ///
    /// # Panics
    /// Never.
    pub fn messages(&self) -> Vec<Message> {
        let sockets = self.relay.seen.sockets.lock().unwrap();
        let lines = sockets.get(&self.name).into_iter().flatten();
        lines
            .filter_map(|(at, line)| {
                let name = line["message"].as_str()?.to_owned();
                Some(Message { name, payload: line["payload"].clone(), at: *at })
            })
            .collect()
    }

    /// The first message of this name, waited for.
    ///
    /// # Panics
    /// If none comes within the limit.
    pub fn message(&self, name: &str, limit: Duration) -> Value {
        until(&format!("the message {name}"), limit, || {
            self.messages().into_iter().find(|message| message.name == name)
        })
        .payload
    }

    /// Whether it is connected now.
    ///
    /// # Panics
    /// Never.
    pub fn connected(&self) -> bool {
        self.state().as_deref() == Some("connected")
    }

    /// What it became last: `connected`, `refused` or `disconnected`.
    fn state(&self) -> Option<String> {
        let sockets = self.relay.seen.sockets.lock().unwrap();
        let lines = sockets.get(&self.name).into_iter().flatten();
        lines.filter_map(|(_, line)| line["is"].as_str()).next_back().map(str::to_owned)
    }

    /// Closes it.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn close(&self) {
        self.relay.send(&json!({ "do": "close", "socket": self.name }));
    }
}
