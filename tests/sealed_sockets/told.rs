//! What listeners are told of sealing and of new ids.

use std::sync::{Arc, Mutex};

use axum_io_session::{DestroyReason, SessionEvent, SessionId};

use crate::ground::{Ground, Over};
use crate::support::http::Browser;
use crate::support::{so_far, until};

over_both_stores! {
    sealing_is_told_as_an_end_and_a_session_with_another_id_once_each,
    a_new_id_is_told_as_one_change,
    a_session_that_is_created_sealed_is_told_as_one_that_begins,
}

async fn id(ground: &Ground, browser: &Browser) -> SessionId {
    ground.id(browser).await.parse().unwrap()
}

async fn sealing_is_told_as_an_end_and_a_session_with_another_id_once_each(over: &Over) {
    let ground = over.ground().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (sets, ends) = (heard.clone(), heard.clone());
    ground.bridge.on_session_set(move |set| {
        sets.lock().unwrap().push(("set", set.session_id));
        async {}
    });
    ground.bridge.on_session_destroy(move |end| {
        ends.lock().unwrap().push(("end", end.session_id));
        async {}
    });
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let _socket = ground.open(&browser).await;
    let mut events = ground.bridge.events();
    so_far(&ground.bridge, &mut events).await;
    for _ in 0..2 {
        let before = id(&ground, &browser).await;
        heard.lock().unwrap().clear();
        ground.login(&mut browser, r#"{"user":"ada"}"#).await;
        let now = id(&ground, &browser).await;
        match &so_far(&ground.bridge, &mut events).await[..] {
            [SessionEvent::Destroy(end), SessionEvent::Set(set)] => {
                assert_eq!((end.reason, end.session_id), (DestroyReason::Sealed, before));
                assert_eq!((set.session_id, set.previous_id), (now, Some(before)));
                assert_eq!((set.is_new, set.is_init), (false, true));
                assert_eq!((set.client_id, &set.node), (end.client_id, &end.node));
            }
            other => panic!("{other:?}"),
        }
        until("the handlers have run", async || heard.lock().unwrap().len() >= 2).await;
        let mut heard = heard.lock().unwrap().clone();
        heard.sort_by_key(|(what, _)| *what);
        assert_eq!(heard, [("end", before), ("set", now)]);
    }
}

async fn a_new_id_is_told_as_one_change(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.seeded(r#"{"n":1}"#).await;
    let mut events = ground.bridge.events();
    so_far(&ground.bridge, &mut events).await;
    for _ in 0..2 {
        let before = id(&ground, &browser).await;
        ground.post(&mut browser, "/renew-id").await;
        let now = id(&ground, &browser).await;
        match &so_far(&ground.bridge, &mut events).await[..] {
            [SessionEvent::Set(set)] => {
                assert_eq!((set.session_id, set.previous_id), (now, Some(before)));
                assert_eq!((set.is_new, set.is_init), (false, true));
            }
            other => panic!("{other:?}"),
        }
        // A late writer tells a change of the session, under its new id.
        ground.merge(&mut browser, r#"{"n":2}"#).await;
        ground.merge(&mut browser, r#"{"n":3}"#).await;
        let told = so_far(&ground.bridge, &mut events).await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|event| event.session_id() == Some(&now)));
    }
}

async fn a_session_that_is_created_sealed_is_told_as_one_that_begins(over: &Over) {
    let ground = over.ground().await;
    let mut browser = ground.visitor().await;
    let mut events = ground.bridge.events();
    ground.login(&mut browser, r#"{"user":"ada"}"#).await;
    match &so_far(&ground.bridge, &mut events).await[..] {
        [SessionEvent::Set(set)] => {
            assert_eq!((set.is_new, set.is_init, set.previous_id), (true, true, None));
        }
        other => panic!("{other:?}"),
    }
}
