//! What stays on the device between batches (matrices, modules), by digest: least recently used goes first, what is pinned stays.

use std::collections::BTreeMap;

use crate::{Digest, GpuError};

/// How the cache has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Looks that found what they wanted.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// What was removed to make room.
    pub evictions: u64,
    /// Bytes resident now.
    pub bytes: u64,
}

struct Item<T> {
    value: T,
    bytes: u64,
    pins: u32,
    used: u64,
}

/// A cache of values that take device memory. Values are handed back when they are evicted, for their owner to free.
pub struct Residents<T> {
    bytes_max: u64,
    items: BTreeMap<Digest, Item<T>>,
    clock: u64,
    counters: Counters,
}

impl<T> Residents<T> {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, items: BTreeMap::new(), clock: 0, counters: Counters::default() }
    }

    /// How it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is resident under this digest, now the most recently used.
    pub fn get(&mut self, digest: &Digest) -> Option<&T> {
        self.clock += 1;
        let found = self.items.get_mut(digest);
        if found.is_some() {
            self.counters.hits += 1
        } else {
            self.counters.misses += 1
        }
        found.map(|item| {
            item.used = self.clock;
            &item.value
        })
    }

    /// What is resident under this digest; counts for nothing.
    pub fn peek(&self, digest: &Digest) -> Option<&T> {
        self.items.get(digest).map(|item| &item.value)
    }

    /// Makes room, before the value is made: what has to go, least recently used first.
    ///
    /// # Errors
    ///
    /// When it does not fit beside what is pinned; then nothing goes.
    pub fn make_room(&mut self, bytes: u64) -> Result<Vec<T>, GpuError> {
        let pinned: u64 = self.items.values().filter(|item| item.pins > 0).map(|item| item.bytes).sum();
        let free = self.bytes_max - pinned;
        if bytes > free {
            return Err(GpuError::OutOfMemory {
                what: "data kept on the device".to_owned(),
                asked: bytes,
                free,
                limit: self.bytes_max,
            });
        }
        Ok(self.evict(self.bytes_max - bytes))
    }

    /// Adds a value for which room was made.
    ///
    /// # Errors
    ///
    /// Gives the value back when there is no room or one is there already.
    pub fn insert(&mut self, digest: Digest, bytes: u64, value: T) -> Result<(), T> {
        if self.items.contains_key(&digest) || bytes > self.bytes_max - self.counters.bytes {
            return Err(value);
        }
        self.clock += 1;
        self.counters.bytes += bytes;
        self.items.insert(digest, Item { value, bytes, pins: 0, used: self.clock });
        Ok(())
    }

    /// Keeps it from eviction until as many [`unpin`](Self::unpin)s; whether it is there.
    pub fn pin(&mut self, digest: &Digest) -> bool {
        self.items.get_mut(digest).map(|item| item.pins += 1).is_some()
    }

    /// Takes one pin back.
    pub fn unpin(&mut self, digest: &Digest) {
        if let Some(item) = self.items.get_mut(digest) {
            item.pins = item.pins.saturating_sub(1);
        }
    }

    /// The least recently used of what is not pinned, for something else needs its room.
    pub fn evict_oldest(&mut self) -> Option<T> {
        let oldest = self.items.iter().filter(|(_, item)| item.pins == 0).min_by_key(|(_, item)| item.used);
        let digest = oldest.map(|(digest, _)| *digest)?;
        let item = self.items.remove(&digest)?;
        self.counters.bytes -= item.bytes;
        self.counters.evictions += 1;
        Some(item.value)
    }

    /// Everything that is not pinned, for the device's memory is short.
    pub fn evict_all(&mut self) -> Vec<T> {
        self.evict(0)
    }

    fn evict(&mut self, room: u64) -> Vec<T> {
        let mut evicted = Vec::new();
        while self.counters.bytes > room {
            let Some(value) = self.evict_oldest() else { break };
            evicted.push(value);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn full() -> Residents<u8> {
        let mut residents = Residents::new(300);
        for number in 1..=3 {
            assert_eq!(residents.make_room(100), Ok(vec![]));
            residents.insert(digest(number), 100, number).unwrap();
        }
        residents
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut residents = full();
        assert_eq!(residents.get(&digest(1)), Some(&1));
        assert_eq!(residents.get(&digest(9)), None);
        assert_eq!(residents.make_room(150), Ok(vec![2, 3]));
        residents.insert(digest(4), 150, 4).unwrap();
        assert_eq!(residents.counters(), Counters { hits: 1, misses: 1, evictions: 2, bytes: 250 });
    }

    #[test]
    fn what_is_pinned_stays_and_is_counted() {
        let mut residents = full();
        assert!(residents.pin(&digest(1)) && residents.pin(&digest(1)) && !residents.pin(&digest(9)));
        let error = residents.make_room(201).unwrap_err();
        assert_eq!(
            error,
            GpuError::OutOfMemory { what: "data kept on the device".to_owned(), asked: 201, free: 200, limit: 300 }
        );
        assert_eq!(residents.counters().bytes, 300, "a refusal evicts nothing");
        residents.unpin(&digest(1));
        assert_eq!(residents.evict_all(), [2, 3]);
        residents.unpin(&digest(1));
        assert_eq!(residents.evict_all(), [1]);
    }

    #[test]
    fn there_is_one_of_each_and_none_without_room() {
        let mut residents = full();
        assert_eq!(residents.insert(digest(1), 0, 9), Err(9));
        assert_eq!(residents.insert(digest(4), 1, 9), Err(9));
    }
}
