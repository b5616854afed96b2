//! What the log says about tasks that have ended.

use std::collections::{BTreeMap, BTreeSet};

use ergate_actors::submission::{EndFailure, TaskEnd};
use ergate_events::event::Event;
use ergate_events::id::{Ordinal, Position};
use ergate_events::log::{LogError, LogReader};
use ergate_events::task::Outcome;

/// The ends of tasks, found by reading on once from the request of the first; those that have not ended or are not in the log are left out.
///
/// # Errors
/// [`LogError`].
pub fn ends_of(reader: &dyn LogReader, tasks: BTreeSet<Ordinal>) -> Result<BTreeMap<Ordinal, TaskEnd>, LogError> {
    Ok(look_back(reader, tasks)?.ends)
}

/// How tasks ended, as [`ends_of`] finds it.
///
/// # Errors
/// [`LogError`].
pub fn outcomes_of(reader: &dyn LogReader, tasks: BTreeSet<Ordinal>) -> Result<BTreeMap<Ordinal, Outcome>, LogError> {
    Ok(ends_of(reader, tasks)?.into_iter().map(|(task, end)| (task, end.outcome)).collect())
}

/// What a log says about tasks.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that have ended.
    pub ends: BTreeMap<Ordinal, TaskEnd>,
    /// Those that were requested and have not ended. Others are not in the log: nobody requested them, or retention has dropped them.
    pub live: BTreeSet<Ordinal>,
}

/// As [`ends_of`], and tells tasks that have not ended from those that are not there.
///
/// # Errors
/// [`LogError`].
pub fn look_back(reader: &dyn LogReader, mut tasks: BTreeSet<Ordinal>) -> Result<Found, LogError> {
    let mut ends = BTreeMap::new();
    let Some(from) = first_request(reader, &mut tasks)? else { return Ok(Found::default()) };
    let mut next = Ordinal(0);
    let mut cursor = reader.cursor(from)?;
    let mut failures: BTreeMap<Ordinal, (String, String)> = BTreeMap::new();
    while let Some(block) = cursor.next_block()? {
        next = block.header.first_ordinal;
        for envelope in block.records() {
            let envelope = envelope.map_err(|source| LogError::Damaged {
                at: block.header.first_position,
                path: "the log".into(),
                offset: 0,
                source,
            })?;
            next = Ordinal(next.0 + u64::from(envelope.event.creates_task()));
            let Some(task) = envelope.event.task().filter(|task| tasks.contains(task)) else { continue };
            if let Event::Failed { ref failure, .. } = envelope.event {
                failures.insert(task, (failure.class.to_owned(), failure.message.to_owned()));
            }
            if let Event::TimedOut { timeout, .. } = envelope.event {
                failures.insert(task, ("timeout".to_owned(), timeout.explanation().to_owned()));
            }
            if let Some(end) = end(&envelope.event, failures.get(&task)) {
                tasks.remove(&task);
                ends.insert(task, end);
            }
            if tasks.is_empty() {
                return Ok(Found { ends, live: tasks });
            }
        }
    }
    tasks.retain(|task| *task < next);
    Ok(Found { ends, live: tasks })
}

/// Where the first task that the log still has was requested; drops those before it.
fn first_request(reader: &dyn LogReader, tasks: &mut BTreeSet<Ordinal>) -> Result<Option<Position>, LogError> {
    while let Some(first) = tasks.first() {
        if let Some(from) = reader.seek_task(*first)? {
            return Ok(Some(from));
        }
        tasks.pop_first();
    }
    Ok(None)
}

/// The end that an event is, if it is one.
fn end(event: &Event<'_>, last_failure: Option<&(String, String)>) -> Option<TaskEnd> {
    let (class, message) = last_failure.cloned().unwrap_or_default();
    let failed = |cause| Some(Box::new(EndFailure { cause, class: class.clone(), message: message.clone() }));
    let (_, outcome) = event.ends()?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::ends` lists the events that end a task")]
    Some(match *event {
        Event::Succeeded { result, .. } => TaskEnd { outcome, result: result.into(), failure: None },
        Event::Ended { cause, .. } | Event::DeadLettered { cause, .. } => {
            TaskEnd { outcome, result: Box::default(), failure: failed(cause) }
        }
        _ => return None,
    })
}
