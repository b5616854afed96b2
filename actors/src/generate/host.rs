//! The thread of one generator: foreign code, which may panic, err and block, and of which only answers come back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::{GenerateError, GeneratedBatch, GeneratorContext, GeneratorCounts, MakeGenerator, TaskGenerator, View};
use crate::executor::function::panicked;
use crate::log_writer::chain;
use crate::observe::drop_quietly;

/// How long a generator may take to be ready before the runtime does not start.
pub const INIT_WITHIN: Duration = Duration::from_secs(30);
/// Orders that wait for a generator that is at work: to clean up after a shard that went, and to generate for one that came back meanwhile.
const ORDERS_MAX: usize = 2;
/// How long the end of a runtime waits for generators that work or clean up.
pub const CLEAN_UP_WITHIN: Duration = Duration::from_secs(5);

/// A generator on its thread. Clones are the same one; it cleans up and ends with the last of them, or when it is told to.
#[derive(Clone)]
pub struct GeneratorHost(Arc<Inner>);

struct Inner {
    task_type: String,
    every: Duration,
    within: Duration,
    /// `None` once it was told to end.
    orders: Mutex<Option<SyncSender<Order>>>,
    context: GeneratorContext,
    counts: GeneratorCounts,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

/// What its thread is told.
enum Order {
    Ask { view: Box<View>, reply: oneshot::Sender<(Box<View>, Answer)> },
    Rest,
}

/// What a generator says.
pub(super) type Answer = Result<GeneratedBatch, NoBatch>;

/// Why there is no batch.
#[derive(Debug)]
pub(super) enum NoBatch {
    /// The generator said so.
    Failed(String),
    /// It panicked.
    Panicked(String),
}

impl GeneratorHost {
    /// Makes a generator ready on a thread of its own.
    ///
    /// # Errors
    /// What it says itself; that it panicked, or did not answer within [`INIT_WITHIN`]; that there is no thread.
    pub async fn start(
        make: Arc<MakeGenerator>,
        generator: Box<dyn TaskGenerator>,
        configuration: Value,
    ) -> Result<Self, GenerateError> {
        let context = GeneratorContext { configuration: Arc::new(configuration), stopping: Arc::new(AtomicBool::new(false)) };
        let (task_type, every, within) = (generator.task_type().to_owned(), generator.every(), generator.within());
        let (orders, told) = sync_channel(ORDERS_MAX);
        let (end, ended) = watch::channel(());
        let (ready, started) = oneshot::channel();
        let mut life = Life { make, context: context.clone(), generator: None };
        std::thread::Builder::new().name("ergate-generator".to_owned()).spawn(move || {
            let initiated = life.init(generator);
            let is_ready = initiated.is_ok();
            if ready.send(initiated).is_ok() && is_ready {
                life.follow(&told);
            }
            drop(end);
        })?;
        let inner = Inner {
            task_type,
            every,
            within,
            orders: Mutex::new(Some(orders)),
            context,
            counts: GeneratorCounts::default(),
            ended,
        };
        match tokio::time::timeout(INIT_WITHIN, started).await {
            Ok(Ok(Ok(()))) => Ok(GeneratorHost(Arc::new(inner))),
            Ok(Ok(Err(NoBatch::Failed(reason)))) => Err(reason.into()),
            Ok(Ok(Err(NoBatch::Panicked(reason)))) => Err(format!("it panicked: {reason}").into()),
            Ok(Err(_)) => Err("its thread ended".into()),
            Err(_) => Err(format!("it was not ready within {INIT_WITHIN:?}").into()),
        }
    }

    /// The task type that it generates.
    pub fn task_type(&self) -> &str {
        &self.0.task_type
    }

    /// How often it is asked.
    pub fn every(&self) -> Duration {
        self.0.every
    }

    /// What became of what it generated.
    pub fn counts(&self) -> &GeneratorCounts {
        &self.0.counts
    }

    pub(super) fn within(&self) -> Duration {
        self.0.within
    }

    pub(super) fn context(&self) -> &GeneratorContext {
        &self.0.context
    }

    /// Asks for a batch; the answer comes with the view. `None` when the thread is gone.
    pub(super) async fn ask(&self, view: Box<View>) -> Option<(Box<View>, Answer)> {
        let (reply, answer) = oneshot::channel();
        self.lock().as_ref()?.try_send(Order::Ask { view, reply }).ok()?;
        answer.await.ok()
    }

    /// Lets the generator clean up, because its shard is led here no more. If the shard comes back another one is made.
    pub(super) fn rest(&self) {
        if let Some(orders) = &*self.lock() {
            // One that was told so already, and has not come to it, needs not be told again.
            let _ = orders.try_send(Order::Rest);
        }
    }

    /// Tells it to end; it cleans up first.
    pub fn stop(&self) {
        self.0.context.stopping.store(true, Ordering::Relaxed);
        drop(self.lock().take());
    }

    /// Waits until it has ended, or until this moment.
    pub async fn ended(&self, until: tokio::time::Instant) {
        let mut ended = self.0.ended.clone();
        let closed = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout_at(until, closed).await.is_err() {
            tracing::warn!(generator = self.task_type(), "a generator does not come to its end and is left behind");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SyncSender<Order>>> {
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.stopping.store(true, Ordering::Relaxed);
    }
}

/// What the thread has.
struct Life {
    make: Arc<MakeGenerator>,
    context: GeneratorContext,
    /// `None` after a panic, which may have left it in any state, and after it has cleaned up.
    generator: Option<Box<dyn TaskGenerator>>,
}

impl Life {
    fn init(&mut self, mut generator: Box<dyn TaskGenerator>) -> Result<(), NoBatch> {
        let context = &self.context;
        caught(|| generator.init(context))?;
        self.generator = Some(generator);
        Ok(())
    }

    fn follow(&mut self, told: &Receiver<Order>) {
        while let Ok(order) = told.recv() {
            match order {
                Order::Ask { view, reply } => {
                    let answer = self.generate(&view);
                    // An actor that has stopped wants nothing more; the next start asks for the same slot.
                    let _ = reply.send((view, answer));
                }
                Order::Rest => self.clean_up(),
            }
        }
        self.clean_up();
    }

    fn clean_up(&mut self) {
        if let Some(mut generator) = self.generator.take() {
            let cleaned: Answer = caught(|| {
                generator.clean_up();
                Ok(GeneratedBatch::new())
            });
            if let Err(NoBatch::Failed(reason) | NoBatch::Panicked(reason)) = cleaned {
                tracing::error!(reason, "a generator panicked while it cleaned up");
            }
            drop_quietly(generator);
        }
    }

    fn generate(&mut self, view: &View) -> Answer {
        if self.generator.is_none() {
            let make = Arc::clone(&self.make);
            let generator = caught(|| Ok(make()))?;
            self.init(generator)?;
        }
        let Some(generator) = &mut self.generator else { return Err(NoBatch::Failed("it is not there".to_owned())) };
        let answer = caught(|| generator.generate(view));
        if let Err(NoBatch::Panicked(_)) = answer {
            drop_quietly(self.generator.take());
        }
        answer
    }
}

/// Calls foreign code.
fn caught<T>(call: impl FnOnce() -> Result<T, GenerateError>) -> Result<T, NoBatch> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(NoBatch::Failed(chain(error.as_ref()))),
        Err(panic) => Err(NoBatch::Panicked(text(panic.as_ref()))),
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    panicked(panic).message().to_owned()
}
