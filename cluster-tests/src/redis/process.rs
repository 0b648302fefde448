//! Redis as a process of this machine.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A `redis-server`. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Process {
    program: String,
    port: u16,
    arguments: Vec<String>,
    /// See [`RedisOptions::outlives_full_files`](super::RedisOptions::outlives_full_files).
    outlives: bool,
    folder: TempDir,
    child: Child,
}

impl Process {
    pub(super) fn start(program: &str, port: u16, arguments: Vec<String>, outlives: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let child = spawn(program, port, &arguments, outlives, &folder);
        Self { program: program.to_owned(), port, arguments, outlives, folder, child }
    }

    pub(super) fn start_again(&mut self) {
        self.child = spawn(&self.program, self.port, &self.arguments, self.outlives, &self.folder);
    }

    pub(super) fn stop(&mut self) {
        self.signal("-TERM");
        self.child.wait().expect("Redis can be waited for");
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().expect("Redis was running");
        self.child.wait().expect("Redis can be waited for");
    }

    pub(super) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "Redis was running");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    program: &str,
    port: u16,
    arguments: &[String],
    outlives: bool,
    folder: &TempDir,
) -> Child {
    let mut command = Command::new(program);
    if outlives {
        // What a shell ignores is ignored by what it becomes.
        command = Command::new("sh");
        command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#, program]);
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("no Docker engine answers and {program} can't be started ({error}): start dockerd, or install the package redis-server, or set REDIS_SERVER_BIN to a server's path")
        })
}
