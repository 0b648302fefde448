//! What an operator copies, as it is but for addresses: Redis, three nodes, and both load balancers.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_tests::{Browser, Connection, KEY, Node, Program, run_js, run_js_with, until};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Replaces text that has to be there.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old:?} is gone");
    text.replace(old, new)
}

/// Redis with redis.conf and a password, as in docker-compose.yml.
struct Redis {
    _program: Program,
    _data: TempDir,
    url: String,
    address: String,
}

impl Redis {
    fn start() -> Self {
        let (data, port) = (tempfile::tempdir().unwrap(), free_port());
        let server = std::env::var("REDIS_SERVER_BIN").ok().filter(|path| !path.is_empty());
        let mut command = Command::new(server.as_deref().unwrap_or("redis-server"));
        command.arg(folder().join("redis.conf")).args(["--requirepass", "secret"]);
        // The rest is about this machine.
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(data.path());
        let mut program = Program::start(&mut command, "install the package redis-server");
        let address = format!("127.0.0.1:{port}");
        until("Redis answers", LIMIT, || {
            assert!(program.runs(), "Redis has ended");
            Connection::open(&address).ok()?.call(&["PING"]).ok()
        });
        let url = format!("redis://:secret@{address}");
        Self { _program: program, _data: data, url, address }
    }

    fn says(&self, command: &[&str]) -> String {
        let mut connection = Connection::open(&self.address).unwrap();
        connection.call(&["AUTH", "secret"]).unwrap();
        connection.call(command).unwrap().to_string()
    }
}

fn nodes(redis: &Redis) -> Vec<Node> {
    let start = |name| {
        Node::start(&["--redis", &redis.url, "--keys", KEY, "--trust-proxy", "--node", name])
    };
    ["node1", "node2", "node3"].map(start).into()
}

/// The configuration with the addresses of this machine.
fn localized(name: &str, nodes: &[Node]) -> String {
    let mut text = read(name);
    for (at, node) in nodes.iter().enumerate() {
        let address = node.url().strip_prefix("http://").unwrap();
        text = replaced(&text, &format!("node{}:3000", at + 1), address);
    }
    text
}

struct Balancer {
    program: Program,
    files: TempDir,
    url: String,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Only nginx has such a file. If it is killed, its workers stay.
        let Ok(process) = std::fs::read_to_string(self.files.path().join("pid")) else { return };
        let asked = Command::new("kill").args(["-TERM", process.trim()]).status();
        let deadline = Instant::now() + LIMIT;
        while asked.is_ok() && self.program.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Balancer {
    fn answers(mut self) -> Self {
        let browser = Browser::new(&[&self.url]);
        until("the balancer answers", LIMIT, || {
            assert!(self.program.runs(), "the balancer has ended");
            (browser.try_get("/session").ok()?.status == 200).then_some(())
        });
        self
    }

    fn nginx(nodes: &[Node]) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = localized("nginx.conf", nodes);
        let text = replaced(&text, "listen 8080;", &format!("listen 127.0.0.1:{port};"));
        // Files where anybody may write; as root nginx would hand its work to another user.
        let place = |kind: &str| format!("{kind}_temp_path {0}/{kind};", files.path().display());
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(place).join("\n");
        let text = replaced(&text, "http {", &format!("http {{\n{places}"));
        let config = files.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let pid = files.path().join("pid").display().to_string();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(config).args(["-e", "stderr", "-g"]).arg(format!(
            "daemon off; error_log stderr; pid {pid}; {}",
            if root() { "user root;" } else { "" }
        ));
        let program = Program::start(&mut command, "install the package nginx");
        Self { program, files, url: format!("http://127.0.0.1:{port}") }.answers()
    }

    fn haproxy(nodes: &[Node]) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = localized("haproxy.cfg", nodes);
        let text = replaced(&text, "bind :8080\n", &format!("bind 127.0.0.1:{port}\n"));
        let config = files.path().join("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        let program = Program::start(&mut command, "install the package haproxy");
        Self { program, files, url: format!("http://127.0.0.1:{port}") }.answers()
    }

    fn checks(&self, transport: &str, variables: &[(&str, &str)]) {
        let variables = [&[("TRANSPORT", transport)], variables].concat();
        run_js_with("deploy.mjs", &[&self.url], &variables);
    }

    /// Polls and websockets are in its log, and no query of any request.
    fn logs_only_paths(&self) {
        let log = until("both transports are in the log", LIMIT, || {
            let log = self.program.log();
            let (poll, websocket) = ("\"POST /socket.io/ HTTP/1.1\"", " 101 ");
            (log.contains(poll) && log.contains(websocket)).then_some(log)
        });
        let queries = log.lines().filter(|line| line.contains("sid=") || line.contains('?'));
        assert_eq!(queries.collect::<Vec<_>>(), [""; 0], "queries are in the log");
    }
}

