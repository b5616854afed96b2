//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {}

pub(crate) fn run(_: BenchArgs, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
