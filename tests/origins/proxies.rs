//! What proxies say of the scheme and the host, and which of them are believed.

use crate::support::http::Browser;
use crate::{builder, world};

#[tokio::test]
async fn cookies_are_secure_if_a_trusted_proxy_received_https() {
    for (trusted, header, secure) in [
        (0, "x-forwarded-proto: https", false),
        (0, "forwarded: proto=https", false),
        (1, "x-forwarded-proto: https", true),
        (1, "forwarded: for=192.0.2.1;proto=https;by=203.0.113.1", true),
        (1, "forwarded: proto=\"https\"", true),
        (1, "x-forwarded-proto: http", false),
        (1, "forwarded: proto=http", false),
        (1, "forwarded: for=192.0.2.1", false),
        // What is left of the trusted proxies' entries comes from the client.
        (1, "x-forwarded-proto: https, http", false),
        (1, "forwarded: proto=https, for=192.0.2.1;proto=http", false),
        (2, "x-forwarded-proto: http, https, http", true),
        (2, "forwarded: proto=http, proto=https, proto=http", true),
        (2, "x-forwarded-proto: https, http, http", false),
        // Fewer entries than proxies: they overwrite.
        (3, "x-forwarded-proto: https", true),
        (1, "x-forwarded-ssl: on", false),
    ] {
        let world = world(builder().trusted_proxies(trusted)).await;
        let answer = world.ask(&Browser::new(), "POST", "/", &[header]).await;
        for name in ["sid", "sid.cid"] {
            let line = answer.set_cookie(name).unwrap();
            assert_eq!(line.contains("; Secure"), secure, "{trusted} {header}: {line}");
        }
    }
}

#[tokio::test]
async fn proxies_that_contradict_each_other_are_not_believed() {
    let world = world(builder().trusted_proxies(1)).await;
    let headers = ["x-forwarded-proto: https", "forwarded: proto=http"];
    let answer = world.ask(&Browser::new(), "POST", "/", &headers).await;
    assert!(!answer.set_cookie("sid").unwrap().contains("; Secure"));
}

#[tokio::test]
async fn the_host_that_a_trusted_proxy_received_is_the_one_that_origins_are_compared_with() {
    const INTERNAL: &str = "host: 10.0.0.1:3000";
    const OURS: &str = "origin: https://app.example";
    const EVIL: &str = "origin: https://evil.example";
    for (trusted, headers, refused) in [
        (1, &[OURS, INTERNAL, "x-forwarded-host: app.example"][..], false),
        (1, &[OURS, INTERNAL, "forwarded: host=app.example;proto=https"], false),
        (1, &[EVIL, INTERNAL, "x-forwarded-host: app.example"], true),
        // A page on the browser's own machine may be at the name that only the proxy uses.
        (1, &["origin: http://10.0.0.1:3000", INTERNAL, "x-forwarded-host: app.example"], true),
        (1, &[EVIL, INTERNAL, "x-forwarded-host: evil.example, app.example"], true),
        (2, &[OURS, INTERNAL, "x-forwarded-host: app.example, inner.example"], false),
        (0, &[OURS, INTERNAL, "x-forwarded-host: app.example"], true),
        (0, &[EVIL, "host: app.example", "x-forwarded-host: evil.example"], true),
        (0, &[OURS, "host: app.example", "x-forwarded-host: evil.example"], false),
    ] {
        let world = world(builder().trusted_proxies(trusted)).await;
        let found = world.refuses(&Browser::new(), "POST", "/", headers).await;
        assert_eq!(found, refused, "{trusted} {headers:?}");
    }
}
