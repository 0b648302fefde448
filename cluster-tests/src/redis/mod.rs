//! A Redis of the test's own.

mod client;
mod container;
mod monitor;
mod process;
mod refusal;
mod sentinels;
mod slots;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

pub use client::{Connection, Reply};
use container::Container;
pub use monitor::Monitor;
use process::Process;
pub use refusal::Refusal;
pub use sentinels::Sentinels;
pub use slots::RedisCluster;

use crate::wait::until;

/// Starting has to be over by then.
const LIMIT: Duration = Duration::from_secs(30);

/// What the server has to be.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    arguments: Vec<String>,
    durable: bool,
    program: Option<String>,
    outlives_full_files: bool,
}

impl RedisOptions {
    /// A server without persistence: a restart loses all data.
    pub fn new() -> Self {
        Self::default()
    }

    /// Further arguments, such as `--maxmemory 4mb`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Reached over TLS too, at a port of its own, with these arguments (see
    /// [`Certificates::arguments`](crate::Certificates::arguments)); without any it is not.
    #[must_use]
    pub fn tls(mut self, arguments: &[String]) -> Self {
        if !arguments.is_empty() {
            self.arguments.extend(["--tls-port".to_owned(), free_port().to_string()]);
            self.arguments.extend_from_slice(arguments);
        }
        self
    }

    /// Each write is on disk before it is answered: a restart and a kill lose nothing.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A process of this program, whatever else there is to start Redis from.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// A process that is not killed at its limit of file size, but told so: as on a full disk.
    #[must_use]
    pub fn outlives_full_files(mut self) -> Self {
        self.outlives_full_files = true;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub fn start(&self) -> Redis {
        Redis::start_with(self)
    }

    fn all_arguments(&self) -> Vec<String> {
        let fixed: &[&str] = if self.durable {
            &["--appendonly", "yes", "--appendfsync", "always"]
        } else {
            &["--appendonly", "no"]
        };
        let mut all: Vec<String> =
            ["--protected-mode", "no", "--save", ""].map(str::to_owned).into();
        all.extend(fixed.iter().map(|&argument| argument.to_owned()));
        all.extend(self.arguments.iter().cloned());
        all
    }
}

/// A running Redis: a container if a Docker engine answers, else a process of `redis-server`.
/// Dropping it ends it.
///
/// | variable | meaning |
/// |---|---|
/// | `REDIS_SERVER_BIN` | path of a server's program, which is run without Docker |
/// | `REDIS_IMAGE` | `name:tag` of the image for the container |
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
}

#[derive(Debug)]
enum Server {
    Container(Box<Container>),
    Process(Process),
}

impl Redis {
    /// Starts one without persistence on a free port of this machine.
    ///
    /// # Panics
    /// If there is neither Docker nor a program, or it does not answer in time.
    pub fn start() -> Self {
        Self::start_with(&RedisOptions::new())
    }

    fn start_with(options: &RedisOptions) -> Self {
        let arguments = options.all_arguments();
        let port = free_port();
        let named = std::env::var("REDIS_SERVER_BIN").ok().filter(|path| !path.is_empty());
        let server = match options.program.clone().or(named) {
            Some(program) => Server::Process(Process::start(
                &program,
                port,
                arguments,
                options.outlives_full_files,
            )),
            None => match container::engine() {
                Some(engine) => {
                    Server::Container(Box::new(Container::start(engine, port, &arguments)))
                }
                None => Server::Process(Process::start("redis-server", port, arguments, false)),
            },
        };
        let redis = Self { server, port };
        redis.answers();
        redis
    }

    /// Such as `redis://127.0.0.1:6379`. Restarts keep it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Such as `127.0.0.1:6379`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same, of the port for TLS.
    ///
    /// # Panics
    /// If it was started without.
    pub fn tls_address(&self) -> String {
        let port = self.cli(&["CONFIG", "GET", "tls-port"]);
        let port = port.lines().last().filter(|port| *port != "0").expect("a port for TLS");
        format!("127.0.0.1:{port}")
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in order. Connections are closed and refused from now on.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop(&mut self) {
        match &mut self.server {
            Server::Container(container) => container.stop(),
            Server::Process(process) => process.stop(),
        }
    }

    /// Ends it as a power failure would.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&mut self) {
        match &mut self.server {
            Server::Container(container) => container.kill(),
            Server::Process(process) => process.kill(),
        }
    }

    /// Starts it again at the same address, after a stop or a kill; with its data only if it is
    /// [`durable`](RedisOptions::durable).
    ///
    /// # Panics
    /// If it does not answer in time.
    pub fn start_again(&mut self) {
        match &mut self.server {
            Server::Container(container) => container.start_again(),
            Server::Process(process) => process.start_again(),
        }
        self.answers();
    }

