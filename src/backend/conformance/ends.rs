//! Ends, notices, and the end of the backend itself.

use super::world::*;
use crate::backend::*;
use crate::error::ErrorKind;
use crate::session::*;
use std::time::Duration;
use tokio::time::Instant;

fn one_second(config: &mut BackendConfig) {
    config.lifetime.max_age = Duration::from_secs(1);
}

checks! {
    "destroying is true once and false after that, by whatever name" => |world| {
        for by in 0..3 {
            let record = world.seeded(1).await;
            let target = match by {
                0 => DestroyTarget::Session(record.session_id),
                1 => DestroyTarget::Client(record.client_id),
                _ => DestroyTarget::Generation(record.client_id, record.generation),
            };
            assert!(world.backend.destroy(target).await.unwrap());
            assert!(!world.backend.destroy(target).await.unwrap());
            assert_eq!(world.find(&record.session_id).await, None);
            assert_eq!(world.backend.session_of(&record.client_id).await.unwrap(), None);
            world.expect_published(&record.client_id, &["created", "destroyed"]).await;
        }
    }

    "of many destroys at once one is true" => |world| {
        let record = world.seeded(1).await;
        let tries = (0..8).map(|_| world.destroy(&record));
        let ended = futures_util::future::join_all(tries).await;
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
        world.expect_published(&record.client_id, &["created", "destroyed"]).await;
    }

    "an expiry is published once, also without a call" [one_second] => |world| {
        // Before the call: its life may have begun any time in it.
        let born = Instant::now();
        let record = world.seeded(1).await;
        world.expect_published(&record.client_id, &["created", "expired"]).await;
        assert!(born.elapsed() >= Duration::from_millis(900));
        assert_eq!(world.find(&record.session_id).await, None);
        assert_eq!(world.backend.commit(commit(&record, 2)).await.unwrap(), Committed::Ended);
    }

    "an expired session is not served, not written and not joined" [one_second] => |world| {
        let record = world.seeded(1).await;
        until("the end", async || world.find(&record.session_id).await.is_none()).await;
        let Created::New(next) = world.create(record.client_id, 2, LIMIT).await else {
            panic!("an expired session is not joined");
        };
        assert_ne!(next.generation, record.generation);
        assert_eq!(number(&world.find(&next.session_id).await.unwrap()), 2);
    }

    "writes renew the time to live" [|config| config.lifetime.max_age = Duration::from_secs(4)] => |world| {
        let mut record = world.seeded(1).await;
        let born = Instant::now();
        while born.elapsed() < Duration::from_secs(6) {
            tokio::time::sleep(Duration::from_millis(400)).await;
            record = world.done(commit(&record, 1)).await;
        }
        assert!(world.find(&record.session_id).await.is_some());
    }

    "nothing lives past the absolute max age" [|config| {
        config.lifetime.absolute_max_age = Some(Duration::from_secs(2));
    }] => |world| {
        let born = Instant::now();
        let record = world.seeded(1).await;
        assert!(record.ttl <= Duration::from_secs(2));
        until("the end", async || {
            world.backend.touch(&record.client_id, record.generation).await.unwrap().is_none()
        })
        .await;
        assert!(born.elapsed() >= Duration::from_millis(1900));
        world.expect_published(&record.client_id, &["created", "expired"]).await;
    }

    "every subscriber gets all events of a session in the same order" => |world| {
        let mut streams = [world.backend.subscribe(), world.backend.subscribe()];
        let mut record = world.seeded(0).await;
        for n in 1..10 {
            record = world.done(Commit { new_id: (n % 3 == 0).then(|| renewal(&record)), ..commit(&record, n) }).await;
        }
        assert!(world.destroy(&record).await);
        let mut lists = Vec::new();
        for stream in &mut streams {
            let mut list: Vec<String> = Vec::new();
            while list.last().is_none_or(|last| last != "destroyed") {
                let event = in_time("events", stream.recv()).await.unwrap();
                if event.event.client_id() == Some(&record.client_id) {
                    assert!(event.generation.is_none_or(|generation| generation == record.generation));
                    list.push(shown(&event.event));
                }
            }
            lists.push(list);
        }
        assert_eq!(lists[0], lists[1]);
        assert_eq!(lists[0].len(), 11);
    }

    "a slow subscriber lags, and the others miss nothing" [|config| config.event_capacity = 16] => |world| {
        let mut slow = world.backend.subscribe();
        let mut quick = world.backend.subscribe();
        for n in 0..200 {
            world.backend.notify_cleanup(n);
            let event = in_time("events", quick.recv()).await.expect("a quick one loses nothing");
            assert_eq!(shown(&event.event), format!("cleanup {n}"));
        }
        let lagged = in_time("lag", slow.recv()).await;
        assert!(matches!(lagged, Err(broadcast::error::RecvError::Lagged(_))));
    }

    "a watched client's session is known without asking" => |world| {
        let client = ClientId::generate();
        let watch = async || world.backend.watch(&client).await.unwrap();
        assert_eq!(watch().await, None);
        let known = || world.backend.cached_session(&client);
        assert_eq!(known(), None);
        let Created::New(record) = world.create(client, 1, Duration::ZERO).await else { panic!("new") };
        until("the creation is known", async || known().is_some_and(|known| known.session_id == record.session_id)).await;
        assert_eq!(known().unwrap().generation, record.generation);
        let seen = watch().await.expect("the session that it has now");
        assert_eq!((seen.session_id, seen.version), (record.session_id, record.version));
        let rotated = world.done(Commit { new_id: Some(renewal(&record)), ..commit(&record, 1) }).await;
        until("the rotation is known", async || known().is_some_and(|known| known.session_id == rotated.session_id)).await;
        assert!(world.destroy(&rotated).await);
        until("the end is known", async || known().is_none()).await;
        world.backend.unwatch(&client);
        world.backend.unwatch(&client);
    }

    "notices are published for attached sessions only" => |world| {
        let record = world.seeded(1).await;
        let (client, unknown) = (record.client_id, SessionId::generate());
        world.backend.notify_set(&unknown, true).await.unwrap();
        world.backend.notify_destroy(&unknown).await.unwrap();
        world.backend.notify_set(&record.session_id, false).await.unwrap();
        world.expect_published(&client, &["created", "changed"]).await;
    }

    "a cleanup is counted and published, or unsupported" => |world| {
        let mut published = world.backend.subscribe();
        let record = world.seeded(1).await;
        let can = world.backend.can_clean_up().await.unwrap();
        match world.backend.cleanup().await {
            Ok(cleared) => {
                assert!(can);
                assert_eq!(cleared, 0, "a live session is not removed");
                in_time("the notice", async {
                    while shown(&published.recv().await.unwrap().event) != "cleanup 0" {}
                })
                .await;
            }
            Err(error) => assert_eq!((error.kind(), can), (ErrorKind::Unsupported, false)),
        }
        assert!(world.find(&record.session_id).await.is_some());
    }

    "a heartbeat lists its node, with its figures" => |world| {
        let figures = NodeStats { sockets: 7, ..NodeStats::default() };
        world.backend.heartbeat(&figures).await.unwrap();
        let nodes = match world.backend.nodes().await {
            // A backend of one process need not list it.
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            nodes => nodes.unwrap(),
        };
        let own = nodes.iter().find(|info| info.node == *world.backend.node()).expect("it is there");
        assert_eq!(own.figures, figures);
        assert!(own.seen < LIMIT);
    }

    "nothing stays in memory for sessions that have ended" [one_second] => |world| {
        for n in 0..50 {
            let record = world.seeded(n).await;
            let client = record.client_id;
            world.backend.watch(&client).await.unwrap();
            {
                // Who does not wait for the answer watches nothing.
                let mut unheard = std::pin::pin!(world.backend.watch(&client));
                if futures_util::poll!(&mut unheard).is_ready() {
                    world.backend.unwatch(&client);
                }
            }
            let held = world.backend.acquire(&client, LIMIT).await.unwrap();
            world.backend.release(&client, held.lease);
            world.backend.unwatch(&client);
            if n % 2 == 0 {
                // It may have expired by now.
                world.destroy(&record).await;
            }
        }
        until("all tables are empty", async || {
            world.backend.table_sizes().iter().all(|(_, size)| *size == 0)
        })
        .await;
    }

    "after a shutdown everything is unavailable" => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        assert!(world.backend.health().await.is_ok());
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let waiting = world.backend.acquire(&client, LIMIT);
        let shutdown = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            in_time("the shutdown", world.backend.shutdown()).await;
            in_time("a second one", world.backend.shutdown()).await;
        };
        let (waited, ()) = futures_util::future::join(waiting, shutdown).await;
        let errors = [
            waited.map(drop).unwrap_err(),
            world.backend.load(&[record.session_id], None).await.map(drop).unwrap_err(),
            world.backend.commit(commit(&record, 2)).await.map(drop).unwrap_err(),
            world.backend.destroy(DestroyTarget::Client(client)).await.map(drop).unwrap_err(),
            world.backend.acquire(&client, LIMIT).await.map(drop).unwrap_err(),
            world.backend.session_of(&client).await.map(drop).unwrap_err(),
            world.backend.health().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        world.backend.release(&client, held.lease);
    }
}
