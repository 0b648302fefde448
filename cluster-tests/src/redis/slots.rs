//! A Redis Cluster of the test's own.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Redis, RedisOptions, Reply, free_port};
use crate::certificates::Certificates;
use crate::servers::LOCAL_SERVER;
use crate::wait::until;

/// Forming and failing over have to be over by then.
const LIMIT: Duration = Duration::from_secs(60);
/// A server that has been silent for this long counts as gone.
const SILENCE: &str = "1500";
/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Three primaries, each with one replica. Dropping it ends them.
#[derive(Debug)]
pub struct RedisCluster {
    /// First those that began as primaries.
    servers: Vec<Redis>,
    /// Arguments for TLS, if they use it.
    tls: Vec<String>,
}

impl RedisCluster {
    /// Starts it on free ports of this machine, and waits until it works.
    ///
    /// # Panics
    /// If `redis-server` is missing, or the cluster does not form in time.
    pub fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// The same; nodes and servers talk over TLS, only the test itself need not.
    ///
    /// # Panics
    /// The same.
    pub fn start_over_tls(certificates: &Certificates) -> Self {
        let mut arguments = certificates.arguments();
        arguments.extend(["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned));
        Self::start_with(arguments)
    }

    fn start_with(tls: Vec<String>) -> Self {
        let servers = (0..6).map(|_| start_one(&tls)).collect();
        let cluster = Self { servers, tls };
        cluster.form();
        cluster
    }

    /// Adds a primary without slots. Returns where it is in [`servers`](Self::servers).
    ///
    /// # Panics
    /// If the others do not take it in in time.
    pub fn grow(&mut self) -> usize {
        self.servers.push(start_one(&self.tls));
        let added = self.servers.len() - 1;
        self.meet(&self.servers[added]);
        self.know_each_other();
        self.works();
        added
    }

    fn meet(&self, other: &Redis) {
        let bus = other.cli(&["CONFIG", "GET", "cluster-port"]);
        let bus = bus.lines().last().expect("its value").to_owned();
        let port = other.port().to_string();
        self.servers[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }

    fn know_each_other(&self) {
        until("all servers know each other", LIMIT, || {
            let knows = |server: &Redis| {
                let nodes = server.cli(&["CLUSTER", "NODES"]);
                nodes.lines().count() == self.servers.len() && !nodes.contains("handshake")
            };
            self.servers.iter().all(knows).then_some(())
        });
    }

    fn form(&self) {
        for (at, server) in self.servers.iter().enumerate() {
            // With equal ones two of them would first have to agree who yields.
            server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (at, primary) in self.servers[..3].iter().enumerate() {
            let bound = |at: usize| (usize::from(SLOTS) * at / 3).to_string();
            let last = (usize::from(SLOTS) * (at + 1) / 3 - 1).to_string();
            primary.cli(&["CLUSTER", "ADDSLOTSRANGE", &bound(at), &last]);
        }
        self.servers[1..].iter().for_each(|other| self.meet(other));
        self.know_each_other();
        for (primary, replica) in self.servers[..3].iter().zip(&self.servers[3..]) {
            let id = primary.cli(&["CLUSTER", "MYID"]);
            // Until it has heard of the primary it refuses.
            until("the replica has a primary", LIMIT, || {
                let answer = replica.connect().call(&["CLUSTER", "REPLICATE", &id]).ok()?;
                (answer == Reply::Text("OK".into())).then_some(())
            });
        }
        self.works();
    }

    /// Waits until each server that runs says that the cluster works, and replicas follow.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn works(&self) {
        until("the cluster works", LIMIT, || {
            let works = |server: &Redis| {
                let Some(info) = server.ask(&["CLUSTER", "INFO"]) else { return true };
                let replication = server.ask(&["INFO", "replication"]).unwrap_or_default();
                info.contains("cluster_state:ok") && !replication.contains("link_status:down")
            };
            self.servers.iter().all(works).then_some(())
        });
    }

    /// Such as `redis-cluster://127.0.0.1:7000?node=127.0.0.1:7001`.
    pub fn url(&self) -> String {
        let tls = !self.tls.is_empty();
        let scheme = if tls { "rediss-cluster" } else { "redis-cluster" };
        let address = |server: &Redis| if tls { server.tls_address() } else { server.address() };
        let mut url = format!("{scheme}://{}", address(&self.servers[0]));
        for (at, server) in self.servers.iter().enumerate().skip(1) {
            let mark = if at == 1 { '?' } else { '&' };
            let _ = write!(url, "{mark}node={}", address(server));
        }
        url
    }

    /// All servers: first those that began as primaries, then their replicas in the same order.
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// One of the servers, to stop or kill it.
    pub fn server(&mut self, at: usize) -> &mut Redis {
        &mut self.servers[at]
    }

    /// Where the primary of this key is in [`servers`](Self::servers).
    ///
    /// # Panics
    /// If there is none.
    pub fn primary_of(&self, key: &str) -> usize {
        let owner = self.servers.iter().position(|server| {
            let primary = server.ask(&["ROLE"]).is_some_and(|role| role.starts_with("master"));
            // Anybody else answers that it has moved.
            primary && server.connect().call(&["TYPE", key]).is_ok_and(|r| !is_error(&r))
        });
        owner.unwrap_or_else(|| panic!("no server that runs has the key {key}"))
    }

    /// Moves the slot of a key, with all keys in it, from the server that has it to another
    /// primary, as resharding does. In the middle, when half of the keys are moved, `between` is
    /// called; what it returns is returned.
    ///
    /// # Panics
    /// If a server refuses.
    pub fn move_slot_of<T>(&self, key: &str, to: usize, between: impl FnOnce() -> T) -> T {
        let slot = self.servers[0].cli(&["CLUSTER", "KEYSLOT", key]);
        let (from, to) = (&self.servers[self.primary_of(key)], &self.servers[to]);
        let [from_id, to_id] = [from, to].map(|server| server.cli(&["CLUSTER", "MYID"]));
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let keys = || {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
            keys.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let port = to.port().to_string();
        let migrate = |keys: &[String]| {
            for key in keys {
                from.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            }
        };
        let first = keys();
        migrate(&first[..first.len().div_ceil(2)]);
        let between = between();
        while !keys().is_empty() {
            migrate(&keys());
        }
        to.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        // The others hear of it in time.
        from.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        between
    }

    /// How many subscribers to this channel each server has; none if it is gone.
    ///
    /// # Panics
    /// Never.
    pub fn subscribers(&self, channel: &str) -> Vec<usize> {
        let count = |server: &Redis| {
            server.ask(&["PUBSUB", "NUMSUB", channel])?.lines().last()?.parse().ok()
        };
        self.servers.iter().map(|server| count(server).unwrap_or(0)).collect()
    }
}

fn start_one(tls: &[String]) -> Redis {
    let bus = free_port().to_string();
    let options = RedisOptions::new()
        .program(LOCAL_SERVER)
        .arguments(&["--cluster-enabled", "yes", "--cluster-port", &bus])
        .arguments(&["--cluster-node-timeout", SILENCE, "--cluster-config-file", "nodes"]);
    options.tls(tls).start()
}

fn is_error(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(_))
}
