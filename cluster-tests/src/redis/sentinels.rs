//! A Redis behind sentinels.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{Connection, Redis, RedisOptions, Reply, free_port};
use crate::certificates::Certificates;
use crate::servers::LOCAL_SERVER;
use crate::wait::until;

/// Starting and failing over have to be over by then.
const LIMIT: Duration = Duration::from_secs(60);
/// A primary that has been silent for this many milliseconds counts as gone. A sentinel may not connect
/// for a second to a primary that it has just turned to: with no more patience than that it may fail
/// over again at once, from an heir that lives and is written to.
const SILENCE: u32 = 3000;
/// What the sentinels call the primary.
const NAME: &str = "main";
/// A user of Redis whom the sentinels don't know.
const USER: [&str; 7] = ["--user", "app", "on", ">secret", "~*", "&*", "+@all"];

/// A primary, two replicas and three sentinels. Dropping it ends them.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    child: Child,
    address: String,
    tls_address: Option<String>,
    /// A sentinel writes down what it learns.
    _folder: TempDir,
}

impl Sentinels {
    /// Starts all on free ports of this machine, and waits until a failover would succeed.
    ///
    /// # Panics
    /// If `redis-server` is missing, or that does not come about in time.
    pub fn start() -> Self {
        Self::start_with(&[], "")
    }

    /// The same; the sentinels have these users, by lines of their configuration.
    ///
    /// # Panics
    /// The same.
    pub fn start_with_users(users: &str) -> Self {
        Self::start_with(&[], users)
    }

    /// The same; nodes, servers and sentinels talk over TLS, only the test itself need not.
    ///
    /// # Panics
    /// The same.
    pub fn start_over_tls(certificates: &Certificates) -> Self {
        let mut arguments = certificates.arguments();
        arguments.extend(["--tls-replication", "yes"].map(str::to_owned));
        Self::start_with(&arguments, "")
    }

    fn start_with(tls: &[String], users: &str) -> Self {
        let options = || RedisOptions::new().program(LOCAL_SERVER).arguments(&USER).tls(tls);
        let primary = options().start();
        let address = if tls.is_empty() { primary.address() } else { primary.tls_address() };
        let port = address.rsplit(':').next().expect("a port").to_owned();
        let replica = |_| options().arguments(&["--replicaof", "127.0.0.1", &port]).start();
        let mut servers: Vec<Redis> = (0..2).map(replica).collect();
        servers.insert(0, primary);
        let sentinels = (0..3).map(|_| Sentinel::start(&port, tls, users)).collect();
        let all = Self { servers, sentinels };
        all.works();
        all
    }

