//! `ergate launch`: becomes another program, which ends with the process that started it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::Exit;
use super::exit::Trouble;

/// What `ergate launch` is asked for.
#[derive(Args)]
pub(crate) struct LaunchArgs {
    /// The process with which it ends
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

/// Does not come back where all goes well.
pub(crate) fn run(args: &LaunchArgs) -> anyhow::Result<Exit> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that was said.
    if getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != args.parent) {
        return Ok(Exit::Interrupted);
    }
    let (program, arguments) = args.words.split_first().ok_or_else(|| Trouble::Usage("name a program".to_owned()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(Trouble::Usage(format!("failed to start {}: {error}", program.display())).into())
}
