//! `ergate kafka status`: how a namespace is doing, as the brokers tell.

use std::time::Duration;

use ergate::clock::{Clock, SystemClock};
use ergate::events::time::Timestamp;
use ergate::kafka::logs::shard_name;
use ergate::kafka::status::{Observer, Status};

use crate::cli::embedded::parse_span;
use crate::cli::logs::{self, patience};
use crate::cli::moment::time;
use crate::cli::progress::count;
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Which namespace.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// The log: `kafka://HOST:PORT,…/NAMESPACE`
    #[arg(long, value_name = "LOG")]
    log: String,
    /// Time between the two looks that tell how fast a lag grows; 0s for a single look
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = parse_span)]
    every: Duration,
}

pub(crate) fn run(args: &StatusArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let settings = logs::only_kafka(&args.log, globals)?;
    let mut observer = Observer::new(&settings, patience())?;
    let mut status = observer.look()?;
    if !args.every.is_zero() {
        std::thread::sleep(args.every);
        status = observer.look()?;
    }
    match globals.output {
        Format::Json => {
            let mut object = serde_json::to_value(&status)?;
            object["namespace"] = settings.url.namespace().to_string().into();
            object["lag"] = lag(&status).into();
            output::json(&object)?;
        }
        Format::Table => print(&status)?,
    }
    Ok(Exit::Done)
}

/// What waits in all shards together.
fn lag(status: &Status) -> i64 {
    status.shards.iter().filter_map(|shard| Some(shard.requests?.lag)).sum()
}

fn print(status: &Status) -> anyhow::Result<()> {
    let group = &status.group;
    let engines = count(group.members.len() as u64, "engine", "engines");
    output::line(&output::escape(&format!("group {}: {}, {engines}, lag {}", group.name, group.state, lag(status))))?;
    if !group.members.is_empty() {
        output::line("")?;
        let mut table = Table::new(&["ENGINE", "CLIENT", "HOST", "SHARDS"]);
        for engine in &group.members {
            let shards = engine.shards.iter().map(|shard| shard_name(*shard)).collect::<Vec<_>>().join(" ");
            table.row([engine.id.clone(), engine.client.clone(), engine.host.clone(), shards]);
        }
        table.print()?;
    }
    output::line("")?;
    let now = SystemClock::starting(Timestamp(0)).now();
    let mut table =
        Table::new(&["SHARD", "OWNED", "REQUESTS", "COMMITTED", "LAG", "GROWTH/S", "EVENTS", "END", "UNSTABLE", "LAST EVENT"]);
    for shard in &status.shards {
        let (requests, events) = (&shard.requests, &shard.events);
        let of = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let growth = requests.and_then(|requests| requests.lag_growth);
        table.row([
            shard_name(shard.shard),
            if shard.owner.is_some() { "yes" } else { "NO" }.to_owned(),
            of(requests.map(|requests| requests.end)),
            of(requests.and_then(|requests| requests.committed)),
            of(requests.map(|requests| requests.lag)),
            growth.map_or_else(|| "-".to_owned(), |growth| format!("{growth:+.0}")),
            events.next.to_string(),
            events.end.to_string(),
            events.stable_lag.to_string(),
            events.last_at.map_or_else(|| "-".to_owned(), |at| format!("{} ({} s ago)", time(at), now.since(at).0 / 1_000_000)),
        ]);
    }
    table.print()
}
