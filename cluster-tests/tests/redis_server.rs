//! The tests' own Redis can be stopped, killed, frozen and started again.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use cluster_tests::{Connection, Redis, RedisOptions, until};

#[test]
fn a_restart_keeps_the_address_and_the_data_of_a_durable_server_only() {
    for (options, kept) in [(RedisOptions::new(), ""), (RedisOptions::new().durable(), "v")] {
        let mut redis = options.start();
        let address = redis.address();
        redis.cli(&["SET", "k", "v"]);
        redis.restart();
        assert_eq!(redis.address(), address);
        assert_eq!(redis.cli(&["GET", "k"]), kept);
        redis.cli(&["SET", "k", "v"]);
        redis.kill();
        assert!(Connection::open(&address).and_then(|mut c| c.call(&["PING"])).is_err());
        redis.start_again();
        assert_eq!(redis.cli(&["GET", "k"]), kept);
    }
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    redis.pause();
    let answer = std::thread::spawn(move || connection.call(&["PING"]).unwrap().to_string());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!answer.is_finished(), "a paused server answered");
    redis.resume();
    until("the answer", Duration::from_secs(10), || answer.is_finished().then_some(()));
    assert_eq!(answer.join().unwrap(), "PONG");
}

#[tokio::test]
async fn arguments_keys_and_command_counts_can_be_seen_in_tests_with_a_runtime_too() {
    let redis = RedisOptions::new().arguments(&["--maxmemory", "100mb"]).start();
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n104857600");
    for n in 0..2500 {
        redis.cli(&["SET", &format!("p:{n}"), "x"]);
    }
    redis.cli(&["SET", "q:1", "x"]);
    assert_eq!(redis.scan("p:*").len(), 2500);
    assert_eq!(redis.commandstats()["set"], 2501);
}
