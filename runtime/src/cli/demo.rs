//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_: DemoArgs, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
