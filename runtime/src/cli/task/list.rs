//! `ergate task list`: live tasks from the folded state, ended ones from the log's indexes.

use std::collections::BTreeSet;

use ergate::events::id::{Ordinal, Position, ShardId, TypeId};
use ergate::events::log::index::{Ending, EndingQuery, TaskIndex, TypeNames};
use ergate::events::slab::Phase;
use ergate::events::state::State;
use ergate::events::task::Outcome;

use super::row::{Cursor, Row, ended_row, live_row, print};
use crate::cli::exit::Trouble;
use crate::cli::logs::LogArgs;
use crate::cli::offline::Place;
use crate::cli::{Exit, Format, Globals, output};

/// Which tasks.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
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
    let place = args.log.open_one(globals)?;
    let index = place.index(globals)?;
    let state = wants_any_live(args).then(|| place.fold_all(globals)).transpose()?;
    let names = names(&place, &index, state.as_ref(), globals)?;
    let types = args.type_name.as_deref().map(|name| types_of(&names, name)).transpose()?;
    let mut rows = state.map_or_else(Vec::new, |state| live_rows(args, place.shard, &state, types.as_deref()));
    if rows.len() < args.limit && wants_ended(args) {
        ended_rows(args, place.shard, (&names, &index), types.as_deref(), &mut rows)?;
    }
    match globals.output {
        Format::Json => rows.iter().try_for_each(|row| output::json(&row.json()))?,
        Format::Table => print(&rows, args.limit, globals.quiet)?,
    }
    Ok(Exit::Done)
}

/// What the types are called: as the state says where there is one, or where the indexes do not know all.
fn names(place: &Place, index: &TaskIndex, state: Option<&State>, globals: &Globals) -> anyhow::Result<TypeNames> {
    if let Some(state) = state {
        return Ok(names_in(state));
    }
    let known = index.type_names()?;
    if known.is_whole() { Ok(known) } else { place.fold_all(globals).map(|state| names_in(&state)) }
}

fn names_in(state: &State) -> TypeNames {
    let mut names = TypeNames::new(true);
    state.work.types.iter().zip(0..).for_each(|(known, id)| names.define(TypeId(id), &known.name));
    names
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::from_name(text).ok_or_else(|| "write succeeded, partial, failed, cancelled or skipped".to_owned())
}

/// Every definition that a name has had.
fn types_of(names: &TypeNames, name: &str) -> Result<Vec<TypeId>, Trouble> {
    let ids: Vec<_> = names.iter().filter(|(_, known)| *known == name).map(|(id, _)| id).collect();
    if ids.is_empty() {
        let known: BTreeSet<_> = names.iter().map(|(_, name)| name).collect();
        let known = known.into_iter().take(8).collect::<Vec<_>>().join(", ");
        return Err(Trouble::NotFound(format!("no task type {name:?} is in the log; it has {known}")));
    }
    Ok(ids)
}

/// Whether tasks that have not ended are among what is asked for: only the folded state knows them.
const fn wants_any_live(args: &ListArgs) -> bool {
    let ended_only = matches!(args.state, Some(Filter::Ended | Filter::Dead)) || matches!(args.before, Some(Cursor::Ended(_)));
    !ended_only && args.outcome.is_none()
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
fn live_rows(args: &ListArgs, shard: ShardId, state: &State, types: Option<&[TypeId]>) -> Vec<Row> {
    let before = match args.before {
        Some(Cursor::Ended(_)) => return Vec::new(),
        Some(Cursor::Live(before)) => before,
        None => state.next_ordinal(),
    };
    let mut newest = std::collections::VecDeque::new();
    for (ordinal, task, _) in state.work.tasks.iter().take_while(|(ordinal, ..)| *ordinal < before) {
        if wants_live(args, task.phase) && types.is_none_or(|types| types.contains(&task.task_type)) {
            newest.push_back((ordinal, task));
            if newest.len() > args.limit {
                newest.pop_front();
            }
        }
    }
    newest.into_iter().rev().map(|(ordinal, task)| live_row(shard, state, ordinal, task)).collect()
}

/// The newest ended tasks that are asked for, in pages until there are enough.
fn ended_rows(
    args: &ListArgs,
    shard: ShardId,
    (names, index): (&TypeNames, &TaskIndex),
    types: Option<&[TypeId]>,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let dead_only = args.state == Some(Filter::Dead);
    let mut before = if let Some(Cursor::Ended(before)) = args.before { Some(before) } else { None };
    while rows.len() < args.limit {
        // Few of the endings are dead letters, so more of them are looked at than are shown.
        let limit = if dead_only { (args.limit - rows.len()).max(1_024) } else { args.limit - rows.len() };
        let endings = index.endings(&EndingQuery { types, outcome: args.outcome, before, limit }, None)?;
        let revived = revived(index, &endings)?;
        let dead = |ending: &Ending| ending.dead_letter.filter(|_| !revived.contains(&ending.task));
        let wanted = endings.iter().filter(|ending| !dead_only || dead(ending).is_some());
        rows.extend(wanted.take(args.limit - rows.len()).map(|ending| ended_row(shard, names, ending, dead(ending))));
        match endings.last() {
            Some(last) if endings.len() == limit => before = Some(last.position),
            Some(_) | None => break,
        }
    }
    Ok(())
}

/// Those that became dead letters and are none any more.
fn revived(index: &TaskIndex, endings: &[Ending]) -> anyhow::Result<BTreeSet<Ordinal>> {
    let dead: BTreeSet<_> = endings.iter().filter(|ending| ending.dead_letter.is_some()).map(|ending| ending.task).collect();
    // The newest come first.
    let from = endings.iter().rfind(|ending| ending.dead_letter.is_some()).map_or(Position(0), |ending| ending.position);
    Ok(index.revived(&dead, from)?)
}
