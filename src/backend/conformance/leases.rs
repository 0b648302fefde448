//! Leases.

use std::sync::Mutex;

use super::world::*;
use crate::backend::*;
use crate::error::ErrorKind;
use crate::session::*;
use std::time::Duration;
use tokio::time::Instant;

/// A lease that is short enough to wait for.
fn short(config: &mut BackendConfig) {
    config.lease_duration = Duration::from_secs(2);
}

checks! {
    "a lease comes with the client's session, or without one" => |world| {
        let record = world.seeded(3).await;
        let held = world.backend.acquire(&record.client_id, LIMIT).await.unwrap();
        assert_eq!(held.record.as_ref().map(number), Some(3));
        assert_eq!(held.length, world.config.lease_duration);
        let other = ClientId::generate();
        let free = world.backend.acquire(&other, LIMIT).await.unwrap();
        assert_eq!(free.record, None);
        world.backend.release(&other, free.lease);
        world.backend.release(&record.client_id, held.lease);
    }

    "read, change and write under the lease lose nothing" => |world| {
        let record = world.seeded(0).await;
        let client = record.client_id;
        let work = (0..32).map(async |_| {
            let held = world.backend.acquire(&client, LIMIT).await.unwrap();
            let record = held.record.unwrap();
            tokio::task::yield_now().await;
            world.done(Commit { lease: Some(held.lease), ..commit(&record, number(&record) + 1) }).await;
            world.backend.release(&client, held.lease);
        });
        in_time("all turns", futures_util::future::join_all(work)).await;
        assert_eq!(number(&world.find(&record.session_id).await.unwrap()), 32);
    }

    "leases are granted in the order of the calls" => |world| {
        let client = ClientId::generate();
        let first = world.backend.acquire(&client, LIMIT).await.unwrap();
        let order = Mutex::new(Vec::new());
        let waiters = (0..8u64).map(async |n| {
            // Each is in line well before the next calls.
            tokio::time::sleep(Duration::from_millis(60 * n)).await;
            let held = world.backend.acquire(&client, LIMIT).await.unwrap();
            order.lock().unwrap().push(n);
            world.backend.release(&client, held.lease);
        });
        let release = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            world.backend.release(&client, first.lease);
        };
        in_time("all turns", futures_util::future::join(futures_util::future::join_all(waiters), release)).await;
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
    }

    "clients do not wait for each other" => |world| {
        let (a, b) = (ClientId::generate(), ClientId::generate());
        let held = world.backend.acquire(&a, LIMIT).await.unwrap();
        let other = world.backend.acquire(&b, Duration::from_secs(2)).await.unwrap();
        world.backend.release(&b, other.lease);
        world.backend.release(&a, held.lease);
    }

    "a wait ends at its limit" => |world| {
        let client = ClientId::generate();
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let begun = Instant::now();
        let error = world.backend.acquire(&client, Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WaitTimeout);
        assert!(begun.elapsed() >= Duration::from_millis(200));
        world.backend.release(&client, held.lease);
    }

    "a caller that goes away leaves the line" => |world| {
        let client = ClientId::generate();
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(50), world.backend.acquire(&client, LIMIT));
        assert!(gone.await.is_err());
        world.backend.release(&client, held.lease);
        let begun = Instant::now();
        let next = world.backend.acquire(&client, LIMIT).await.unwrap();
        assert!(begun.elapsed() < world.config.lease_duration / 2, "a caller that went away holds up no other");
        world.backend.release(&client, next.lease);
    }

    "a line has a limit" [|config| config.lease_queue_limit = 2] => |world| {
        let client = ClientId::generate();
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let waiting = (0..2).map(|_| world.backend.acquire(&client, Duration::from_secs(2)));
        let refused = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.backend.acquire(&client, LIMIT).await.unwrap_err().kind()
        };
        let (_, kind) = futures_util::future::join(futures_util::future::join_all(waiting), refused).await;
        assert_eq!(kind, ErrorKind::Busy);
        world.backend.release(&client, held.lease);
    }

    "a lease that is not renewed runs out, and its owner can do no harm" [short] => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        let lost = world.backend.acquire(&client, LIMIT).await.unwrap();
        let next = in_time("the next turn", world.backend.acquire(&client, LIMIT)).await.unwrap();
        assert!(!world.backend.renew(&client, lost.lease).await.unwrap());
        let late = Commit { lease: Some(lost.lease), ..commit(&record, -1) };
        assert_eq!(world.backend.commit(late).await.unwrap(), Committed::LeaseLost);
        world.backend.release(&client, lost.lease);
        assert!(world.backend.renew(&client, next.lease).await.unwrap(), "its release does nothing");
        world.done(Commit { lease: Some(next.lease), ..commit(&record, 2) }).await;
        world.backend.release(&client, next.lease);
        world.expect_published(&client, &["created", "changed"]).await;
    }

    "a renewed lease stays" [short] => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let renew = async {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                assert!(world.backend.renew(&client, held.lease).await.unwrap());
            }
        };
        let wait = world.backend.acquire(&client, Duration::from_millis(3500));
        let ((), waited) = futures_util::future::join(renew, wait).await;
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::WaitTimeout);
        world.done(Commit { lease: Some(held.lease), ..commit(&record, 2) }).await;
        world.backend.release(&client, held.lease);
    }

    "a write that is asked to gives the lease back with it, and no other result does" => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let old = Commit { version: Some(99), lease: Some(held.lease), release: true, ..commit(&record, 2) };
        assert!(matches!(world.backend.commit(old).await.unwrap(), Committed::Conflict(_)));
        assert!(world.backend.renew(&client, held.lease).await.unwrap(), "a conflict keeps the lease");
        world.done(Commit { lease: Some(held.lease), release: true, ..commit(&record, 2) }).await;
        assert!(!world.backend.renew(&client, held.lease).await.unwrap());
        let begun = Instant::now();
        let next = world.backend.acquire(&client, LIMIT).await.unwrap();
        assert!(begun.elapsed() < world.config.lease_duration / 2);
        assert_eq!(next.record.as_ref().map(number), Some(2));
        world.backend.release(&client, next.lease);
    }

    "the holder of a lease can end the session, and one that lost it can not" [short] => |world| {
        let record = world.seeded(1).await;
        let (client, generation) = (record.client_id, record.generation);
        let lost = world.backend.acquire(&client, LIMIT).await.unwrap();
        let next = in_time("the next turn", world.backend.acquire(&client, LIMIT)).await.unwrap();
        let late = world.backend.destroy(DestroyTarget::Leased(client, generation, lost.lease)).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::LeaseLost);
        assert!(world.backend.destroy(DestroyTarget::Leased(client, generation, next.lease)).await.unwrap());
        assert!(!world.backend.renew(&client, next.lease).await.unwrap(), "the lease is given back");
        let begun = Instant::now();
        let after = in_time("the end gave it back", world.backend.acquire(&client, LIMIT)).await.unwrap();
        assert!(begun.elapsed() < world.config.lease_duration / 2);
        world.backend.release(&client, after.lease);
        world.expect_published(&client, &["created", "destroyed"]).await;
    }

    "an end does not wait for the lease, and the holder's write is refused" => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let begun = Instant::now();
        assert!(world.destroy(&record).await);
        assert!(begun.elapsed() < world.config.lease_duration / 2);
        let late = Commit { lease: Some(held.lease), ..commit(&record, 2) };
        assert_eq!(world.backend.commit(late).await.unwrap(), Committed::Ended);
        world.backend.release(&client, held.lease);
        assert_eq!(world.find(&record.session_id).await, None);
    }

    "a rotation under a lease leaves the lease to its owner" => |world| {
        let record = world.seeded(1).await;
        let client = record.client_id;
        let held = world.backend.acquire(&client, LIMIT).await.unwrap();
        let rotated = world.done(Commit { new_id: Some(renewal(&record)), ..commit(&record, 1) }).await;
        let written = world.done(Commit { lease: Some(held.lease), ..commit(&rotated, 2) }).await;
        assert_eq!(written.session_id, rotated.session_id);
        world.backend.release(&client, held.lease);
    }
}
