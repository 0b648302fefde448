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
/// A primary that has been silent for this many milliseconds counts as gone: less, and one that only
/// waits for a busy machine's processor would be, the heir before the others follow it.
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
        Self::start_with(&[])
    }

    /// The same; nodes, servers and sentinels talk over TLS, only the test itself need not.
    ///
    /// # Panics
    /// The same.
    pub fn start_over_tls(certificates: &Certificates) -> Self {
        let mut arguments = certificates.arguments();
        arguments.extend(["--tls-replication", "yes"].map(str::to_owned));
        Self::start_with(&arguments)
    }

    fn start_with(tls: &[String]) -> Self {
        let options = || RedisOptions::new().program(LOCAL_SERVER).arguments(&USER).tls(tls);
        let primary = options().start();
        let address = if tls.is_empty() { primary.address() } else { primary.tls_address() };
        let port = address.rsplit(':').next().expect("a port").to_owned();
        let replica = |_| options().arguments(&["--replicaof", "127.0.0.1", &port]).start();
        let mut servers: Vec<Redis> = (0..2).map(replica).collect();
        servers.insert(0, primary);
        let sentinels = (0..3).map(|_| Sentinel::start(&port, tls)).collect();
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
        let leads = |server: &Redis| server.ask(&["ROLE"]).is_some_and(|r| r.starts_with("master"));
        self.servers.iter().position(leads)
    }

    /// Waits until all sentinels name the primary that there is. An old one that is started again
    /// before that, without its data, would be taken for the primary by those who ask the others.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn agree(&self) {
        let tls = self.sentinels[0].tls_address.is_some();
        until("all sentinels name the primary", LIMIT, || {
            let primary = &self.servers[self.primary()?];
            let address = if tls { primary.tls_address() } else { primary.address() };
            let named = |sentinel: &Sentinel| {
                let answer = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
                Some(answer.split_whitespace().collect::<Vec<_>>().join(":"))
            };
            let agrees = |sentinel| named(sentinel).is_some_and(|named| named == address);
            self.sentinels.iter().all(agrees).then_some(())
        });
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
    fn start(primary: &str, tls: &[String]) -> Self {
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
