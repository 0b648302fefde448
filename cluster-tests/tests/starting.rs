//! What a node does before it begins.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use axum_io_session::ErrorKind;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig, fred};
use axum_io_session::backend::{Backend as _, BackendConfig};
use cluster_tests::{Connection, Redis, RedisOptions, Reply, until};

const LIMIT: Duration = Duration::from_secs(30);

/// Each byte of a word as URLs write it.
fn encoded(word: &str) -> String {
    word.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_may_have_spaces_quotes_and_whatever_else() {
    let redis = Redis::start();
    for password in [
        "plain",
        "two words",
        " at the ends ",
        "it's",
        "say \"hi\"",
        "\"",
        "'quoted'",
        "back\\slash",
        "\\\"both\\n",
        "tab\tand\r\nFLUSHALL",
        "/@:?#%&=+",
        "schlüssel",
    ] {
        redis.cli(&[
            "ACL",
            "SETUSER",
            "app",
            "reset",
            "on",
            &format!(">{password}"),
            "~*",
            "&*",
            "+@all",
        ]);
        let url = format!("redis://app:{}@{}", encoded(password), redis.address());
        let mut config = fred::types::config::Config::from_url(&redis.url()).unwrap();
        config.username = Some("app".into());
        config.password = Some(password.into());
        for place in [RedisConfig::new(url), RedisConfig::from_fred(config)] {
            let backend = RedisBackend::connect(place, BackendConfig::default()).await;
            let backend = backend.unwrap_or_else(|error| panic!("{password:?}: {error:?}"));
            backend.health().await.unwrap();
            backend.shutdown().await;
        }
        redis.cli(&["ACL", "SETUSER", "app", &format!("<{password}"), ">another one"]);
        let url = format!("redis://app:{}@{}", encoded(password), redis.address());
        let refused = RedisBackend::connect(RedisConfig::new(url), BackendConfig::default()).await;
        assert!(refused.is_err(), "{password:?} is no longer one");
    }
}

/// A Redis with so much data that it loads for some seconds, starting.
fn loading(redis: &mut Redis) {
    let value = "x".repeat(1024);
    for n in 0..1000 {
        redis.cli(&["SET", &format!("other:{n}"), &value]);
    }
    redis.cli(&["SAVE"]);
    redis.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_a_redis_that_loads_its_data_and_says_so_if_that_takes_too_long() {
    let slow = ["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"];
    let mut redis = RedisOptions::new().arguments(&slow).start();
    loading(&mut redis);
    let address = redis.address();
    let url = redis.url();
    let starting = std::thread::spawn(move || {
        redis.start_again();
        redis
    });
    until("Redis loads its data", LIMIT, || {
        let answer = Connection::open(&address).ok()?.call(&["PING"]).ok()?;
        matches!(answer, Reply::Error(error) if error.starts_with("LOADING")).then_some(())
    });
    let impatient = RedisConfig::new(&*url).startup_timeout(Duration::from_millis(100));
    let begun = Instant::now();
    let error = RedisBackend::connect(impatient, BackendConfig::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("loads its data"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let backend = RedisBackend::connect(RedisConfig::new(&*url), BackendConfig::default()).await;
    let backend = backend.expect("it waits");
    backend.health().await.unwrap();
    backend.shutdown().await;
    starting.join().unwrap();
}
