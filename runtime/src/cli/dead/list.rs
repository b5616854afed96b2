//! `ergate dead-letters list`: what failed for good, from a folded state or from a service.

use ergate::events::id::TaskId;
use ergate::events::time::Timestamp;
use ergate::kafka::logs::shard_name;
use ergate::look::dead::DeadQuery;
use ergate::look::record::plain;
use serde_json::Value;

use super::Which;
use crate::cli::choice::{self, Side};
use crate::cli::exit::Trouble;
use crate::cli::logs::LogArgs;
use crate::cli::remote::{Path, Remote};
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Most dead letters that a service tells at once.
const PAGE_MAX: usize = 1_000;

/// Which dead letters, and how many.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Go on behind this dead letter of an earlier page
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

pub(crate) fn run(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let letters = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => online(&remote, args)?,
        Side::Directory => offline(args, globals)?,
    };
    match globals.output {
        Format::Json => letters.iter().try_for_each(output::json)?,
        Format::Table => print(&letters, args.limit, globals.quiet)?,
    }
    Ok(Exit::Done)
}

fn online(remote: &Remote, args: &ListArgs) -> anyhow::Result<Vec<Value>> {
    let Which { type_name, cause, since, until } = &args.which;
    let path = Path::new("/v1/dead-letters")
        .with("type", type_name.as_ref())
        .with("cause", cause.as_ref())
        .with("since", since.map(Timestamp::rfc3339))
        .with("until", until.map(Timestamp::rfc3339))
        .with("shard", args.log.shard.map(shard_name));
    let (mut letters, mut cursor) = (Vec::new(), args.before.clone());
    while letters.len() < args.limit {
        let limit = (args.limit - letters.len()).min(PAGE_MAX);
        let page: Value = remote.get(path.clone().with("limit", Some(limit)).with("cursor", cursor.as_ref()))?;
        letters.extend(page["dead_letters"].as_array().cloned().unwrap_or_default());
        choice::say_missing(&page);
        match page["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    Ok(letters)
}

fn offline(args: &ListArgs, globals: &Globals) -> anyhow::Result<Vec<Value>> {
    let place = args.log.open_one(globals)?;
    let state = place.fold_all(globals)?;
    let Which { type_name, cause, since, until } = &args.which;
    let query = DeadQuery { type_name: type_name.clone(), cause: cause.clone(), since: *since, until: *until, ids: None };
    let before = args.before.as_deref().map(str::parse::<TaskId>).transpose();
    let before = before.map_err(|error| Trouble::Usage(format!("--before: {error}")))?;
    Ok(query.newest(place.shard, &state, before, args.limit).into_iter().map(|(_, letter)| letter).collect())
}

fn print(letters: &[Value], limit: usize, quiet: bool) -> anyhow::Result<()> {
    let mut table = Table::new(&["TASK", "TYPE", "POOL", "CAUSE", "STARTS", "ENDED"]);
    for letter in letters {
        table.row(["task", "type", "pool", "cause", "starts", "ended"].map(|name| plain(&letter[name])));
    }
    table.print()?;
    // A list of several shards goes on behind a place in each of them.
    let place = |last: &Value| last.get("cursor").or(last.get("task")).and_then(Value::as_str).map(str::to_owned);
    if let Some(place) = letters.last().filter(|_| letters.len() >= limit && !quiet).and_then(place) {
        output::note(&format!("for more: --before {place}"));
    }
    Ok(())
}
