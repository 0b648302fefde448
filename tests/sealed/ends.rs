//! Logouts: who the browser is afterwards, and what a new session in the same request is.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use axum_io_session::{Error, Session, SessionBridge, SessionId};
use serde_json::{Value, json};

use crate::place::{Place, World};
use crate::support::http::Browser;

over_both_stores! {
    a_logout_gives_a_new_client_id_if_the_session_was_sealed,
    data_after_a_destroy_is_a_new_session_of_the_right_client,
    nothing_begins_under_the_client_id_of_a_sealed_session_that_has_ended,
    ending_ones_own_session_by_the_bridge_is_a_logout,
    data_beside_such_an_end_makes_a_new_session_with_the_new_data_only,
    an_update_beside_such_an_end_makes_a_new_session_too,
    ending_ones_own_session_without_loading_it_is_a_logout_too,
    ending_another_session_leaves_ones_own_alone,
}

const WAYS: [&str; 3] = ["session", "client", "handler"];

/// Ends a session in the way that the path says.
async fn end(bridge: &SessionBridge, way: &str, id: &SessionId) -> Result<(), Error> {
    match way {
        "session" => assert!(bridge.destroy_by_id(id).await?),
        "client" => {
            let client = bridge.client_id_of(id).await?.expect("a live session");
            assert!(bridge.destroy_by_client_id(&client).await?);
        }
        _ => bridge.with_session(id, async |session| session.destroy()).await?,
    }
    Ok(())
}

/// `POST /{way}/{what}`: ends the request's own session in a way, and does something around it.
fn ending(bridge: &SessionBridge) -> Router {
    let inside = bridge.clone();
    let handler = async move |Path((way, what)): Path<(String, String)>, session: Session| {
        let id = session.id().expect("a session");
        if what == "before" {
            session.insert("new", 1)?;
        }
        end(&inside, &way, &id).await?;
        match what.as_str() {
            "after" => drop(session.insert("new", 1)?),
            "update" => drop(session.update(|data| data.insert("new", 1)).await?),
            _ => {}
        }
        Ok::<_, Error>(())
    };
    Router::new().route("/{way}/{what}", post(handler)).layer(bridge.layer())
}

async fn begun(world: &World, sealed: bool) -> Browser {
    let body = r#"{"old":1}"#;
    if sealed { world.sealed(body).await } else { world.open(body).await }
}

/// Whether the client is the right one after an end, by cookie and by session.
async fn assert_client(world: &World, browser: &mut Browser, before: &Value, sealed: bool) {
    let now = Value::String(browser.get(&world.app, "/client").await.body);
    assert_eq!(now != *before, sealed, "a new client id if it was sealed");
    assert_eq!(world.seen(browser).await["client"], now);
}

async fn a_logout_gives_a_new_client_id_if_the_session_was_sealed(place: Place) {
    let world = place.world().await;
    for sealed in [false, true] {
        let mut browser = begun(&world, sealed).await;
        let (old, before) = (browser.clone(), world.seen(&browser).await);
        let answer = browser.post(&world.app, "/logout", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.set_cookie("sid").unwrap().contains("Max-Age=0"));
        assert!(answer.set_cookie("sid.cid").is_some());
        assert_client(&world, &mut browser, &before["client"], sealed).await;
        assert_eq!(world.seen(&old).await["id"], Value::Null);
        // The client that was has no session.
        let client = before["client"].as_str().unwrap().parse().unwrap();
        assert_eq!(world.bridge.session_id_of(&client).await.unwrap(), None);
    }
}

async fn data_after_a_destroy_is_a_new_session_of_the_right_client(place: Place) {
    let world = place.world().await;
    for sealed in [false, true] {
        let mut browser = begun(&world, sealed).await;
        let before = world.seen(&browser).await;
        assert_eq!(browser.post(&world.app, "/swap", "").await.status, StatusCode::OK);
        let seen = world.seen(&browser).await;
        assert_eq!((&seen["data"], &seen["sealed"]), (&json!({"fresh": true}), &json!(false)));
        assert_ne!(seen["id"], before["id"]);
        assert_client(&world, &mut browser, &before["client"], sealed).await;
    }
}

