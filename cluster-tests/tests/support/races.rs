//! Requests of one browser at once, over two nodes.

use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use cluster_tests::{Answer, Browser, Cluster, Redis, until};
use serde_json::{Value, json};

pub(crate) const SID: &str = "app.sid";
/// Whatever has to come about has come about by then.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Two nodes over one Redis, and which session went to whom.
pub(crate) struct Testbed {
    pub(crate) redis: Redis,
    pub(crate) cluster: Cluster,
    owners: Mutex<BTreeMap<String, String>>,
}

/// What a request came to: the answer, and its browser with the cookies of that answer only.
pub(crate) struct Done {
    pub(crate) answer: Answer,
    pub(crate) browser: Browser,
}

impl Done {
    /// The session whose cookie the answer set.
    pub(crate) fn got(&self) -> Option<String> {
        let mark = format!("{SID}=");
        let set = self.answer.set_cookies.iter().any(|line| line.starts_with(&mark));
        self.browser.session_in(SID).filter(|_| set)
    }
}

impl Testbed {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let redis = Redis::start();
        let cluster = Cluster::start(&redis, 2, flags);
        Self { redis, cluster, owners: Mutex::default() }
    }

    /// Sends all at once, in turn to both nodes, each from a copy of the browser.
    pub(crate) fn at_once(&self, browser: &Browser, requests: &[(&str, Value)]) -> Vec<Done> {
        let start = Barrier::new(requests.len());
        std::thread::scope(|scope| {
            let send = |(at, (path, body)): (usize, &(&str, Value))| {
                let browser = browser.at(self.cluster[at % 2].url());
                let (start, path, body) = (&start, (*path).to_owned(), body.clone());
                scope.spawn(move || {
                    start.wait();
                    let answer = browser.post_json(&path, &body);
                    assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text);
                    Done { answer, browser }
                })
            };
            let sent: Vec<_> = requests.iter().enumerate().map(send).collect();
            sent.into_iter().map(|request| request.join().unwrap()).collect()
        })
    }

    /// The session that the browser has, which both nodes agree on.
    pub(crate) fn session(&self, browser: &Browser) -> Answer {
        let [here, there] =
            [0, 1].map(|at| browser.at(self.cluster[at].url()).get("/session").ok());
        assert_eq!(
            (here.session_id(), here.session()),
            (there.session_id(), there.session()),
            "both nodes see the same"
        );
        here
    }

    /// Waits until a request waits in this node, its session read.
    pub(crate) fn waits(&self, node: usize) {
        let browser = Browser::new(&[self.cluster[node].url()]);
        until("it has read the session", LIMIT, || {
            (browser.get("/probe/waiting").json == json!(1)).then_some(())
        });
    }

    /// The session whose cookie an answer set went to this role, and never to another one.
    pub(crate) fn went_to(&self, role: &str, done: &Done) {
        let Some(id) = done.got() else { return };
        let mut owners = self.owners.lock().unwrap();
        let owner = owners.entry(id.clone()).or_insert_with(|| role.to_owned());
        assert_eq!(owner, role, "one session went to two: {id}");
    }
}
