//! Creating, reading and writing.

use super::world::*;
use crate::backend::*;
use crate::error::ErrorKind;
use crate::session::*;
use std::time::Duration;
use tokio::time::Instant;

checks! {
    "a created session is loaded as it was created" => |world| {
        let record = world.seeded(7).await;
        let found = world.find(&record.session_id).await.expect("it is found");
        assert_eq!((found.client_id, found.generation, found.version), (record.client_id, record.generation, record.version));
        assert_eq!((number(&found), found.max_age, found.ttl), (7, MaxAge::Default, world.config.lifetime.max_age));
        assert!(found.remaining <= found.ttl && found.age < LIMIT);
        let (client, session) = (record.client_id, record.session_id);
        assert_eq!(world.backend.session_of(&client).await.unwrap(), Some(session));
        assert_eq!(world.backend.client_of(&session).await.unwrap(), Some(client));
        world.expect_published(&client, &["created"]).await;
    }

    "unknown ids are missing" => |world| {
        let (id, client) = (SessionId::generate(), ClientId::generate());
        let missing = world.backend.load(&[id], Some(&client)).await.unwrap();
        assert_eq!(missing, Loaded::Missing { superseded: false });
        assert_eq!(world.backend.session_of(&client).await.unwrap(), None);
        assert_eq!(world.backend.client_of(&id).await.unwrap(), None);
        assert_eq!(world.backend.cached_session(&client), None);
    }

    "a commit writes, grows the version, and is published once" => |world| {
        let record = world.seeded(1).await;
        let written = world.done(commit(&record, 2)).await;
        assert_eq!((written.version, written.session_id), (record.version + 1, record.session_id));
        let found = world.find(&record.session_id).await.unwrap();
        assert_eq!((number(&found), found.version), (2, written.version));
        world.expect_published(&record.client_id, &["created", "changed"]).await;
    }

    "a commit of an older version is a conflict that brings the newest record" => |world| {
        let record = world.seeded(1).await;
        let newest = world.done(commit(&record, 2)).await;
        match world.backend.commit(commit(&record, 3)).await.unwrap() {
            Committed::Conflict(found) => assert_eq!((found.version, number(&found)), (newest.version, 2)),
            other => panic!("{other:?}"),
        }
        assert_eq!(number(&world.find(&record.session_id).await.unwrap()), 2);
        let overwrite = Commit { version: None, ..commit(&record, 4) };
        assert_eq!(world.done(overwrite).await.version, newest.version + 1);
        world.expect_published(&record.client_id, &["created", "changed", "changed"]).await;
    }

    "of many commits of one version exactly one is done" => |world| {
        let record = world.seeded(0).await;
        let tries = (1..=16).map(|n| world.backend.commit(commit(&record, n)));
        let outcomes = futures_util::future::join_all(tries).await;
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Committed::Written(_))));
        assert_eq!(done.count(), 1);
        world.expect_published(&record.client_id, &["created", "changed"]).await;
    }

    "a write to an ended session is refused and revives nothing" => |world| {
        let record = world.seeded(1).await;
        assert!(world.destroy(&record).await);
        let refused = Commit { version: None, ..commit(&record, 2) };
        assert_eq!(world.backend.commit(refused).await.unwrap(), Committed::Ended);
        assert_eq!(world.backend.touch(&record.client_id, record.generation).await.unwrap(), None);
        assert_eq!(world.find(&record.session_id).await, None);
        world.expect_published(&record.client_id, &["created", "destroyed"]).await;
    }

    "a write to the client's session before is refused although there is a new one" => |world| {
        let old = world.seeded(1).await;
        assert!(world.destroy(&old).await);
        let Created::New(new) = world.create(old.client_id, 2, Duration::ZERO).await else {
            panic!("after a destroy there is nothing to join");
        };
        let refused = Commit { version: None, ..commit(&old, 3) };
        assert_eq!(world.backend.commit(refused).await.unwrap(), Committed::Ended);
        let stale = DestroyTarget::Generation(old.client_id, old.generation);
        assert!(!world.backend.destroy(stale).await.unwrap());
        assert_eq!(number(&world.find(&new.session_id).await.unwrap()), 2);
    }

    "a touch moves the time to live and publishes nothing" [|config| config.lifetime.max_age = Duration::from_secs(4)] => |world| {
        let record = world.seeded(1).await;
        let born = Instant::now();
        until("it lives past its first end", async || {
            let touched = world.backend.touch(&record.client_id, record.generation).await.unwrap();
            let touched = touched.expect("a touched session lives on");
            assert_eq!((touched.version, number(&touched)), (record.version, 1));
            born.elapsed() > Duration::from_secs(5)
        })
        .await;
        assert!(world.find(&record.session_id).await.is_some());
        world.expect_published(&record.client_id, &["created"]).await;
    }

    "a session's own max age stays with it" => |world| {
        let own = MaxAge::After(Duration::from_secs(1000));
        let record = world.seeded(1).await;
        let written = world.done(Commit { max_age: own, ..commit(&record, 2) }).await;
        assert_eq!((written.max_age, written.ttl), (own, Duration::from_secs(1000)));
        let touched = world.backend.touch(&record.client_id, record.generation).await.unwrap().unwrap();
        assert_eq!((touched.max_age, touched.ttl), (own, Duration::from_secs(1000)));
        assert_eq!(world.find(&record.session_id).await.unwrap().max_age, own);
    }

    "data over the limits is refused and nothing changes" [|config| config.max_payload = 100] => |world| {
        let record = world.seeded(1).await;
        let mut big = data(2);
        big.insert("big", "x".repeat(100)).unwrap();
        let refused = Commit { data: big.clone(), ..commit(&record, 0) };
        assert_eq!(world.backend.commit(refused).await.unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        let client = ClientId::generate();
        let create = Create::new(client, big);
        assert_eq!(world.backend.create(create).await.unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        assert_eq!(number(&world.find(&record.session_id).await.unwrap()), 1);
        assert_eq!(world.backend.session_of(&client).await.unwrap(), None);
        world.expect_published(&record.client_id, &["created"]).await;
    }

    "a caller that goes away leaves a change whole or not made" => |world| {
        let mut record = world.seeded(0).await;
        let mut expected = vec!["created"];
        for n in 1..=20 {
            let gone = tokio::time::timeout(Duration::ZERO, world.backend.commit(commit(&record, n)));
            // Whether it was quick enough is not the question.
            let _ = gone.await;
            // The next change comes after it, if it was made.
            let next = Commit { version: None, ..commit(&record, -n) };
            let written = world.done(next).await;
            let made = usize::try_from(written.version - record.version).unwrap();
            assert!(made == 1 || made == 2);
            expected.extend(std::iter::repeat_n("changed", made));
            record = written;
        }
        world.expect_published(&record.client_id, &expected).await;
    }
}
