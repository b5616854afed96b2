//! What a generator answers: tasks, each named by its batch and its place there.

use ergate_events::id::TypeId;
use ergate_events::time::Micros;
use serde::Serialize;

use super::Slot;
use crate::submission::{Extras, RequestBatch};

/// Most tasks of one batch: so many are recorded within a second.
pub const GENERATED_TASKS_MAX: usize = 10_000;
/// Most bytes of one batch.
pub const GENERATED_BYTES_MAX: usize = 16 << 20;
/// Longest name of a batch, in bytes: keys have 256, and the task type and the place belong to them.
pub const BATCH_NAME_BYTES_MAX: usize = 96;

/// Why a task does not fit into a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There are too many.
    #[error("a batch has at most {GENERATED_TASKS_MAX} tasks; leave the rest to the next slot")]
    Tasks,
    /// They are too large.
    #[error("a batch has at most {GENERATED_BYTES_MAX} bytes; leave the rest to the next slot, or let payloads name files")]
    Bytes,
    /// The payload cannot be written.
    #[error("the payload cannot be written as JSON")]
    Payload(#[source] serde_json::Error),
    /// The task has a key of its own.
    #[error(
        "the key of a generated task is made of its batch and its place; leave `key` and `key_window` empty, and name the batch"
    )]
    Key,
    /// The batch has a name that cannot be part of a key.
    #[error("the name of a batch has from 1 to {BATCH_NAME_BYTES_MAX} bytes, and this one has {0}")]
    Name(usize),
}

/// Tasks that there should be.
#[derive(Debug, Default)]
pub struct GeneratedBatch {
    /// The slot's where it is `None`.
    name: Option<String>,
    tasks: Vec<(Vec<u8>, Extras)>,
    bytes: usize,
}

impl GeneratedBatch {
    /// No tasks, in a batch that has the name of its slot.
    pub fn new() -> GeneratedBatch {
        GeneratedBatch::default()
    }

    /// No tasks, in a batch that is named after what it is about: of all batches with this name, from whatever slot, a task is created once.
    ///
    /// # Errors
    /// [`BatchError::Name`].
    pub fn named(name: impl Into<String>) -> Result<GeneratedBatch, BatchError> {
        let name = name.into();
        match name.len() {
            1..=BATCH_NAME_BYTES_MAX => Ok(GeneratedBatch { name: Some(name), ..GeneratedBatch::default() }),
            bytes => Err(BatchError::Name(bytes)),
        }
    }

    /// Adds a task.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn push(&mut self, payload: &(impl Serialize + ?Sized)) -> Result<(), BatchError> {
        self.push_with(payload, Extras::default())
    }

    /// Adds a task with what few tasks have, but for a key.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn push_with(&mut self, payload: &(impl Serialize + ?Sized), extras: Extras) -> Result<(), BatchError> {
        if extras.key.is_some() || extras.key_window.is_some() {
            return Err(BatchError::Key);
        }
        if self.tasks.len() >= GENERATED_TASKS_MAX {
            return Err(BatchError::Tasks);
        }
        let payload = serde_json::to_vec(payload).map_err(BatchError::Payload)?;
        let bytes = self.bytes + payload.len() + extras.bytes();
        if bytes > GENERATED_BYTES_MAX {
            return Err(BatchError::Bytes);
        }
        self.bytes = bytes;
        self.tasks.push((payload, extras));
        Ok(())
    }

    /// Number of tasks.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Its name in this slot.
    pub(super) fn name(&self, slot: Slot) -> String {
        self.name.clone().unwrap_or_else(|| slot.to_string())
    }

    /// The requests, each with its key.
    pub(super) fn into_requests(self, name: &str, id: TypeId, batch: &str, key_window: Micros) -> RequestBatch {
        let mut requests = RequestBatch::with_capacity(self.tasks.len(), self.bytes);
        for (index, (payload, extras)) in self.tasks.into_iter().enumerate() {
            let key = Some(format!("generator/{name}/{batch}/{index}"));
            requests.push(id, &payload, Some(Box::new(Extras { key, key_window: Some(key_window), ..extras })));
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use ergate_events::time::Timestamp;

    use super::*;

    #[test]
    fn keys_are_made_of_type_batch_and_place() {
        let slot = Slot::of(Timestamp(1_772_369_999_999_999), Micros::from_secs(3_600));
        let mut batch = GeneratedBatch::new();
        batch.push("a").and_then(|()| batch.push("b")).expect("two tasks fit");
        let name = batch.name(slot);
        let requests = batch.into_requests("purge", TypeId(3), &name, Micros(7));
        let keys: Vec<_> = requests.iter().map(|(id, _, extras)| (id, extras.and_then(|extras| extras.key.clone()))).collect();
        let key = |index| Some(format!("generator/purge/2026-03-01T12:00:00.000000Z/{index}"));
        assert_eq!(keys, [(TypeId(3), key(0)), (TypeId(3), key(1))]);
        assert_eq!(GeneratedBatch::named("file-17").map(|batch| batch.name(slot)).ok().as_deref(), Some("file-17"));
    }

    #[test]
    fn the_longest_key_fits() {
        let (name, batch) = ("t".repeat(super::super::GENERATOR_NAME_BYTES_MAX), "b".repeat(BATCH_NAME_BYTES_MAX));
        let longest = format!("generator/{name}/{batch}/{}", GENERATED_TASKS_MAX - 1);
        assert!(longest.len() <= ergate_events::task::TEXT_BYTES_MAX, "{}", longest.len());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_named() {
        assert!(matches!(GeneratedBatch::named(""), Err(BatchError::Name(0))));
        assert!(matches!(GeneratedBatch::named("x".repeat(97)), Err(BatchError::Name(97))));
        let mut batch = GeneratedBatch::new();
        let keyed = Extras { key: Some("mine".to_owned()), ..Extras::default() };
        assert!(matches!(batch.push_with(&1, keyed), Err(BatchError::Key)));
        let large = "x".repeat(GENERATED_BYTES_MAX / 2);
        assert!(batch.push(&large).is_ok());
        assert!(matches!(batch.push(&large), Err(BatchError::Bytes)));
        let mut batch = GeneratedBatch::new();
        (0..GENERATED_TASKS_MAX).for_each(|index| batch.push(&index).expect("it fits"));
        assert!(matches!(batch.push(&0), Err(BatchError::Tasks)) && batch.len() == GENERATED_TASKS_MAX);
    }
}
