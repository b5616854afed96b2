//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Subcommand)]
pub(crate) enum TaskVerb {
    /// Not here yet
    Show {},
}

pub(crate) fn run(_: TaskVerb, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
