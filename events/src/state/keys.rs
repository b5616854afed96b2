//! Idempotency keys: which task a key stands for, and until when. Bounded, and looked at only by requests that carry a key.

use bincode::{Decode, Encode};

use crate::event::Digest;
use crate::id::Ordinal;
use crate::shared::{SharedMap, SharedSet};
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
    entries: SharedMap<[u8; 16], KeyEntry>,
    expiries: SharedSet<(Timestamp, [u8; 16])>,
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
                    self.expiries.remove(&(expires, old));
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

#[cfg(test)]
impl KeyTable {
    /// How many nodes one has for itself since it was cloned from the other.
    pub(crate) fn nodes_apart(&self, other: &KeyTable) -> usize {
        self.entries.nodes_apart(&other.entries) + self.expiries.nodes_apart(&other.expiries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Rejection};
    use crate::decide::decide;
    use crate::event::{Envelope, Event};
    use crate::id::{Position, TypeId};
    use crate::state::State;
    use crate::task::{IdempotencyKey, TypeSettings};

    fn request(key: &str) -> Command<'_> {
        Command::Request { task_type: TypeId(0), payload: b"", key: Some(IdempotencyKey { key, window: None }), asks: &[] }
    }

    #[test]
    fn a_full_table_refuses_new_keys_until_one_expires_and_still_knows_the_old_ones() {
        let mut state = State::default();
        let settings = Box::new(TypeSettings::default());
        let event = Event::TypeDefined { task_type: TypeId(0), name: "job", settings, by: "" };
        state.apply(&Envelope { position: Position(0), recorded_at: Timestamp(1), event });
        let known = KeyTable::hash("job", "known");
        for index in 0..IDEMPOTENCY_KEYS_MAX as u64 {
            let mut key = Digest([0; 16]);
            key.0[..8].copy_from_slice(&index.to_be_bytes());
            let entry = KeyEntry { task: Ordinal(7), digest: Digest::of(b""), expires: Timestamp(1_000 + index) };
            state.work.keys.insert(if index == 5 { known } else { key }, entry, Timestamp(1));
        }
        let decided = |key, at| {
            let mut events = Vec::new();
            decide(&state, &request(key), Timestamp(at), &mut events).map(|()| matches!(events[0], Event::Deduplicated { .. }))
        };
        assert_eq!(decided("known", 999), Ok(true));
        assert!(matches!(decided("new", 999), Err(Rejection::KeysFull { max: IDEMPOTENCY_KEYS_MAX, .. })));
        assert_eq!(decided("new", 1_000), Ok(false), "the first key has expired");
    }
}
