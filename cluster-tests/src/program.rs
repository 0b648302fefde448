//! Any program that says when it is ready.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::wait::until;

/// Starting has to be over by then.
const LIMIT: Duration = Duration::from_secs(30);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it. `advice` says what to do if it is missing.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start(command: &mut Command, advice: &str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be started ({error}): {advice}"));
        let log = Arc::default();
        collect(child.stdout.take(), &log);
        collect(child.stderr.take(), &log);
        Self { name, child, log }
    }

    /// Starts an example of the crate, which cargo puts beside the tests' folder.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn example(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let test = std::env::current_exe().expect("a test knows its own path");
        let profile = test.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
        let path: PathBuf = profile.join("examples").join(name);
        let mut command = Command::new(path);
        command.args(arguments).envs(variables.iter().copied());
        Self::start(&mut command, "run `cargo build --examples`, or all tests by `tests/run`")
    }

    /// What follows `beginning` in the first line of its output that begins so, waited for.
    ///
    /// # Panics
    /// If there is none in time, or the program ends before.
    pub fn says(&mut self, beginning: &str) -> String {
        until(&format!("{} says {beginning:?}", self.name), LIMIT, || {
            let ended = self.child.try_wait().expect("it can be waited for");
            let log = self.log();
            let found = log.lines().find_map(|line| line.strip_prefix(beginning));
            assert!(
                found.is_some() || ended.is_none(),
                "{} has ended, and said:\n{log}",
                self.name
            );
            found.map(str::to_owned)
        })
    }

    /// What it has said so far.
    ///
    /// # Panics
    /// Never, as long as no reader of its output has panicked.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// Never.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Standard error may be full; a panic here would end the process.
            let _ = writeln!(std::io::stderr(), "{} said:\n{}", self.name, self.log());
        }
    }
}

fn collect(output: Option<impl Read + Send + 'static>, log: &Arc<Mutex<String>>) {
    let (output, log) = (output.expect("piped"), log.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
