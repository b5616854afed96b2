//! Commands as task types: payload on stdin or in a file, result on stdout, an exit code for the outcome. Linux only.
//!
//! A command runs in a process group of its own, which is asked to end (TERM) and then made to (KILL); nothing of the group stays when the
//! attempt is over. There is no shell anywhere: the program and its arguments come from the configuration, word by word.

mod attempt;
mod environment;
mod exit;
mod group;
mod kept;
mod lines;
mod program;
mod scratch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ergate_events::task::TypeSettings;
use tokio::sync::Semaphore;

use self::group::Groups;
use super::bytes::BytesRunner;
use super::factory::{ExecutorFactory, FactoryError};
use super::function::{Runner, TaskFunction};

pub use self::exit::NON_RETRYABLE_DEFAULT;
pub use self::program::ProgramError;

/// Commands of one task type that run at one time unless the settings say otherwise: each takes some six file descriptors, of which a process
/// often has 1,024.
pub const CONCURRENCY_DEFAULT: usize = 64;
/// How long a command may go on after TERM unless the settings say otherwise.
pub const KILL_AFTER_DEFAULT: Duration = Duration::from_secs(5);
/// Longest that a runtime that stops waits for commands to end after TERM: whoever stops it twice waits two seconds in all.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A command as a task type.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// What requests call it.
    pub task_type: String,
    /// The program: a path, or a name that is looked for in PATH when the runtime starts.
    pub program: PathBuf,
    /// Its arguments, as they are.
    pub arguments: Vec<OsString>,
    /// Where it runs; where the runtime runs without this.
    pub directory: Option<PathBuf>,
    /// How it gets the payload.
    pub payload: PayloadBy,
    /// Variables of the runtime's environment that it gets too, by name.
    pub env_allow: Vec<String>,
    /// Variables that are set for it. They win over those above, and `ERGATE_…` wins over both.
    pub env_set: Vec<(String, String)>,
    /// Exit codes after which no other attempt is made.
    pub non_retryable: Vec<RangeInclusive<u8>>,
    /// How long the group may go on after TERM until it is killed.
    pub kill_after: Duration,
    /// Commands that run at one time in this process, at least 1; other attempts wait in their slots.
    pub concurrency: usize,
}

/// How a command gets its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadBy {
    /// On stdin.
    #[default]
    Stdin,
    /// In a file that `ERGATE_PAYLOAD_FILE` names; stdin is empty.
    File,
}

impl ProcessSettings {
    /// A command without arguments and with the defaults for all else.
    pub fn new(task_type: &str, program: impl Into<PathBuf>) -> ProcessSettings {
        ProcessSettings {
            task_type: task_type.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            directory: None,
            payload: PayloadBy::Stdin,
            env_allow: vec!["PATH".to_owned()],
            env_set: Vec::new(),
            non_retryable: NON_RETRYABLE_DEFAULT.to_vec(),
            kill_after: KILL_AFTER_DEFAULT,
            concurrency: CONCURRENCY_DEFAULT,
        }
    }
}

/// Runs a command for every attempt.
pub struct ProcessTask(Arc<Parts>);

/// What all attempts of a task type share.
struct Parts {
    settings: ProcessSettings,
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    gate: Arc<Semaphore>,
    groups: Arc<Groups>,
}

impl ProcessTask {
    /// Finds the program and reads what the environment lets through, both once and for all.
    ///
    /// # Errors
    /// [`ProgramError`] when the program is missing or not executable, or the working directory is none.
    pub fn new(settings: ProcessSettings) -> Result<ProcessTask, ProgramError> {
        let program = program::resolve(&settings.task_type, &settings.program, std::env::var_os("PATH").as_deref())?;
        if let Some(directory) = settings.directory.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(ProgramError::NoDirectory { task_type: settings.task_type.clone(), directory: directory.clone() });
        }
        let environment = environment::shared(&settings, std::env::vars_os());
        let gate = Arc::new(Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(ProcessTask(Arc::new(Parts { settings, program, environment, gate, groups: Arc::default() })))
    }
}

/// Registers a command: settings of the task type, and of the command.
#[derive(Clone, Debug)]
pub struct ProcessFactory {
    /// What the rules need to know.
    pub settings: TypeSettings,
    /// What to run.
    pub process: ProcessSettings,
}

impl ExecutorFactory for ProcessFactory {
    fn task_type(&self) -> &str {
        &self.process.task_type
    }

    fn settings(&self) -> TypeSettings {
        self.settings.clone()
    }

    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError> {
        Ok(Arc::new(ProcessTask::new(self.process.clone())?))
    }
}

impl TaskFunction for ProcessTask {
    fn runner(&self) -> Box<dyn Runner> {
        let parts = Arc::clone(&self.0);
        let make = move |context, payload, hurry| attempt::run(Arc::clone(&parts), context, payload, hurry);
        // A group needs time to end: its attempt holds the slot until then.
        Box::new(BytesRunner::new(make, false))
    }

    fn close(&self) {
        self.0.groups.close(self.0.settings.kill_after.min(CLOSE_MAX));
    }
}
