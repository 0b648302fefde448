//! Who a session belongs to: joining, new ids, sealing.

use super::world::*;
use crate::backend::*;
use crate::session::*;
use crate::session::{DestroyReason, Generation};
use std::time::Duration;

checks! {
    "creators of one client at the same moment end in one open session" => |world| {
        let client = ClientId::generate();
        let creators = (0..20).map(|n| world.create(client, n, LIMIT));
        let mut created = 0;
        let mut ids = std::collections::BTreeSet::new();
        for outcome in futures_util::future::join_all(creators).await {
            match outcome {
                Created::New(record) => {
                    created += 1;
                    ids.insert(record.session_id);
                }
                Created::Exists(record) => {
                    assert!(!record.sealed);
                    ids.insert(record.session_id);
                }
                Created::Occupied => panic!("an open session is joined"),
            }
        }
        assert_eq!((created, ids.len()), (1, 1));
        world.expect_published(&client, &["created"]).await;
    }

    "a live session is never replaced, and joined only while it is young" => |world| {
        let old = world.seeded(1).await;
        assert!(matches!(world.create(old.client_id, 2, LIMIT).await, Created::Exists(_)));
        assert_eq!(world.create(old.client_id, 3, Duration::ZERO).await, Created::Occupied);
        let window = Duration::from_millis(300);
        until("it is too old", async || {
            world.create(old.client_id, 4, window).await == Created::Occupied
        })
        .await;
        assert_eq!(number(&world.find(&old.session_id).await.unwrap()), 1);
        world.expect_published(&old.client_id, &["created"]).await;
    }

    "a sealed session is never joined, and a sealed one joins none" => |world| {
        let sealed = world.sealed(1).await;
        assert!(sealed.sealed);
        assert_eq!(world.create(sealed.client_id, 2, LIMIT).await, Created::Occupied);
        let open = world.seeded(1).await;
        let create = Create { sealed: true, join: LIMIT, ..Create::new(open.client_id, data(2)) };
        assert_eq!(world.backend.create(create).await.unwrap(), Created::Occupied);
        let found = world.find(&sealed.session_id).await.unwrap();
        assert!(found.sealed && number(&found) == 1);
        world.expect_published(&open.client_id, &["created"]).await;
    }

    "a session can begin with an age" [|config| config.lifetime.absolute_max_age = Some(Duration::from_secs(1000))] => |world| {
        let age = Duration::from_secs(400);
        let create = Create { age, sealed: true, ..Create::new(ClientId::generate(), data(1)) };
        let Created::New(record) = world.backend.create(create).await.unwrap() else { panic!("new") };
        let found = world.find(&record.session_id).await.unwrap();
        assert!(found.age >= age && found.age < age + LIMIT, "{:?}", found.age);
        assert!(found.ttl <= Duration::from_secs(600), "{:?}", found.ttl);
    }

    "a renewed id is the same session, and the one before opens it for the overlap" [|config| config.renew_overlap = Duration::from_secs(5)] => |world| {
        let record = world.seeded(5).await;
        let renewed = world.done(Commit { new_id: Some(renewal(&record)), ..commit(&record, 5) }).await;
        assert_ne!(renewed.session_id, record.session_id);
        assert_eq!((renewed.generation, renewed.sealed), (record.generation, false));
        let client = record.client_id;
        for hint in [Some(&client), None] {
            let late = world.backend.load(&[record.session_id], hint).await.unwrap();
            assert!(matches!(late, Loaded::Found(found) if found.session_id == renewed.session_id), "{hint:?}");
        }
        // A writer that loaded before it writes to the same session.
        assert!(matches!(world.backend.commit(commit(&record, 6)).await.unwrap(), Committed::Conflict(_)));
        assert_eq!(world.done(commit(&renewed, 6)).await.session_id, renewed.session_id);
        until("the overlap is over", async || {
            let late = world.backend.load(&[record.session_id], Some(&client)).await.unwrap();
            late == Loaded::Missing { superseded: true }
        })
        .await;
        assert!(!world.destroy(&record).await, "an id that opens nothing destroys nothing");
        assert_eq!(world.backend.session_of(&client).await.unwrap(), Some(renewed.session_id));
        world.expect_published(&client, &["created", "new id", "changed"]).await;
    }

    "of several renewals of one id one is done" => |world| {
        let record = world.seeded(0).await;
        let renew = |n| {
            let commit = Commit { version: None, new_id: Some(renewal(&record)), ..commit(&record, n) };
            world.done(commit)
        };
        let renewed = futures_util::future::join_all((0..8).map(renew)).await;
        let ids: std::collections::BTreeSet<_> = renewed.iter().map(|record| record.session_id).collect();
        assert_eq!(ids.len(), 1);
        assert!(!ids.contains(&record.session_id));
    }

    "sealing is a new session with the data of the old one" => |world| {
        let record = world.seeded(5).await;
        let sealed = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&record, 6) }).await;
        assert_ne!(sealed.session_id, record.session_id);
        assert_ne!(sealed.generation, record.generation);
        assert!(sealed.sealed && sealed.client_id == record.client_id);
        let found = world.find(&sealed.session_id).await.unwrap();
        assert!(found.sealed && number(&found) == 6 && found.generation == sealed.generation);
        let client = record.client_id;
        for hint in [Some(&client), None] {
            let old = world.backend.load(&[record.session_id], hint).await.unwrap();
            assert_eq!(old, Loaded::Missing { superseded: true }, "{hint:?}");
        }
        for late in [commit(&record, 9), Commit { version: None, ..commit(&record, 9) }] {
            assert_eq!(world.backend.commit(late).await.unwrap(), Committed::Ended);
        }
        assert_eq!(world.backend.touch(&client, record.generation).await.unwrap(), None);
        assert!(!world.destroy(&record).await);
        let stale = DestroyTarget::Generation(client, record.generation);
        assert!(!world.backend.destroy(stale).await.unwrap());
        assert_eq!(number(&world.find(&sealed.session_id).await.unwrap()), 6);
        world.expect_published(&client, &["created", "sealed", "new id"]).await;
    }

    "what sealing publishes names both sessions" => |world| {
        let record = world.seeded(1).await;
        world.expect_published(&record.client_id, &["created"]).await;
        let mut published = world.backend.subscribe();
        let sealed = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&record, 1) }).await;
        let mut next = async || loop {
            let event = in_time("events", published.recv()).await.expect("no event is lost");
            if event.event.client_id() == Some(&record.client_id) {
                return event;
            }
        };
        let end = next().await;
        assert_eq!(end.destroy_reason(), Some(DestroyReason::Sealed));
        assert_eq!(end.event.session_id(), Some(&record.session_id));
        assert_eq!((end.generation, end.successor), (Some(record.generation), Some(sealed.generation)));
        let begun = next().await;
        assert_eq!(begun.event.session_id(), Some(&sealed.session_id));
        assert_eq!((begun.generation, begun.sealed), (Some(sealed.generation), true));
        assert_eq!(begun.version, Some(sealed.version));
    }

    "of many sealings of one session exactly one is done" => |world| {
        let record = world.seeded(0).await;
        let tries = (1..=16).map(|n| {
            world.backend.commit(Commit { version: None, new_id: Some(NewId::Seal), ..commit(&record, n) })
        });
        let outcomes = futures_util::future::join_all(tries).await;
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Committed::Written(_))));
        assert_eq!(done.count(), 1);
        let ended = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Committed::Ended)));
        assert_eq!(ended.count(), 15);
        world.expect_published(&record.client_id, &["created", "sealed", "new id"]).await;
    }

    "sealing again and renewing a sealed session keep it sealed and cut what was" => |world| {
        let open = world.seeded(1).await;
        let first = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&open, 1) }).await;
        let renewed = world.done(Commit { new_id: Some(renewal(&first)), ..commit(&first, 2) }).await;
        assert!(renewed.sealed && renewed.generation == first.generation);
        let again = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&renewed, 3) }).await;
        let client = Some(&open.client_id);
        for dead in [&open, &first, &renewed] {
            let late = world.backend.load(&[dead.session_id], client).await.unwrap();
            assert_eq!(late, Loaded::Missing { superseded: true });
        }
        assert!(matches!(world.backend.load(&[again.session_id], client).await.unwrap(), Loaded::Found(_)));
    }

    "of several ids the first that lives is loaded" => |world| {
        let (dead, one, two) = (world.seeded(0).await, world.seeded(1).await, world.seeded(2).await);
        assert!(world.destroy(&dead).await);
        let unknown = SessionId::generate();
        let load = async |ids: &[SessionId], hint: Option<&ClientId>| {
            match world.backend.load(ids, hint).await.unwrap() {
                Loaded::Found(record) => Some(number(&record)),
                Loaded::Missing { .. } => None,
            }
        };
        let (d, a, b) = (dead.session_id, one.session_id, two.session_id);
        for hint in [None, Some(&one.client_id), Some(&two.client_id), Some(&dead.client_id)] {
            assert_eq!(load(&[d, unknown, a, b], hint).await, Some(1), "{hint:?}");
            assert_eq!(load(&[b, a], hint).await, Some(2), "{hint:?}");
            assert_eq!(load(&[d, unknown], hint).await, None, "{hint:?}");
        }
        assert_eq!(load(&[], None).await, None);
    }

    "a dead id is not taken for a late one" => |world| {
        let old = world.seeded(1).await;
        assert!(world.destroy(&old).await);
        let Created::New(new) = world.create(old.client_id, 2, Duration::ZERO).await else { panic!("new") };
        world.done(Commit { new_id: Some(NewId::Seal), ..commit(&new, 2) }).await;
        let loaded = world.backend.load(&[old.session_id], Some(&old.client_id)).await.unwrap();
        assert_eq!(loaded, Loaded::Missing { superseded: false });
    }

    "a node that watches a client knows whether its session is sealed" => |world| {
        let record = world.seeded(1).await;
        world.backend.watch(&record.client_id).await.unwrap();
        let known = || world.backend.cached_session(&record.client_id).map(|known| known.sealed);
        assert_eq!(known(), Some(false));
        let sealed = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&record, 1) }).await;
        until("it is heard of", async || known() == Some(true)).await;
        let generation: Option<Generation> =
            world.backend.cached_session(&record.client_id).map(|known| known.generation);
        assert_eq!(generation, Some(sealed.generation));
        world.backend.unwatch(&record.client_id);
    }

    "an open session may live shorter than a sealed one" [|config| config.lifetime.open_max_age = Some(Duration::from_secs(100))] => |world| {
        let open = world.seeded(1).await;
        assert_eq!(open.ttl, Duration::from_secs(100));
        let touched = world.backend.touch(&open.client_id, open.generation).await.unwrap().unwrap();
        assert_eq!(touched.ttl, Duration::from_secs(100));
        let sealed = world.done(Commit { new_id: Some(NewId::Seal), ..commit(&touched, 1) }).await;
        assert_eq!(sealed.ttl, world.config.lifetime.max_age);
        let touched = world.backend.touch(&sealed.client_id, sealed.generation).await.unwrap().unwrap();
        assert_eq!(touched.ttl, world.config.lifetime.max_age);
    }
}
