//! `ergate log show`: single events in full, with the block that holds them.

use ergate::events::block::Block;
use ergate::events::id::Position;
use ergate::events::log::LogError;
use serde_json::{Value, json};

use crate::cli::record::{self, Record, plain};
use crate::cli::{Exit, Format, Globals, moment, offline, output, table};

/// Which events.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// Position of the first event
    #[arg(value_parser = moment::position)]
    position: Position,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
}

pub(crate) fn run(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let place = offline::open(globals)?;
    let (first, next) = (args.position, place.reader.span().next);
    if first >= next {
        return Err(LogError::Beyond { at: first, next }.into());
    }
    let wanted = first.0..first.0.saturating_add(args.count);
    let mut cursor = place.reader.cursor(first)?;
    while let Some(block) = cursor.next_block()? {
        if block.header.first_position.0 >= wanted.end {
            break;
        }
        for record in record::of(&block) {
            let record = record?;
            if wanted.contains(&record.envelope.position.0) {
                show(&record, &block, globals.output)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn show(record: &Record<'_>, block: &Block, format: Format) -> anyhow::Result<()> {
    let mut object = record.json()?;
    let header = &block.header;
    let about = json!({ "first": header.first_position, "count": header.count, "epoch": header.epoch, "hash": block.hash(), "previous": header.previous });
    object.insert("origin".to_owned(), serde_json::to_value(record.envelope.event.origin())?);
    object.insert("block".to_owned(), about);
    match format {
        Format::Json => output::json(&object),
        Format::Table => {
            const FIRST: [&str; 4] = ["position", "time", "event", "task"];
            let rest = object.keys().map(String::as_str).filter(|name| !FIRST.contains(name));
            let names = FIRST.into_iter().chain(rest);
            let facts: Vec<_> = names.map(|name| (name, object.get(name).map(|value: &Value| plain(value)))).collect();
            table::facts(&facts)?;
            output::line("")
        }
    }
}
