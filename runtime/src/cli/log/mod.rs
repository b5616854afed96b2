//! Looking at the log, checking it, exporting it, repairing it.

mod causal;
pub(crate) mod copy;
mod export;
mod finding;
mod online;
mod repair;
mod show;
mod tail;
mod verify;
mod verify_topics;

use ergate::kafka::logs::shard_name;
use serde_json::{Map, Value};

use super::record::Record;
use super::{Exit, Globals};

/// What to do with the log.
#[derive(clap::Subcommand)]
pub(crate) enum LogVerb {
    /// Show the newest events, and go on with those to come
    Tail(tail::TailArgs),
    /// Show the event at a position in full
    Show(show::ShowArgs),
    /// Read the whole log and check that it is what was written, and what the rules give
    Verify(verify::VerifyArgs),
    /// Write the log as JSON lines or CloudEvents
    Export(export::ExportArgs),
    /// Keep a copy of the log of a running service, or bring one up to date
    Copy(copy::CopyArgs),
    /// Say what is wrong with the log, and go on without what is lost if that is accepted
    Repair(repair::RepairArgs),
}

pub(crate) fn run(verb: LogVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        LogVerb::Tail(args) => tail::run(&args, globals),
        LogVerb::Show(args) => show::run(&args, globals),
        LogVerb::Verify(args) => verify::run(&args, globals),
        LogVerb::Export(args) => export::run(&args, globals),
        LogVerb::Copy(args) => copy::run(&args, globals),
        LogVerb::Repair(args) => repair::run(&args, globals),
    }
}

/// A record with its shard, for answers about several of them.
fn json_with_shard(record: &Record<'_>) -> Result<Map<String, Value>, serde_json::Error> {
    let mut object = record.json()?;
    object.insert("shard".to_owned(), shard_name(record.shard).into());
    Ok(object)
}

/// A record on a line that begins with its shard.
fn line_with_shard(record: &Record<'_>) -> Result<String, serde_json::Error> {
    Ok(format!("{:>8}  {}", shard_name(record.shard), super::record::line(&record.json()?)))
}
