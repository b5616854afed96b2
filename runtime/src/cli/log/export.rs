//! `ergate log export`: the log as JSON lines, an event or a block each, or as CloudEvents 1.0.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ergate::events::event::{Envelope, Event};
use ergate::events::id::{Position, TaskId};
use ergate::events::json::{self, EventWriter, Full, Line};
use ergate::events::log::LogError;
use ergate::events::task::Ask;
use ergate::events::time::Timestamp;
use ergate::kafka::logs::shard_name;

use crate::cli::bar::Bar;
use crate::cli::exit::Trouble;
use crate::cli::logs::LogArgs;
use crate::cli::moment::{self, Moment};
use crate::cli::offline::{Next, Place};
use crate::cli::record::{self, Record};
use crate::cli::{Exit, Globals};

/// What to write, and where.
#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    log: LogArgs,
    /// What each line is
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    format: ExportFormat,
    /// Begin with the event at this position, or with the first one at or after this time
    #[arg(long, value_name = "MOMENT")]
    from: Option<Moment>,
    /// End before this position, or with the last event of this time
    #[arg(long, value_name = "MOMENT")]
    until: Option<Moment>,
    /// Write to this file instead of standard output; it appears when all of it is written
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// What each line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// The event with its position, its time and the task it is about; on Kafka with its shard
    Ndjson,
    /// A CloudEvents 1.0 object in JSON
    Cloudevents,
    /// A whole block with its place in the chain and its events, for a verifier; blocks that --from and --until cut through are whole
    Blocks,
}

pub(crate) fn run(args: &ExportArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let places = args.log.open(globals)?;
    let is_position = |moment: &Moment| matches!(moment, Moment::Position(_));
    if places.len() > 1 && args.from.iter().chain(&args.until).any(is_position) {
        return Err(
            Trouble::Usage("every shard has its own positions; give a time, or choose a shard with --shard".to_owned()).into()
        );
    }
    let parts = places.iter().map(|place| Ok((place, begin(place, args.from)?))).collect::<Result<Vec<_>, LogError>>()?;
    match &args.to {
        None => {
            let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
            all(&parts, args, globals, &mut out)?;
            out.flush()?;
        }
        Some(path) => to_file(path, |out| all(&parts, args, globals, out))?,
    }
    Ok(Exit::Done)
}

/// Writes shard after shard, so that each is in its own order and a verifier follows one chain after the other.
fn all(parts: &[(&Place, Position)], args: &ExportArgs, globals: &Globals, out: &mut dyn Write) -> anyhow::Result<()> {
    parts.iter().try_for_each(|(place, from)| export(place, args, *from, globals, out))
}

/// Where the export begins; positions that are not there are refused before anything is written.
fn begin(place: &Place, from: Option<Moment>) -> Result<Position, LogError> {
    let span = place.span();
    match from {
        None => Ok(span.first),
        Some(Moment::Time(at)) => place.reader.seek_time(at),
        Some(Moment::Position(at)) if at > span.next => Err(LogError::Beyond { at, next: span.next }),
        Some(Moment::Position(at)) if at < span.first => Err(LogError::Gone { at, first: span.first }),
        Some(Moment::Position(at)) => Ok(at),
    }
}

fn export(place: &Place, args: &ExportArgs, from: Position, globals: &Globals, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.format == ExportFormat::Blocks {
        blocks(place, args, from, globals, out)
    } else {
        events(place, args, from, globals, out)
    }
}

/// Writes the blocks that have an event in the span.
fn blocks(place: &Place, args: &ExportArgs, from: Position, globals: &Globals, out: &mut dyn Write) -> anyhow::Result<()> {
    let end = place.span().next;
    let bar = Bar::new(globals, "exporting", from.0, end.0);
    let (mut cursor, mut line) = (place.reader.cursor(from)?, Vec::new());
    while let Some(block) = cursor.next_block()? {
        let first = block.header.first_position;
        if args.is_over(first.max(from), block.header.first_time) || first >= end {
            break;
        }
        line.clear();
        json::encode(&block, block.hash(), &mut line).map_err(|source| record::damaged(first, source))?;
        line.push(b'\n');
        out.write_all(&line)?;
        bar.at(first.0);
    }
    Ok(())
}

