//! What there was to do: when each task arrived and how long it took.

use std::collections::BTreeMap;

use crate::task::{PRIORITY_DEFAULT, PRIORITY_MAX};
use crate::time::{Micros, Timestamp};

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived, counted from the beginning of the trace.
    pub at: Micros,
    /// How long it took, from start to end.
    pub service: Micros,
    /// Its priority, 0 to 9; a higher one is started sooner.
    pub priority: u8,
}

impl Arrival {
    /// A task of the usual priority.
    pub const fn new(at: Micros, service: Micros) -> Arrival {
        Arrival { at, service, priority: PRIORITY_DEFAULT }
    }
}

/// Another attempt at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long after the end of the attempt before it the task is ready again.
    pub delay: Micros,
    /// How long it took, from start to end.
    pub service: Micros,
}

/// Tasks in the order of their arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    began: Timestamp,
    tasks: Vec<Arrival>,
    /// Further attempts, of the few tasks that have any, by the task's index.
    retries: BTreeMap<u32, Vec<Retry>>,
    /// So many of the first tasks were there before anybody looked; their waits are not known.
    carried: usize,
}

/// Why tasks cannot be run again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrivalsError {
    /// There are too many for the memory that a simulation may take.
    #[error("{count} tasks are more than {max}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A moment or a span beyond what a trace can mean.
    #[error("task {task}: {what} of {value} is longer than {max}")]
    TooLong {
        /// Which task, counted from 1 in the order in which they were given.
        task: usize,
        /// What is too long.
        what: &'static str,
        /// How long it is.
        value: Micros,
        /// How long it may be.
        max: Micros,
    },
    /// A priority that there is not.
    #[error("task {task}: priority {priority} is not in 0 to {max}")]
    Priority {
        /// Which task.
        task: usize,
        /// What it says.
        priority: u8,
        /// The highest that there is.
        max: u8,
    },
}

impl Arrivals {
    /// Most tasks: 24 bytes each here and about as many again in a simulation.
    pub const COUNT_MAX: usize = 20_000_000;
    /// The latest arrival and the longest service: a hundred years, beyond which a number has the wrong unit.
    pub const SPAN_MAX: Micros = Micros::from_secs(100 * 365 * 86_400);

    /// Tasks in any order; those of one moment keep the order in which they are given. `began` is the moment from which they are counted.
    ///
    /// # Errors
    /// [`ArrivalsError`] names the task and the limit.
    pub fn new(began: Timestamp, mut tasks: Vec<Arrival>) -> Result<Arrivals, ArrivalsError> {
        Self::check(&tasks)?;
        tasks.sort_by_key(|task| task.at);
        Ok(Arrivals { began, tasks, retries: BTreeMap::new(), carried: 0 })
    }

    /// The same with further attempts. The first `carried` of these tasks were there before the beginning; they come first.
    ///
    /// # Errors
    /// As for [`Arrivals::new`].
    pub fn with_retries(
        began: Timestamp,
        mut tasks: Vec<(Arrival, Vec<Retry>)>,
        carried: usize,
    ) -> Result<Arrivals, ArrivalsError> {
        let carried = carried.min(tasks.len());
        tasks[carried..].sort_by_key(|(task, _)| task.at);
        let first: Vec<Arrival> = tasks.iter().map(|(task, _)| *task).collect();
        Self::check(&first)?;
        let again: Vec<Arrival> = tasks
            .iter()
            .flat_map(|(task, retries)| retries.iter().map(|retry| Arrival { at: retry.delay, service: retry.service, ..*task }))
            .collect();
        Self::check(&again)?;
        let numbered = (0..=u32::MAX).zip(tasks).filter(|(_, (_, retries))| !retries.is_empty());
        let retries = numbered.map(|(index, (_, retries))| (index, retries)).collect();
        Ok(Arrivals { began, tasks: first, retries, carried })
    }

    fn check(tasks: &[Arrival]) -> Result<(), ArrivalsError> {
        if tasks.len() > Self::COUNT_MAX {
            return Err(ArrivalsError::TooMany { count: tasks.len(), max: Self::COUNT_MAX });
        }
        for (index, one) in tasks.iter().enumerate() {
            let task = index + 1;
            for (what, value) in [("an arrival", one.at), ("a service time", one.service)] {
                if value > Self::SPAN_MAX {
                    return Err(ArrivalsError::TooLong { task, what, value, max: Self::SPAN_MAX });
                }
            }
            if one.priority > PRIORITY_MAX {
                return Err(ArrivalsError::Priority { task, priority: one.priority, max: PRIORITY_MAX });
            }
        }
        Ok(())
    }

    /// Further attempts at a task, by its index.
    pub(super) fn retries(&self, task: u32) -> &[Retry] {
        self.retries.get(&task).map_or(&[], Vec::as_slice)
    }

    /// Whether any task has further attempts.
    pub(super) fn has_retries(&self) -> bool {
        !self.retries.is_empty()
    }

    /// How many further attempts there are of all tasks.
    pub fn retry_count(&self) -> usize {
        self.retries.values().map(Vec::len).sum()
    }

    /// So many of the first tasks were there before anybody looked.
    pub const fn carried(&self) -> usize {
        self.carried
    }

    /// Every attempt as a task of its own, which comes as if nobody had waited: what bounds are computed of.
    #[must_use]
    pub fn flat(&self) -> Arrivals {
        let mut tasks = self.tasks.clone();
        for (task, retries) in &self.retries {
            let Some(first) = self.tasks.get(*task as usize) else { continue };
            let mut ended = first.at.0 + first.service.0;
            for retry in retries {
                let at = ended.saturating_add(retry.delay.0);
                ended = at.saturating_add(retry.service.0);
                tasks.push(Arrival { at: Micros(at), service: retry.service, ..*first });
            }
        }
        tasks.sort_by_key(|task| task.at);
        Arrivals { began: self.began, tasks, retries: BTreeMap::new(), carried: 0 }
    }

    /// The moment from which they are counted.
    pub const fn began(&self) -> Timestamp {
        self.began
    }

    /// The tasks, earliest first.
    pub fn tasks(&self) -> &[Arrival] {
        &self.tasks
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The arrival of the last one.
    pub fn span(&self) -> Micros {
        self.tasks.last().map_or(Micros(0), |task| task.at)
    }

    /// Every number of them, for a digest.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut bytes = Vec::with_capacity(self.tasks.len().min(4_096) * 17 + 16);
        bytes.extend_from_slice(&self.began.0.to_le_bytes());
        bytes.extend_from_slice(&(self.tasks.len() as u64).to_le_bytes());
        for chunk in self.tasks.chunks(4_096) {
            for task in chunk {
                bytes.extend_from_slice(&task.at.0.to_le_bytes());
                bytes.extend_from_slice(&task.service.0.to_le_bytes());
                bytes.push(task.priority);
            }
            hasher.update(&bytes);
            bytes.clear();
        }
        for (task, retries) in &self.retries {
            bytes.extend_from_slice(&task.to_le_bytes());
            for retry in retries {
                bytes.extend_from_slice(&retry.delay.0.to_le_bytes());
                bytes.extend_from_slice(&retry.service.0.to_le_bytes());
            }
        }
        hasher.update(&bytes);
    }
}
