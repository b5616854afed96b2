//! Why a runtime does not start.

use ergate_actors::submission::SubmitError;

use crate::store::RecoverError;

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A task type, pool or schedule was refused.
    #[error("a task type, pool or schedule was refused")]
    Refused(#[from] SubmitError),
    /// The log has work that this process cannot do; see [`Builder::own_tasks_only`](crate::builder::Builder::own_tasks_only).
    #[error(
        "the log has {tasks} unfinished tasks of types that are not known here ({types}); run them with the program that submitted them, or use another data directory"
    )]
    NotOwn {
        /// How many.
        tasks: usize,
        /// Of which types.
        types: String,
    },
    /// One name has two definitions.
    #[error("the task type {name:?} is registered twice; give one of the two another name")]
    TypeTwice {
        /// The name.
        name: String,
    },
    /// A schedule cannot be.
    #[error("the schedule {name:?} cannot be: {reason}")]
    Schedule {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A source cannot be.
    #[error("the source {name:?} cannot be: {reason}")]
    Source {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// There are sources, and the log is on Kafka.
    #[error(
        "sources are not followed where the log is on Kafka, and this engine has {count}; publish their lines to the topic of requests instead"
    )]
    SourcesOnKafka {
        /// How many.
        count: usize,
    },
    /// The executor of a task type cannot be made.
    #[error("the executor of the task type {task_type:?} cannot be made")]
    Executor {
        /// The task type.
        task_type: String,
        /// Why not.
        #[source]
        source: ergate_actors::executor::factory::FactoryError,
    },
    /// A plug-in cannot be used.
    #[error(transparent)]
    Plugin(#[from] crate::plugins::PluginError),
    /// The brokers do not answer.
    #[error("the brokers at {brokers} do not answer ({reason}); check the address, and that they run")]
    Brokers {
        /// Where they should be.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// The brokers answer, and do not let this client in.
    #[error(
        "the brokers at {brokers} do not let this client in ({reason}); check user, password and certificate under `[kafka.options]`"
    )]
    Denied {
        /// Where they are.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// A topic of the namespace cannot be used.
    #[error("the topic {topic} {reason}; make the topics of the namespace with `{command}`")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong with it.
        reason: String,
        /// What makes it.
        command: String,
    },
    /// The log failed while the runtime took it over.
    #[error("the log failed at the start: {reason}")]
    LogFailed {
        /// Why, with everything that caused it.
        reason: String,
    },
    /// The engine cannot listen for workers of this machine.
    #[error("failed to listen for workers on {}; its path has at most 107 bytes, and its directory is writable", path.display())]
    Socket {
        /// The socket.
        path: std::path::PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There are pools of processes, and the log is on Kafka.
    #[error(
        "an engine on Kafka starts no processes for pools; start `ergate worker` beside it and give the pools `fleet = \"external\"`"
    )]
    ProcessesOnKafka,
    /// There is no thread to run on.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// It panicked; the log says where.
    #[error("the runtime panicked while it started; its messages say where")]
    Panicked,
}
