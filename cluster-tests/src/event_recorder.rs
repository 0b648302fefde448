//! What a node tells its listeners.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::node::Node;
use crate::wait::until;

/// Listening has to begin by then.
const LIMIT: Duration = Duration::from_secs(30);

/// An event, as a node told it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // as in the crate's own events
pub enum RecordedEvent {
    Set {
        client: String,
        session: String,
        previous: Option<String>,
        is_new: bool,
        is_init: bool,
        node: String,
    },
    Destroy {
        client: String,
        session: String,
        reason: String,
        node: String,
    },
    Cleanup {
        cleared: u64,
        node: String,
    },
    /// The node may have missed something.
    Gap {
        node: String,
    },
    /// The listener was too slow and missed this many.
    Lagged(u64),
}

impl RecordedEvent {
    /// The session concerned.
    pub fn session(&self) -> Option<&str> {
        match self {
            Self::Set { session, .. } | Self::Destroy { session, .. } => Some(session),
            Self::Cleanup { .. } | Self::Gap { .. } | Self::Lagged(_) => None,
        }
    }

    /// The client concerned.
    pub fn client(&self) -> Option<&str> {
        match self {
            Self::Set { client, .. } | Self::Destroy { client, .. } => Some(client),
            Self::Cleanup { .. } | Self::Gap { .. } | Self::Lagged(_) => None,
        }
    }

    /// Why this session ended, if this is its end.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Destroy { reason, .. } => Some(reason),
            _ => None,
        }
    }

    fn read(line: &Value) -> Option<Self> {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Some(match line["event"].as_str()? {
            "sessionSet" => Self::Set {
                client: text("clientId")?,
                session: text("sessionId")?,
                previous: text("previousId"),
                is_new: line["isNew"].as_bool()?,
                is_init: line["isInit"].as_bool()?,
                node: text("node")?,
            },
            "sessionDestroy" => Self::Destroy {
                client: text("clientId")?,
                session: text("sessionId")?,
                reason: text("reason")?,
                node: text("node")?,
            },
            "cleanup" => Self::Cleanup { cleared: line["cleared"].as_u64()?, node: text("node")? },
            "gap" => Self::Gap { node: text("node")? },
            "lagged" => Self::Lagged(line["missed"].as_u64()?),
            _ => return None,
        })
    }
}

/// Everything that a node has told since the recorder began. The node needs `--probes`.
#[derive(Debug)]
pub struct EventRecorder {
    told: Arc<Mutex<Vec<(Instant, RecordedEvent)>>>,
    connection: TcpStream,
}

impl EventRecorder {
    /// Begins. Whatever happens from now on is in it.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn follow(node: &Node) -> Self {
        let address = node.url().trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).expect("the node listens");
        // HTTP 1.0: the body comes as it is, without chunks.
        connection
            .write_all(b"GET /probe/events HTTP/1.0\r\naccept: text/event-stream\r\n\r\n")
            .expect("the node takes a request");
        let told = Arc::new(Mutex::new(Vec::new()));
        let listening = Arc::new(Mutex::new(false));
        let lines = BufReader::new(connection.try_clone().expect("a second handle")).lines();
        let (note, begun) = (told.clone(), listening.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(line) = line.strip_prefix("data: ") else { continue };
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                if line["event"] == "listening" {
                    *begun.lock().unwrap() = true;
                    continue;
                }
                match RecordedEvent::read(&line) {
                    Some(event) => note.lock().unwrap().push((Instant::now(), event)),
                    None => eprintln!("a node told something unknown: {line}"),
                }
            }
        });
        until("the recorder begins", LIMIT, || listening.lock().unwrap().then_some(()));
        Self { told, connection }
    }

    /// What was told so far.
    ///
    /// # Panics
    /// Never.
    pub fn told(&self) -> Vec<RecordedEvent> {
        self.told.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// [`told`](Self::told), and when each arrived here.
    ///
    /// # Panics
    /// Never.
    pub fn told_at(&self) -> Vec<(Instant, RecordedEvent)> {
        self.told.lock().unwrap().clone()
    }

    /// What was told of a session so far.
    ///
    /// # Panics
    /// Never.
    pub fn of(&self, session: &str) -> Vec<RecordedEvent> {
        let mut told = self.told();
        told.retain(|event| event.session() == Some(session));
        told
    }

    /// Waits until a session's end was told, and returns its reason.
    ///
    /// # Panics
    /// If it is not told within the limit.
    pub fn end_of(&self, session: &str, limit: Duration) -> String {
        until("a session's end is told", limit, || {
            self.of(session).iter().find_map(|event| event.reason().map(str::to_owned))
        })
    }
}

impl Drop for EventRecorder {
    fn drop(&mut self) {
        // It may be closed already; this ends the reader.
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}
