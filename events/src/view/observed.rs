//! What observers of task types are told: every turn in the life of an attempt, with what it needs to be understood alone.
//!
//! What becomes of an attempt that ended without a result stands in the event behind it, so such an end is kept until that comes: in the
//! same block, because both are of one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Cause, Departure, Envelope, Event};
use crate::id::{Ordinal, Position, TypeId};
use crate::state::State;
use crate::task::Outcome;
use crate::time::Timestamp;

/// Something that happened to a task of an observed type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Index of the observed type, in the order in which they were given.
    pub observed: usize,
    /// Which task.
    pub task: Ordinal,
    /// Which start of it, counted from 1; 0 before the first.
    pub attempt: u32,
    /// When it happened.
    pub at: Timestamp,
    /// The record that says so.
    pub position: Position,
    /// What happened.
    pub what: Happened,
}

/// What happened to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was given a slot.
    Started,
    /// It told how far it is.
    Progressed {
        /// Of the whole, in percent, where it can tell.
        percent: Option<u8>,
        /// What it is doing.
        stage: Box<str>,
        /// More about it.
        message: Box<str>,
    },
    /// It ended with a result, and its task with it.
    Succeeded {
        /// How the task ended.
        outcome: Outcome,
        /// The result.
        result: Box<[u8]>,
    },
    /// Its task was cancelled or killed.
    Cancelled {
        /// Which of the two.
        cause: Cause,
    },
    /// It ended without a result, or its task did before it began.
    Failed {
        /// The short name of the kind of failure; `timeout` and `lost` are the runtime's own.
        class: Box<str>,
        /// What happened, for a person.
        message: Box<str>,
        /// When the next attempt may start; `None` when this was the last.
        again: Option<Timestamp>,
        /// Why there is no other attempt.
        cause: Option<Cause>,
    },
}

impl Happened {
    /// Bytes that it takes beyond its own size.
    pub fn bytes(&self) -> usize {
        match self {
            Happened::Started | Happened::Cancelled { .. } => 0,
            Happened::Progressed { stage, message, .. } => stage.len() + message.len(),
            Happened::Succeeded { result, .. } => result.len(),
            Happened::Failed { class, message, .. } => class.len() + message.len(),
        }
    }
}

/// A live task of an observed type.
#[derive(Clone, Copy, Debug)]
struct Live {
    observed: usize,
    attempt: u32,
}

/// The tasks of observed types, up to a position.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// True up to here.
    pub position: Position,
    /// The observed types.
    names: Arc<[String]>,
    /// By [`TypeId`]; a redefined name has several.
    types: Vec<Option<usize>>,
    live: BTreeMap<Ordinal, Live>,
    dead: BTreeMap<Ordinal, usize>,
    next: Ordinal,
    /// The end of an attempt of which the next event says what becomes of it.
    open: Option<Notice>,
}

impl Observed {
    /// What there is of these types in a state; nothing has happened yet.
    pub fn of(state: &State, names: Arc<[String]>) -> Observed {
        let work = &state.work;
        let mut observed = Observed { position: state.position, names, next: state.next_ordinal(), ..Observed::default() };
        for (definition, id) in work.types.iter().zip(0..=u16::MAX) {
            observed.define(TypeId(id), &definition.name);
        }
        for (ordinal, task, _) in work.tasks.iter() {
            if let Some(kind) = observed.kind(task.task_type) {
                observed.live.insert(ordinal, Live { observed: kind, attempt: task.attempt });
            }
        }
        for (ordinal, letter) in &work.dead {
            if let Some(kind) = observed.kind(letter.task.task_type) {
                observed.dead.insert(*ordinal, kind);
            }
        }
        observed
    }

    /// Folds one event and tells what it means for observers. What was folded before changes nothing.
    pub fn apply(&mut self, envelope: &Envelope<'_>, tell: &mut impl FnMut(Notice)) {
        if envelope.position < self.position {
            return;
        }
        self.position = envelope.position.next();
        let open = self.open.take();
        let answers = open.as_ref().is_some_and(|notice| envelope.event.task() == Some(notice.task));
        let (before, open) = if answers { (None, open) } else { (open, None) };
        before.into_iter().for_each(&mut *tell);
        if let Some(notice) = self.turn(envelope, open) {
            tell(notice);
        }
    }

    /// Tells what no event of the block says more about.
    pub fn end_block(&mut self, tell: &mut impl FnMut(Notice)) {
        self.open.take().into_iter().for_each(tell);
    }

