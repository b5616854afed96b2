//! `ergate kafka`: what carries a log on Apache Kafka.

mod status;

use super::{Exit, Globals};

/// What to do about Kafka.
#[derive(clap::Subcommand)]
pub(crate) enum KafkaVerb {
    /// Show which engine has which shard, what waits, and how far readers lag behind
    Status(status::StatusArgs),
}

pub(crate) fn run(verb: KafkaVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        KafkaVerb::Status(args) => status::run(&args, globals),
    }
}
