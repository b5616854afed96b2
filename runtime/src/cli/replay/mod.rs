//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {}

pub(crate) fn run(_: ReplayArgs, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