    /// What an event says; `open` is the end of an attempt of the same task right before it.
    fn turn(&mut self, envelope: &Envelope<'_>, open: Option<Notice>) -> Option<Notice> {
        let (at, position) = (envelope.recorded_at, envelope.position);
        let told = |task: Ordinal, live: Live, what| {
            let Live { observed, attempt } = live;
            Some(Notice { observed, task, attempt, at, position, what })
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events say nothing of an attempt")]
        match envelope.event {
            Event::TypeDefined { task_type, name, .. } => self.define(task_type, name),
            Event::Requested { task_type, .. } => {
                let kind = self.kind(task_type);
                self.create(kind);
            }
            Event::Redriven { task, .. } => {
                let kind = self.dead.remove(&task);
                self.create(kind);
            }
            Event::Started { task, attempt, .. } => {
                let live = self.live.get_mut(&task)?;
                live.attempt = attempt;
                return told(task, *live, Happened::Started);
            }
            Event::Progressed { task, percent, stage, message, .. } => {
                let what = Happened::Progressed { percent, stage: stage.into(), message: message.into() };
                return told(task, *self.live.get(&task)?, what);
            }
            Event::Succeeded { task, outcome, result, .. } => {
                return told(task, self.live.remove(&task)?, Happened::Succeeded { outcome, result: result.into() });
            }
            Event::Failed { task, failure, .. } => {
                self.open = told(task, *self.live.get(&task)?, failed(failure.class, failure.message, None));
            }
            Event::TimedOut { task, timeout, .. } => {
                self.open = told(task, *self.live.get(&task)?, failed("timeout", timeout.explanation(), None));
            }
            Event::Lost { task, departure, .. } => {
                self.open = told(task, *self.live.get(&task)?, failed("lost", gone(departure), Some(at)));
            }
            Event::RetryScheduled { due, .. } => return Some(again(open?, due)),
            Event::Ended { task, cause, .. } => {
                let live = self.live.remove(&task)?;
                return told(task, live, ended(cause, open));
            }
            Event::DeadLettered { task, cause } => {
                let live = self.live.remove(&task)?;
                self.dead.insert(task, live.observed);
                return told(task, live, ended(cause, open));
            }
            Event::DeadLetterDropped { task } => drop(self.dead.remove(&task)),
            _ => return open,
        }
        None
    }

    fn define(&mut self, task_type: TypeId, name: &str) {
        let index = usize::from(task_type.0);
        if self.types.len() <= index {
            self.types.resize(index + 1, None);
        }
        self.types[index] = self.names.iter().position(|known| known == name);
    }

    fn kind(&self, task_type: TypeId) -> Option<usize> {
        self.types.get(usize::from(task_type.0)).copied().flatten()
    }

    fn create(&mut self, kind: Option<usize>) {
        if let Some(observed) = kind {
            self.live.insert(self.next, Live { observed, attempt: 0 });
        }
        self.next = Ordinal(self.next.0 + 1);
    }
}

fn failed(class: &str, message: &str, again: Option<Timestamp>) -> Happened {
    Happened::Failed { class: class.into(), message: message.into(), again, cause: None }
}

const fn gone(departure: Departure) -> &'static str {
    match departure {
        Departure::Lost => "the executor of the attempt is gone",
        Departure::Drained => "the executor of the attempt was drained before the attempt had ended",
    }
}

/// An end after which there is another attempt.
fn again(notice: Notice, due: Timestamp) -> Notice {
    let Notice { what, .. } = notice;
    let what = match what {
        Happened::Failed { class, message, cause, .. } => Happened::Failed { class, message, again: Some(due), cause },
        Happened::Started | Happened::Progressed { .. } | Happened::Succeeded { .. } | Happened::Cancelled { .. } => what,
    };
    Notice { what, ..notice }
}

/// The end of a task without a result.
fn ended(cause: Cause, open: Option<Notice>) -> Happened {
    match (cause, open.map(|notice| notice.what)) {
        (Cause::Cancelled | Cause::Killed | Cause::Dependency(_), _) => Happened::Cancelled { cause },
        (_, Some(Happened::Failed { class, message, .. })) => {
            Happened::Failed { class, message, again: None, cause: Some(cause) }
        }
        (_, _) => Happened::Failed { class: "ended".into(), message: "".into(), again: None, cause: Some(cause) },
    }
}
