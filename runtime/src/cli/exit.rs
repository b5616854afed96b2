//! How the command ends: one exit code for each kind of trouble, and one line that says what happened and what to do.

use std::io::ErrorKind;
use std::process::ExitCode;

use ergate::events::log::LogError;
use ergate::http::{ServerError, TokenError};
use ergate::look::LookError;
use ergate::store::RecoverError;
use ergate::worker::WorkerError;
use ergate::{StartError, SubmitError};

use super::output::{self, escape};
use super::remote::RemoteError;

/// How a verb ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for is so.
    Done,
    /// What was compared is not the same.
    Differs,
    /// The work ran, and some of it did not succeed.
    Unsuccessful,
    /// Some of the input was refused; the rest was done.
    InputRefused,
    /// What was asked about is not there.
    NotFound,
    /// The log is not what it should be.
    Damaged,
    /// Somebody interrupted it; what was acknowledged is kept.
    Interrupted,
}

/// What stands in the way and is neither the log's nor the runtime's fault; each has its own exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The command line or the configuration makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked about is not there.
    #[error("{0}")]
    NotFound(String),
    /// There is no GPU, and all that was asked for needs one.
    #[error("{0}")]
    NoDevice(String),
    /// What was given cannot be taken.
    #[error("{0}")]
    Input(String),
    /// There is too little space, and nobody freed any.
    #[error("gave up waiting for space: {0}; free some and start again")]
    NoSpace(String),
    /// A file cannot be written.
    #[error("failed to write {path}")]
    Unwritable {
        /// Which one.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a log does not tell what was asked, as the end of a verb.
pub(crate) fn looked(error: LookError) -> anyhow::Error {
    match error {
        LookError::Log(error) => error.into(),
        LookError::Recover(error) => error.into(),
        LookError::Json(error) => error.into(),
        LookError::Stale => Trouble::Usage(error.to_string()).into(),
        LookError::NotFound(text) => Trouble::NotFound(text).into(),
    }
}

/// Printed below the help.
pub(crate) const HELP: &str = "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 tasks did not succeed · 4 some input refused · \
5 the log is damaged or incomplete · 6 not found · 7 the data directory is in use · 8 no space, not writable, or busy · \
9 written by a newer version · 10 the brokers or the service did not do it · 130 interrupted";

impl Exit {
    /// The context of a GPU died; a new process has another.
    pub(crate) const DEVICE_LOST: u8 = 20;
    /// There is no GPU for what was asked.
    const NO_DEVICE: u8 = 21;

    const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Differs => 1,
            Exit::Unsuccessful => 3,
            Exit::InputRefused => 4,
            Exit::Damaged => 5,
            Exit::NotFound => 6,
            Exit::Interrupted => 130,
        }
    }
}

/// Turns the end of a verb into the end of the process.
pub(crate) fn report(outcome: anyhow::Result<Exit>) -> ExitCode {
    match outcome {
        Ok(exit) => ExitCode::from(exit.code()),
        // Whoever read the output has enough of it.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&escape(&format!("{error:#}")));
            ExitCode::from(code(&error))
        }
    }
}

/// Prints what clap has to say.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| {
            if let Some(error) = cause.downcast_ref::<LogError>() {
                return Some(log_code(error));
            }
            if let Some(error) = cause.downcast_ref::<RecoverError>() {
                return Some(recover_code(error));
            }
            if let Some(StartError::LogFailed { .. }) = cause.downcast_ref::<StartError>() {
                return Some(8);
            }
            if let Some(StartError::Brokers { .. } | StartError::Denied { .. }) = cause.downcast_ref::<StartError>() {
                return Some(10);
            }
            if let Some(
                StartError::TypeTwice { .. }
                | StartError::Executor { .. }
                | StartError::Schedule { .. }
                | StartError::Source { .. }
                | StartError::SourcesOnKafka { .. }
                | StartError::ProcessesOnKafka,
            ) = cause.downcast_ref::<StartError>()
            {
                return Some(2);
            }
            if let Some(StartError::Topic { .. }) = cause.downcast_ref::<StartError>() {
                return Some(Exit::NotFound.code());
            }
            if let Some(StartError::Recover(error)) = cause.downcast_ref::<StartError>() {
                return Some(recover_code(error));
            }
            if let Some(code) = trouble_code(cause) {
                return Some(code);
            }
            cause.downcast_ref::<SubmitError>().map(|error| u8::from(matches!(error, SubmitError::Busy { .. })) * 7 + 1)
        })
        .unwrap_or(1)
}

fn trouble_code(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    let is_setting = matches!(cause.downcast_ref(), Some(ServerError::Open { .. } | ServerError::Tls(_)));
    if is_setting || cause.is::<ergate_config::ConfigError>() || cause.is::<TokenError>() {
        return Some(2);
    }
    if let Some(error) = cause.downcast_ref::<RemoteError>() {
        return Some(error.code());
    }
    if let Some(error) = cause.downcast_ref::<WorkerError>() {
        return Some(worker_code(error));
    }
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        let unwritable =
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem);
        return unwritable.then_some(8);
    }
    Some(match cause.downcast_ref::<Trouble>()? {
        Trouble::Usage(_) => 2,
        Trouble::NoDevice(_) => Exit::NO_DEVICE,
        Trouble::NotFound(_) => Exit::NotFound.code(),
        Trouble::Input(_) => Exit::InputRefused.code(),
        Trouble::NoSpace(_) | Trouble::Unwritable { .. } => 8,
    })
}

const fn worker_code(error: &WorkerError) -> u8 {
    match error {
        WorkerError::Setup(_) => 2,
        WorkerError::Refused(_) | WorkerError::Untrusted(_) | WorkerError::Foreign(_) | WorkerError::Unheard { .. } => 10,
        WorkerError::Runner | WorkerError::Thread(_) => 1,
        WorkerError::Interrupted { .. } => Exit::Interrupted.code(),
    }
}

const fn recover_code(error: &RecoverError) -> u8 {
    match error {
        RecoverError::Log(error) => log_code(error),
        RecoverError::Audit(_) | RecoverError::NoBase { .. } => 5,
    }
}

const fn log_code(error: &LogError) -> u8 {
    match error {
        LogError::NotFound { .. } | LogError::NoTopic { .. } | LogError::Gone { .. } | LogError::Beyond { .. } => 6,
        LogError::Locked { .. } | LogError::Fenced { .. } => 7,
        LogError::Kafka { .. } => 10,
        LogError::Full { .. } | LogError::Io { .. } | LogError::Poisoned { .. } => 8,
        LogError::FormatTooNew { .. } | LogError::NewerBlock { .. } => 9,
        LogError::Damaged { .. }
        | LogError::Unusable { .. }
        | LogError::Chain { .. }
        | LogError::Contradiction { .. }
        | LogError::NoBlock { .. }
        | LogError::Missing { .. }
        | LogError::Anchor { .. }
        | LogError::Foreign { .. }
        | LogError::OtherEngine { .. }
        | LogError::Gap { .. } => 5,
    }
}
