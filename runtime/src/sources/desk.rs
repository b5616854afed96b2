//! Lines as requests: read, submitted in their order, and answered once the answers are durable. Where there is no room, they wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ergate_actors::submission::{BatchAnswer, Extras, RequestBatch, SubmitError};
use ergate_events::id::{ShardId, TypeId};
use ergate_events::task::{ASKS_MAX, TypeSettings};

use super::history::{LABEL, label};
use crate::request::{self, Record, Refusal};
use crate::runtime::known_type;
use crate::wiring::Parts;

/// How long a source that finds no room waits before it asks again.
const ROOM_AFTER: Duration = Duration::from_millis(100);

/// A line on its way.
pub(super) struct Wanted {
    /// The name of its file.
    pub(super) file: String,
    /// Where in its file it begins.
    pub(super) offset: u64,
    /// As it stands there, for when the rules refuse it.
    pub(super) line: Vec<u8>,
    task_type: TypeId,
    payload: Vec<u8>,
    extras: Box<Extras>,
}

/// Why a source ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The log takes nothing more.
    Failed(SubmitError),
}

/// Whether a source is to end.
#[derive(Debug, Default)]
pub(super) struct Stop(AtomicBool);

impl Stop {
    /// Tells it to end; its thread has to be woken.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits, on the thread of the source, until it is to end or this time is over.
    pub(super) fn wait(&self, span: Duration) {
        let until = Instant::now() + span;
        while !self.is_set() {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
            std::thread::park_timeout(left);
        }
    }
}

/// A shard as a source needs it.
pub(super) struct Desk {
    pub(super) parts: Parts,
    /// What the registered task types promise.
    pub(super) settings: BTreeMap<String, TypeSettings>,
    pub(super) tasks_live_max: usize,
    /// Drives one submission at a time, on the thread of the source.
    pub(super) waiter: tokio::runtime::Runtime,
}

impl Desk {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, and in which field.
    pub(super) fn read(&self, source: &str, file: &str, offset: u64, line: &[u8]) -> Result<Wanted, Refusal> {
        let record = Record { value: Some(line), ..Record::default() };
        let mut request = request::parse(&record, self.parts.clock.now())?;
        let unknown = |error: SubmitError| Refusal::new("type", error.to_string());
        let task_type = known_type(&self.parts.types, &request.task_type).map_err(unknown)?;
        let extras = match self.settings.get(&*request.task_type) {
            Some(settings) => request.take_extras(settings),
            None => request.extras.take(),
        };
        let mut extras = extras.unwrap_or_default();
        if extras.asks(ShardId(0)).len() >= ASKS_MAX {
            let reason =
                format!("makes {ASKS_MAX} settings; {} are expected, for a source adds the label `{LABEL}`", ASKS_MAX - 1);
            return Err(Refusal::new("labels", reason));
        }
        extras.labels.push((LABEL.to_owned(), label(source, file, offset)));
        let (file, line, payload) = (file.to_owned(), line.to_vec(), request.payload.into_owned());
        Ok(Wanted { file, offset, line, task_type, payload, extras })
    }

    /// Submits lines as [`submit`] does.
    ///
    /// # Errors
    /// As [`submit`].
    pub(super) fn submit(
        &self,
        wanted: Vec<Wanted>,
        stop: &Stop,
        settled: impl FnMut(Wanted, Result<bool, SubmitError>),
    ) -> Result<u64, Ended> {
        submit(wanted, stop, |wanted| self.take(wanted), settled)
    }

    fn take(&self, wanted: &[Wanted]) -> Result<BatchAnswer, SubmitError> {
        self.parts.admit(wanted.len(), self.tasks_live_max)?;
        let mut requests = RequestBatch::with_capacity(wanted.len(), wanted.iter().map(|wanted| wanted.payload.len()).sum());
        wanted.iter().for_each(|wanted| requests.push(wanted.task_type, &wanted.payload, Some(wanted.extras.clone())));
        if requests.names_tasks() {
            return self.waiter.block_on(self.parts.submit_dependents(&requests));
        }
        Ok(self.waiter.block_on(self.parts.submit(requests, None))?.answer)
    }
}

/// How many lines travel together. One that names tasks goes alone, so that it may name those of lines before it and none of later ones, whatever
/// came together.
fn together(wanted: &[Wanted]) -> usize {
    let first = wanted.iter().position(|wanted| !wanted.extras.after.is_empty());
    first.map_or(wanted.len(), |first| first.max(1))
}

