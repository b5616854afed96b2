//! `ergate task list`: live tasks from the folded state, ended ones from the log's indexes.

use std::sync::Arc;

use ergate::events::id::TypeId;
use ergate::events::log::Span;
use ergate::events::log::directory::{holder, inspect};
use ergate::events::log::index::{EndingQuery, TaskIndex};
use ergate::events::slab::Phase;
use ergate::events::state::State;
use ergate::events::task::Outcome;

use super::row::{Cursor, Row, ended_row, live_row, print};
use crate::cli::bar::Bar;
use crate::cli::exit::Trouble;
use crate::cli::offline::{self, Place};
use crate::cli::{Exit, Format, Globals, output};

/// Which tasks.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// Only tasks of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// Only tasks that ended like this: succeeded, partial, failed, cancelled or skipped
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Only tasks in this state
    #[arg(long, value_enum)]
    state: Option<Filter>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Go on behind a task of an earlier page, named by its cursor
    #[arg(long, value_name = "CURSOR")]
    before: Option<Cursor>,
}

/// States to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Filter {
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
}

pub(crate) fn run(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let place = offline::open(globals)?;
    let state = place.fold_all(globals)?;
    let types = args.type_name.as_deref().map(|name| types_of(&state, name)).transpose()?;
    let mut rows = live_rows(args, &state, types.as_deref());
    if rows.len() < args.limit && wants_ended(args) {
        let index = index(&place, globals)?;
        ended_rows(args, &state, &index, types.as_deref(), &mut rows)?;
    }
    match globals.output {
        Format::Json => rows.iter().try_for_each(|row| output::json(&row.json()))?,
        Format::Table => print(&rows, args.limit, globals.quiet)?,
    }
    Ok(Exit::Done)
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::from_name(text).ok_or_else(|| "write succeeded, partial, failed, cancelled or skipped".to_owned())
}

/// Every definition that a name has had.
fn types_of(state: &State, name: &str) -> Result<Vec<TypeId>, Trouble> {
    let ids = state.work.types.iter().zip(0_u16..).filter(|(known, _)| known.name == name);
    let ids: Vec<_> = ids.map(|(_, id)| TypeId(id)).collect();
    if ids.is_empty() {
        let known: Vec<_> = state.work.type_names.keys().take(8).map(String::as_str).collect();
        return Err(Trouble::NotFound(format!("no task type {name:?} is in the log; it has {}", known.join(", "))));
    }
    Ok(ids)
}

fn wants_ended(args: &ListArgs) -> bool {
    matches!(args.state, None | Some(Filter::Ended | Filter::Dead))
}

fn wants_live(args: &ListArgs, phase: Phase) -> bool {
    match args.state {
        None | Some(Filter::Live) => true,
        Some(Filter::Ended | Filter::Dead) => false,
        Some(Filter::Delayed) => phase == Phase::Delayed,
        Some(Filter::Ready) => phase == Phase::Ready,
        Some(Filter::Running) => phase == Phase::Running,
        Some(Filter::Cancelling) => phase == Phase::Cancelling,
        Some(Filter::Backoff) => phase == Phase::Backoff,
    }
}

/// The newest live tasks that are asked for. Only as many as are shown are kept, however many there are.
fn live_rows(args: &ListArgs, state: &State, types: Option<&[TypeId]>) -> Vec<Row> {
    let before = match args.before {
        Some(Cursor::Ended(_)) => return Vec::new(),
        Some(Cursor::Live(before)) => before,
        None => state.next_ordinal(),
    };
    if args.outcome.is_some() {
        return Vec::new();
    }
    let mut newest = std::collections::VecDeque::new();
    for (ordinal, task, _) in state.work.tasks.iter().take_while(|(ordinal, ..)| *ordinal < before) {
        if wants_live(args, task.phase) && types.is_none_or(|types| types.contains(&task.task_type)) {
            newest.push_back((ordinal, task));
            if newest.len() > args.limit {
                newest.pop_front();
            }
        }
    }
    newest.into_iter().rev().map(|(ordinal, task)| live_row(state, ordinal, task)).collect()
}

/// The newest ended tasks that are asked for, in pages until there are enough.
fn ended_rows(
    args: &ListArgs,
    state: &State,
    index: &TaskIndex,
    types: Option<&[TypeId]>,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let dead_only = args.state == Some(Filter::Dead);
    let mut before = if let Some(Cursor::Ended(before)) = args.before { Some(before) } else { None };
    while rows.len() < args.limit {
        // Few of the endings are dead letters, so more of them are looked at than are shown.
        let limit = if dead_only { (args.limit - rows.len()).max(1_024) } else { args.limit - rows.len() };
        let endings = index.endings(&EndingQuery { types, outcome: args.outcome, before, limit }, None)?;
        let wanted = endings.iter().filter(|ending| !dead_only || state.work.dead.contains_key(&ending.task));
        rows.extend(wanted.take(args.limit - rows.len()).map(|ending| ended_row(state, ending)));
        match endings.last() {
            Some(last) if endings.len() == limit => before = Some(last.position),
            Some(_) | None => break,
        }
    }
    Ok(())
}

/// The log's indexes; what is missing of them is built where that is possible and nobody else does it.
fn index(place: &Place, globals: &Globals) -> anyhow::Result<TaskIndex> {
    let index = TaskIndex::open(&place.dir, place.store.0, Arc::clone(&place.reader))?;
    if !matches!(holder(&place.dir), Ok(None)) || rustix::fs::access(&place.dir, rustix::fs::Access::WRITE_OK).is_err() {
        return Ok(index);
    }
    let segments = inspect(&place.dir)?.segments;
    let sealed: Vec<_> = segments.windows(2).map(|pair| Span { first: pair[0].0, next: pair[1].0 }).collect();
    let bar =
        Bar::new(globals, "indexing", sealed.first().map_or(0, |span| span.first.0), sealed.last().map_or(0, |span| span.next.0));
    if let Err(error) = index.build_missing(&sealed, &mut |at| bar.at(at.0)) {
        tracing::warn!(%error, "the indexes could not be completed; the log is read instead");
    }
    Ok(index)
}