    /// [`stop`](Self::stop) and [`start_again`](Self::start_again).
    ///
    /// # Panics
    /// As those.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Freezes it: connections stay open, and nothing is answered.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        match &self.server {
            Server::Container(container) => container.pause(),
            Server::Process(process) => process.signal("-STOP"),
        }
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        match &self.server {
            Server::Container(container) => container.resume(),
            Server::Process(process) => process.signal("-CONT"),
        }
    }

    /// A connection of the test's own.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.address()).expect("Redis accepts a connection")
    }

    /// Runs a command as `redis-cli` would, and returns what it would print.
    ///
    /// # Panics
    /// If Redis can't be reached or answers with an error.
    pub fn cli(&self, command: &[&str]) -> String {
        match self.connect().call(command) {
            Ok(Reply::Error(error)) => panic!("{command:?}: {error}"),
            Ok(reply) => reply.to_string(),
            Err(error) => panic!("{command:?}: {error}"),
        }
    }

    /// The id and the data of a client's session as this server has it, which may be a replica.
    ///
    /// # Panics
    /// As [`cli`](Self::cli).
    pub fn stored_session(&self, prefix: &str, client: &str) -> Option<(String, String)> {
        // The header has 85 bytes, and 49 for each earlier id, whose number is in the second byte.
        const READ: &str = "local r = redis.call('GET', KEYS[1]) if not r then return '' end \
            return string.sub(r, 21, 63) .. string.sub(r, 86 + 49 * math.floor(string.byte(r, 2) / 16))";
        let text = self.cli(&["EVAL", READ, "1", &format!("{prefix}:{{{client}}}:s")]);
        let (id, data) = text.split_at_checked(43)?;
        Some((id.to_owned(), data.to_owned()))
    }

    /// The version of a client's session; nothing if there is none.
    ///
    /// # Panics
    /// As [`cli`](Self::cli).
    pub fn stored_version(&self, prefix: &str, client: &str) -> Option<usize> {
        // Behind the format, the flags and the generation.
        const READ: &str = "local r = redis.call('GET', KEYS[1]) \
            return r and struct.unpack('>I5', string.sub(r, 10, 14)) or ''";
        self.cli(&["EVAL", READ, "1", &format!("{prefix}:{{{client}}}:s")]).parse().ok()
    }

    /// [`cli`](Self::cli) of a server that may be gone or refuse: then there is no answer.
    pub fn ask(&self, command: &[&str]) -> Option<String> {
        match Connection::open(&self.address()).ok()?.call(command).ok()? {
            Reply::Error(_) => None,
            reply => Some(reply.to_string()),
        }
    }

    /// How often each command was called since the start or `CONFIG RESETSTAT`, those that
    /// scripts called included. Names are in lower case.
    ///
    /// # Panics
    /// As [`cli`](Self::cli).
    pub fn commandstats(&self) -> BTreeMap<String, u64> {
        let text = self.cli(&["INFO", "commandstats"]);
        let calls = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = figures.split(',').find_map(|figure| figure.strip_prefix("calls="))?;
            Some((name.to_ascii_lowercase(), calls.parse().ok()?))
        };
        text.lines().filter_map(|line| calls(line.trim())).collect()
    }

    /// Notes all commands from now on.
    ///
    /// # Panics
    /// As [`cli`](Self::cli).
    pub fn monitor(&self) -> Monitor {
        Monitor::start(self)
    }

    /// All keys that match a pattern.
    ///
    /// # Panics
    /// As [`cli`](Self::cli).
    pub fn scan(&self, pattern: &str) -> Vec<String> {
        let mut connection = self.connect();
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let page = connection.call(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"]);
            let Ok(Reply::Array(mut page)) = page else { panic!("SCAN: {page:?}") };
            let (Some(Reply::Array(found)), Some(Reply::Text(next))) = (page.pop(), page.pop())
            else {
                panic!("SCAN answers with a cursor and keys")
            };
            keys.extend(found.iter().map(Reply::to_string));
            cursor = next;
            if cursor == "0" {
                keys.sort();
                keys.dedup();
                return keys;
            }
        }
    }

    /// Waits until this many replicas have all that was written so far.
    ///
    /// # Panics
    /// If that does not come about in time.
    pub fn is_copied_by(&self, replicas: usize) {
        let mut begun = None;
        until("the replicas have all data", LIMIT, || {
            let info = self.ask(&["INFO", "replication"])?;
            let figure = |line: &str, name: &str| -> Option<u64> {
                let figures = line.split([',', ':']);
                figures.filter_map(|part| part.strip_prefix(name)).next()?.trim().parse().ok()
            };
            let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            let wanted = *begun.get_or_insert(offset?.trim().parse::<u64>().ok()?);
            let followers = info.lines().filter(|line| line.starts_with("slave"));
            let up_to_date = followers
                .filter(|line| line.contains("state=online"))
                .filter_map(|line| figure(line, "offset="))
                .filter(|offset| *offset >= wanted);
            (up_to_date.count() >= replicas).then_some(())
        });
    }

    fn answers(&self) {
        until("Redis answers PING", LIMIT, || {
            let mut connection = Connection::open(&self.address()).ok()?;
            // While it loads its data it answers with an error.
            (connection.call(&["PING"]).ok()? == Reply::Text("PONG".into())).then_some(())
        });
    }
}

/// A free port below those that the system hands out by itself: it is still free when the server
/// comes back after a stop.
///
/// # Panics
/// If all are taken.
pub fn free_port() -> u16 {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    let first = u16::try_from((seed ^ std::process::id().wrapping_mul(7919)) % 10_000).unwrap_or(0);
    (0..10_000)
        .map(|step| 20_000 + (first + step) % 10_000)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("one of the ports 20000 to 29999 is free")
}
