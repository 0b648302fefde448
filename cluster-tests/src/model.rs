//! What one client's session has to be, and what has to be told of it.

use serde_json::{Map, Value, json};

use crate::event_recorder::RecordedEvent;

/// What a client does.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Reads.
    Get,
    /// Adds one to `n` under the lease.
    Increment,
    /// Replaces the data.
    Set(Map<String, Value>),
    /// Sets some keys.
    Merge(Map<String, Value>),
    /// Seals.
    Rotate,
    /// Takes a new id in the same session.
    Renew,
    /// Ends the session.
    Destroy,
}

/// What has to come of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// There is no session.
    Missing,
    /// The session's data.
    Data(Value),
    /// It is over.
    Ended,
}

/// One client's session.
#[derive(Debug, Clone)]
pub struct Model {
    client: String,
    session: Option<(String, Map<String, Value>)>,
    sealed: bool,
    told: Vec<RecordedEvent>,
}

impl Model {
    /// A client without a session.
    pub fn new(client: &str) -> Self {
        Self { client: client.to_owned(), session: None, sealed: false, told: Vec::new() }
    }

    /// The client's id.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Whether it has a sealed session.
    pub fn is_sealed(&self) -> bool {
        self.session.is_some() && self.sealed
    }

    /// The browser has another client id from now on.
    pub fn moves_to(&mut self, client: &str) {
        client.clone_into(&mut self.client);
    }

    /// All that has to have been told, in order.
    pub fn told(&self) -> &[RecordedEvent] {
        &self.told
    }

    /// The session's id.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|(id, _)| id.as_str())
    }

    /// What has to come of an act. `id` is the session's id after it, which only the node can
    /// know; `creates`: sockets never create a session.
    pub fn after(&mut self, act: &Act, node: &str, id: Option<&str>, creates: bool) -> Outcome {
        let Some((session, data)) = self.session.take() else {
            return self.without_session(act, node, id, creates);
        };
        let mut next = data.clone();
        match act {
            Act::Get => {}
            Act::Increment => {
                let n = next.get("n").and_then(Value::as_i64).unwrap_or(0) + 1;
                next.insert("n".into(), json!(n));
            }
            Act::Set(all) => next = all.clone(),
            Act::Merge(some) => next.extend(some.clone()),
            Act::Rotate | Act::Renew => {
                if *act == Act::Rotate {
                    self.end(&session, "sealed", node);
                    self.sealed = true;
                }
                let id = id.unwrap_or_default().to_owned();
                self.set(&id, Some(session), false, true, node);
                self.session = Some((id, data.clone()));
                return Outcome::Data(data.into());
            }
            Act::Destroy => {
                self.end(&session, "destroyed", node);
                return Outcome::Ended;
            }
        }
        if next != data {
            self.set(&session, None, false, false, node);
        }
        self.session = Some((session, next.clone()));
        Outcome::Data(next.into())
    }

    fn without_session(
        &mut self,
        act: &Act,
        node: &str,
        id: Option<&str>,
        creates: bool,
    ) -> Outcome {
        let data = match act {
            Act::Increment => Map::from_iter([("n".to_owned(), json!(1))]),
            Act::Set(data) | Act::Merge(data) => data.clone(),
            Act::Get | Act::Rotate | Act::Renew | Act::Destroy => Map::new(),
        };
        // Without data there is nothing to store.
        if data.is_empty() || !creates {
            return if *act == Act::Destroy && creates { Outcome::Ended } else { Outcome::Missing };
        }
        let id = id.unwrap_or_default().to_owned();
        self.set(&id, None, true, true, node);
        self.session = Some((id, data.clone()));
        self.sealed = false;
        Outcome::Data(data.into())
    }

    fn end(&mut self, session: &str, reason: &str, node: &str) {
        self.told.push(RecordedEvent::Destroy {
            client: self.client.clone(),
            session: session.to_owned(),
            reason: reason.to_owned(),
            node: node.to_owned(),
        });
    }

    fn set(
        &mut self,
        session: &str,
        previous: Option<String>,
        is_new: bool,
        is_init: bool,
        node: &str,
    ) {
        self.told.push(RecordedEvent::Set {
            client: self.client.clone(),
            session: session.to_owned(),
            previous,
            is_new,
            is_init,
            node: node.to_owned(),
        });
    }
}