/// Submits lines in their order and hands each to `settled` with its answer: whether it was there before. Waits while there is no room, and tries
/// as many as there is room for. Says up to which position the answers are durable.
///
/// # Errors
/// [`Ended`]; then lines that were not settled may or may not have been taken.
fn submit(
    mut left: Vec<Wanted>,
    stop: &Stop,
    mut take: impl FnMut(&[Wanted]) -> Result<BatchAnswer, SubmitError>,
    mut settled: impl FnMut(Wanted, Result<bool, SubmitError>),
) -> Result<u64, Ended> {
    let (mut position, mut size) = (0, left.len());
    while !left.is_empty() {
        if stop.is_set() {
            return Err(Ended::Stopped);
        }
        size = together(&left[..size]);
        match take(&left[..size]) {
            Ok(answer) => {
                position = answer.position.0;
                let rest = left.split_off(size);
                for (wanted, answer) in std::mem::take(&mut left).into_iter().zip(answer.iter()) {
                    match answer {
                        Err(SubmitError::Rejected(rejection)) if rejection.is_busy() => left.push(wanted),
                        answer => settled(wanted, answer.map(|(_, duplicate)| duplicate)),
                    }
                }
                if !left.is_empty() {
                    stop.wait(ROOM_AFTER);
                }
                left.extend(rest);
                size = left.len();
            }
            Err(SubmitError::Busy { .. }) if size > 1 => size /= 2,
            Err(SubmitError::Busy { retry_after, .. }) => {
                stop.wait(retry_after.to_std().min(ROOM_AFTER));
                size = left.len();
            }
            Err(error) => return Err(Ended::Failed(error)),
        }
    }
    Ok(position)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::VecDeque;

    use ergate_actors::submission::AnswerRun;
    use ergate_events::command::Rejection;
    use ergate_events::id::{Ordinal, Position, TaskId};
    use ergate_events::time::Micros;

    use super::*;

    /// Offsets of the lines of each submission.
    type Asked = Vec<Vec<u64>>;
    /// Offsets of lines with their answers, where they were taken.
    type Told = Vec<(u64, Option<bool>)>;

    fn wanted(offset: u64) -> Wanted {
        let (file, extras) = ("a.ndjson".to_owned(), Box::default());
        Wanted { file, offset, line: Vec::new(), task_type: TypeId(0), payload: Vec::new(), extras }
    }

    /// Submits lines to a shard that answers so: which lines it was asked for each time, and what became of each line.
    fn run(lines: u64, answers: Vec<Result<BatchAnswer, SubmitError>>) -> (Asked, Told, Result<u64, Ended>) {
        let (mut answers, mut asked, mut told) = (VecDeque::from(answers), Vec::new(), Vec::new());
        let stop = Stop::default();
        let take = |wanted: &[Wanted]| {
            asked.push(wanted.iter().map(|wanted| wanted.offset).collect::<Vec<u64>>());
            let answer = answers.pop_front().unwrap();
            if answers.is_empty() && answer.is_err() {
                stop.set();
            }
            answer
        };
        let settled = |wanted: Wanted, answer: Result<bool, SubmitError>| told.push((wanted.offset, answer.ok()));
        let ended = submit((0..lines).map(wanted).collect(), &stop, take, settled);
        (asked, told, ended)
    }

    fn busy() -> Result<BatchAnswer, SubmitError> {
        Err(SubmitError::Busy { reason: "full", retry_after: Micros(1) })
    }

    fn taken(first: u64, count: u32) -> AnswerRun {
        AnswerRun::Accepted { first: TaskId { ordinal: Ordinal(first), ..TaskId::default() }, count }
    }

    fn answer(position: u64, runs: Vec<AnswerRun>) -> Result<BatchAnswer, SubmitError> {
        Ok(BatchAnswer { runs, position: Position(position) })
    }

    #[test]
    fn as_many_are_tried_as_there_is_room_for_in_their_order() {
        let answers = vec![
            busy(),
            busy(),
            answer(7, vec![taken(0, 1)]),
            busy(),
            answer(9, vec![taken(1, 1)]),
            answer(12, vec![taken(2, 2)]),
        ];
        let (asked, told, ended) = run(4, answers);
        assert_eq!(asked, [vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1, 2, 3], vec![1], vec![2, 3]]);
        assert_eq!(told, (0..4).map(|offset| (offset, Some(false))).collect::<Vec<_>>());
        assert!(matches!(ended, Ok(12)), "{ended:?}");
    }

    #[test]
    fn a_line_for_which_a_table_is_full_is_tried_again_and_one_that_is_refused_is_not() {
        let full = AnswerRun::Rejected(Rejection::KeysFull { max: 1, retry_after: Micros(1) });
        let conflict = AnswerRun::Rejected(Rejection::KeyConflict { of: Ordinal(0) });
        let first = answer(5, vec![taken(0, 1), full, conflict, AnswerRun::Duplicate(TaskId::default())]);
        let (asked, told, ended) = run(4, vec![first, answer(8, vec![taken(1, 1)])]);
        assert_eq!(asked, [vec![0, 1, 2, 3], vec![1]]);
        assert_eq!(told, [(0, Some(false)), (2, None), (3, Some(true)), (1, Some(false))]);
        assert!(matches!(ended, Ok(8)), "{ended:?}");
    }

    #[test]
    fn a_source_that_is_to_end_waits_for_no_room_and_a_log_that_failed_ends_it() {
        let (_, told, ended) = run(1, vec![busy()]);
        assert!(told.is_empty() && matches!(ended, Err(Ended::Stopped)), "{ended:?}");
        let (_, told, ended) = run(1, vec![Err(SubmitError::Unknown { reason: "the disk".to_owned() })]);
        assert!(told.is_empty() && matches!(ended, Err(Ended::Failed(_))), "{ended:?}");
    }
}
