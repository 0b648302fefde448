//! Socket.IO requests of other origins, with every method.

use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::http::Browser;
use crate::support::sio::serve;
use crate::{POLLING, builder, world};

const HOST: &str = "host: app.example";

#[tokio::test]
async fn handshakes_from_elsewhere_are_refused() {
    let world = world(builder()).await;
    let mut known = Browser::new();
    known.post(&world.app, "/", "").await;
    let upgrade = "/socket.io/?EIO=4&transport=websocket";
    for browser in [Browser::new(), known] {
        for uri in [POLLING, upgrade, "/socket.io/?transport=polling&EIO=4"] {
            for headers in [
                &["origin: http://evil.example", HOST][..],
                &["origin: http://app.example:8080", HOST],
                &["origin: null", HOST],
                &["sec-fetch-site: same-site", HOST],
                &["sec-fetch-site: cross-site", HOST],
            ] {
                assert!(world.refuses(&browser, "GET", uri, headers).await, "{uri} {headers:?}");
                assert!(world.refuses(&browser, "POST", uri, headers).await, "{uri} {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn handshakes_of_the_own_origin_of_allowed_ones_and_of_no_browser_pass() {
    let world = world(builder().allowed_origins(["https://friend.example"])).await;
    for headers in [
        &[][..],
        &[HOST],
        &["origin: http://app.example", HOST],
        &["sec-fetch-site: same-origin", HOST],
        &["origin: https://friend.example", "sec-fetch-site: cross-site", HOST],
    ] {
        assert!(!world.refuses(&Browser::new(), "GET", POLLING, headers).await, "{headers:?}");
    }
}

#[tokio::test]
async fn the_check_of_sockets_can_be_switched_off_and_requests_stay_checked() {
    let world = world(builder().check_socket_origins(false)).await;
    let headers = ["origin: http://evil.example", HOST];
    assert!(!world.refuses(&Browser::new(), "GET", POLLING, &headers).await);
    assert!(world.refuses(&Browser::new(), "POST", "/", &headers).await);
}

#[tokio::test]
async fn an_exempt_path_is_one_for_sockets_too() {
    let world = world(builder().origin_exempt_paths(["/socket.io"])).await;
    let headers = ["origin: http://evil.example", HOST];
    assert!(!world.refuses(&Browser::new(), "GET", POLLING, &headers).await);
    assert!(world.refuses(&Browser::new(), "POST", "/", &headers).await);
}

#[tokio::test]
async fn a_websocket_from_another_port_of_the_same_host_is_not_opened() {
    let world = world(builder()).await;
    let address = serve(world.app.clone()).await;
    for (origin, opens) in [
        (format!("http://{address}"), true),
        (format!("http://127.0.0.1:{}", address.port() ^ 1), false),
        (format!("http://localhost:{}", address.port()), false),
    ] {
        let uri = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut request = uri.into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        match tokio_tungstenite::connect_async(request).await {
            Ok(_) => assert!(opens, "{origin}"),
            Err(WsError::Http(answer)) => assert!(!opens && answer.status() == 403, "{origin}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(world.bridge.stats().refused_origins, 2);
}
