//! Plug-in generators: what a program registers to find out, again and again, which tasks of a type there should be.
//!
//! ```text
//!  clock ──▶ Generator (actor) ──Look──▶ shard         a view at one position, all of it durable
//!                │  ▲
//!             view  batch                              the generator's own thread, which may panic, err or block
//!                ▼  │
//!             GeneratorHost      Generator ──batch──▶ shard   each task with a key made of slot and place
//! ```
//! Time is cut into *slots* of [`every`](TaskGenerator::every). Whoever generates the batch of a slot a second time, after a crash say, gives its
//! tasks the same keys, and nothing is created twice.

mod actor;
mod batch;
mod host;
mod slot;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

pub use self::actor::{AGAIN_AFTER, BatchOutcome, Desk, Generator, GeneratorCounts, LocalFuture};
pub use self::batch::{BATCH_NAME_BYTES_MAX, BatchError, GENERATED_BYTES_MAX, GENERATED_TASKS_MAX, GeneratedBatch};
pub use self::host::{CLEAN_UP_WITHIN, GeneratorHost, INIT_WITHIN};
pub use self::slot::Slot;
pub use self::view::{ENDED_MAX, EndedTask, LiveTask, View};

/// Why a generator cannot be made, or cannot say what there is to do.
pub type GenerateError = Box<dyn std::error::Error + Send + Sync>;

/// Most generators of a runtime: each has a thread.
pub const GENERATORS_MAX: usize = 64;
/// Shortest slot: a view of many live tasks costs milliseconds.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// Longest slot.
pub const EVERY_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Longest name of a task type that has a generator, in bytes: the keys of its tasks begin with it.
pub const GENERATOR_NAME_BYTES_MAX: usize = 128;
/// How long a generator may take before that is said, where it does not say otherwise.
pub const GENERATE_WITHIN: Duration = Duration::from_secs(60);

/// Says which tasks of one task type there should be.
///
/// It lives on a thread of its own, so it may read files and ask services. The defaults of [`timeout`](TaskGenerator::timeout),
/// [`concurrency_per_replica`](TaskGenerator::concurrency_per_replica) and [`attempts`](TaskGenerator::attempts) are those of Apache Pinot's Minion.
pub trait TaskGenerator: Send {
    /// The task type of what it generates, and its own name: a task type has one generator.
    fn task_type(&self) -> &str;

    /// How often it is asked: once in each slot of this length, counted from the Unix epoch, and at the start for the slot that it is then. From
    /// [`EVERY_MIN`] to [`EVERY_MAX`].
    fn every(&self) -> Duration;

    /// Called once before anything else, and again of the one that takes the place of one that panicked.
    ///
    /// # Errors
    /// Whatever is missing; the runtime does not start then.
    fn init(&mut self, context: &GeneratorContext) -> Result<(), GenerateError> {
        let _ = context;
        Ok(())
    }

    /// Says what there is to do.
    ///
    /// For the same slot and the same configuration it should say the same: the key of a task is `generator/TYPE/BATCH/INDEX`, and a task of another
    /// payload under a key that is taken is refused. Tasks that are there already are not created again.
    ///
    /// # Errors
    /// Whatever went wrong; it is asked again after [`AGAIN_AFTER`], or in the next slot if that comes sooner.
    fn generate(&mut self, view: &View) -> Result<GeneratedBatch, GenerateError>;

    /// From the start of an attempt to its end, where the task type is registered with default settings.
    fn timeout(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    /// Tasks on their way at once for each replica of the type's pool, where the task type names no limits.
    fn concurrency_per_replica(&self) -> u32 {
        1
    }

    /// Attempts of each task, the first one included, where the task type is registered with default settings.
    fn attempts(&self) -> u32 {
        1
    }

    /// How long [`generate`](TaskGenerator::generate) may take before the runtime says that it does not answer. It is not asked again until it does.
    fn within(&self) -> Duration {
        GENERATE_WITHIN
    }

    /// The runtime stops; the last call, for at most [`CLEAN_UP_WITHIN`].
    fn clean_up(&mut self) {}
}

/// Makes a generator: when a runtime starts, and anew after a panic.
pub type MakeGenerator = dyn Fn() -> Box<dyn TaskGenerator> + Send + Sync;

/// What a generator is given once.
#[derive(Clone, Debug)]
pub struct GeneratorContext {
    configuration: Arc<Value>,
    stopping: Arc<AtomicBool>,
}

impl GeneratorContext {
    /// The configuration that the program registered for its task type; [`Value::Null`] where there is none.
    pub fn configuration(&self) -> &Value {
        &self.configuration
    }

    /// Whether the runtime wants to stop: what takes long should look now and then.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
