//! What the client cookie alone is good for: nothing.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;

use crate::place::{Place, World};
use crate::support::http::Browser;
use crate::support::until;

over_both_stores! {
    the_client_cookie_alone_opens_and_ends_no_sealed_session,
    the_client_cookie_alone_opens_and_ends_no_open_session_beyond_the_join_window,
    within_the_window_the_client_cookie_alone_still_reads_and_ends_nothing,
}

/// A browser that has nothing but another one's client cookie.
fn thief_of(victim: &Browser) -> Browser {
    let mut thief = victim.clone();
    thief.jar.remove("sid");
    thief
}

/// Tries everything with the victim's client cookie.
async fn the_client_cookie_opens_nothing(world: &World, victim: &Browser) {
    let before = world.seen(victim).await;
    let mut reader = thief_of(victim);
    for uri in ["/read", "/id", "/plain"] {
        let answer = reader.get(&world.app, uri).await;
        assert!(answer.set_cookie("sid").is_none() && !answer.body.contains("secret"), "{uri}");
    }
    for (uri, writes) in [
        ("/merge", true),
        ("/merge-slowly", true),
        ("/replace", true),
        ("/login", true),
        ("/inc", true),
        ("/save", true),
        ("/swap", true),
        ("/merge-and-renew-id", true),
        ("/logout", false),
        ("/rotate", false),
        ("/seal", false),
        ("/renew-id", false),
    ] {
        let own_ways = world.bridge.stats().own_ways;
        let mut thief = thief_of(victim);
        let answer = thief.post(&world.app, uri, r#"{"mine":1}"#).await;
        assert_eq!(answer.status, StatusCode::OK, "{uri}: {}", answer.body);
        assert_eq!(answer.set_cookie("sid").is_some(), writes, "{uri}");
        assert_eq!(world.bridge.stats().own_ways - own_ways, u64::from(writes), "{uri}");
        if writes {
            let own = world.seen(&thief).await;
            assert_ne!(own["client"], before["client"], "{uri}");
            assert_ne!(own["id"], before["id"], "{uri}");
            assert!(own["data"].get("secret").is_none(), "{uri}: {own}");
            // The pair that the answer has set belongs together.
            assert!(answer.set_cookie("sid.cid").is_some(), "{uri}");
            assert_eq!(thief.get(&world.app, "/client").await.body, own["client"], "{uri}");
        }
        assert_eq!(world.seen(victim).await, before, "{uri}");
    }
}

async fn the_client_cookie_alone_opens_and_ends_no_sealed_session(place: Place) {
    let world = place.world().await;
    let victim = world.sealed(r#"{"secret":1}"#).await;
    the_client_cookie_opens_nothing(&world, &victim).await;
}

async fn the_client_cookie_alone_opens_and_ends_no_open_session_beyond_the_join_window(
    place: Place,
) {
    let window = Duration::from_millis(20);
    let world = place.world_of(|builder| builder.join_window(window)).await;
    let victim = world.open(r#"{"secret":1}"#).await;
    let begun = Instant::now();
    until("the window is over", async || begun.elapsed() > window).await;
    the_client_cookie_opens_nothing(&world, &victim).await;
}

async fn within_the_window_the_client_cookie_alone_still_reads_and_ends_nothing(place: Place) {
    let world = place.world().await;
    let victim = world.open(r#"{"secret":1}"#).await;
    for uri in ["/logout", "/rotate", "/seal", "/renew-id"] {
        let answer = thief_of(&victim).post(&world.app, uri, "").await;
        assert!(answer.set_cookie("sid").is_none(), "{uri}");
    }
    assert_eq!(world.data(&thief_of(&victim)).await, json!({}));
    assert_eq!(world.data(&victim).await, json!({"secret": 1}));
}
