//! Every node tells the same of each session, and what it tells is what happened.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{
    Act, Browser, Cluster, EventRecorder, KEY, Model, Node, Outcome, PREFIX, Random, RecordedEvent,
    Redis, STAY, Socket, Sockets, assert_same, assert_sound, by_session, until,
};
use serde_json::{Map, Value, json};

const CLIENTS: usize = 50;
const ACTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);

/// A client with a socket that acts at any node, and what has to come of it.
struct Actor {
    /// The same profile at each node.
    browser: Browser,
    urls: Vec<String>,
    relay: Sockets,
    socket: Socket,
    socket_node: usize,
    /// The sockets of client ids that the browser had before.
    earlier: Vec<Socket>,
    model: Model,
    /// All client ids that the browser had.
    clients: Vec<String>,
    random: Random,
}

impl Actor {
    fn act(&mut self) {
        let act = self.choose();
        // A socket has no event for the other acts.
        let by_http_only = matches!(act, Act::Merge(_) | Act::Rotate | Act::Renew);
        let by_socket = !by_http_only && self.random.below(3) == 0;
        let sealed = self.model.is_sealed();
        let (got, node, id) = if by_socket { self.by_socket(&act) } else { self.by_http(&act) };
        let expected = self.model.after(&act, &node, id.as_deref(), !by_socket);
        assert_eq!(got, expected, "{act:?} at {node}, by socket: {by_socket}");
        if act == Act::Destroy && sealed && !by_socket {
            self.begins_as_another();
        }
    }

    /// The logout of a sealed session gave the browser another client id: the page connects again.
    fn begins_as_another(&mut self) {
        let answer = self.browser.get("/session").ok();
        let client = answer.json["clientId"].as_str().unwrap();
        assert!(!self.clients.iter().any(|before| before == client), "a new client id");
        self.model.moves_to(client);
        self.clients.push(client.to_owned());
        let socket = self.relay.open(&self.browser, &self.urls[self.socket_node]);
        self.earlier.push(std::mem::replace(&mut self.socket, socket));
    }

    fn choose(&mut self) -> Act {
        let random = &mut self.random;
        // Few keys and values: now and then nothing changes.
        let data: Map<String, Value> = (0..random.below(4))
            .map(|_| (format!("k{}", random.below(3)), json!(random.below(2))))
            .collect();
        match random.below(100) {
            0..15 => Act::Get,
            15..50 => Act::Increment,
            50..65 => Act::Set(data),
            65..80 => Act::Merge(data),
            80..85 => Act::Rotate,
            85..90 => Act::Renew,
            _ => Act::Destroy,
        }
    }

    fn by_http(&mut self, act: &Act) -> (Outcome, String, Option<String>) {
        let at = self.random.below(self.urls.len());
        let browser = self.browser.at(&self.urls[at]);
        let answer = match act {
            Act::Get => browser.get("/session"),
            Act::Increment => browser.post("/session/inc"),
            Act::Set(data) => browser.post_json("/session/set", &data.clone().into()),
            Act::Merge(data) => browser.post_json("/session/merge", &data.clone().into()),
            Act::Rotate => browser.post("/session/regenerate"),
            Act::Renew => browser.post("/session/renew"),
            Act::Destroy => browser.post("/logout"),
        };
        let answer = answer.ok();
        // A merge is committed after its answer was made; the cookie and a read tell its id.
        let id = match (act, answer.session_id()) {
            (Act::Merge(_), None) => browser.get("/session").session_id().map(str::to_owned),
            (_, id) => id.map(str::to_owned),
        };
        self.browser = browser;
        let outcome = match (act, answer.session()) {
            (Act::Destroy, _) => Outcome::Ended,
            (_, Value::Null) => Outcome::Missing,
            (_, data) => Outcome::Data(data.clone()),
        };
        (outcome, format!("n{at}"), id)
    }

    fn by_socket(&mut self, act: &Act) -> (Outcome, String, Option<String>) {
        let answer = match act {
            Act::Get => self.socket.call("session:get", &[]),
            Act::Increment => self.socket.call("session:inc", &[]),
            Act::Set(data) => self.socket.call("session:set", &[data.clone().into()]),
            _ if self.random.below(2) == 0 => self.socket.call("session:set", &[Value::Null]),
            _ => self.socket.call("session:destroy", &[]),
        };
        let outcome = match (act, answer["ok"].as_bool()) {
            (Act::Destroy, Some(true)) => Outcome::Ended,
            (_, Some(true)) => Outcome::Data(answer["session"].clone()),
            _ if answer["error"] == "missing-session" => Outcome::Missing,
            _ => panic!("{act:?}: {answer}"),
        };
        let id = answer["sessionId"].as_str().map(str::to_owned);
        (outcome, format!("n{}", self.socket_node), id)
    }

    /// The sockets' messages, as events.
    fn heard(&self) -> Vec<Value> {
        let sockets = self.earlier.iter().chain([&self.socket]);
        let messages = sockets.flat_map(Socket::messages);
        messages.map(|message| json!([message.name, message.payload])).collect()
    }

    fn has_to_hear(&self) -> Vec<Value> {
        let message = |event: &RecordedEvent| match event {
            RecordedEvent::Set { session, is_new, is_init, node, .. } => json!(["session:set", {
                "sessionId": session, "isNew": is_new, "isInit": is_init, "node": node,
            }]),
            RecordedEvent::Destroy { session, reason, node, .. } => json!(["session:destroy", {
                "sessionId": session, "reason": reason, "node": node,
            }]),
            other => panic!("{other:?}"),
        };
        // Sockets that follow into a sealed session are not told the end of what it was before.
        let told = self.model.told().iter().filter(|event| event.reason() != Some("sealed"));
        told.map(message).collect()
    }
}

