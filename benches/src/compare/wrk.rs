//! The load on HTTP: `wrk`, one thread, which takes the sessions in turn.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::load::Outcome;
use crate::plan::CONNECTIONS;

pub(crate) struct Wrk<'a> {
    pub(crate) port: u16,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) cookies: &'a Path,
}

/// The path of a file with one `Cookie` header a line.
pub(crate) fn cookie_file(name: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cookies");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(name))
}

impl Wrk<'_> {
    pub(crate) fn run(&self, length: Duration) -> Result<Outcome> {
        let output = Command::new("wrk")
            .arg("--threads=1")
            .arg(format!("--connections={CONNECTIONS}"))
            .arg(format!("--duration={}s", length.as_secs().max(1)))
            .args(["--latency", "--timeout=5s", "--script"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions.lua"))
            .arg(format!("http://127.0.0.1:{}", self.port))
            .args(["--", self.method, self.path])
            .arg(self.cookies)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk failed: {text}{error}").into());
        }
        report(&text).ok_or_else(|| format!("wrk said what can't be read: {text}").into())
    }
}

/// The line that `sessions.lua` prints at the end: requests, errors, and three times in microseconds.
fn report(text: &str) -> Option<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("report "))?;
    let fields: Vec<f64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
    let [requests, errors, elapsed, p50, p99] = fields[..] else { return None };
    Some(Outcome {
        requests: requests as u64,
        errors: errors as u64,
        elapsed: elapsed / 1e6,
        p50_ms: p50 / 1e3,
        p99_ms: p99 / 1e3,
    })
}
