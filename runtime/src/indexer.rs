//! Builds the indexes of the log beside the running shard, so that a question about one task never reads millions of events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_actors::log_thread::LogCounters;
use ergate_events::id::Position;
use ergate_events::log::index::{Pace, TaskIndex};
use ergate_events::log::{LogError, LogReader};

/// Events that are indexed together while the shard runs: what has no index yet takes a reader a tenth of a second.
const STEP_EVENTS: u64 = 512 << 10;
/// Events at the end that are left to be read when the runtime stops.
const REST_EVENTS: u64 = 256;
/// How long a shutdown may index the rest; what is not done by then, the next start or the next question does.
const REST_TIME_MAX: Duration = Duration::from_secs(1);
/// How often the thread looks whether there is enough to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it leaves a directory alone that it could not write to.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Lowest priority for the processor.
const NICE_MAX: i32 = 19;

/// The thread that builds indexes. It reads what is durable and sends nothing to anybody; its failures cost only time later.
pub(crate) struct Indexer {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Work {
    index: Arc<TaskIndex>,
    reader: Arc<dyn LogReader>,
    counters: Arc<LogCounters>,
    stopping: AtomicBool,
}

impl Indexer {
    /// Starts the thread.
    pub(crate) fn start(index: Arc<TaskIndex>, reader: Arc<dyn LogReader>, counters: Arc<LogCounters>) -> Indexer {
        let work = Arc::new(Work { index, reader, counters, stopping: AtomicBool::new(false) });
        let its = Arc::clone(&work);
        let spawned = std::thread::Builder::new().name("ergate-index".to_owned()).spawn(move || its.run());
        let thread = spawned.inspect_err(|error| tracing::warn!(%error, "no indexes are built while the runtime runs")).ok();
        Indexer { work, thread: Mutex::new(thread) }
    }

    /// Stops the thread and builds what is missing up to the end, if that does not take long. No other process may write here
    /// meanwhile.
    pub(crate) fn finish(&self) {
        self.end();
        if self.work.is_short_of_space() {
            return;
        }
        let deadline = Instant::now() + REST_TIME_MAX;
        let next = self.work.reader.span().next;
        let in_time = || if Instant::now() < deadline { Pace::GoOn } else { Pace::Stop };
        warn(self.work.index.extend(next, REST_EVENTS, &mut |_| in_time()));
    }

    /// Stops the thread, and waits until it writes no more.
    pub(crate) fn end(&self) {
        self.stop();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let joined = thread.join();
            let _ = joined.inspect_err(|_| tracing::error!("the thread that builds indexes panicked"));
        }
    }

    fn stop(&self) {
        self.work.stopping.store(true, Ordering::Release);
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.thread().unpark();
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    fn run(&self) {
        step_back();
        while !self.is_stopping() {
            let pause = if warn(self.follow()) { LOOK_EVERY } else { RETRY_AFTER };
            if !self.is_stopping() {
                std::thread::park_timeout(pause);
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What is left is for the log; an index can be built at any time.
    fn is_short_of_space(&self) -> bool {
        self.counters.space_is_low.load(Ordering::Relaxed)
    }

    /// Builds the indexes of all whole steps that are durable, and drops those of what retention has dropped.
    fn follow(&self) -> Result<(), LogError> {
        let span = self.reader.span();
        self.index.prune(span.first)?;
        let from = self.index.reaches()?;
        let steps = (span.next.0 - from.0) / STEP_EVENTS;
        if steps == 0 || self.is_short_of_space() {
            return Ok(());
        }
        let until = Position(from.0 + steps * STEP_EVENTS);
        self.index.extend(until, 1, &mut |_| if self.is_stopping() { Pace::Stop } else { Pace::GoOn })
    }
}

/// Lets every other thread go first. Without the right to that, the thread is one among others.
fn step_back() {
    let thread = rustix::thread::gettid();
    let _ = rustix::process::setpriority_process(Some(thread), NICE_MAX);
}

/// Whether it went well.
fn warn(outcome: Result<(), LogError>) -> bool {
    outcome.inspect_err(|error| tracing::warn!(%error, "indexes were not built; the log is read instead")).is_ok()
}
