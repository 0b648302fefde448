//! Cookies that verified lately, so that the next request of a browser needs no signature's check.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A power of two. Each has a lock of its own, so that hardly two requests meet.
const SETS: usize = 512;
/// Texts in each set.
const WAYS: usize = 8;

/// What texts turned out to be: up to 4096 of them, the newest of each set.
///
/// The hash has a random key. So nobody can choose texts that meet in one set, and what is compared
/// with a text in here is the same text but for a chance of 2^-64: the time of a comparison tells
/// nothing about a signature.
pub(super) struct Recent<T> {
    sets: Box<[Mutex<Set<T>>]>,
    hasher: RandomState,
}

struct Set<T> {
    hashes: [u64; WAYS],
    entries: Vec<Entry<T>>,
    /// The entry that the next text replaces, once all are taken.
    next: usize,
}

struct Entry<T> {
    text: Box<[u8]>,
    value: T,
}

/// Where a text is or would be.
#[derive(Clone, Copy)]
pub(super) struct Place(u64);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        let set = || Mutex::new(Set { hashes: [0; WAYS], entries: Vec::new(), next: 0 });
        Self { sets: (0..SETS).map(|_| set()).collect(), hasher: RandomState::new() }
    }
}

impl<T: Copy> Recent<T> {
    pub(super) fn place(&self, text: &[u8]) -> Place {
        Place(self.hasher.hash_one(text))
    }

    fn set(&self, Place(hash): Place) -> MutexGuard<'_, Set<T>> {
        // The remainder is below the number of sets on every platform.
        let at = usize::try_from(hash % SETS as u64).unwrap_or_default();
        self.sets[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the text turned out to be, if that is still known.
    pub(super) fn get(&self, place: Place, text: &[u8]) -> Option<T> {
        let set = self.set(place);
        let mut entries = set.entries.iter().zip(&set.hashes);
        let (entry, _) = entries.find(|(entry, hash)| **hash == place.0 && *entry.text == *text)?;
        Some(entry.value)
    }

    /// Remembers what the text turned out to be.
    pub(super) fn insert(&self, place: Place, text: &[u8], value: T) {
        let entry = Entry { text: text.into(), value };
        let mut set = self.set(place);
        let at = set.next;
        match set.entries.get_mut(at) {
            Some(oldest) => *oldest = entry,
            None => set.entries.push(entry),
        }
        set.hashes[at] = place.0;
        set.next = (at + 1) % WAYS;
    }
}

impl<T> fmt::Debug for Recent<T> {
    // The texts are credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_all_of_its_bytes() {
        let recent = Recent::default();
        let place = recent.place(b"a text");
        recent.insert(place, b"a text", 1);
        assert_eq!(recent.get(place, b"a text"), Some(1));
        for other in [&b"a texT"[..], b"a tex", b"a text ", b""] {
            assert_eq!(recent.get(recent.place(other), other), None);
            // As if the hashes were the same.
            assert_eq!(recent.get(place, other), None);
        }
    }

    #[test]
    fn a_million_texts_leave_the_newest_and_a_bounded_table() {
        let recent = Recent::default();
        for n in 0..1_000_000_u32 {
            let text = n.to_be_bytes();
            recent.insert(recent.place(&text), &text, n);
        }
        let len = |set: &Mutex<Set<u32>>| set.lock().unwrap().entries.len();
        assert_eq!(recent.sets.iter().map(len).sum::<usize>(), SETS * WAYS);
        let newest = 999_999_u32.to_be_bytes();
        assert_eq!(recent.get(recent.place(&newest), &newest), Some(999_999));
        let oldest = 0_u32.to_be_bytes();
        assert_eq!(recent.get(recent.place(&oldest), &oldest), None);
    }
}
