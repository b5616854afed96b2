//! `ergate log show`: single events in full, with the block that holds them, or many in one order.

use ergate::events::block::Block;
use ergate::events::id::Position;
use ergate::events::log::LogError;
use ergate::kafka::logs::shard_name;
use serde_json::{Value, json};

use super::causal;
use crate::cli::logs::LogArgs;
use crate::cli::moment::Moment;
use crate::cli::offline::Place;
use crate::cli::record::{self, Record, plain};
use crate::cli::{Exit, Format, Globals, moment, output, table};

/// Which events.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Position of the first event; of several shards each shows its own
    #[arg(value_parser = moment::position, required_unless_present = "causal", conflicts_with = "causal")]
    position: Option<Position>,
    /// How many events of each shard, 1 by default; with --causal how many in all, and no bound by default
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One line for each event of all shards and of the log of pools, in one order: behind what it observed, else by time
    #[arg(long)]
    causal: bool,
    /// With --causal: begin at this position of a single shard, or at this time
    #[arg(long, value_name = "MOMENT", requires = "causal")]
    from: Option<Moment>,
    /// With --causal: end before this position of a single shard, or with the last event of this time
    #[arg(long, value_name = "MOMENT", requires = "causal")]
    until: Option<Moment>,
}

pub(crate) fn run(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let places = args.log.open(globals)?;
    let Some(first) = args.position else {
        let part = causal::Part { from: args.from, until: args.until, count: args.count.unwrap_or(u64::MAX) };
        return causal::show(&places, &part, globals.output);
    };
    let next = places.iter().map(|place| place.span().next).max().unwrap_or_default();
    if first >= next {
        return Err(LogError::Beyond { at: first, next }.into());
    }
    for place in places.iter().filter(|place| first < place.span().next) {
        part(place, first, args.count.unwrap_or(1), globals.output)?;
    }
    Ok(Exit::Done)
}

/// So many events of a log from a position on.
fn part(place: &Place, first: Position, count: u64, format: Format) -> anyhow::Result<()> {
    let wanted = first.0..first.0.saturating_add(count).min(place.span().next.0);
    let mut cursor = place.reader.cursor(first)?;
    while let Some(block) = cursor.next_block()? {
        if block.header.first_position.0 >= wanted.end {
            break;
        }
        for record in record::of(&block) {
            let record = record?;
            if wanted.contains(&record.envelope.position.0) {
                show(&record, &block, format)?;
            }
        }
    }
    Ok(())
}

fn show(record: &Record<'_>, block: &Block, format: Format) -> anyhow::Result<()> {
    let mut object = record.json()?;
    let header = &block.header;
    let about = json!({ "shard": shard_name(header.shard), "first": header.first_position, "count": header.count, "epoch": header.epoch, "hash": block.hash(), "previous": header.previous });
    object.insert("origin".to_owned(), serde_json::to_value(record.envelope.event.origin())?);
    object.insert("block".to_owned(), about);
    match format {
        Format::Json => output::json(&object),
        Format::Table => {
            const FIRST: [&str; 4] = ["position", "time", "event", "task"];
            let rest = object.keys().map(String::as_str).filter(|name| !FIRST.contains(name));
            let names = FIRST.into_iter().chain(rest);
            let facts: Vec<_> = names.flat_map(|name| told(name, object.get(name))).collect();
            table::facts(&facts)?;
            output::line("")
        }
    }
}

/// A field for people: where an attempt ran in words, and what these leave out.
fn told<'a>(name: &'a str, value: Option<&Value>) -> Vec<(&'a str, Option<String>)> {
    match value.and_then(|value| record::ran(name, value)) {
        None => vec![(name, value.map(plain))],
        Some(ran) => vec![
            ("ran", Some(ran.to_string())),
            ("driver", ran.driver.map(|driver| driver.to_string())),
            ("kernel", Some(ran.kernel.to_string())),
            ("memory_bytes", Some(ran.memory_bytes.to_string())),
        ],
    }
}
