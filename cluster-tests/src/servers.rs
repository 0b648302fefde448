//! Programs of servers.

use std::path::Path;
use std::process::Command;

/// The machine's own server.
pub const LOCAL_SERVER: &str = "redis-server";

/// The path of a server that the script `fetch-servers` fetches: `redis-6.2`, `redis-8.2` or
/// `valkey-9.1`.
///
/// # Panics
/// If it can't be fetched, or there is no such server.
pub fn fetched_server(name: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(tests.join("fetch-servers"))
        .output()
        .unwrap_or_else(|error| panic!("cluster-tests/fetch-servers can't be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} is missing: {said}");
    let program = tests.join("../target/servers").join(name).join("server");
    assert!(program.exists(), "cluster-tests/fetch-servers knows no {name}");
    program.display().to_string()
}