fn events(place: &Place, args: &ExportArgs, from: Position, globals: &Globals, out: &mut dyn Write) -> anyhow::Result<()> {
    let end = place.span().next;
    let bar = Bar::new(globals, "exporting", from.0, end.0);
    let mut lines = Lines::new(args.format, place);
    place.each_record(from, &mut |record| {
        let (position, at) = (record.envelope.position, record.envelope.recorded_at);
        // What a running writer adds meanwhile is for the next export.
        if args.is_over(position, at) || position >= end {
            return Ok(Next::Enough);
        }
        if !matches!(args.from, Some(Moment::Time(from)) if at < from) {
            // Not straight into `out`: serde_json's error hides what the system said, and so whether anybody still reads.
            out.write_all(lines.of(record)?)?;
        }
        if position.0.is_multiple_of(1_024) {
            bar.at(position.0);
        }
        Ok(Next::More)
    })
}

impl ExportArgs {
    /// Whether the event there, of that time, is behind the end.
    fn is_over(&self, position: Position, at: Timestamp) -> bool {
        match self.until {
            Some(Moment::Position(until)) => position >= until,
            Some(Moment::Time(until)) => at > until,
            None => false,
        }
    }
}

/// Makes lines out of records.
struct Lines {
    is_cloud_events: bool,
    source: String,
    line: Line,
    /// What a line of NDJSON begins with: its shard, where there may be several.
    opening: Vec<u8>,
    plain: Vec<u8>,
    events: EventWriter,
    /// The time of the last record, and how it is printed: all records of a batch have one.
    at: Timestamp,
    time: String,
}

impl Lines {
    fn new(format: ExportFormat, place: &Place) -> Lines {
        Lines {
            is_cloud_events: format == ExportFormat::Cloudevents,
            source: format!("/ergate/{}", place.store),
            line: Line::default(),
            opening: place
                .topic
                .as_ref()
                .map_or_else(Vec::new, |_| format!("{{\"shard\":\"{}\",", shard_name(place.shard)).into_bytes()),
            plain: Vec::new(),
            events: EventWriter::default(),
            at: Timestamp(0),
            time: moment::time(Timestamp(0)),
        }
    }

    fn of(&mut self, record: &Record<'_>) -> Result<&[u8], serde_json::Error> {
        if self.is_cloud_events {
            return self.cloud_event(record);
        }
        self.plain.clear();
        self.events.append(&record.envelope, record.shard, record.creates, &mut self.plain);
        self.plain.push(b'\n');
        if !self.opening.is_empty() {
            self.plain.splice(..1, self.opening.iter().copied());
        }
        Ok(&self.plain)
    }

    /// CloudEvents 1.0, structured mode; `sequence` is padded so that it sorts as text, `traceparent` is the requester's.
    fn cloud_event(&mut self, record: &Record<'_>) -> Result<&[u8], serde_json::Error> {
        if self.at != record.envelope.recorded_at {
            self.at = record.envelope.recorded_at;
            self.time = moment::time(self.at);
        }
        let Envelope { position, event, .. } = &record.envelope;
        self.line.write(&CloudEvent {
            data: record.full(&self.time),
            datacontenttype: "application/json",
            id: format_args!("{}-{position}", record.shard),
            sequence: format_args!("{:020}", position.0),
            source: &self.source,
            specversion: "1.0",
            subject: record.task(),
            time: &self.time,
            traceparent: trace_parent(event),
            kind: format_args!("dev.ergate.{}.v1", event.name()),
        })
    }
}

/// In the order of their names, which saves putting them in order.
#[derive(serde::Serialize)]
struct CloudEvent<'a> {
    data: Full<'a>,
    datacontenttype: &'static str,
    id: fmt::Arguments<'a>,
    sequence: fmt::Arguments<'a>,
    source: &'a str,
    specversion: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<TaskId>,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(rename = "type")]
    kind: fmt::Arguments<'a>,
}

fn trace_parent<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    let Event::Requested { asks, .. } = event else { return None };
    asks.iter().find_map(|ask| if let Ask::TraceParent(parent) = ask { Some(*parent) } else { None })
}

/// Writes a file under another name and gives it its own when it is complete; what is no plain file, such as a pipe, is written directly.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let direct = path.metadata().is_ok_and(|found| !found.is_file());
    let draft = if direct { path.to_owned() } else { draft_of(path) };
    let unwritable = |source| Trouble::Unwritable { path: path.to_owned(), source };
    let mut out = BufWriter::with_capacity(1 << 16, create(&draft, direct).map_err(unwritable)?);
    let written = write(&mut out).and_then(|()| {
        let file = out.into_inner().map_err(|error| unwritable(error.into_error()))?;
        // A pipe or a device has nothing to sync.
        if direct {
            Ok(())
        } else {
            file.sync_all().and_then(|()| std::fs::rename(&draft, path)).map_err(|e| unwritable(e).into())
        }
    });
    if written.is_err() && !direct {
        // The error is what matters; half a file helps nobody.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn create(path: &Path, direct: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(!direct).truncate(!direct).open(path)
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}
