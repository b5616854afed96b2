//! `ergate task show`: everything that is known about one task.

use ergate::events::id::{TaskId, TypeId};
use ergate::look::life::Life;
use serde_json::{Map, Value};

use super::{each_event, unknown};
use crate::cli::choice::{self, Side};
use crate::cli::logs::LogArgs;
use crate::cli::record::{is_empty, plain};
use crate::cli::remote::Path;
use crate::cli::table::{self, Table};
use crate::cli::{Exit, Format, Globals, output};

/// The order in which facts are shown.
const ORDER: [&str; 22] = [
    "task",
    "type",
    "state",
    "outcome",
    "cause",
    "result",
    "failure",
    "requested",
    "ended",
    "waits_for",
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
    let life = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => remote.get(Path::new("/v1/tasks").below(&args.id.to_string()))?,
        Side::Directory => offline(args, globals)?,
    };
    match globals.output {
        Format::Json => output::json(&life)?,
        Format::Table => print(&life)?,
    }
    Ok(Exit::Done)
}

fn offline(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Map<String, Value>> {
    let (place, ordinal) = (args.log.of_task(args.id).open_one(globals)?, args.id.ordinal);
    let index = place.index(globals)?;
    let mut life = Life::default();
    let events = each_event(&place, &index, args.id, &mut |record| Ok(life.learn(ordinal, record)?))?;
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
    Ok(life.json()?)
}

fn print(life: &Map<String, Value>) -> anyhow::Result<()> {
    let fact = |name: &'static str| Some((name, life.get(name).filter(|value| !is_empty(value)).map(plain)));
    let facts: Vec<_> = ORDER.into_iter().chain(["payload"]).filter_map(fact).collect();
    table::facts(&facts)?;
    let attempts = life.get("attempts").and_then(Value::as_array).filter(|attempts| !attempts.is_empty());
    let Some(attempts) = attempts else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(&["ATTEMPT", "REPLICA", "STARTED", "ENDED", "HOW"]);
    for attempt in attempts {
        let cell = |name: &str| attempt.get(name).filter(|value| !value.is_null()).map_or_else(|| "-".to_owned(), plain);
        table.row(["number", "replica", "started", "ended", "how"].map(cell));
    }
    table.print()
}