    /// Waits until a failover would succeed.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn works(&self) {
        until("the sentinels know each other and the replicas", LIMIT, || {
            let ready = |sentinel: &Sentinel| {
                let info = sentinel.ask(&["INFO", "sentinel"])?;
                info.contains("status=ok").then_some(())?;
                info.contains("slaves=2,sentinels=3").then_some(())
            };
            self.sentinels.iter().all(|sentinel| ready(sentinel).is_some()).then_some(())
        });
    }

    /// Where the primary is in [`servers`](Self::servers), if one of them says that it is.
    ///
    /// # Panics
    /// Never.
    pub fn primary(&self) -> Option<usize> {
        (0..self.servers.len()).find(|&at| self.leads(at))
    }

    /// Has a replica take the place of the primary, which lives. Returns which one.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn fail_over(&self) -> usize {
        let old = self.primary().expect("one of them is the primary");
        let command = ["SENTINEL", "FAILOVER", NAME];
        until("a sentinel begins a failover", LIMIT, || self.sentinels[0].ask(&command));
        until("all sentinels name another primary", LIMIT, || {
            (0..self.servers.len()).filter(|&at| at != old).find(|&at| self.name(at))
        })
    }

    /// Waits until all sentinels name this server as the primary, and makes sure that there is no
    /// other one. An old one that is started again before that would be taken for the primary by
    /// those who ask a sentinel that does not know the new one yet.
    ///
    /// # Panics
    /// If that does not come about in time. If another server is the primary as well: then the
    /// sentinels took one for dead that lives, and what is written to it is lost.
    pub fn agree_on(&self, primary: usize) {
        until("all sentinels name the primary", LIMIT, || {
            let mut others = (0..self.servers.len()).filter(|&at| at != primary);
            let other = others.find(|&at| self.leads(at));
            assert!(
                other.is_none(),
                "the sentinels failed over from server {primary}, which lives, to {other:?}: is \
                 this machine so busy that nothing runs for seconds?"
            );
            self.name(primary).then_some(())
        });
    }

    /// Whether all sentinels name this server as the primary.
    fn name(&self, at: usize) -> bool {
        let server = &self.servers[at];
        let named = |sentinel: &Sentinel| {
            let answer = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
            Some(answer.split_whitespace().collect::<Vec<_>>().join(":"))
        };
        let address = match self.sentinels[0].tls_address {
            Some(_) => server.tls_address(),
            None => server.address(),
        };
        self.sentinels.iter().all(|sentinel| named(sentinel).is_some_and(|named| named == address))
    }

    fn leads(&self, at: usize) -> bool {
        self.servers[at].ask(&["ROLE"]).is_some_and(|role| role.starts_with("master"))
    }

    /// Such as `redis-sentinel://app:secret@127.0.0.1:26379?sentinelServiceName=main`. User and
    /// password are those of Redis; the sentinels have none.
    pub fn url(&self) -> String {
        let tls = self.sentinels[0].tls_address.is_some();
        let scheme = if tls { "rediss-sentinel" } else { "redis-sentinel" };
        let address = |sentinel: &Sentinel| {
            sentinel.tls_address.clone().unwrap_or_else(|| sentinel.address.clone())
        };
        let mut addresses = self.sentinels.iter().map(address);
        let first = addresses.next().expect("three");
        let mut url = format!("{scheme}://app:secret@{first}?sentinelServiceName={NAME}");
        for address in addresses {
            let _ = write!(url, "&node={address}");
        }
        url
    }

    /// What each sentinel answers.
    ///
    /// # Panics
    /// If one does not, or with an error.
    pub fn ask_sentinels(&self, command: &[&str]) -> Vec<String> {
        let answer = |sentinel: &Sentinel| sentinel.ask(command).expect("a sentinel answers");
        self.sentinels.iter().map(answer).collect()
    }

    /// Waits until so many nodes listen to each sentinel, as this user.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn are_listened_to(&self, user: &str, nodes: usize) {
        let user = format!(" user={user} ");
        let listens = |line: &&str| line.contains(&user) && line.contains(" sub=1 ");
        until("all nodes listen to all sentinels", LIMIT, || {
            let clients = self.ask_sentinels(&["CLIENT", "LIST"]);
            clients.iter().all(|all| all.lines().filter(listens).count() == nodes).then_some(())
        });
    }

    /// The servers; the first began as the primary.
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    /// One of the servers, to stop or kill it.
    pub fn server(&mut self, at: usize) -> &mut Redis {
        &mut self.servers[at]
    }
}

impl Sentinel {
    fn start(primary: &str, tls: &[String], users: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the sentinel");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {SILENCE}\nsentinel failover-timeout {NAME} 5000\n"
        );
        let tls_port = (!tls.is_empty()).then(free_port);
        if let Some(tls_port) = tls_port {
            let _ = writeln!(text, "tls-port {tls_port}");
        }
        let _ = writeln!(text, "{users}");
        for pair in tls.chunks(2) {
            let _ = writeln!(text, "{} {}", pair[0].trim_start_matches('-'), pair[1]);
        }
        std::fs::write(&file, text).expect("the folder can be written");
        let child = Command::new(LOCAL_SERVER)
            .arg(&file)
            .arg("--sentinel")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install the package redis-server");
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (address, tls_address) = (at(port), tls_port.map(at));
        let sentinel = Self { child, address, tls_address, _folder: folder };
        until("the sentinel answers", LIMIT, || sentinel.ask(&["PING"]));
        sentinel
    }

    fn ask(&self, command: &[&str]) -> Option<String> {
        match Connection::open(&self.address).ok()?.call(command).ok()? {
            Reply::Error(_) => None,
            reply => Some(reply.to_string()),
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
