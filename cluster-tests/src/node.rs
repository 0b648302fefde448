//! A node: one process of the example.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starting and stopping have to be over by then.
const LIMIT: Duration = Duration::from_secs(30);

/// A running node on a free port. Dropping it ends the process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    url: String,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    log: Arc<Mutex<String>>,
}

impl Node {
    /// Starts a node with these flags and waits until it listens.
    ///
    /// # Panics
    /// If it can't be started or does not listen in time; the node's own words are shown.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    /// [`start`](Self::start) with variables in the environment.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let variables: Vec<(String, String)> =
            variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let log = Arc::default();
        let (child, url) = launch("0", &flags, &variables, &log);
        Self { child, url, flags, variables, log }
    }

    /// Starts it again with the same flags on the same port, after a [`kill`](Self::kill).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_again(&mut self) {
        let port = self.url.rsplit(':').next().unwrap_or("0").to_owned();
        (self.child, self.url) = launch(&port, &self.flags, &self.variables, &self.log);
    }

    /// Where it listens, such as `http://127.0.0.1:41234`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has said so far.
    ///
    /// # Panics
    /// Never, as long as no reader of its output has panicked.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The memory of its own that it has now, in bytes: without the program itself.
    ///
    /// # Panics
    /// If it is gone already, or this is not Linux.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).expect("RssAnon in kB")
            * 1024
    }

    /// Kills it as a power failure would.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&mut self) {
        self.child.kill().expect("the node was running");
        self.child.wait().expect("the node can be waited for");
    }

    /// Freezes it: its connections stay open, and it does nothing.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends a [`freeze`](Self::freeze).
    ///
    /// # Panics
    /// If it is gone already.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// If it does not stop in time, or with another code than 0.
    pub fn stop(mut self) {
        self.terminate();
    }

    /// Stops it as [`stop`](Self::stop) does, and starts it again with the same flags on the same port.
    ///
    /// # Panics
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) {
        self.terminate();
        self.start_again();
    }

    fn terminate(&mut self) {
        self.signal("-TERM");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the node can be waited for") {
                assert!(status.success(), "the node ended with {status}:\n{}", self.log());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the node did not stop in {LIMIT:?}; it said:\n{}", self.log());
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the node was running");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Standard error may be full; a panic here would end the process.
            let _ = writeln!(std::io::stderr(), "the node {} said:\n{}", self.url, self.log());
        }
    }
}

/// Starts the process and waits for its address.
fn launch(
    port: &str,
    flags: &[String],
    variables: &[(String, String)],
    log: &Arc<Mutex<String>>,
) -> (Child, String) {
    let mut child = Command::new(binary())
        .args(["--port", port])
        .args(flags)
        // Tests stop nodes whose sockets have nowhere to go.
        .env("DRAIN_WINDOW", "200ms")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("RUST_LOG", "info,axum_io_session=debug")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example node starts");
    let (lines, output) = follow(child.stdout.take().expect("piped"), log.clone());
    let (_, errors) = follow(child.stderr.take().expect("piped"), log.clone());
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return (child, url.trim().to_owned());
                }
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                // All that it said is in the log only now.
                for reader in [output, errors] {
                    let _ = reader.join();
                }
                let said = log.lock().unwrap().clone();
                panic!("the node did not listen; it said:\n{said}");
            }
        }
    }
}

/// Collects an output, and hands its lines on.
fn follow(
    output: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
) -> (Receiver<String>, JoinHandle<()>) {
    let (sender, lines) = mpsc::sync_channel(100);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
            // Nobody may be interested any more.
            let _ = sender.try_send(line);
        }
    });
    (lines, reader)
}

/// The example's program, which cargo puts beside the tests' folder.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    let binary = profile.join("examples").join("node");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build --examples`, or all tests by `tests/run`",
        binary.display()
    );
    binary
}
