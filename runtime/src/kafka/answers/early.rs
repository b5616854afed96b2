//! Answers that came before the brokers' report on where the record is: rare, and soon over.

use std::collections::BTreeMap;

use ergate_actors::submission::TaskEnd;
use ergate_events::id::Ordinal;

use super::book::Settled;

/// Most answers kept; a second of a busy shard. A request that is reported on later than that is told that its answer is unknown.
const ANSWERS_MAX: usize = 100_000;
/// Most bytes of results kept, for the same reason.
const BYTES_MAX: usize = 16 << 20;

/// Answers of a shard that nobody expects, kept while somebody may come to expect them. Most are to other producers' requests.
#[derive(Default)]
pub(super) struct Early {
    answers: BTreeMap<u64, Settled>,
    /// The first task among the answers.
    first: Option<Ordinal>,
    ends: BTreeMap<Ordinal, TaskEnd>,
    bytes: usize,
}

impl Early {
    /// Keeps the answer to the record at an offset.
    pub(super) fn answer(&mut self, offset: u64, settled: Settled) {
        self.first = self.first.or(settled.created());
        self.answers.insert(offset, settled);
        self.bound();
    }

    /// Whether a task may be somebody's.
    pub(super) fn wants(&self, task: Ordinal) -> bool {
        self.first.is_some_and(|first| task >= first)
    }

    /// Keeps the end of a task that may be somebody's.
    pub(super) fn end(&mut self, task: Ordinal, end: TaskEnd) {
        if self.wants(task) {
            self.bytes += end.result.len();
            self.ends.insert(task, end);
            self.bound();
        }
    }

    fn bound(&mut self) {
        if self.answers.len() > ANSWERS_MAX || self.bytes > BYTES_MAX {
            *self = Early::default();
        }
    }

    /// The answer to the record at an offset, and the end of its task, if they came already. Reports come in the order of the records, so
    /// that what was before this one is nobody's.
    pub(super) fn report(&mut self, offset: u64) -> Option<(Settled, Option<(Ordinal, TaskEnd)>)> {
        let later = self.answers.split_off(&(offset + 1));
        let (last, settled) = std::mem::replace(&mut self.answers, later).pop_last()?;
        let settled = (last == offset).then_some(settled);
        let end = settled.as_ref().and_then(Settled::created).and_then(|task| self.ends.remove_entry(&task));
        self.first = self.answers.values().find_map(Settled::created);
        self.ends = self.first.map_or_else(BTreeMap::new, |first| self.ends.split_off(&first));
        self.bytes = self.ends.values().map(|end| end.result.len()).sum();
        Some((settled?, end))
    }
}
