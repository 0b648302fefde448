//! One shared value for each client, which is there as long as somebody has a place at it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::ClientId;

/// The values of all clients that have one.
pub(super) struct Places<T> {
    used: Mutex<HashMap<ClientId, Used<T>>>,
}

struct Used<T> {
    value: Arc<T>,
    /// Places at it that are still there.
    places: usize,
}

/// A place at a client's value, which goes with the last one.
pub(super) struct Place<T> {
    all: Arc<Places<T>>,
    client: ClientId,
    value: Arc<T>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { used: Mutex::default() }
    }
}

impl<T: Default> Places<T> {
    pub(super) fn place(self: &Arc<Self>, client: &ClientId) -> Place<T> {
        let mut used = self.used();
        let used = used.entry(*client).or_insert_with(|| Used { value: Arc::default(), places: 0 });
        used.places += 1;
        Place { all: self.clone(), client: *client, value: used.value.clone() }
    }
}

impl<T> Places<T> {
    fn used(&self) -> MutexGuard<'_, HashMap<ClientId, Used<T>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients that have a value.
    pub(super) fn len(&self) -> usize {
        self.used().len()
    }
}

impl<T> Place<T> {
    pub(super) fn client(&self) -> &ClientId {
        &self.client
    }
}

impl<T: Default> Clone for Place<T> {
    fn clone(&self) -> Self {
        self.all.place(&self.client)
    }
}

impl<T> Deref for Place<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut all = self.all.used();
        if let Some(used) = all.get_mut(&self.client) {
            used.places -= 1;
            if used.places == 0 {
                all.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_for_all_who_have_a_place_and_goes_with_the_last() {
        let all: Arc<Places<Mutex<u32>>> = Arc::default();
        let (client, other) = (ClientId::generate(), ClientId::generate());
        let first = all.place(&client);
        *first.lock().unwrap() = 1;
        let second = first.clone();
        drop(first);
        assert_eq!((*second.lock().unwrap(), *all.place(&other).lock().unwrap()), (1, 0));
        assert_eq!(all.len(), 1);
        drop(second);
        assert_eq!((all.len(), *all.place(&client).lock().unwrap()), (0, 0));
    }
}
