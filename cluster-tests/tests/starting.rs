//! What a node does before it begins.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use axum_io_session::backend::redis::{RedisBackend, RedisConfig, fred};
use axum_io_session::backend::{Backend as _, BackendConfig};
use cluster_tests::Redis;

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
