//! Looking at what was refused, and sending it again.
//!
//! These are records of the requests topic that were no requests, and so never became tasks.

mod list;
mod redrive;

use super::logs::{self, patience};
use super::{Exit, Globals};
use ergate::kafka::refused::DeadLetters;

/// What to do with what was refused.
#[derive(clap::Subcommand)]
pub(crate) enum DlqVerb {
    /// List records that were refused, the newest last
    List(list::ListArgs),
    /// Send refused records again, to the partitions that they came from
    Redrive(redrive::RedriveArgs),
}

/// Where the records are.
#[derive(clap::Args)]
pub(crate) struct Topics {
    /// The log: `kafka://HOST:PORT,…/NAMESPACE`
    #[arg(long, value_name = "LOG")]
    log: String,
}

impl Topics {
    fn open(&self, globals: &Globals) -> anyhow::Result<DeadLetters> {
        Ok(DeadLetters::of(&logs::only_kafka(&self.log, globals)?, patience())?)
    }
}

pub(crate) fn run(verb: DlqVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        DlqVerb::List(args) => list::run(&args, globals),
        DlqVerb::Redrive(args) => redrive::run(&args, globals),
    }
}
