//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Args)]
pub(crate) struct SubmitArgs {}

pub(crate) fn run(_: SubmitArgs, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
