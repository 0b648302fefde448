//! axum without sessions in Redis or a library: a map in memory. The floor for `LiveStore`.

use std::sync::Arc;

use dashmap::DashMap;
use uuid::Uuid;

use crate::Failure;
use crate::by_hand::Place;

#[derive(Clone, Default)]
pub(crate) struct Memory {
    counters: Arc<DashMap<Uuid, u64>>,
}

impl Place for Memory {
    async fn create(&self, id: Uuid) -> Result<(), Failure> {
        self.counters.insert(id, 1);
        Ok(())
    }

    async fn read(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        Ok(self.counters.get(&id).map(|n| *n))
    }

    async fn add_one(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        Ok(self.counters.get_mut(&id).map(|mut n| {
            *n += 1;
            *n
        }))
    }

    async fn remove(&self, id: Uuid) -> Result<(), Failure> {
        self.counters.remove(&id);
        Ok(())
    }
}
