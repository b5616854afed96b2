//! Who waits for the ends of which tasks.

use std::collections::BTreeMap;

use ergate_events::id::{Ordinal, TaskId};
use tokio::sync::oneshot;

use crate::submission::{BatchEnd, TaskEnd};

/// Waits for the end of one task.
pub(crate) type Watch = oneshot::Sender<TaskEnd>;

/// Everybody who waits. A batch of tasks has consecutive ordinals and is one entry, so the table stays small and a look-up is a walk of
/// a few nodes; tasks that nobody waits for cost one comparison.
#[derive(Default)]
pub(crate) struct Waiters {
    batches: BTreeMap<Ordinal, Batch>,
    watches: BTreeMap<Ordinal, Vec<Watch>>,
}

struct Batch {
    len: u64,
    missing: usize,
    end: BatchEnd,
    done: oneshot::Sender<BatchEnd>,
}

impl Waiters {
    /// Waits for `len` tasks from `first` on.
    pub(crate) fn add_batch(&mut self, first: TaskId, len: u64, done: oneshot::Sender<BatchEnd>) {
        let mut ends = Vec::new();
        let missing = usize::try_from(len).unwrap_or(0);
        ends.resize_with(missing, || None);
        self.batches.insert(first.ordinal, Batch { len, missing, end: BatchEnd::run(first, ends), done });
    }

    /// Waits for one task.
    pub(crate) fn watch(&mut self, task: Ordinal, watch: Watch) {
        let watches = self.watches.entry(task).or_default();
        watches.retain(|watch| !watch.is_closed());
        watches.push(watch);
    }

    /// Whether anybody waits for this task.
    pub(crate) fn wants(&self, task: Ordinal) -> bool {
        self.batch_of(task).is_some() || (!self.watches.is_empty() && self.watches.contains_key(&task))
    }

    fn batch_of(&self, task: Ordinal) -> Option<Ordinal> {
        let (first, batch) = self.batches.range(..=task).next_back()?;
        (task.0 < first.0 + batch.len).then_some(*first)
    }

    /// Tells those who wait for this task.
    pub(crate) fn end(&mut self, task: Ordinal, end: TaskEnd) {
        if let Some(watches) = self.watches.remove(&task) {
            for watch in watches {
                // Whoever no longer listens has no use for the end.
                let _ = watch.send(end.clone());
            }
        }
        let Some(first) = self.batch_of(task) else { return };
        let Some(batch) = self.batches.get_mut(&first) else { return };
        let slot = &mut batch.end.ends[(task.0 - first.0) as usize];
        if slot.is_none() {
            batch.missing -= 1;
        }
        *slot = Some(end);
        if batch.missing == 0
            && let Some(batch) = self.batches.remove(&first)
        {
            let _ = batch.done.send(batch.end);
        }
    }
}