/// Whether this user may write everywhere.
fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

fn sockets_and_http_through(start: fn(&[Node]) -> Balancer) {
    let redis = Redis::start();
    let mut nodes = nodes(&redis);
    let balancer = start(&nodes);
    for transport in ["polling", "websocket", "upgrade"] {
        balancer.checks(transport, &[("NODES", "3")]);
    }
    balancer.logs_only_paths();
    // What the nodes believe is only what the balancer says.
    let header = ("x-forwarded-proto", "https");
    let answer = ureq::get(format!("{}/session", nodes[0].url())).header(header.0, header.1).call();
    let cookie = answer.unwrap().headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("Secure"), "{cookie}");

    nodes[1].kill();
    balancer.checks("polling", &[("NODES", "2"), ("DOWN", "node2")]);
    balancer.logs_only_paths();
    drop(balancer);
    nodes.remove(1);
    for node in nodes {
        node.stop();
    }
}

#[test]
fn three_nodes_behind_nginx_are_one() {
    sockets_and_http_through(Balancer::nginx);
}

#[test]
fn three_nodes_behind_haproxy_are_one() {
    sockets_and_http_through(Balancer::haproxy);
}

fn rolling_restart_behind(start_balancer: fn(&[Node]) -> Balancer) {
    let redis = Redis::start();
    let start = |name| {
        let flags = ["--redis", &redis.url, "--keys", KEY, "--trust-proxy", "--node", name];
        Node::start_with(&flags, &[("DRAIN_WINDOW", "300ms")])
    };
    let mut nodes: Vec<Node> = ["node1", "node2", "node3"].map(start).into();
    let balancer = start_balancer(&nodes);
    let files = tempfile::tempdir().unwrap();
    let (ready, stop) = (files.path().join("ready"), files.path().join("stop"));
    let variables = [("READY", ready.display().to_string()), ("STOP", stop.display().to_string())];
    let url = balancer.url.clone();
    let browsers = std::thread::spawn(move || {
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        run_js_with("rolling.mjs", &[&url], &variables);
    });
    until("the browsers work", LIMIT, || {
        assert!(!browsers.is_finished(), "they have failed");
        ready.exists().then_some(())
    });
    // Twice, so that a node also stops just after another one came back.
    for at in [0, 1, 2, 0, 1, 2] {
        nodes[at].restart();
        // The pause that deploy/README.md asks for.
        std::thread::sleep(Duration::from_secs(1));
    }
    std::fs::write(&stop, "").unwrap();
    browsers.join().unwrap();
    // Each came back under its name, and is listed once.
    let listed = ureq::get(format!("{}/monitor/nodes", nodes[0].url())).call().unwrap();
    let listed: serde_json::Value =
        serde_json::from_str(&listed.into_body().read_to_string().unwrap()).unwrap();
    let names = listed["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str());
    assert_eq!(names.collect::<Vec<_>>(), [Some("node1"), Some("node2"), Some("node3")]);
    drop(balancer);
    for node in nodes {
        node.stop();
    }
}

#[test]
fn a_rolling_restart_behind_nginx_loses_nothing_and_fails_no_request() {
    rolling_restart_behind(Balancer::nginx);
}

#[test]
fn a_rolling_restart_behind_haproxy_loses_nothing_and_fails_no_request() {
    rolling_restart_behind(Balancer::haproxy);
}

#[test]
fn redis_conf_has_what_the_nodes_need_and_keeps_its_password() {
    let redis = Redis::start();
    let mut stranger = Connection::open(&redis.address).unwrap();
    let refused = stranger.call(&["GET", "x"]).unwrap().to_string();
    assert!(refused.starts_with("NOAUTH"), "{refused}");
    let flags = redis.says(&["CONFIG", "GET", "notify-keyspace-events"]);
    let node = Node::start(&["--redis", &redis.url, "--keys", KEY]);
    assert_eq!(redis.says(&["CONFIG", "GET", "notify-keyspace-events"]), flags, "nothing to add");
    let policy = redis.says(&["CONFIG", "GET", "maxmemory-policy"]);
    assert_eq!(policy, "maxmemory-policy\nnoeviction");
    assert_eq!(redis.says(&["CONFIG", "GET", "appendonly"]), "appendonly\nyes");
    let log = node.log();
    assert!(!log.contains("notifications") && !log.contains("memory pressure"), "{log}");
    node.stop();
}

#[test]
fn docker_compose_agrees_with_the_other_files_and_with_the_flags_of_the_node() {
    let test = std::env::current_exe().unwrap();
    let node = test.parent().and_then(Path::parent).unwrap().join("examples").join("node");
    run_js("compose.mjs", &[&folder().display().to_string(), &node.display().to_string()]);
}
