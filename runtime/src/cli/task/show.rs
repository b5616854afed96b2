//! `ergate task show`: everything that is known about one task.

use ergate::events::id::{TaskId, TypeId};
use serde_json::Value;

use super::life::Life;
use super::{each_event, unknown};
use crate::cli::logs::LogArgs;
use crate::cli::record::{is_empty, plain};
use crate::cli::table::{self, Table};
use crate::cli::{Exit, Format, Globals, output};

/// The order in which facts are shown.
const ORDER: [&str; 21] = [
    "task",
    "type",
    "state",
    "outcome",
    "cause",
    "result",
    "failure",
    "requested",
    "ended",
    "due",
    "starts",
    "failures",
    "losses",
    "pool",
    "priority",
    "cancel_requested",
    "kill_requested",
    "redriven_from",
    "redriven_as",
    "key",
    "asks",
];

/// Which task.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Its id, such as `0-42`
    id: TaskId,
}

pub(crate) fn run(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let (place, ordinal) = (args.log.of_task(args.id).open_one(globals)?, args.id.ordinal);
    let index = place.index(globals)?;
    let mut life = Life::default();
    let events = each_event(&place, &index, args.id, &mut |record| life.learn(ordinal, record))?;
    let state = place.fold_all(globals)?;
    let in_state = state.work.tasks.get(ordinal).is_some() || state.work.dead.contains_key(&ordinal);
    if args.id.shard != place.shard || (events == 0 && !in_state) {
        return Err(unknown(&place, args.id)?.into());
    }
    life.put("task", args.id.to_string());
    let name = |id: TypeId| state.work.types.get(usize::from(id.0)).map(|known| known.name.clone());
    if let Some(name) = index.type_of(ordinal)?.and_then(name) {
        life.put("type", name);
    }
    life.complete(&state, ordinal);
    life.put("events", events);
    match globals.output {
        Format::Json => output::json(&life.json()?)?,
        Format::Table => print(&life)?,
    }
    Ok(Exit::Done)
}

fn print(life: &Life) -> anyhow::Result<()> {
    let known = |name: &&'static str| life.facts.iter().find(|(known, value)| known == name && *value != Value::Null);
    let facts: Vec<_> = ORDER.iter().chain(&["payload"]).filter_map(known).collect();
    let facts: Vec<_> = facts.into_iter().map(|(name, value)| (*name, (!is_empty(value)).then(|| plain(value)))).collect();
    table::facts(&facts)?;
    if life.attempts.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&["ATTEMPT", "REPLICA", "STARTED", "ENDED", "HOW"]);
    for attempt in &life.attempts {
        let ended = attempt.ended.clone().unwrap_or_else(|| "-".to_owned());
        table.row([attempt.number.to_string(), attempt.replica.clone(), attempt.started.clone(), ended, attempt.how.clone()]);
    }
    table.print()
}
