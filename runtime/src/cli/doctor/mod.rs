//! Not here yet.

use super::{Exit, Globals};

/// None yet.
#[derive(clap::Args)]
pub(crate) struct DoctorArgs {}

pub(crate) fn run(_: DoctorArgs, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("not here yet")
}
