//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Subcommand)]
pub(crate) enum ConfigVerb {
    /// Not here yet
    Show {},
}

pub(crate) fn run(_: ConfigVerb, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
