//! `ergate task list`: live tasks from the folded state, ended ones from the log's indexes; or both from a service.

use std::time::Duration;

use ergate::events::id::TypeId;
use ergate::events::log::index::{TaskIndex, TypeNames};
use ergate::events::state::State;
use ergate::events::task::Outcome;
use ergate::events::time::Timestamp;
use ergate::kafka::logs::shard_name;
use ergate::look::LookError;
use ergate::look::label::Label;
use ergate::look::list::{Filter, Log, TaskQuery, names_in, types_of};
use ergate::look::record::plain;
use ergate::look::row::{Cursor, Row};
use serde_json::Value;

use super::watch;
use crate::cli::choice::{self, Side};
use crate::cli::embedded::parse_span;
use crate::cli::exit::{Trouble, looked};
use crate::cli::logs::LogArgs;
use crate::cli::offline::Place;
use crate::cli::remote::{Path, Remote, RemoteError};
use crate::cli::submit::parse_moment;
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Most tasks that a service tells at once.
const PAGE_MAX: usize = 1_000;

/// Which tasks.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Only tasks of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// Only tasks of types of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Only tasks that ended like this: succeeded, partial, failed, cancelled or skipped
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Only tasks in this state
    #[arg(long, value_enum)]
    state: Option<Filter>,
    /// Only tasks with this label; given several times, only tasks with all of them
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<Label>,
    /// Only live tasks that were requested, and others that ended, at this moment or later, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// The same, before this moment
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Go on behind a task of an earlier page, named by its cursor
    #[arg(long, value_name = "CURSOR")]
    before: Option<String>,
    /// Show the list again every 2 s, or as often as is said; where there is no terminal, a line for every change
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = parse_span)]
    watch: Option<Duration>,
}

pub(crate) fn run(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let side = choice::side(globals, args.log.flag())?;
    let fetch = || match &side {
        Side::Service(remote) => online(remote, args),
        Side::Directory => offline(args, globals),
    };
    if let Some(every) = args.watch {
        return watch::run(every, globals.output, fetch);
    }
    let rows = fetch()?;
    match globals.output {
        Format::Json => rows.iter().try_for_each(output::json)?,
        Format::Table => {
            table(&rows).print()?;
            say_more(&rows, args.limit, globals.quiet);
        }
    }
    Ok(Exit::Done)
}

