//! The rules for tasks that come after others: which names a request may use, and what an end leads to (task rule version 1).

use crate::command::Rejection;
use crate::decide::texts;
use crate::event::{Cause, Event};
use crate::id::Ordinal;
use crate::slab::Phase;
use crate::state::Work;
use crate::state::keys::KeyTable;
use crate::task::{AFTER_MAX, Ask, Dependency, OnFailure, Outcome};
use crate::time::Timestamp;

/// What a request asks for, with every name of a task that it comes after in the form that it has in the log, and each once.
///
/// # Errors
/// The first name that is none.
#[cold]
pub(crate) fn resolve<'a>(work: &Work, type_name: &str, asks: &[Ask<'a>], at: Timestamp) -> Result<Vec<Ask<'a>>, Rejection> {
    let (mut resolved, mut index) = (Vec::with_capacity(asks.len()), 0);
    for ask in asks {
        let Ask::After(dependency) = *ask else {
            resolved.push(*ask);
            continue;
        };
        let ask = Ask::After(find(work, type_name, dependency, index, at)?);
        index += 1;
        if !resolved.contains(&ask) {
            resolved.push(ask);
        }
    }
    if index > AFTER_MAX {
        return Err(Rejection::OutOfRange { what: "the number of tasks that one comes after", rule: "at most 64" });
    }
    Ok(resolved)
}

/// The task that a request names, as it is at this moment.
fn find<'a>(
    work: &Work,
    type_name: &str,
    dependency: Dependency<'_>,
    index: usize,
    at: Timestamp,
) -> Result<Dependency<'a>, Rejection> {
    if let Dependency::Key(task_type, key) = dependency {
        texts(&[("a task type in `after`", task_type.unwrap_or(type_name)), ("a key in `after`", key)])?;
    }
    let Some(task) = named(work, type_name, dependency, at) else { return Err(Rejection::UnknownDependency { index }) };
    match dependency {
        _ if work.tasks.get(task).is_some() => Ok(Dependency::Task(task)),
        Dependency::Ended(_, outcome) => Ok(Dependency::Ended(task, outcome)),
        Dependency::Task(_) | Dependency::Key(..) => Err(Rejection::DependencyEnded { index, task }),
    }
}

/// The task that a request names, if there was ever one.
fn named(work: &Work, type_name: &str, dependency: Dependency<'_>, at: Timestamp) -> Option<Ordinal> {
    let task = match dependency {
        Dependency::Task(task) | Dependency::Ended(task, _) => task,
        Dependency::Key(task_type, key) => work.keys.get(KeyTable::hash(task_type.unwrap_or(type_name), key), at)?.task,
    };
    Some(task).filter(|task| *task < work.tasks.next())
}

/// The task that a request names, where it has ended and the name does not say how; `type_name` is the request's own type.
pub fn ended(work: &Work, type_name: &str, dependency: Dependency<'_>, at: Timestamp) -> Option<Ordinal> {
    let says_how = matches!(dependency, Dependency::Ended(..));
    named(work, type_name, dependency, at).filter(|task| !says_how && work.tasks.get(*task).is_none())
}

/// What follows when a task comes after one that has ended without success already; `task` is the new one.
pub(crate) fn after_request(task: Ordinal, asks: &[Ask<'_>]) -> Option<Event<'static>> {
    let failed = asks.iter().find_map(|ask| {
        if let Ask::After(Dependency::Ended(dependency, outcome)) = ask {
            Some(*dependency).filter(|_| !outcome.is_success())
        } else {
            None
        }
    });
    failed.filter(|_| OnFailure::of(asks) == OnFailure::Cancel).map(|dependency| cancelled(task, dependency))
}

/// What the first end leads to that a task waits for and was not told of.
#[inline]
pub(crate) fn next(work: &Work) -> Option<Event<'static>> {
    if work.holds.is_empty() { None } else { next_untold(work) }
}

#[cold]
fn next_untold(work: &Work) -> Option<Event<'static>> {
    let (task, dependency, outcome) = work.holds.first_untold()?;
    let hold = work.holds.get(task)?;
    debug_assert!(work.tasks.get(task).is_some_and(|task| task.phase == Phase::Held), "who waits for an end is held");
    if !outcome.is_success() && hold.on_failure == OnFailure::Cancel {
        return Some(cancelled(task, dependency));
    }
    let left = u32::try_from(hold.after.len()).map_or(u32::MAX, |count| count.saturating_sub(1));
    Some(Event::DependencyMet { task, dependency, left })
}

const fn cancelled(task: Ordinal, dependency: Ordinal) -> Event<'static> {
    Event::Ended { task, outcome: Outcome::Cancelled, cause: Cause::Dependency(dependency) }
}
