//! Requests with unsafe methods.

use axum_io_session::ErrorKind;

use crate::support::http::Browser;
use crate::support::probe::ProbeStore;
use crate::{builder, world};

const HOST: &str = "host: app.example:8080";

#[tokio::test]
async fn unsafe_requests_that_a_browser_says_to_come_from_elsewhere_are_refused_before_the_handler()
{
    let store = ProbeStore::new();
    let world = world(builder().store(store.clone())).await;
    let mut known = Browser::new();
    known.post(&world.app, "/", "").await;
    let (reads, writes) = (store.reads(), store.writes());
    for browser in [Browser::new(), known.clone()] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE"] {
            for headers in [
                &["sec-fetch-site: cross-site", HOST][..],
                &["sec-fetch-site: same-site", HOST],
                // A form that another page posts in the person's name.
                &["sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "origin: null", HOST],
                &["sec-fetch-site: same-site", "origin: http://app.example:8080", HOST],
                &["origin: http://evil.example", HOST],
                &["origin: http://app.example", HOST],
                &["origin: http://app.example:9090", HOST],
                &["origin: http://sub.app.example:8080", HOST],
                &["origin: null", HOST],
            ] {
                assert!(
                    world.refuses(&browser, method, "/", headers).await,
                    "{method} {headers:?}"
                );
            }
        }
    }
    assert_eq!((store.reads(), store.writes()), (reads, writes), "not even looked up");
}

#[tokio::test]
async fn requests_of_the_own_origin_and_of_no_browser_pass() {
    let world = world(builder()).await;
    let browser = Browser::new();
    for headers in [
        &[][..],
        &[HOST],
        &["sec-fetch-site: same-origin", HOST],
        &["sec-fetch-site: none", HOST],
        &["sec-fetch-site: same-origin", "origin: http://other.example", HOST],
        &["origin: http://app.example:8080", HOST],
        // Behind a proxy that ends TLS the scheme is not known.
        &["origin: https://app.example:8080", HOST],
        &["origin: https://app.example", "host: app.example"],
        &["origin: http://127.0.0.1:3000", "host: 127.0.0.1:3000"],
        &["origin: http://[::1]:3000", "host: [::1]:3000"],
    ] {
        assert!(!world.refuses(&browser, "POST", "/", headers).await, "{headers:?}");
    }
    assert_eq!(world.bridge.stats().refused_origins, 0);
}

#[tokio::test]
async fn safe_requests_pass_wherever_they_come_from() {
    let world = world(builder()).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let headers = ["sec-fetch-site: cross-site", "origin: http://evil.example", HOST];
        assert!(!world.refuses(&Browser::new(), method, "/", &headers).await, "{method}");
    }
}

#[tokio::test]
async fn the_authority_of_an_http_2_request_is_its_host() {
    let world = world(builder()).await;
    for (origin, refused) in [("http://app.example", false), ("http://evil.example", true)] {
        let headers = [format!("origin: {origin}")];
        let headers = headers.each_ref().map(String::as_str);
        let uri = "http://app.example/";
        assert_eq!(
            world.refuses(&Browser::new(), "POST", uri, &headers).await,
            refused,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn allowed_origins_pass_and_no_others() {
    let origins = ["https://friend.example", "http://localhost:3000"];
    let world = world(builder().allowed_origins(origins)).await;
    for (headers, refused) in [
        (&["sec-fetch-site: cross-site", "origin: https://friend.example", HOST][..], false),
        (&["origin: https://friend.example", HOST], false),
        (&["origin: https://friend.example:443", HOST], false),
        (&["origin: http://localhost:3000", HOST], false),
        (&["origin: http://friend.example", HOST], true),
        (&["origin: https://sub.friend.example", HOST], true),
        (&["origin: http://localhost:3001", HOST], true),
        (&["sec-fetch-site: cross-site", HOST], true),
    ] {
        let found = world.refuses(&Browser::new(), "POST", "/", headers).await;
        assert_eq!(found, refused, "{headers:?}");
    }
}

#[tokio::test]
async fn exempt_paths_with_all_below_them_pass_and_no_others() {
    let world = world(builder().origin_exempt_paths(["/hooks", "/forms/open/"])).await;
    let headers = ["sec-fetch-site: cross-site", HOST];
    for (path, refused) in [
        ("/hooks", false),
        ("/hooks/payment", false),
        ("/hooks/payment?x=1", false),
        ("/forms/open", false),
        ("/forms/open/1", false),
        ("/", true),
        ("/hooksome", true),
        ("/forms", true),
        ("/x/hooks", true),
        ("/hooks/../admin", true),
        ("/hooks/%2e%2e/admin", true),
        ("/hooks//admin", true),
    ] {
        assert_eq!(world.refuses(&Browser::new(), "POST", path, &headers).await, refused, "{path}");
    }
}

#[tokio::test]
async fn the_check_of_requests_can_be_switched_off_and_sockets_stay_checked() {
    let world = world(builder().check_request_origins(false)).await;
    let headers = ["sec-fetch-site: cross-site", "origin: http://evil.example", HOST];
    assert!(!world.refuses(&Browser::new(), "POST", "/", &headers).await);
    assert!(world.refuses(&Browser::new(), "GET", crate::POLLING, &headers).await);
}

#[tokio::test]
async fn a_query_as_socket_io_has_it_spares_no_other_route_the_check() {
    let world = world(builder().check_socket_origins(false)).await;
    let headers = ["sec-fetch-site: cross-site", "origin: http://evil.example", HOST];
    for uri in ["/?EIO=4", "/?EIO=4&sid=x", "/?x=1&EIO=4&transport=polling"] {
        assert!(world.refuses(&Browser::new(), "POST", uri, &headers).await, "{uri}");
    }
}

#[tokio::test]
async fn values_that_no_option_takes_fail_the_build_and_name_the_option() {
    let mut tried = Vec::new();
    for origin in ["*", "null", "", "app.example", "https://app.example/", "https://*.example"] {
        tried.push(("allowed_origins", origin, builder().allowed_origins([origin])));
    }
    for path in ["", "/", "hooks", "/a/../b", "/a?b", "/a#b", "/a//b", "/%2e%2e"] {
        tried.push(("origin_exempt_paths", path, builder().origin_exempt_paths([path])));
    }
    tried.push(("pending_sockets_limit", "0", builder().pending_sockets_limit(0)));
    tried.push(("trusted_proxies", "17", builder().trusted_proxies(17)));
    for (name, value, builder) in tried {
        let error = builder.build().await.expect_err(value);
        assert_eq!(error.kind(), ErrorKind::InvalidOption, "{value}");
        let said = error.to_string();
        assert!(said.contains(&format!("`{name}` is")) && said.contains(value), "{said}");
    }
}