/// The tasks of a service, in as many pages as they take.
fn online(remote: &Remote, args: &ListArgs) -> anyhow::Result<Vec<Value>> {
    let name = |filter| Filter::NAMES.into_iter().find(|(_, known)| *known == filter).map(|(name, _)| name);
    let mut path = Path::new("/v1/tasks")
        .with("type", args.type_name.as_deref())
        .with("pool", args.pool.as_deref())
        .with("outcome", args.outcome.map(|outcome| outcome.name().to_ascii_lowercase()))
        .with("state", args.state.and_then(name))
        .with("since", args.since.map(Timestamp::rfc3339))
        .with("until", args.until.map(Timestamp::rfc3339))
        .with("shard", args.log.shard.map(shard_name));
    for label in &args.labels {
        path = path.with("label", Some(label));
    }
    let (mut rows, mut cursor) = (Vec::new(), args.before.clone());
    while rows.len() < args.limit {
        let limit = (args.limit - rows.len()).min(PAGE_MAX);
        let page: Value =
            remote.get(path.clone().with("limit", Some(limit)).with("cursor", cursor.as_ref())).map_err(unknown_name)?;
        rows.extend(page["tasks"].as_array().cloned().unwrap_or_default());
        choice::say_missing(&page);
        match page["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    Ok(rows)
}

/// A type or a pool that is not there is nothing that was found, as it is offline.
fn unknown_name(error: RemoteError) -> anyhow::Error {
    let field = error.problem().and_then(|problem| problem.field.as_deref());
    if matches!(field, Some("type" | "pool")) { Trouble::NotFound(error.to_string()).into() } else { error.into() }
}

fn offline(args: &ListArgs, globals: &Globals) -> anyhow::Result<Vec<Value>> {
    let place = args.log.open_one(globals)?;
    let index = place.index(globals)?;
    let ListArgs { outcome, state, since, until, limit, .. } = *args;
    let before = args
        .before
        .as_deref()
        .map(str::parse::<Cursor>)
        .transpose()
        .map_err(|error| Trouble::Usage(format!("--before: {error}")))?;
    let labels = args.labels.clone();
    let query = TaskQuery { types: None, outcome, state, labels, since, until, before, limit };
    let needs_state = query.wants_any_live() || args.pool.is_some() || !query.labels.is_empty();
    let state = needs_state.then(|| place.fold_all(globals)).transpose()?;
    let names = names(&place, &index, state.as_ref(), globals)?;
    let types = args.type_name.as_deref().map(|name| types_of(&names, name)).transpose().map_err(looked)?;
    let query = TaskQuery { types: within(types, args.pool.as_deref(), state.as_ref())?, ..query };
    let log = Log { shard: place.shard, reader: place.reader.as_ref(), older: None, index: &index, names: &names };
    let rows = all_pages(query, state.as_ref(), &log).map_err(looked)?;
    Ok(rows.iter().map(Row::json).collect())
}

/// The tasks that are asked for, in as many pages as they take.
fn all_pages(mut query: TaskQuery, state: Option<&State>, log: &Log<'_>) -> Result<Vec<Row>, LookError> {
    let mut rows = Vec::new();
    while query.limit > 0 {
        let page = query.page(state, log)?;
        query.limit -= page.rows.len();
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    Ok(rows)
}

/// Of these types, or of all, those whose tasks go to a pool.
fn within(types: Option<Vec<TypeId>>, pool: Option<&str>, state: Option<&State>) -> Result<Option<Vec<TypeId>>, Trouble> {
    let (Some(pool), Some(state)) = (pool, state) else { return Ok(types) };
    if !state.control.pools.iter().any(|known| known.name == *pool) {
        return Err(Trouble::NotFound(format!("no pool {pool:?} is known to the log; `ergate pool list` shows those that are")));
    }
    let of_pool = state.work.types.iter().zip(0..).filter(|(known, _)| known.settings.pool == *pool).map(|(_, id)| TypeId(id));
    Ok(Some(of_pool.filter(|id| types.as_ref().is_none_or(|types| types.contains(id))).collect()))
}

/// What the types are called: as the state says where there is one, or where the indexes do not know all.
fn names(place: &Place, index: &TaskIndex, state: Option<&State>, globals: &Globals) -> anyhow::Result<TypeNames> {
    if let Some(state) = state {
        return Ok(names_in(state));
    }
    let known = index.type_names()?;
    if known.is_whole() { Ok(known) } else { place.fold_all(globals).map(|state| names_in(&state)) }
}

fn label(text: &str) -> Result<Label, String> {
    Label::read(text).ok_or_else(|| format!("write {}", Label::EXPECTED))
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::from_name(text).ok_or_else(|| "write succeeded, partial, failed, cancelled or skipped".to_owned())
}

/// A page as a table.
pub(super) fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(&["TASK", "TYPE", "STATE", "OUTCOME", "STARTS", "SINCE"]);
    for row in rows {
        table.row(cells(row));
    }
    table
}

/// A task as the cells of its row; a dash where something is not known.
pub(super) fn cells(row: &Value) -> [String; 6] {
    ["task", "type", "state", "outcome", "starts", "since"]
        .map(|name| row.get(name).filter(|value| !value.is_null()).map_or_else(|| "-".to_owned(), plain))
}

/// Says how to get the next page.
fn say_more(rows: &[Value], limit: usize, quiet: bool) {
    if let Some(cursor) = rows.last().filter(|_| rows.len() >= limit && !quiet).and_then(|last| last["cursor"].as_str()) {
        output::note(&format!("for more: --before {cursor}"));
    }
}
