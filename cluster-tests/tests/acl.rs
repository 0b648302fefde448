//! A user of Redis with no more rights than `deploy/redis-acl.conf` gives is enough.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{KeyspaceEvents, RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend as _, BackendConfig, Create, Created};
use axum_io_session::session::SessionData;
use cluster_tests::{
    Cluster, LOCAL_SERVER, PREFIX, Redis, RedisCluster, RedisOptions, STAY, Sentinels, Sockets,
    fetched_server, run_js, until,
};
use support::user::User;

/// A file as it is given to users.
fn deployed(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// The nodes' user in a file.
fn nodes_user(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("user io-session ")).unwrap()
}

/// The users of Redis, for another prefix. The default user stays on: as it the tests look into the
/// server. `remote` runs the file as it is.
fn acl(prefix: &str) -> String {
    let text = deployed("redis-acl.conf");
    let default = text.lines().find(|line| line.starts_with("user default off ")).unwrap();
    let line = nodes_user(&text);
    let changed = line.replace("io-session:", &format!("{prefix}:"));
    text.replace(line, &changed).replace(default, "")
}

/// A server that includes the file, and the URL for its user.
fn server(program: &str, acl: &str) -> (Redis, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis-acl.conf");
    std::fs::write(&file, acl).unwrap();
    let include = file.display().to_string();
    let redis = RedisOptions::new().program(program).arguments(&["--include", &include]).start();
    let url = format!("redis://io-session:change-me@{}", redis.address());
    (redis, url)
}

/// Nothing was refused, other than what may be: these commands.
fn assert_nothing_else_refused(redis: &Redis, allowed: &[&str]) {
    let log = redis.cli(&["ACL", "LOG", "100"]);
    let lines: Vec<&str> = log.lines().collect();
    let refused = lines.windows(2).filter(|pair| pair[0] == "object").map(|pair| pair[1]);
    let others: Vec<&str> = refused.filter(|refused| !allowed.contains(refused)).collect();
    assert!(others.is_empty(), "refused: {others:?}");
}

/// The suite gives each of its backends a prefix of its own, which begins so. Patterns of subscriptions
/// are compared word for word.
fn suite_acl() -> String {
    let patterns = (0..200).map(|number| format!("&suitet{number}:c:0:*"));
    let patterns: Vec<_> = patterns.chain(["&suite-ends:c:0:*".to_owned()]).collect();
    let acl = acl("suite").replace("&suite:c:0:*", &patterns.join(" "));
    acl.replace("suite:", "suite*:").replace("suite*:{*}", "suite:{*}")
}

fn keeps_the_contract(program: &str) -> Redis {
    let acl = suite_acl();
    let (redis, url) = server(program, &acl);
    support::keeps_the_contract_with(|prefix| {
        RedisConfig::new(&url)
            .prefix(format!("suite{prefix}"))
            // Each pattern would have to be in the file.
            .keyspace_events(KeyspaceEvents::Off)
    });
    assert_nothing_else_refused(&redis, &["config|get", "config"]);
    redis
}

/// What the suite comes by only if its backends live long enough: an end that a sweep told is marked
/// a while later (`SPOP`), and one that others caused is looked for among those (`SISMEMBER`).
fn has_ends_marked_and_asked_for(redis: &Redis) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("redis://io-session:change-me@{}", redis.address());
    let backend = runtime.block_on(async {
        let place = RedisConfig::new(url).prefix("suite-ends").keyspace_events(KeyspaceEvents::Off);
        let mut config = BackendConfig::default();
        config.lifetime.max_age = Duration::from_secs(2);
        let backend = RedisBackend::connect(place, config).await.unwrap();
        let mut created = Vec::new();
        for _ in 0..2 {
            let create = Create::new(ClientId::generate(), SessionData::new());
            match backend.create(create).await.unwrap() {
                Created::New(record) => created.push(record),
                other => panic!("{other:?}"),
            }
        }
        let key = format!("suite-ends:{{{}}}:s", created[0].client_id.as_str());
        assert_eq!(redis.cli(&["DEL", &key]), "1");
        backend.notify_destroy(&created[0].session_id).await.unwrap();
        backend
    });
    until("both were used", Duration::from_secs(60), || {
        let used = redis.commandstats();
        ["sismember", "spop"].iter().all(|command| used.contains_key(*command)).then_some(())
    });
    runtime.block_on(backend.shutdown());
}

#[test]
fn the_contract_is_kept_with_the_least_rights() {
    let redis = keeps_the_contract(LOCAL_SERVER);
    has_ends_marked_and_asked_for(&redis);
    let used = redis.commandstats();
    let text = acl(PREFIX);
    let rights = nodes_user(&text).split(' ').filter_map(|word| word.strip_prefix('+'));
    let unused: Vec<_> = rights.filter(|&right| !used.contains_key(right)).collect();
    // For databases, clusters, sentinels, notifications, nodes without listeners, and several that would
    // sweep, none of which the suite had.
    let others =
        ["select", "client|info", "cluster|info", "cluster|slots", "role", "punsubscribe", "incr"];
    assert_eq!(unused, others, "rights that nothing uses");
}