async fn nothing_begins_under_the_client_id_of_a_sealed_session_that_has_ended(place: Place) {
    let world = place.world().await;
    let browser = begun(&world, true).await;
    let client = world.client(&browser).await;
    // Both have loaded it; the one that comes second ends nothing.
    let swaps = [("swap", r#"{"a":1}"#.into()), ("swap", r#"{"b":1}"#.into())];
    for (browser, answer) in world.at_once(&browser, true, &swaps).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_ne!(world.client(&browser).await, client);
    }
    assert_eq!(world.bridge.session_id_of(&client).await.unwrap(), None);
}

async fn ending_ones_own_session_by_the_bridge_is_a_logout(place: Place) {
    let world = place.world().await;
    let app = ending(&world.bridge);
    for way in WAYS {
        for sealed in [false, true] {
            let mut browser = begun(&world, sealed).await;
            let before = world.seen(&browser).await;
            let answer = browser.post(&app, &format!("/{way}/nothing"), "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way}: {}", answer.body);
            assert!(answer.set_cookie("sid").unwrap().contains("Max-Age=0"), "{way}");
            assert_client(&world, &mut browser, &before["client"], sealed).await;
        }
    }
}

async fn data_beside_such_an_end_makes_a_new_session_with_the_new_data_only(place: Place) {
    let world = place.world().await;
    let app = ending(&world.bridge);
    for way in WAYS {
        for (what, sealed) in
            [("before", false), ("before", true), ("after", false), ("after", true)]
        {
            let mut browser = begun(&world, sealed).await;
            let before = world.seen(&browser).await;
            let answer = browser.post(&app, &format!("/{way}/{what}"), "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way} {what}: {}", answer.body);
            let seen = world.seen(&browser).await;
            assert_eq!(seen["data"], json!({"new": 1}), "{way} {what}");
            assert_ne!(seen["id"], before["id"], "{way} {what}");
            assert_client(&world, &mut browser, &before["client"], sealed).await;
        }
    }
}

async fn an_update_beside_such_an_end_makes_a_new_session_too(place: Place) {
    let world = place.world().await;
    let app = ending(&world.bridge);
    for way in WAYS {
        for sealed in [false, true] {
            let mut browser = begun(&world, sealed).await;
            let before = world.seen(&browser).await;
            let answer = browser.post(&app, &format!("/{way}/update"), "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way}: {}", answer.body);
            assert_eq!(world.data(&browser).await, json!({"new": 1}), "{way}");
            assert_client(&world, &mut browser, &before["client"], sealed).await;
        }
    }
}

async fn ending_ones_own_session_without_loading_it_is_a_logout_too(place: Place) {
    let world = place.world().await;
    let bridge = world.bridge.clone();
    let handler = async move |Path((way, id)): Path<(String, String)>| {
        end(&bridge, &way, &id.parse().unwrap()).await
    };
    let app = Router::new().route("/{way}/{id}", post(handler)).layer(world.bridge.layer());
    for way in WAYS {
        for sealed in [false, true] {
            let mut browser = begun(&world, sealed).await;
            let before = world.seen(&browser).await;
            let uri = format!("/{way}/{}", before["id"].as_str().unwrap());
            let answer = browser.post(&app, &uri, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{way}: {}", answer.body);
            assert!(answer.set_cookie("sid").unwrap().contains("Max-Age=0"), "{way}");
            assert_client(&world, &mut browser, &before["client"], sealed).await;
        }
    }
}

async fn ending_another_session_leaves_ones_own_alone(place: Place) {
    let world = place.world().await;
    let bridge = world.bridge.clone();
    let handler = async move |Path((way, id)): Path<(String, String)>, session: Session| {
        end(&bridge, &way, &id.parse().unwrap()).await?;
        session.insert("mine", 1)
    };
    let handler = async move |path: Path<(String, String)>, session: Session| {
        handler(path, session).await.map(drop)
    };
    let app = Router::new().route("/{way}/{id}", post(handler)).layer(world.bridge.layer());
    for way in WAYS {
        let mut browser = world.sealed(r#"{"old":1}"#).await;
        let other = world.sealed(r#"{"old":2}"#).await;
        let (before, other_id) = (world.seen(&browser).await, world.id(&other).await);
        let answer = browser.post(&app, &format!("/{way}/{}", other_id.as_str()), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{way}: {}", answer.body);
        let seen = world.seen(&browser).await;
        assert_eq!((&seen["id"], &seen["client"]), (&before["id"], &before["client"]), "{way}");
        assert_eq!(seen["data"], json!({"old": 1, "mine": 1}), "{way}");
        assert_eq!(world.seen(&other).await["id"], Value::Null, "{way}");
    }
}
