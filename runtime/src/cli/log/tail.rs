//! `ergate log tail`: the newest events, and those to come.

use std::time::Duration;

use ergate::events::id::Position;
use ergate::events::log::LogError;

use crate::cli::offline::{self, Place};
use crate::cli::record::{self, Record};
use crate::cli::{Exit, Format, Globals, moment, output};

/// How often a follower looks for news; a look costs one small read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where to begin and when to stop.
#[derive(clap::Args)]
pub(crate) struct TailArgs {
    /// Begin at this position instead of near the end
    #[arg(long, value_name = "POSITION", value_parser = moment::position)]
    from: Option<Position>,
    /// Show at most so many events; the default is 10 without --from, and no bound with it
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Go on with events to come, until interrupted
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(args: &TailArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let place = offline::open(globals)?;
    let span = place.reader.span();
    let newest = Position(span.next.0.saturating_sub(args.lines.unwrap_or(10)).max(span.first.0));
    let from = args.from.unwrap_or(newest);
    // Whoever follows wants what comes, however many that are; the count only says where to begin.
    let count = if args.follow || args.from.is_none() { u64::MAX } else { args.lines.unwrap_or(u64::MAX) };
    if from > span.next {
        return Err(LogError::Beyond { at: from, next: span.next }.into());
    }
    tail(&place, from, count, args.follow, globals.output)
}

fn tail(place: &Place, from: Position, mut left: u64, follow: bool, format: Format) -> anyhow::Result<Exit> {
    let mut cursor = place.reader.cursor(from)?;
    while left > 0 {
        match cursor.next_block()? {
            Some(block) => {
                for record in record::of(&block) {
                    let record = record?;
                    if record.envelope.position >= from && left > 0 {
                        print(&record, format)?;
                        left -= 1;
                    }
                }
            }
            None if follow => std::thread::sleep(LOOK_EVERY),
            None => break,
        }
    }
    Ok(Exit::Done)
}

/// Prints a record on one line; columns have a fixed width, for nobody knows what comes.
fn print(record: &Record<'_>, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&record.json()?);
    }
    let [position, time, event, task, detail] = record.cells()?;
    let line = format!("{position:>8}  {time}  {event:<17} {task:<8} {detail}");
    output::line(&output::escape(line.trim_end()))
}
