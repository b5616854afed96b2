//! `ergate log tail`: the newest events, and those to come.

use std::time::Duration;

use ergate::events::id::Position;
use ergate::events::log::LogError;
use ergate::events::time::Timestamp;

use super::online;
use crate::cli::choice::{self, Side};
use crate::cli::logs::{self, LogArgs};
use crate::cli::offline::{Next, Place};
use crate::cli::record::{self, Record};
use crate::cli::{Exit, Format, Globals, moment, output};

/// How often a follower looks for news; a look costs one small read.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Events that are shown where nobody says how many.
pub(super) const LINES: u64 = 10;

/// Where to begin and when to stop.
#[derive(clap::Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// Begin at this position instead of near the end; of several shards choose one
    #[arg(long, value_name = "POSITION", value_parser = moment::position)]
    pub(super) from: Option<Position>,
    /// Show at most so many events; the default is 10 without --from, and no bound with it
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<u64>,
    /// Go on with events to come, until interrupted
    #[arg(short, long)]
    pub(super) follow: bool,
}

pub(crate) fn run(args: &TailArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if let Side::Service(remote) = choice::side(globals, args.log.flag())? {
        return online::tail(&remote, args, globals.output);
    }
    let places = match args.from {
        Some(_) => vec![args.log.open_one(globals)?],
        None => args.log.open(globals)?,
    };
    let with_shard = places.iter().any(|place| place.topic.is_some());
    match places.as_slice() {
        [place] => one(args, place, with_shard, globals.output)?,
        several => newest(several, args.lines.unwrap_or(LINES), globals.output)?,
    }
    if args.follow { follow(&places, with_shard, globals.output) } else { Ok(Exit::Done) }
}

/// The end of one log, or the part of it from a position on.
fn one(args: &TailArgs, place: &Place, with_shard: bool, format: Format) -> anyhow::Result<()> {
    let span = place.span();
    let newest = Position(span.next.0.saturating_sub(args.lines.unwrap_or(LINES)).max(span.first.0));
    let from = args.from.unwrap_or(newest);
    if from > span.next {
        return Err(LogError::Beyond { at: from, next: span.next }.into());
    }
    // Whoever follows wants what comes, however many that are; the count only says where to begin.
    let mut left = if args.follow || args.from.is_none() { u64::MAX } else { args.lines.unwrap_or(u64::MAX) };
    place.each_record(from, &mut |record| {
        if left == 0 || record.envelope.position >= span.next {
            return Ok(Next::Enough);
        }
        left -= 1;
        output::line(&text(record, with_shard, format)?)?;
        Ok(Next::More)
    })
}

/// The newest events of all logs together, by time.
fn newest(places: &[Place], count: u64, format: Format) -> anyhow::Result<()> {
    let mut lines: Vec<(Timestamp, String)> = Vec::new();
    for place in places {
        let span = place.span();
        place.each_record(Position(span.next.0.saturating_sub(count).max(span.first.0)), &mut |record| {
            if record.envelope.position >= span.next {
                return Ok(Next::Enough);
            }
            lines.push((record.envelope.recorded_at, text(record, true, format)?));
            Ok(Next::More)
        })?;
    }
    // The sort keeps the order of each log, whose time never goes back.
    lines.sort_by_key(|(at, _)| *at);
    let skip = lines.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    lines[skip..].iter().try_for_each(|(_, line)| output::line(line))
}

/// What comes, as it comes.
fn follow(places: &[Place], with_shard: bool, format: Format) -> anyhow::Result<Exit> {
    let mut cursor = logs::follow(places)?;
    loop {
        match cursor.next_block()? {
            Some(block) => {
                for record in record::of(&block) {
                    output::line(&text(&record?, with_shard, format)?)?;
                }
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn text(record: &Record<'_>, with_shard: bool, format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Json if with_shard => serde_json::to_string(&super::json_with_shard(record)?),
        Format::Json => serde_json::to_string(&record.json()?),
        Format::Table if with_shard => super::line_with_shard(record),
        Format::Table => Ok(record::line(&record.json()?)),
    }
}
