//! Redis with the deployed files and users, reached from another machine.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_tests::{
    Browser, Connection, LOCAL_SERVER, Namespace, Program, fetched_server, free_port, until,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

/// What `redis.conf` offers for users.
const INCLUDE: &str = "# include /usr/local/etc/redis/redis-acl.conf\n";

/// Redis with redis.conf, in which the line for users is switched on.
struct Server {
    _program: Program,
    _folder: TempDir,
    port: u16,
}

impl Server {
    fn start(program: &str) -> Self {
        let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = std::fs::read_to_string(deployed.join("redis.conf")).unwrap();
        assert!(text.contains(INCLUDE), "the line for users is gone");
        let users = deployed.join("redis-acl.conf").canonicalize().unwrap();
        let text = text.replace(INCLUDE, &format!("include {}\n", users.display()));
        let config = folder.path().join("redis.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg(config).args(["--port", &port.to_string()]).arg("--dir").arg(folder.path());
        let mut program = Program::start(&mut command, "install the package redis-server");
        until("Redis answers", LIMIT, || {
            assert!(program.runs(), "Redis has ended");
            Connection::open(&format!("127.0.0.1:{port}")).ok()?.call(&["PING"]).ok()
        });
        Self { _program: program, _folder: folder, port }
    }

    /// What `redis-cli` says that runs there, with these options and this command.
    fn told(&self, namespace: &Namespace, options: &[&str], command: &[&str]) -> String {
        let output = namespace
            .command("redis-cli")
            .args(["-h", &namespace.here().to_string(), "-p", &self.port.to_string()])
            .args(options)
            .args(command)
            .output()
            .unwrap();
        [output.stdout, output.stderr]
            .map(|said| String::from_utf8_lossy(&said).into_owned())
            .concat()
    }
}

/// The example node, which cargo puts beside the tests' folder.
fn node() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples").join("node")
}

const PASSWORD: [&str; 4] = ["--user", "io-session", "--pass", "change-me"];

fn only_the_deployed_user_works(program: &str) {
    let namespace = Namespace::start();
    let server = Server::start(program);

    let answer = server.told(&namespace, &PASSWORD, &["SET", "io-session:{a}:x", "1"]);
    assert!(answer.starts_with("OK"), "{program}: {answer}");
    // The health check of redis.md.
    let answer = server.told(&namespace, &[&["-e"], &PASSWORD[..]].concat(), &["ping"]);
    assert!(answer.starts_with("PONG"), "{program}: {answer}");
    let answer = server.told(&namespace, &PASSWORD, &["SET", "other", "1"]);
    assert!(answer.contains("NOPERM"), "{program}: {answer}");

    let key = ["GET", "io-session:{a}:x"];
    let strangers: [(&[&str], &str); 4] = [
        (&[], "NOAUTH"),
        (&["--pass", "change-me"], "WRONGPASS"),
        (&["--user", "default", "--pass", "any"], "WRONGPASS"),
        (&["--user", "io-session", "--pass", "wrong"], "WRONGPASS"),
    ];
    for (options, expected) in strangers {
        let answer = server.told(&namespace, options, &key);
        assert!(answer.contains(expected), "{program}: {options:?}: {answer}");
        assert!(!answer.lines().any(|line| line == "1"), "{program}: {options:?}: {answer}");
    }
    // This machine is no exception.
    let mut here = Connection::open(&format!("127.0.0.1:{}", server.port)).unwrap();
    for (command, expected) in [
        (&["GET", "io-session:{a}:x"][..], "NOAUTH"),
        (&["AUTH", "default", ""], "WRONGPASS"),
        (&["CONFIG", "SET", "requirepass", ""], "NOAUTH"),
    ] {
        let answer = here.call(command).unwrap().to_string();
        assert!(answer.starts_with(expected), "{program}: {command:?}: {answer}");
    }
}

#[test]
fn only_the_deployed_user_logs_in_from_another_machine() {
    only_the_deployed_user_works(LOCAL_SERVER);
}

#[test]
fn only_the_deployed_user_logs_in_with_any_version() {
    for name in ["redis-6.2", "redis-8.2", "valkey-9.1"] {
        only_the_deployed_user_works(&fetched_server(name));
    }
}

#[test]
fn a_node_on_another_machine_works_as_the_deployed_user() {
    let namespace = Namespace::start();
    let server = Server::start(LOCAL_SERVER);
    let redis = format!("redis://io-session:change-me@{}:{}", namespace.here(), server.port);
    let mut command = namespace.command(node());
    command.args(["--port", "0", "--host", &namespace.inside().to_string()]);
    command.args(["--redis", &redis, "--keys", &"0123456789abcdef".repeat(4)]);
    let mut node = Program::start(&mut command, "install the package iproute2");
    let url = node.says("listening on ");
    let browser = Browser::new(&[&url]);
    for count in 1..=3 {
        let answer = browser.post("/session/inc").ok();
        assert_eq!(answer.json["session"]["n"], count, "{}", answer.text);
    }
    let id = browser.get("/session").ok().json["sessionId"].as_str().unwrap().to_owned();
    assert!(!id.is_empty());
    browser.post("/logout").ok();
    assert!(browser.get("/session").ok().json["session"].is_null());
}
