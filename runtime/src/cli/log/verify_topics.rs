//! `ergate log verify` of a log on Kafka: every shard and the log of pools, up to what was committed when it was asked for.

use std::time::Instant;

use ergate::events::audit::{Audit, Depth, Finding};
use ergate::events::block::Hash;
use ergate::events::id::Position;
use ergate::events::log::LogError;
use ergate::events::log::kafka::Received;
use ergate::kafka::logs::shard_name;
use ergate::store::RecoverError;
use serde_json::{Value, json};

use super::finding::{self, Around};
use super::verify::{begin, checked, read_only};
use crate::cli::bar::Bar;
use crate::cli::logs::LogArgs;
use crate::cli::offline::{Place, Topic};
use crate::cli::progress::count;
use crate::cli::table::{self, Table};
use crate::cli::{Exit, Format, Globals, output};

/// What was read of a shard without a finding.
struct Walked {
    /// The state at the end, and where it began; `None` where retention has dropped the beginning and no snapshot leads to the rest.
    audit: Option<(Audit, Position)>,
    first: Position,
    next: Position,
    hash: Hash,
    events: u64,
    blocks: u64,
    bytes: u64,
    /// Blocks that are there twice.
    repeated: u64,
}

pub(super) fn run(args: &LogArgs, depth: Depth, globals: &Globals) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let places = args.open(globals)?;
    let mut shards = Vec::new();
    for place in &places {
        let Some(topic) = &place.topic else { continue };
        match walk(place, topic, depth, globals) {
            Ok(walked) => shards.push((place, topic, walked)),
            Err(error) => return finding::report(error, Around { inspection: None, shard: Some(place.shard) }, globals.output),
        }
    }
    match globals.output {
        Format::Json => print_json(&shards, depth, started)?,
        Format::Table => print_table(&shards, depth, started)?,
    }
    Ok(Exit::Done)
}

/// Follows a shard up to what was stable when it was opened; engines may go on meanwhile.
fn walk(place: &Place, topic: &Topic, depth: Depth, globals: &Globals) -> anyhow::Result<Walked> {
    let span = place.span();
    let mut audit = match begin(place, span.first, depth) {
        Err(error) if depth == Depth::Chain && is_without_base(&error) => None,
        begun => Some(begun?),
    };
    let bar = Bar::new(globals, "verifying", span.first.0, span.next.0);
    let mut followed = topic.reader.received(span.first)?;
    let mut walked = Walked {
        audit: None,
        first: span.first,
        next: span.first,
        hash: Hash::ZERO,
        events: 0,
        blocks: 0,
        bytes: 0,
        repeated: 0,
    };
    while let Some(received) = followed.next()? {
        if received.offset >= topic.extent.offsets.stable {
            break;
        }
        check(&mut audit, &received)?;
        walked.add(&received);
        bar.at(walked.next.0);
    }
    if walked.next < span.next {
        let missing = span.next.0 - walked.next.0;
        return Err(LogError::Missing { anchored: span.next, found: walked.next, missing }.into());
    }
    Ok(Walked { audit, repeated: followed.repeated(), ..walked })
}

/// Whether it is only that the log's beginning is gone.
fn is_without_base(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<RecoverError>(), Some(RecoverError::NoBase { .. }))
}

/// Holds a block against the state before it, where there is one; that it follows the block before was seen by the reader.
fn check(audit: &mut Option<(Audit, Position)>, received: &Received) -> anyhow::Result<()> {
    match audit {
        Some((audit, from)) if received.block.header.first_position >= *from => Ok(audit.follow(&received.block)?),
        Some((_, from)) if received.block.header.next_position() > *from => {
            let (at, expected, found) = (received.block.header.first_position, from.0, received.block.header.first_position.0);
            Err(Finding::Sequence { at, what: "position", expected, found }.into())
        }
        Some(_) | None => Ok(read_only(&received.block)?),
    }
}

