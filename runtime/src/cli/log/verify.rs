//! `ergate log verify`: reads every block and checks that it is what was written, and, if asked, what the rules give.

use std::path::Path;
use std::time::Instant;

use ergate::events::audit::{Audit, Depth, Finding};
use ergate::events::block::{Block, Hash};
use ergate::events::id::Position;
use ergate::events::log::LogError;
use ergate::events::log::directory::{Inspection, inspect};
use ergate::events::state::State;
use ergate::store::RecoverError;
use serde_json::json;

use super::finding::{self, Around};
use super::verify_topics;
use crate::cli::bar::Bar;
use crate::cli::logs::{LogArgs, Where};
use crate::cli::offline::Place;
use crate::cli::{Exit, Format, Globals, output, record, table};

/// How thoroughly.
#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Decide everything again as well, by the rule versions that the log names
    #[arg(long)]
    decisions: bool,
}

/// What was read without a finding.
struct Verified {
    audit: Audit,
    /// Where the audit began; the blocks before have no state to begin with, and only their chain was followed.
    from: Position,
    events: u64,
    blocks: u64,
}

pub(crate) fn run(args: &VerifyArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let depth = if args.decisions { Depth::Decisions } else { Depth::Chain };
    match args.log.find(globals)? {
        Where::Directory(dir) => directory(&args.log, &dir, depth, globals),
        Where::Service(copy) => directory(&args.log, copy.path(), depth, globals),
        Where::Topics(_) => verify_topics::run(&args.log, depth, globals),
    }
}

fn directory(args: &LogArgs, dir: &Path, depth: Depth, globals: &Globals) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let inspection = match inspect(dir) {
        Ok(inspection) => inspection,
        Err(error) => return finding::report(error.into(), Around::default(), globals.output),
    };
    let place = args.directory(dir)?;
    match verify(&place, &inspection, depth, globals) {
        Ok(verified) => print(&verified, &inspection, depth, started, globals.output),
        Err(error) => finding::report(error, Around { inspection: Some(&inspection), shard: None }, globals.output),
    }
}

/// Follows the log to where it ended when it was inspected; a writer may go on meanwhile.
fn verify(place: &Place, inspection: &Inspection, depth: Depth, globals: &Globals) -> anyhow::Result<Verified> {
    let (mut audit, from) = begin(place, inspection.base.next, depth)?;
    let (first, next) = (inspection.base.next, inspection.head.next);
    let bar = Bar::new(globals, "verifying", first.0, next.0);
    let mut cursor = place.reader.cursor(first)?;
    let (mut events, mut blocks, mut at, mut previous) = (0, 0, first, inspection.base.hash);
    while at < next {
        let Some(block) = cursor.next_block()? else { break };
        if block.header.previous != previous {
            return Err(Finding::Chain { at, expected: previous, found: block.header.previous }.into());
        }
        if at < from {
            read_only(&block)?;
            previous = block.hash();
        } else {
            audit.follow(&block)?;
            previous = audit.head();
        }
        at = block.header.next_position();
        events += u64::from(block.header.count);
        blocks += 1;
        bar.at(at.0);
    }
    reached(at, previous, inspection)?;
    Ok(Verified { audit, from, events, blocks })
}

/// The empty state for a whole log, the oldest usable snapshot's for one whose beginning retention has dropped.
pub(super) fn begin(place: &Place, first: Position, depth: Depth) -> anyhow::Result<(Audit, Position)> {
    if first == Position(0) {
        return Ok((Audit::new(depth, State::default(), Some(Hash::ZERO)), first));
    }
    let (snapshots, mut skipped) = (place.snapshots(), 0);
    for info in snapshots.list()?.iter().rev().filter(|info| info.position >= first) {
        match place.load(&snapshots, info) {
            Some((state, head)) => return Ok((Audit::new(depth, state, Some(head.hash)), head.next)),
            None => skipped += 1,
        }
    }
    Err(RecoverError::NoBase { first, skipped }.into())
}

/// Decodes the records of a block that no state leads to.
pub(super) fn read_only(block: &Block) -> Result<(), LogError> {
    record::of(block).try_for_each(|record| record.map(drop))
}

/// Holds the end that was reached against the one that was found from behind.
fn reached(at: Position, hash: Hash, inspection: &Inspection) -> Result<(), LogError> {
    let head = inspection.head;
    if at < head.next {
        return Err(LogError::Missing { anchored: head.next, found: at, missing: head.next.0 - at.0 });
    }
    if at == head.next && hash != head.hash {
        return Err(LogError::Chain { at, expected: head.hash, found: hash });
    }
    Ok(())
}

/// What a whole log was held against.
pub(super) const fn checked(depth: Depth) -> &'static str {
    match depth {
        Depth::Chain => "every byte and hash",
        Depth::Decisions => "every byte, hash and decision",
    }
}

fn print(verified: &Verified, inspection: &Inspection, depth: Depth, started: Instant, format: Format) -> anyhow::Result<Exit> {
    let Verified { audit, from, events, blocks } = verified;
    let (head, digest) = (audit.state().position, audit.state().digest());
    match format {
        Format::Json => output::json(&json!({
            "ok": true,
            "decisions": depth == Depth::Decisions,
            "events": events,
            "blocks": blocks,
            "first": inspection.base.next.0,
            "audited_from": from.0,
            "head": head.0,
            "head_hash": audit.head(),
            "state_digest": digest,
            "store": inspection.store.to_string(),
            "torn": inspection.torn.map(|cut| json!({ "at": cut.at.0, "bytes": cut.bytes })),
            "seconds": started.elapsed().as_secs_f64(),
        }))?,
        Format::Table => table::facts(&[
            ("verified", Some(checked(depth).to_owned())),
            ("events", Some(events.to_string())),
            ("blocks", Some(blocks.to_string())),
            ("audited from", (from.0 > 0).then(|| format!("position {from}, a snapshot; before it {} events only by their chain", from.0 - inspection.base.next.0))),
            ("head", Some(format!("position {head}"))),
            ("head hash", Some(audit.head().to_string())),
            ("state digest", Some(digest.to_string())),
            ("torn tail", inspection.torn.map(|cut| format!("{} bytes at position {} that nobody was told of; the next start cuts them, unless a process is just writing them", cut.bytes, cut.at))),
            ("took", Some(format!("{:.2?}", started.elapsed()))),
        ])?,
    }
    Ok(Exit::Done)
}
