//! The processes that are measured. None outlives this one, however it ends: each ends when the pipe
//! to its standard input closes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::plan::Contestant;
use crate::redis_info::RedisInfo;

/// A contestant that runs: one or two nodes, and a Redis of its own: settings and messages of
/// one contestant must not slow down another, and this crate switches keyspace events on.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) contestant: Contestant,
    /// The load goes to the first. The second one has nothing to do but to listen.
    pub(crate) nodes: Vec<Node>,
    pub(crate) redis: Option<Redis>,
}

impl Running {
    pub(crate) fn start(contestant: Contestant) -> Result<Self> {
        let redis = contestant.uses_redis().then(Redis::start).transpose()?;
        let port = redis.as_ref().map(|redis| redis.port);
        let nodes = (0..contestant.nodes()).map(|_| Node::start(contestant, port));
        let nodes = nodes.collect::<Result<_>>()?;
        Ok(Self { contestant, nodes, redis })
    }

    pub(crate) fn port(&self) -> u16 {
        self.nodes[0].port
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    pub(crate) port: u16,
}

impl Node {
    fn start(contestant: Contestant, redis: Option<u16>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("contestant"));
        command.arg(contestant.server()).args(redis.map(|port| port.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let port = line.trim().parse();
        let node = Self { child, port: port.unwrap_or(0) };
        if node.port == 0 {
            return Err(format!("{} did not start", contestant.name()).into());
        }
        Ok(node)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[derive(Debug)]
pub(crate) struct Redis {
    shell: Child,
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

/// A server that ends with the shell, and a shell that ends with its standard input.
const SERVER: &str = r#"
redis-server "$@" >/dev/null &
server=$!
trap 'kill $server 2>/dev/null' EXIT
trap 'exit 1' INT TERM
cat >/dev/null"#;

impl Redis {
    fn start() -> Result<Self> {
        // Free a moment ago; Redis can't be asked to take any port that is free.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let shell = Command::new("sh")
            .args(["-c", SERVER, "redis"])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--loglevel", "warning", "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        let mut redis = Self { shell, port, pid: 0 };
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match RedisInfo::pid(port) {
                Ok(pid) => {
                    redis.pid = pid;
                    return Ok(redis);
                }
                Err(error) if Instant::now() > end => {
                    return Err(format!("redis-server did not start: {error}").into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}
