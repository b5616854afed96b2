//! Lists of tasks: live ones from a state, ended ones from the log's indexes.

use std::collections::{BTreeSet, VecDeque};

use ergate_events::id::{Ordinal, Position, ShardId, TypeId};
use ergate_events::log::LogReader;
use ergate_events::log::index::{Ending, EndingQuery, TaskIndex, TypeNames};
use ergate_events::slab::{Phase, Task};
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::{Micros, Timestamp};

use super::LookError;
use super::row::{Cursor, Row, ended_row, live_row};

/// Endings that are looked at together where few of them are shown.
const PAGE: usize = 1_024;
/// Most endings since a list was begun that are looked at for a page of it: each page looks at all of them anew, and they take a tenth of a second.
const ENDED_SINCE_MAX: usize = 100_000;

/// States to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Filter {
    /// Not ended
    Live,
    /// Ended, dead letters included
    Ended,
    /// Failed for good and kept for redrive
    Dead,
    /// Waits for the moment that its request named
    Delayed,
    /// Waits for a slot
    Ready,
    /// Has a slot
    Running,
    /// Has a slot and was asked to give it up
    Cancelling,
    /// Waits for its next attempt
    Backoff,
    /// Waits for a limit on the flow
    Limited,
    /// Waits for the end of other tasks
    Held,
}

