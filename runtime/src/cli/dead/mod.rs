//! Dead letters: tasks that failed for good and are kept for another try.

mod list;
mod redrive;

use super::{Exit, Globals};

/// What to do with dead letters.
#[derive(clap::Subcommand)]
pub(crate) enum DeadVerb {
    /// List dead letters, the newest first
    List(list::ListArgs),
    /// Try dead letters of a service again, each as a new task
    Redrive(redrive::RedriveArgs),
}

pub(crate) fn run(verb: DeadVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        DeadVerb::List(args) => list::run(&args, globals),
        DeadVerb::Redrive(args) => redrive::run(&args, globals),
    }
}

/// Which dead letters.
#[derive(clap::Args)]
struct Which {
    /// Only tasks of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// Only those that ended for this cause: attempts_exhausted, not_retryable, timed_out, losses_exhausted, cancelled or killed
    #[arg(long, value_parser = cause)]
    cause: Option<String>,
    /// Only those that ended at this moment or later, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = super::submit::parse_moment)]
    since: Option<ergate::events::time::Timestamp>,
    /// Only those that ended before this moment
    #[arg(long, value_name = "TIME", value_parser = super::submit::parse_moment)]
    until: Option<ergate::events::time::Timestamp>,
}

fn cause(text: &str) -> Result<String, String> {
    ergate::look::dead::cause(text).ok_or_else(|| format!("write {}", ergate::look::dead::CAUSES))
}