impl Walked {
    fn add(&mut self, received: &Received) {
        self.next = received.block.header.next_position();
        self.hash = received.hash;
        self.events += u64::from(received.block.header.count);
        self.blocks += 1;
        self.bytes += received.bytes as u64;
    }

    fn json(&self, place: &Place, topic: &Topic) -> Value {
        let (name, partition) = topic.reader.place();
        let offsets = topic.extent.offsets;
        json!({
            "shard": shard_name(place.shard),
            "topic": name,
            "partition": partition,
            "offsets": { "first": offsets.low, "stable": offsets.stable },
            "events": self.events,
            "blocks": self.blocks,
            "repeated": self.repeated,
            "bytes": self.bytes,
            "first": self.first.0,
            "audited_from": self.audit.as_ref().map(|(_, from)| from.0),
            "head": self.next.0,
            "head_hash": self.hash,
            "state_digest": self.audit.as_ref().map(|(audit, _)| audit.state().digest()),
        })
    }

    fn row(&self, place: &Place, topic: &Topic) -> [String; 7] {
        let offsets = topic.extent.offsets;
        let hash = if self.blocks > 0 { self.hash.to_string() } else { "-".to_owned() };
        [
            shard_name(place.shard),
            self.events.to_string(),
            self.blocks.to_string(),
            self.repeated.to_string(),
            format!("{}..{}", offsets.low, offsets.stable),
            self.next.to_string(),
            hash,
        ]
    }

    /// What was not held against a state, if anything.
    fn gap(&self, place: &Place) -> Option<String> {
        let (shard, first) = (shard_name(place.shard), self.first);
        match &self.audit {
            None => {
                Some(format!("shard {shard} begins at position {first}, where no state is known: only its chain was followed"))
            }
            Some((_, from)) if *from > first => Some(format!(
                "shard {shard} was followed by its chain alone from position {first} to {from}, where a snapshot was taken"
            )),
            Some(_) => None,
        }
    }
}

type Shards<'a> = [(&'a Place, &'a Topic, Walked)];

fn sum(shards: &Shards<'_>, of: impl Fn(&Walked) -> u64) -> u64 {
    shards.iter().map(|(_, _, walked)| of(walked)).sum()
}

fn print_json(shards: &Shards<'_>, depth: Depth, started: Instant) -> anyhow::Result<()> {
    let each: Vec<_> = shards.iter().map(|(place, topic, walked)| walked.json(place, topic)).collect();
    output::json(&json!({
        "ok": true,
        "decisions": depth == Depth::Decisions,
        "events": sum(shards, |walked| walked.events),
        "blocks": sum(shards, |walked| walked.blocks),
        "repeated": sum(shards, |walked| walked.repeated),
        "bytes": sum(shards, |walked| walked.bytes),
        "shards": each,
        "seconds": started.elapsed().as_secs_f64(),
    }))
}

fn print_table(shards: &Shards<'_>, depth: Depth, started: Instant) -> anyhow::Result<()> {
    let mut table = Table::new(&["SHARD", "EVENTS", "BLOCKS", "REPEATED", "OFFSETS", "HEAD", "HEAD HASH"]);
    shards.iter().for_each(|(place, topic, walked)| table.row(walked.row(place, topic)));
    table.print()?;
    output::line("")?;
    let repeated = sum(shards, |walked| walked.repeated);
    let gaps: Vec<_> = shards.iter().filter_map(|(place, _, walked)| walked.gap(place)).collect();
    table::facts(&[
        ("verified", Some(checked(depth).to_owned())),
        ("events", Some(sum(shards, |walked| walked.events).to_string())),
        ("blocks", Some(sum(shards, |walked| walked.blocks).to_string())),
        (
            "repeated",
            (repeated > 0).then(|| {
                count(
                    repeated,
                    "block is there twice, and was skipped the second time",
                    "blocks are there twice, and were skipped the second time",
                )
            }),
        ),
        ("not audited", (!gaps.is_empty()).then(|| gaps.join("; "))),
        ("took", Some(format!("{:.2?}", started.elapsed()))),
    ])
}
