//! Somebody who uses all nodes of a cluster at once.

use std::time::Duration;

use cluster_tests::{Browser, Cluster, PREFIX, Redis, Socket, Sockets, until};
use serde_json::Value;

/// Whatever heals has healed by then.
pub(crate) const HEALS: Duration = Duration::from_secs(60);
/// What was missed is found by then: sooner than the nodes compare when nothing seems wrong.
pub(crate) const FOUND: Duration = Duration::from_secs(25);
/// What Redis tells at once comes by then: much sooner than the nodes compare by themselves.
const TOLD: Duration = Duration::from_secs(10);

/// Waits until a replica has all keys of its primary.
pub(crate) fn is_copied(primary: &Redis, replica: &Redis) {
    let pattern = format!("{PREFIX}:*");
    until("the replica has all keys", HEALS, || {
        (replica.scan(&pattern) == primary.scan(&pattern)).then_some(())
    });
}

/// A browser with a session, and a tab with a socket on every node.
pub(crate) struct User {
    browser: Browser,
    urls: Vec<String>,
    tabs: Vec<Socket>,
    client: String,
}

impl User {
    pub(crate) fn new(cluster: &Cluster, sockets: &Sockets) -> Self {
        let browser = cluster.browser();
        let client = browser.post("/session/inc").ok().json["clientId"].as_str().unwrap().into();
        let urls: Vec<String> = cluster.urls().into_iter().map(str::to_owned).collect();
        let tabs = urls.iter().map(|url| sockets.open(&browser, url)).collect();
        Self { browser, urls, tabs, client }
    }

    /// A key of the session: `s` is the record, `m` the mapping.
    pub(crate) fn key(&self, part: &str) -> String {
        format!("{PREFIX}:{{{}}}:{part}", self.client)
    }

    /// Waits until each node serves the session, with its data.
    pub(crate) fn is_served_by_all(&self) {
        for url in &self.urls {
            let at = self.browser.at(url);
            until("the node serves the session again", HEALS, || {
                let answer = at.try_get("/session").ok()?;
                (answer.status == 200)
                    .then(|| assert!(answer.session()["n"].is_i64(), "{answer:?}"))
            });
        }
    }

    /// Changes the session by each tab; all tabs have to be told of each change exactly once.
    pub(crate) fn is_told_once_of_each_change(&self) {
        let told = |tab: &Socket| count(tab, "session:set");
        let before: Vec<usize> = self.tabs.iter().map(told).collect();
        let first = self.n();
        for tab in &self.tabs {
            assert!(tab.connected(), "a socket was closed");
            until("a socket's change succeeds", HEALS, || {
                (tab.call("session:inc", &[])["ok"] == true).then_some(())
            });
        }
        // One whose answer got lost was a change too.
        let changes = self.n() - first;
        assert!(changes >= self.tabs.len());
        for (tab, before) in self.tabs.iter().zip(before) {
            until("all tabs are told of all changes", HEALS, || {
                (told(tab) >= before + changes).then_some(())
            });
            // What came twice came before this answer.
            tab.ok("session:get");
            assert_eq!(told(tab) - before, changes, "told twice");
        }
    }

    /// How often the session was changed.
    fn n(&self) -> usize {
        let answer = self.browser.get("/session").ok();
        usize::try_from(answer.session()["n"].as_u64().unwrap()).unwrap()
    }

    /// Changes and reads the session at each node at once. Nothing may fail.
    pub(crate) fn is_served_at_the_first_try(&self) {
        let first = self.n();
        std::thread::scope(|scope| {
            for url in &self.urls {
                scope.spawn(|| self.browser.at(url).get("/session").ok());
                scope.spawn(|| self.browser.at(url).post("/session/inc").ok());
            }
            for tab in &self.tabs {
                scope.spawn(|| tab.ok("session:inc"));
            }
        });
        assert_eq!(self.n() - first, self.urls.len() + self.tabs.len(), "a change was lost");
    }

    /// Logs out at one node; all tabs are told once, and disconnected.
    pub(crate) fn logs_out(&self) {
        assert_eq!(self.browser.post("/logout").status, 200);
        self.is_told_of_the_end(HEALS, "destroyed");
    }

    /// Somebody deletes the record without the library; all tabs are told at once.
    pub(crate) fn is_deleted_by_others(&self, redis: &Redis) {
        assert_eq!(redis.cli(&["DEL", &self.key("s")]), "1");
        self.is_told_of_the_end(TOLD, "external");
    }

    fn is_told_of_the_end(&self, limit: Duration, reason: &str) {
        for end in self.ends(limit) {
            assert_eq!(end["reason"], reason, "{end}");
        }
    }

    /// Waits until each tab is told that the session has ended, once, and disconnected then.
    pub(crate) fn ends(&self, limit: Duration) -> Vec<Value> {
        let ends = self.tabs.iter().map(|tab| tab.message("session:destroy", limit)).collect();
        for tab in &self.tabs {
            until("a socket of an ended session is disconnected", TOLD, || {
                (!tab.connected()).then_some(())
            });
            assert_eq!(count(tab, "session:destroy"), 1, "told twice");
        }
        ends
    }
}

fn count(tab: &Socket, name: &str) -> usize {
    tab.messages().iter().filter(|message| message.name == name).count()
}
