//! A Redis of the test's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starting has to be over by then.
const LIMIT: Duration = Duration::from_secs(20);

/// A running `redis-server` without persistence. Dropping it ends the process.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// Starts `$REDIS_SERVER_BIN`, or `redis-server`, on a free port of this machine.
    ///
    /// # Panics
    /// If there is none, or it does not listen in time.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let program = std::env::var("REDIS_SERVER_BIN").unwrap_or_else(|_| "redis-server".into());
        // Free at this moment; whoever takes it in between makes the start fail, loudly.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new(&program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program} could not be started ({error}): install the package redis-server, or set REDIS_SERVER_BIN")
            });
        let redis = Self { child, port, _folder: folder };
        let deadline = Instant::now() + LIMIT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    /// Such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