fn of_clients(told: &[RecordedEvent], clients: &[String]) -> Vec<RecordedEvent> {
    let one_of_them = |client: &str| clients.iter().any(|one| one == client);
    told.iter().filter(|event| event.client().is_some_and(one_of_them)).cloned().collect()
}

#[test]
fn a_random_history_of_2000_acts_by_50_clients_is_told_alike_and_as_it_was() {
    let mut random = Random::seeded();
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &STAY);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let sockets = Sockets::start();
    let mut actors: Vec<Actor> = (0..CLIENTS)
        .map(|at| {
            let browser = cluster.browser();
            let client = browser.get("/session").ok().json["clientId"].as_str().unwrap().to_owned();
            let socket = sockets.open(&browser, cluster[at % 3].url());
            let urls = cluster.urls().into_iter().map(str::to_owned).collect();
            Actor {
                browser,
                urls,
                relay: sockets.clone(),
                socket,
                socket_node: at % 3,
                earlier: Vec::new(),
                model: Model::new(&client),
                clients: vec![client],
                random: random.part(),
            }
        })
        .collect();
    std::thread::scope(|scope| {
        for actor in &mut actors {
            scope.spawn(|| (0..ACTS).for_each(|_| actor.act()));
        }
    });
    let count: usize = actors.iter().map(|actor| actor.model.told().len()).sum();
    assert!(count > CLIENTS * ACTS / 3, "a history worth its name");
    for recorder in &recorders {
        let all = || (recorder.told().len() >= count).then_some(());
        until(&format!("all {count} events are told"), LIMIT, all);
    }
    // What is told too often is on its way before this.
    let mark = cluster.browser().post("/session/inc").ok();
    let told: Vec<Vec<RecordedEvent>> = recorders
        .iter()
        .map(|recorder| {
            until("the mark is told", LIMIT, || {
                (!recorder.of(mark.session_id().unwrap()).is_empty()).then_some(())
            });
            recorder.told()
        })
        .collect();
    assert_same(&told);
    for (at, told) in told.iter().enumerate() {
        assert_sound(told);
        for actor in &actors {
            let is = by_session(&of_clients(told, &actor.clients));
            let has_to_be = by_session(actor.model.told());
            assert_eq!(is, has_to_be, "what n{at} told of {:?}", actor.clients);
        }
    }
    for actor in &actors {
        until("a socket hears all", LIMIT, || {
            (actor.heard().len() >= actor.has_to_hear().len()).then_some(())
        });
        // One client's sessions follow each other, and its socket hears them in that order.
        assert_eq!(actor.heard(), actor.has_to_hear());
    }
}

#[test]
fn what_many_writers_of_few_sessions_do_is_told_alike_by_all_nodes() {
    let mut random = Random::seeded();
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let browser = cluster.browser();
            browser.post_json("/session/set", &json!({ "n": 0 })).ok();
            browser
        })
        .collect();
    let written: usize = std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for at in 0..24 {
            let (browser, mut random) = (clients[at % 4].clone(), random.part());
            let url = cluster[at % 3].url();
            writers.push(scope.spawn(move || {
                let browser = browser.at(url);
                // A writer beside a logout or a new id may be refused, but never fails.
                let mut written = 0;
                for _ in 0..15 {
                    let answer = match random.below(20) {
                        0 => browser.post("/logout"),
                        1 => browser.post("/session/regenerate"),
                        2..8 => {
                            browser.post_json("/session/merge", &json!({ "k": random.number() }))
                        }
                        _ => browser.post("/session/inc"),
                    };
                    assert!([200, 404, 409].contains(&answer.status), "{answer:?}");
                    written += usize::from(answer.status == 200);
                    if answer.status == 409 {
                        // Its cookie is late for good: another writer has the new one.
                        browser.post_json("/login", &json!({ "n": 0 })).ok();
                    }
                }
                written
            }));
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert!(written > 100, "most are written");
    let mark = cluster.browser().post("/session/inc").ok();
    let told: Vec<Vec<RecordedEvent>> = recorders
        .iter()
        .map(|recorder| {
            until("the mark is told", LIMIT, || {
                (!recorder.of(mark.session_id().unwrap()).is_empty()).then_some(())
            });
            recorder.told()
        })
        .collect();
    assert_same(&told);
    told.iter().for_each(|told| assert_sound(told));
}

/// Sessions of a stranger on the same Redis begin, change and end, and nobody hears of it.
fn not_heard(database: &str, prefix: &str) {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, &[]);
    let recorders: Vec<_> = cluster.nodes().iter().map(EventRecorder::follow).collect();
    let url = format!("{}/{database}", redis.url());
    let flags = ["--redis", &url, "--prefix", prefix, "--keys", KEY, "--max-age", "1s"];
    let stranger = Node::start(&flags);
    let browser = Browser::new(&[stranger.url()]);
    for path in ["/session/inc", "/session/inc", "/logout", "/session/inc"] {
        browser.post(path).ok();
    }
    until("the last one expires", LIMIT, || {
        (browser.get("/session").session() == &Value::Null).then_some(())
    });
    let mark = cluster.browser().post("/session/inc").ok();
    for recorder in &recorders {
        until("the mark is told", LIMIT, || {
            (!recorder.of(mark.session_id().unwrap()).is_empty()).then_some(())
        });
        assert_eq!(recorder.told().len(), 1, "{:?}", recorder.told());
    }
}

#[test]
fn another_prefix_on_the_same_redis_is_not_heard() {
    not_heard("0", "tt");
}

#[test]
fn another_database_of_the_same_redis_is_not_heard() {
    not_heard("1", PREFIX);
}
