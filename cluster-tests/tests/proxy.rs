//! The bad network is as bad as it says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use cluster_tests::{Connection, Proxy, Redis, until};

const LIMIT: Duration = Duration::from_secs(10);

fn ping(connection: &mut Connection) -> bool {
    connection.call(&["PING"]).is_ok_and(|reply| reply.to_string() == "PONG")
}

#[test]
fn connections_are_cut_and_refused_until_the_network_is_whole() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let mut first = Connection::open(&proxy.address()).unwrap();
    assert!(ping(&mut first));
    proxy.cut();
    assert!(!ping(&mut first));
    let mut second = Connection::open(&proxy.address()).unwrap();
    assert!(ping(&mut second));
    proxy.refuse();
    assert!(!ping(&mut second));
    assert!(!Connection::open(&proxy.address()).is_ok_and(|mut third| ping(&mut third)));
    proxy.heal();
    assert!(ping(&mut Connection::open(&proxy.address()).unwrap()));
    until("closed connections are forgotten", LIMIT, || (proxy.connections() == 0).then_some(()));
}

#[test]
fn data_is_late_or_slow_but_whole() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let mut connection = Connection::open(&proxy.address()).unwrap();
    proxy.delay(Duration::from_millis(100));
    let begun = Instant::now();
    assert!(ping(&mut connection));
    assert!(begun.elapsed() >= Duration::from_millis(200), "once there and once back");
    proxy.throttle(20_000);
    let text = "x".repeat(10_000);
    let begun = Instant::now();
    assert_eq!(connection.call(&["ECHO", &text]).unwrap().to_string(), text);
    assert!(begun.elapsed() >= Duration::from_millis(900), "half a second there and back");
    proxy.heal();
    assert!(ping(&mut connection));
}

#[test]
fn stalled_data_comes_later_and_swallowed_data_never() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let mut connection = Connection::open(&proxy.address()).unwrap();
    proxy.stall();
    let answer = std::thread::spawn(move || (ping(&mut connection), connection));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!answer.is_finished());
    proxy.heal();
    let (answered, mut connection) = answer.join().unwrap();
    assert!(answered);
    proxy.swallow();
    let answer = std::thread::spawn(move || ping(&mut connection));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!answer.is_finished());
    proxy.heal();
    assert!(!answer.join().unwrap(), "the connection is cut");
}

#[test]
fn half_open_connections_carry_nothing_and_new_ones_are_good() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    let mut old = Connection::open(&proxy.address()).unwrap();
    assert!(ping(&mut old));
    proxy.half_open();
    let answer = std::thread::spawn(move || ping(&mut old));
    assert!(ping(&mut Connection::open(&proxy.address()).unwrap()));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!answer.is_finished());
    proxy.cut();
    assert!(!answer.join().unwrap());
}
