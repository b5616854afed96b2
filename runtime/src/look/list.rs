//! Lists of tasks: live ones from a state, ended ones from the log's indexes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use ergate_events::id::{Ordinal, Position, ShardId, TypeId};
use ergate_events::log::LogReader;
use ergate_events::log::index::{Ending, EndingQuery, TaskIndex, TypeNames};
use ergate_events::slab::Task;
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::{Micros, Timestamp};

use super::LookError;
pub use super::filter::Filter;
use super::label::{Label, Labelled, PAGE_BYTES_MAX};
use super::row::{Cursor, Row, ended_row, live_row};

/// Endings that are looked at together where few of them are shown.
const PAGE: usize = 1_024;
/// Most endings since a list was begun that are looked at for a page of it: each page looks at all of them anew, and they take a tenth of a second.
const ENDED_SINCE_MAX: usize = 100_000;

/// The log of a shard.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    /// Whose log it is.
    pub shard: ShardId,
    /// Reads it.
    pub reader: &'a dyn LogReader,
    /// The same log from an earlier beginning, where that one begins later and there is another.
    pub older: Option<&'a dyn LogReader>,
    /// Its indexes.
    pub index: &'a TaskIndex,
    /// What its task types are called.
    pub names: &'a TypeNames,
}

/// A part of the list.
#[derive(Default)]
pub struct Page {
    /// Its tasks, the newest first.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` where nothing follows.
    pub next: Option<Cursor>,
    /// Of a page that ends before it has all it might have, because too much had to be read for it: when the next task ended that is to be looked at.
    pub looked_to: Option<Timestamp>,
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
    /// Only tasks with all of these labels.
    pub labels: Vec<Label>,
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

    /// The tasks that are asked for, the newest first, in pages until there are enough; `state` is needed where [`TaskQuery::wants_any_live`], and
    /// it knows the labels of dead letters whose requests retention has dropped. What the indexes do not cover yet is read from the log, at most
    /// some hundred thousand events.
    ///
    /// # Errors
    /// [`LookError::Stale`] when too much has ended since the list was begun, and what the log meets.
    pub fn page(&self, state: Option<&State>, log: &Log<'_>) -> Result<Page, LookError> {
        self.page_within(PAGE_BYTES_MAX, state, log)
    }

    /// The same, with another bound on what is read because of labels.
    pub(super) fn page_within(&self, bytes_max: u64, state: Option<&State>, log: &Log<'_>) -> Result<Page, LookError> {
        let begun = match (self.before, state) {
            (Some(Cursor::Ended(before)), _) => Some(before),
            (Some(Cursor::Live { as_of: Some(as_of), .. }), _) => Some(as_of),
            (Some(Cursor::Live { as_of: None, .. }) | None, state) => state.map(|state| state.position),
        };
        let mut labelled = Labelled::new(&self.labels, state, log, bytes_max);
        let mut page = match state.filter(|_| self.wants_any_live()) {
            Some(state) => self.were_live(state, begun.unwrap_or(state.position), log, &mut labelled)?,
            None => Page::default(),
        };
        if page.next.is_none() {
            self.ended(begun, log, &mut labelled, &mut page)?;
        }
        if page.rows.len() >= self.limit {
            page.next = page.rows.last().map(|last| last.cursor);
        }
        Ok(page)
    }

    /// The newest tasks that were live at a position: those that still are, and those that have ended since.
    fn were_live(&self, state: &State, as_of: Position, log: &Log<'_>, labelled: &mut Labelled<'_>) -> Result<Page, LookError> {
        let before = match self.before {
            Some(Cursor::Live { before, .. }) => before,
            Some(Cursor::Ended(_)) | None => state.next_ordinal(),
        };
        let live = self.live(state, before, as_of, log.shard, labelled);
        if as_of == state.position || !self.wants_ended() {
            return Ok(Page { rows: live, ..Page::default() });
        }
        let mut since = self.ended_since(as_of, before, state.position, log)?;
        since.sort_by_key(|row| Reverse(row.task.ordinal));
        self.joined(live, since, as_of, labelled)
    }

