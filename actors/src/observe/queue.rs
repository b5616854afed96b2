//! One observer on a thread of its own, behind a queue that nobody waits for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ergate_events::view::observed::Happened;

use super::{EventObserver, EventObserverFactory, ObservedAttempt, ObservedError, ObservedProgress};
use crate::executor::factory::FactoryError;
use crate::log_writer::chain;

/// Notices that may wait for one observer: a second of a busy task type.
pub const NOTICES_MAX: usize = 8_192;
/// Bytes of results and messages that may wait for one observer; a result may have a megabyte.
pub const NOTICES_BYTES_MAX: usize = 16 << 20;
/// An observer that has panicked so often is not called again.
pub const PANICS_MAX: u64 = 5;
/// How long the end of a runtime waits for observers that have not heard everything yet.
pub const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// What became of an observer's notices.
#[derive(Debug, Default)]
pub struct ObserverCounts {
    /// It was told.
    pub told: AtomicU64,
    /// They did not fit into its queue, or it was given up.
    pub dropped: AtomicU64,
    /// It panicked.
    pub panicked: AtomicU64,
}

struct Note {
    attempt: ObservedAttempt,
    what: Happened,
}

/// An observer that runs. Clones are the same one; its thread ends with the last of them.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    task_type: Arc<str>,
    queue: SyncSender<Note>,
    shared: Arc<Shared>,
}

/// What the thread and those who hand over share.
#[derive(Default)]
struct Shared {
    bytes: AtomicUsize,
    waiting: AtomicUsize,
    /// Whether the last notice did not fit, so that a flood of them is said once.
    full: AtomicBool,
    counts: ObserverCounts,
}

impl Observer {
    /// Makes the observer of a factory and starts its thread.
    ///
    /// # Errors
    /// What the factory says; that there is no thread.
    pub fn start(factory: Arc<dyn EventObserverFactory>) -> Result<Observer, FactoryError> {
        let task_type: Arc<str> = factory.task_type().into();
        factory.init()?;
        let observer = factory.create()?;
        let (queue, notes) = sync_channel(NOTICES_MAX);
        let shared = Arc::new(Shared::default());
        let host = Host { factory, observer: Some(observer), shared: Arc::clone(&shared) };
        std::thread::Builder::new().name("ergate-observer".to_owned()).spawn(move || host.run(&notes))?;
        Ok(Observer(Arc::new(Inner { task_type, queue, shared })))
    }

    /// The task type that it observes.
    pub fn task_type(&self) -> &Arc<str> {
        &self.0.task_type
    }

    /// What became of its notices.
    pub fn counts(&self) -> &ObserverCounts {
        &self.0.shared.counts
    }

    /// Hands a notice over, without waiting.
    pub(super) fn offer(&self, attempt: ObservedAttempt, what: Happened) {
        let (Inner { task_type, queue, shared, .. }, bytes) = (&*self.0, what.bytes());
        let fits = shared.bytes.fetch_add(bytes, Relaxed) + bytes <= NOTICES_BYTES_MAX;
        shared.waiting.fetch_add(1, Relaxed);
        let sent = if fits { queue.try_send(Note { attempt, what }) } else { Err(TrySendError::Full(Note { attempt, what })) };
        if let Err(TrySendError::Full(note) | TrySendError::Disconnected(note)) = sent {
            shared.forget(&note);
            shared.counts.dropped.fetch_add(1, Relaxed);
            if !shared.full.swap(true, Relaxed) {
                let (from, limit) = (note.attempt.position, NOTICES_MAX);
                tracing::warn!(%task_type, %from, limit, "an observer is too slow, and is not told of everything; the tasks go on");
            }
        } else if shared.full.swap(false, Relaxed) {
            let dropped = shared.counts.dropped.load(Relaxed);
            tracing::info!(%task_type, dropped, "an observer that was too slow is told again");
        }
    }

    /// Waits until it was told of everything that was handed over, or until this moment. Blocks.
    pub fn finish(&self, until: Instant) {
        while self.0.shared.waiting.load(Relaxed) > 0 {
            if Instant::now() >= until {
                let (task_type, waiting) = (&self.0.task_type, self.0.shared.waiting.load(Relaxed));
                tracing::warn!(%task_type, waiting, "an observer is left behind with what it has not heard yet");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Shared {
    fn forget(&self, note: &Note) {
        self.bytes.fetch_sub(note.what.bytes(), Relaxed);
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// The thread of an observer.
struct Host {
    factory: Arc<dyn EventObserverFactory>,
    /// `None` once it was given up.
    observer: Option<Box<dyn EventObserver>>,
    shared: Arc<Shared>,
}

impl Host {
    fn run(mut self, notes: &Receiver<Note>) {
        while let Ok(note) = notes.recv() {
            match &mut self.observer {
                None => drop(self.shared.counts.dropped.fetch_add(1, Relaxed)),
                Some(observer) => match catch_unwind(AssertUnwindSafe(|| tell(observer.as_mut(), &note))) {
                    Ok(()) => drop(self.shared.counts.told.fetch_add(1, Relaxed)),
                    Err(panic) => self.replace(&note, panic.as_ref()),
                },
            }
            self.shared.forget(&note);
        }
    }

    /// After a panic nobody knows what state the observer is in, so that another one takes its place.
    fn replace(&mut self, note: &Note, panic: &(dyn std::any::Any + Send)) {
        let panics = self.shared.counts.panicked.fetch_add(1, Relaxed) + 1;
        let ObservedAttempt { task, task_type, .. } = &note.attempt;
        let reason = crate::executor::function::panicked(panic);
        tracing::error!(%task_type, %task, reason = reason.message(), panics, "an observer panicked; the task goes on");
        drop_quietly(self.observer.take());
        if panics >= PANICS_MAX {
            tracing::error!(%task_type, panics, "an observer has panicked too often and is not called again");
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| self.factory.create())) {
            Ok(Ok(observer)) => self.observer = Some(observer),
            Ok(Err(error)) => {
                tracing::error!(%task_type, error = chain(error.as_ref()), "an observer cannot be made again and is not called any more");
            }
            Err(_) => tracing::error!(%task_type, "the factory of an observer panicked; it is not called any more"),
        }
    }
}

/// Drops what has panicked and may do so again.
pub(crate) fn drop_quietly<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(value)));
}

fn tell(observer: &mut dyn EventObserver, Note { attempt, what }: &Note) {
    match what {
        Happened::Started => observer.start(attempt),
        Happened::Progressed { percent, stage, message } => {
            observer.progress(attempt, &ObservedProgress { percent: *percent, stage, message });
        }
        Happened::Succeeded { outcome, result } => observer.success(attempt, *outcome, result),
        Happened::Cancelled { cause } => observer.cancelled(attempt, *cause),
        Happened::Failed { class, message, again, cause } => {
            observer.error(attempt, &ObservedError { class, message, again: *again, cause: *cause });
        }
    }
}
