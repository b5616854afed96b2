//! `ergate policy`: scaling policies, looked at without a pool.

mod conformance;

use super::{Exit, Globals};

/// What to do with policies.
#[derive(clap::Subcommand)]
pub(crate) enum PolicyVerb {
    /// Run the scenarios of a file through the policy `hpa`, and say where it does anything else than the file expects
    Conformance(conformance::ConformanceArgs),
}

pub(crate) fn run(verb: PolicyVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        PolicyVerb::Conformance(args) => conformance::run(&args, globals),
    }
}
