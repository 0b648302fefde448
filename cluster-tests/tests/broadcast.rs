//! The chat example: what is said on one node reaches the sockets of all nodes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Browser, Program, Redis, Socket, Sockets, until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

struct Chat {
    nodes: Vec<Program>,
    urls: Vec<String>,
}

impl Chat {
    fn start(redis: &Redis, nodes: usize) -> Self {
        let start = |_| Program::example("broadcast", &["0"], &[("REDIS_URL", &redis.url())]);
        let mut nodes: Vec<_> = (0..nodes).map(start).collect();
        let urls = nodes.iter_mut().map(|node| node.says("listening on ")).collect();
        Self { nodes, urls }
    }

    fn name(&self, node: usize) -> String {
        format!("node-{}", self.urls[node].rsplit(':').next().unwrap())
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.urls.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// How often a socket heard a text.
fn heard(socket: &Socket, text: &str) -> Vec<Value> {
    let said = socket.messages().into_iter().filter(|message| message.name == "said");
    said.map(|message| message.payload).filter(|said| said["text"] == text).collect()
}

#[test]
fn what_is_said_on_one_node_reaches_the_sockets_of_all_under_the_session_s_name() {
    let redis = Redis::start();
    let chat = Chat::start(&redis, 2);
    let (ann, bob) = (chat.browser(), chat.browser());
    ann.get("/");
    bob.get("/");
    let sockets = Sockets::start();
    let early = sockets.open(&ann, &chat.urls[0]);
    let bob_there = sockets.open(&bob, &chat.urls[1]);
    assert_eq!(early.call("say", &[json!("too early")]), "log in first");
    // The login goes to the node that does not hold the socket.
    let ann = ann.at(&chat.urls[1]);
    assert_eq!(ann.post("/login/ann").status, 200);
    // A socket has the login whose cookie its handshake carried.
    assert_eq!(early.call("say", &[json!("too early")]), "log in first");
    let ann_there = sockets.open(&ann, &chat.urls[0]);
    assert_eq!(ann_there.call("say", &[json!("hello")]), "sent");
    for socket in [&ann_there, &bob_there] {
        let said = json!({ "from": "ann", "text": "hello", "node": chat.name(0) });
        until("the message arrives", LIMIT, || (!heard(socket, "hello").is_empty()).then_some(()));
        assert_eq!(heard(socket, "hello"), [said], "once");
        assert!(heard(socket, "too early").is_empty());
    }
    // Over HTTP: login at one node, said at the other.
    let there = bob.at(&chat.urls[0]);
    assert_eq!(there.post("/say/nothing").status, 401);
    assert_eq!(there.post("/login/bob").status, 200);
    assert_eq!(there.at(&chat.urls[1]).post("/say/hi").status, 200);
    for socket in [&ann_there, &bob_there] {
        let said = json!({ "from": "bob", "text": "hi", "node": chat.name(1) });
        until("the message arrives", LIMIT, || (!heard(socket, "hi").is_empty()).then_some(()));
        assert_eq!(heard(socket, "hi"), [said], "once");
    }
}

#[test]
fn after_a_restart_of_redis_messages_reach_all_nodes_again() {
    let mut redis = Redis::start();
    let mut chat = Chat::start(&redis, 3);
    let ann = chat.browser();
    assert_eq!(ann.post("/login/ann").status, 200);
    let sockets = Sockets::start();
    // Of nobody in particular: sockets of a session end with it.
    let user = chat.browser();
    let open: Vec<_> = chat.urls.iter().map(|url| sockets.open(&user, url)).collect();
    let of_ann = sockets.open(&ann, &chat.urls[0]);
    redis.stop();
    let refused = of_ann.call("say", &[json!("lost")]);
    assert_eq!(refused, "try again later", "within the limit of a call");
    redis.start_again();

    // The sessions went with the data of this Redis; sockets without one stayed.
    let ann = chat.browser();
    until("a login works again", LIMIT, || {
        (ann.try_post("/login/ann", &Value::Null).ok()?.status == 200).then_some(())
    });
    for node in 0..3 {
        let here = ann.at(&chat.urls[node]);
        let mut texts = Vec::new();
        until(&format!("all sockets hear node {node}"), LIMIT, || {
            let text = format!("from-{node}-{}", texts.len());
            let sent = here.post(&format!("/say/{text}")).status == 200;
            texts.push(text);
            // Each round asks anew: what was said before the last node came back is lost.
            let all = || {
                open.iter().all(|socket| texts.iter().any(|text| !heard(socket, text).is_empty()))
            };
            sent.then(|| until_soon(all))?.then_some(())
        });
        for text in &texts {
            for socket in &open {
                assert!(heard(socket, text).len() <= 1, "{text} came twice");
            }
        }
    }
    for socket in &open {
        assert!(socket.connected());
        assert!(heard(socket, "lost").is_empty());
    }
    assert!(chat.nodes.iter_mut().all(Program::runs));
}

/// Whether something becomes true within a second.
fn until_soon(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    false
}