#[test]
fn with_the_right_to_wait_the_contract_is_kept_with_a_replica() {
    let acl = suite_acl();
    let acl = acl.replace(" +zscore", " +zscore +wait");
    let (redis, url) = server(LOCAL_SERVER, &acl);
    let port = redis.port().to_string();
    let follow = ["--replicaof", "127.0.0.1", &port];
    let _replica = RedisOptions::new().program(LOCAL_SERVER).arguments(&follow).start();
    until("the replica follows", Duration::from_secs(60), || {
        redis.cli(&["INFO", "replication"]).contains("state=online").then_some(())
    });
    support::keeps_the_contract_with(|prefix| {
        RedisConfig::new(&url)
            .prefix(format!("suite{prefix}"))
            .keyspace_events(KeyspaceEvents::Off)
            .wait_for_replicas(1, Duration::from_secs(2))
    });
    assert_nothing_else_refused(&redis, &["config|get", "config"]);
    assert!(redis.commandstats().contains_key("wait"));
}

#[test]
fn the_contract_is_kept_with_the_least_rights_on_the_oldest_redis() {
    keeps_the_contract(&fetched_server("redis-6.2"));
}

#[test]
fn three_nodes_work_with_the_least_rights_and_hear_of_foreign_deletions() {
    let (redis, url) = server(LOCAL_SERVER, &acl(PREFIX));
    let cluster = Cluster::start_at(&vec![url.clone(); 3], &[]);
    User::new(&cluster, &Sockets::start()).is_deleted_by_others(&redis);
    for node in cluster.nodes() {
        let log = node.log();
        let warnings = log.lines().filter(|line| line.contains("keyspace notifications"));
        let warnings: Vec<_> = warnings.collect();
        assert!(warnings.len() == 1 && warnings[0].contains("Kgxe"), "{warnings:?}");
    }
    cluster.stop();
    let cluster = Cluster::start_at(&vec![url; 3], &STAY);
    run_js("http.mjs", &cluster.urls());
    run_js("events.mjs", &cluster.urls());
    assert_nothing_else_refused(&redis, &["config|get"]);
    cluster.stop();
}

#[test]
fn with_rights_to_its_settings_the_nodes_switch_notifications_on_and_warn_of_nothing() {
    let acl = acl(PREFIX).replace("notify-keyspace-events Kgxe\n", "");
    let (redis, url) = server(LOCAL_SERVER, &acl);
    redis.cli(&["ACL", "SETUSER", "io-session", "+config|get", "+config|set"]);
    let cluster = Cluster::start_at(&vec![url; 3], &[]);
    User::new(&cluster, &Sockets::start()).is_deleted_by_others(&redis);
    assert_nothing_else_refused(&redis, &[]);
    for node in cluster.nodes() {
        let log = node.log();
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains("Redis"));
        assert!(!warned, "{log}");
    }
    cluster.stop();
}

#[test]
fn without_notifications_a_sessions_own_end_is_told_in_time() {
    let acl = acl(PREFIX).replace("notify-keyspace-events Kgxe\n", "");
    let (redis, url) = server(LOCAL_SERVER, &acl);
    let cluster = Cluster::start_at(&vec![url; 3], &[&STAY[..], &["--max-age", "3s"]].concat());
    assert_eq!(redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]), "notify-keyspace-events\n");
    run_js("expiry.mjs", &cluster.urls());
    cluster.stop();
}

/// Gives the user to servers that run already, and has three nodes use them; runs this meanwhile.
fn works_for(servers: &[Redis], url: &str, meanwhile: impl FnOnce()) {
    let text = acl(PREFIX);
    let words: Vec<&str> = nodes_user(&text).split(' ').skip(1).collect();
    for server in servers {
        server.cli(&[&["ACL", "SETUSER"], &words[..]].concat());
        server.cli(&["CONFIG", "SET", "notify-keyspace-events", "Kgxe"]);
    }
    let cluster = Cluster::start_at(&vec![url.to_owned(); 3], &[]);
    let person = User::new(&cluster, &Sockets::start());
    person.is_told_once_of_each_change();
    let owner = servers.iter().find(|server| {
        let primary = server.cli(&["ROLE"]).starts_with("master");
        primary && server.ask(&["EXISTS", &person.key("s")]).as_deref() == Some("1")
    });
    person.is_deleted_by_others(owner.unwrap());
    for server in servers {
        assert_nothing_else_refused(server, &["config|get"]);
    }
    meanwhile();
    cluster.stop();
}

#[test]
fn the_least_rights_are_enough_in_a_cluster() {
    let redis = RedisCluster::start();
    let url = redis.url().replace("redis-cluster://", "redis-cluster://io-session:change-me@");
    works_for(redis.servers(), &url, || {});
}

#[test]
fn the_least_rights_are_enough_behind_sentinels_and_at_them() {
    let redis = Sentinels::start_with_users(&deployed("sentinel-acl.conf"));
    let url = redis.url().replace("app:secret@", "io-session:change-me@");
    let url = format!("{url}&sentinelUsername=io-session&sentinelPassword=change-me");
    works_for(redis.servers(), &url, || {
        redis.are_listened_to("io-session", 3);
        for refused in redis.ask_sentinels(&["ACL", "LOG"]) {
            assert_eq!(refused.trim(), "", "a sentinel refused something");
        }
    });
}