impl Filter {
    /// All of them with their names.
    pub const NAMES: [(&'static str, Filter); 10] = [
        ("live", Filter::Live),
        ("ended", Filter::Ended),
        ("dead", Filter::Dead),
        ("delayed", Filter::Delayed),
        ("ready", Filter::Ready),
        ("running", Filter::Running),
        ("cancelling", Filter::Cancelling),
        ("backoff", Filter::Backoff),
        ("limited", Filter::Limited),
        ("held", Filter::Held),
    ];

    const fn phase(self) -> Option<Phase> {
        match self {
            Filter::Live | Filter::Ended | Filter::Dead => None,
            Filter::Delayed => Some(Phase::Delayed),
            Filter::Ready => Some(Phase::Ready),
            Filter::Running => Some(Phase::Running),
            Filter::Cancelling => Some(Phase::Cancelling),
            Filter::Backoff => Some(Phase::Backoff),
            Filter::Limited => Some(Phase::Limited),
            Filter::Held => Some(Phase::Held),
        }
    }
}

/// Which tasks, and how many of them.
#[derive(Clone, Debug, Default)]
pub struct TaskQuery {
    /// Only tasks of one of these definitions.
    pub types: Option<Vec<TypeId>>,
    /// Only tasks that ended like this.
    pub outcome: Option<Outcome>,
    /// Only tasks in this state.
    pub state: Option<Filter>,
    /// Only live tasks that were requested, and others that ended, at this time or later.
    pub since: Option<Timestamp>,
    /// The same, before this time.
    pub until: Option<Timestamp>,
    /// Go on behind this place.
    pub before: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl TaskQuery {
    /// Whether tasks that have not ended are among what is asked for: only a state knows them.
    pub const fn wants_any_live(&self) -> bool {
        let ended_only =
            matches!(self.state, Some(Filter::Ended | Filter::Dead)) || matches!(self.before, Some(Cursor::Ended(_)));
        !ended_only && self.outcome.is_none()
    }

    const fn wants_ended(&self) -> bool {
        matches!(self.state, None | Some(Filter::Ended | Filter::Dead))
    }

    fn wants(&self, task: &Task) -> bool {
        let state = match self.state {
            None | Some(Filter::Live) => true,
            Some(state) => state.phase() == Some(task.phase),
        };
        state && self.in_time(task.requested_at) && self.types.as_ref().is_none_or(|types| types.contains(&task.task_type))
    }

    fn in_time(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// The tasks that are asked for, the newest first, in pages until there are enough; `state` is needed where [`TaskQuery::wants_any_live`]. What
    /// the indexes do not cover yet is read from the log, at most some hundred thousand events.
    ///
    /// # Errors
    /// [`LookError::Stale`] when too much has ended since the list was begun, and what the log meets.
    pub fn rows(
        &self,
        shard: ShardId,
        state: Option<&State>,
        names: &TypeNames,
        log: (&dyn LogReader, &TaskIndex),
    ) -> Result<Vec<Row>, LookError> {
        let begun = match (self.before, state) {
            (Some(Cursor::Ended(before)), _) => Some(before),
            (Some(Cursor::Live { as_of: Some(as_of), .. }), _) => Some(as_of),
            (Some(Cursor::Live { as_of: None, .. }) | None, state) => state.map(|state| state.position),
        };
        let mut rows = match state.filter(|_| self.wants_any_live()) {
            Some(state) => self.were_live(shard, state, begun.unwrap_or(state.position), names, log)?,
            None => Vec::new(),
        };
        self.ended(shard, names, log, begun, &mut rows)?;
        Ok(rows)
    }

    /// The newest tasks that were live at a position: those that still are, and those that have ended since.
    fn were_live(
        &self,
        shard: ShardId,
        state: &State,
        as_of: Position,
        names: &TypeNames,
        log: (&dyn LogReader, &TaskIndex),
    ) -> Result<Vec<Row>, LookError> {
        let before = match self.before {
            Some(Cursor::Live { before, .. }) => before,
            Some(Cursor::Ended(_)) | None => state.next_ordinal(),
        };
        let mut rows = self.live(shard, state, before, as_of);
        if as_of < state.position && self.wants_ended() {
            rows.extend(self.ended_since(shard, as_of, before, state.position, names, log)?);
            rows.sort_by_key(|row| std::cmp::Reverse(row.task.ordinal));
            rows.truncate(self.limit);
        }
        Ok(rows)
    }

    /// The newest live tasks before one. Only as many as are shown are kept, however many there are.
    fn live(&self, shard: ShardId, state: &State, before: Ordinal, as_of: Position) -> Vec<Row> {
        let mut newest = VecDeque::new();
        for (ordinal, task, _) in state.work.tasks.iter().take_while(|(ordinal, ..)| *ordinal < before) {
            if self.wants(task) {
                newest.push_back((ordinal, task));
                if newest.len() > self.limit {
                    newest.pop_front();
                }
            }
        }
        newest.into_iter().rev().map(|(ordinal, task)| live_row(shard, state, ordinal, task, as_of)).collect()
    }

    /// Tasks before one that have ended since a position.
    fn ended_since(
        &self,
        shard: ShardId,
        as_of: Position,
        task: Ordinal,
        until: Position,
        names: &TypeNames,
        log: (&dyn LogReader, &TaskIndex),
    ) -> Result<Vec<Row>, LookError> {
        let (mut rows, mut before, mut seen) = (Vec::new(), Some(until), 0);
        loop {
            let endings = self.endings(before, PAGE, log.1)?;
            let since = endings.iter().take_while(|(ending, _)| ending.position >= as_of);
            let wanted = since.filter(|(ending, _)| ending.task < task && self.in_time(ending.at));
            rows.extend(wanted.map(|(ending, dead)| {
                let cursor = Cursor::Live { before: ending.task, as_of: Some(as_of) };
                Row { cursor, ..ended_row(shard, names, ending, *dead) }
            }));
            seen += endings.len();
            match endings.last() {
                Some((last, _)) if last.position >= as_of && seen >= ENDED_SINCE_MAX => return Err(LookError::Stale),
                Some((last, _)) if last.position >= as_of && endings.len() == PAGE => before = Some(last.position),
                Some(_) | None => return Ok(rows),
            }
        }
    }

    /// Ends before a position, the newest first, and how often those were started that are dead letters.
    fn endings(
        &self,
        before: Option<Position>,
        limit: usize,
        index: &TaskIndex,
    ) -> Result<Vec<(Ending, Option<u32>)>, LookError> {
        let query = EndingQuery { types: self.types.as_deref(), outcome: self.outcome, before, limit };
        let endings = index.endings(&query, None)?;
        let revived = revived(index, &endings)?;
        let dead = |ending: &Ending| ending.dead_letter.filter(|_| !revived.contains(&ending.task));
        Ok(endings.into_iter().map(|ending| (ending, dead(&ending))).collect())
    }

    /// Adds the newest ended tasks before a position.
    fn ended(
        &self,
        shard: ShardId,
        names: &TypeNames,
        log: (&dyn LogReader, &TaskIndex),
        mut before: Option<Position>,
        rows: &mut Vec<Row>,
    ) -> Result<(), LookError> {
        let (reader, index) = log;
        let dead_only = self.state == Some(Filter::Dead);
        if let Some(until) = self.until {
            let end = end_of(reader, until)?;
            before = Some(before.map_or(end, |before| before.min(end)));
        }
        while self.wants_ended() && rows.len() < self.limit {
            // Of some endings few are shown, so more of them are looked at.
            let few = dead_only || self.until.is_some();
            let limit = if few { (self.limit - rows.len()).max(PAGE) } else { self.limit - rows.len() };
            let endings = self.endings(before, limit, index)?;
            let wanted = endings.iter().filter(|(ending, dead)| (!dead_only || dead.is_some()) && self.in_time(ending.at));
            rows.extend(wanted.take(self.limit - rows.len()).map(|(ending, dead)| ended_row(shard, names, ending, *dead)));
            match endings.last() {
                // Time never goes back, so what follows is older still.
                Some((last, _)) if self.since.is_some_and(|since| last.at < since) => break,
                Some((last, _)) if endings.len() == limit => before = Some(last.position),
                Some(_) | None => break,
            }
        }
        Ok(())
    }
}

/// The end of the block in which a time is reached.
fn end_of(reader: &dyn LogReader, until: Timestamp) -> Result<Position, LookError> {
    let at = reader.seek_time(until.after(Micros(1)))?;
    let block = if at < reader.span().next { reader.cursor(at)?.next_block()? } else { None };
    Ok(block.map_or(at, |block| block.header.next_position()))
}

/// Those that became dead letters and are none any more.
fn revived(index: &TaskIndex, endings: &[Ending]) -> Result<BTreeSet<Ordinal>, LookError> {
    let dead: BTreeSet<_> = endings.iter().filter(|ending| ending.dead_letter.is_some()).map(|ending| ending.task).collect();
    // The newest come first.
    let from = endings.iter().rfind(|ending| ending.dead_letter.is_some()).map_or(Position(0), |ending| ending.position);
    Ok(index.revived(&dead, from)?)
}

/// What the types are called in a state.
pub fn names_in(state: &State) -> TypeNames {
    let mut names = TypeNames::new(true);
    state.work.types.iter().zip(0..).for_each(|(known, id)| names.define(TypeId(id), &known.name));
    names
}

/// Every definition that a name has had.
///
/// # Errors
/// [`LookError::NotFound`] with the names that are there.
pub fn types_of(names: &TypeNames, name: &str) -> Result<Vec<TypeId>, LookError> {
    let ids: Vec<_> = names.iter().filter(|(_, known)| *known == name).map(|(id, _)| id).collect();
    if ids.is_empty() {
        let known: BTreeSet<_> = names.iter().map(|(_, name)| name).collect();
        let known = known.into_iter().take(8).collect::<Vec<_>>().join(", ");
        return Err(LookError::NotFound(format!("no task type {name:?} is in the log; it has {known}")));
    }
    Ok(ids)
}
