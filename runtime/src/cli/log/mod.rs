//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Subcommand)]
pub(crate) enum LogVerb {
    /// Not here yet
    Show {},
}

pub(crate) fn run(_: LogVerb, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
