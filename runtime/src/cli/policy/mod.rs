//! `ergate policy`: scaling policies, looked at without a pool.

mod budget;
mod check;
mod conformance;

use super::{Exit, Globals};

/// What to do with policies.
#[derive(clap::Subcommand)]
pub(crate) enum PolicyVerb {
    /// Run the scenarios of a file through the policy `hpa`, and say where it does anything else than the file expects
    Conformance(conformance::ConformanceArgs),
    /// Run a recorded day under another policy, and say whether it keeps to a budget
    Check(Box<check::CheckArgs>),
}

pub(crate) fn run(verb: PolicyVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        PolicyVerb::Conformance(args) => conformance::run(&args, globals),
        PolicyVerb::Check(args) => check::run(&args, globals),
    }
}