    /// Joins live tasks with those that have ended since a position and have the labels, both the newest first.
    fn joined(&self, live: Vec<Row>, since: Vec<Row>, as_of: Position, labelled: &mut Labelled<'_>) -> Result<Page, LookError> {
        let (mut live, mut page) = (live.into_iter().peekable(), Page::default());
        for row in since {
            page.rows.extend(std::iter::from_fn(|| live.next_if(|live| live.task.ordinal > row.task.ordinal)));
            if page.rows.len() >= self.limit {
                break;
            }
            match labelled.has(row.task.ordinal)? {
                Some(true) => page.rows.push(row),
                Some(false) => {}
                None => {
                    let before = Ordinal(row.task.ordinal.0 + 1);
                    return Ok(Page { next: Some(Cursor::Live { before, as_of: Some(as_of) }), ..page });
                }
            }
        }
        page.rows.extend(live);
        page.rows.truncate(self.limit);
        Ok(page)
    }

    /// The newest live tasks before one. Only as many as are shown are kept, however many there are.
    fn live(&self, state: &State, before: Ordinal, as_of: Position, shard: ShardId, labelled: &Labelled<'_>) -> Vec<Row> {
        let mut newest = VecDeque::new();
        for (ordinal, task, _) in state.work.tasks.iter().take_while(|(ordinal, ..)| *ordinal < before) {
            if self.wants(task) && labelled.live(state, ordinal) {
                newest.push_back((ordinal, task));
                if newest.len() > self.limit {
                    newest.pop_front();
                }
            }
        }
        newest.into_iter().rev().map(|(ordinal, task)| live_row(shard, state, ordinal, task, as_of)).collect()
    }

    /// Tasks before one that have ended since a position, whatever their labels.
    fn ended_since(&self, as_of: Position, task: Ordinal, until: Position, log: &Log<'_>) -> Result<Vec<Row>, LookError> {
        let (mut rows, mut before, mut seen) = (Vec::new(), Some(until), 0);
        loop {
            let endings = self.endings(before, PAGE, log.index)?;
            let since = endings.iter().take_while(|(ending, _)| ending.position >= as_of);
            let wanted = since.filter(|(ending, _)| ending.task < task && self.in_time(ending.at));
            rows.extend(wanted.map(|(ending, dead)| {
                let cursor = Cursor::Live { before: ending.task, as_of: Some(as_of) };
                Row { cursor, ..ended_row(log.shard, log.names, ending, *dead) }
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
        mut before: Option<Position>,
        log: &Log<'_>,
        labelled: &mut Labelled<'_>,
        page: &mut Page,
    ) -> Result<(), LookError> {
        if let Some(until) = self.until {
            let end = end_of(log.reader, until)?;
            before = Some(before.map_or(end, |before| before.min(end)));
        }
        while self.wants_ended() && page.rows.len() < self.limit {
            // Of some endings few are shown, so more of them are looked at.
            let few = self.state == Some(Filter::Dead) || self.until.is_some() || !self.labels.is_empty();
            let limit = if few { (self.limit - page.rows.len()).max(PAGE) } else { self.limit - page.rows.len() };
            let endings = self.endings(before, limit, log.index)?;
            if !self.show(&endings, before, log, labelled, page)? {
                break;
            }
            match endings.last() {
                // Time never goes back, so what follows is older still.
                Some((last, _)) if self.since.is_some_and(|since| last.at < since) => break,
                Some((last, _)) if endings.len() == limit => before = Some(last.position),
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    /// Adds those of some endings that are wanted; false where their labels take too much reading, and the page ends before the first of those.
    fn show(
        &self,
        endings: &[(Ending, Option<u32>)],
        mut before: Option<Position>,
        log: &Log<'_>,
        labelled: &mut Labelled<'_>,
        page: &mut Page,
    ) -> Result<bool, LookError> {
        for (ending, dead) in endings {
            if page.rows.len() >= self.limit {
                break;
            }
            let wanted = (self.state != Some(Filter::Dead) || dead.is_some()) && self.in_time(ending.at);
            match if wanted { labelled.has(ending.task)? } else { Some(false) } {
                Some(true) => page.rows.push(ended_row(log.shard, log.names, ending, *dead)),
                Some(false) => {}
                None => {
                    page.next = Some(Cursor::Ended(before.unwrap_or_else(|| log.reader.span().next)));
                    page.looked_to = Some(ending.at);
                    return Ok(false);
                }
            }
            before = Some(ending.position);
        }
        Ok(true)
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
