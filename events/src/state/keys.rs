//! Idempotency keys: which task a key stands for, and until when. Bounded, and looked at only by requests that carry a key.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::event::Digest;
use crate::id::Ordinal;
use crate::time::Timestamp;

/// Most keys that are valid at one time; when all are in use, requests with a key are refused.
pub const IDEMPOTENCY_KEYS_MAX: usize = 1_000_000;
/// Expired keys that one new key clears away, so that the table shrinks faster than it grows and no request pays for all.
const SWEEP_MAX: usize = 4;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyEntry {
    /// The task that was created under it.
    pub task: Ordinal,
    /// Digest of that task's payload.
    pub digest: Digest,
    /// The first moment at which it no longer counts.
    pub expires: Timestamp,
}

/// All valid keys, and some that have expired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct KeyTable {
    entries: BTreeMap<[u8; 16], KeyEntry>,
    expiries: BTreeSet<(Timestamp, [u8; 16])>,
}

impl KeyTable {
    /// The hash under which a key of a task type is kept.
    pub fn hash(type_name: &str, key: &str) -> Digest {
        let mut text = Vec::with_capacity(type_name.len() + 1 + key.len());
        text.extend_from_slice(type_name.as_bytes());
        text.push(0);
        text.extend_from_slice(key.as_bytes());
        Digest::of(&text)
    }

    /// What a key stands for at this moment.
    pub fn get(&self, key: Digest, at: Timestamp) -> Option<&KeyEntry> {
        self.entries.get(&key.0).filter(|entry| entry.expires > at)
    }

    /// Whether another key can be taken at this moment.
    pub fn has_room(&self, at: Timestamp) -> bool {
        self.entries.len() < IDEMPOTENCY_KEYS_MAX || self.expiries.first().is_some_and(|(expires, _)| *expires <= at)
    }

    /// Number of keys kept, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn insert(&mut self, key: Digest, entry: KeyEntry, at: Timestamp) {
        for _ in 0..SWEEP_MAX {
            match self.expiries.first().copied() {
                Some((expires, old)) if expires <= at => {
                    self.expiries.pop_first();
                    self.entries.remove(&old);
                }
                Some(_) | None => break,
            }
        }
        if let Some(old) = self.entries.insert(key.0, entry) {
            self.expiries.remove(&(old.expires, key.0));
        }
        self.expiries.insert((entry.expires, key.0));
    }
}
