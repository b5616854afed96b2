//! What these tests share: a generator whose answers are a function of the test, and questions to a runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ergate::clock::ManualClock;
use ergate::events::event::Event;
use ergate::events::time::Timestamp;
use ergate::{Builder, GenerateError, GeneratedBatch, GeneratorContext, RequestBatch, Runtime, TaskError, TaskGenerator, View};

use crate::exposition::Scrape;

/// How long anything here may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// 2026-03-01T12:20:00Z, twenty minutes into a slot of an hour.
pub(crate) const NOW: Timestamp = Timestamp(1_772_367_600_000_000);
/// The length of slots here.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

type Generate = dyn Fn(&View) -> Result<GeneratedBatch, GenerateError> + Send + Sync;
type Init = dyn Fn(&GeneratorContext) -> Result<(), GenerateError> + Send + Sync;

/// A generator of `job`.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) every: Duration,
    pub(crate) within: Duration,
    pub(crate) init: Arc<Init>,
    pub(crate) generate: Arc<Generate>,
    pub(crate) clean_up: Arc<dyn Fn() + Send + Sync>,
}

impl Jobs {
    pub(crate) fn new(generate: impl Fn(&View) -> Result<GeneratedBatch, GenerateError> + Send + Sync + 'static) -> Jobs {
        let generate = Arc::new(generate);
        Jobs { every: HOUR, within: HOUR, init: Arc::new(|_| Ok(())), generate, clean_up: Arc::new(|| {}) }
    }

    /// One that generates so many tasks, the same ones for the same slot.
    pub(crate) fn many(count: usize) -> Jobs {
        Jobs::new(move |view| {
            let mut batch = GeneratedBatch::new();
            (0..count).try_for_each(|index| batch.push(&format!("{} {index}", view.slot())))?;
            Ok(batch)
        })
    }

    pub(crate) fn maker(&self) -> impl Fn() -> Jobs + Send + Sync + 'static + use<> {
        let jobs = self.clone();
        move || jobs.clone()
    }
}

impl TaskGenerator for Jobs {
    fn task_type(&self) -> &str {
        "job"
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn within(&self) -> Duration {
        self.within
    }

    fn init(&mut self, context: &GeneratorContext) -> Result<(), GenerateError> {
        (self.init)(context)
    }

    fn generate(&mut self, view: &View) -> Result<GeneratedBatch, GenerateError> {
        (self.generate)(view)
    }

    fn clean_up(&mut self) {
        (self.clean_up)();
    }
}

pub(crate) async fn work(value: String) -> Result<String, TaskError> {
    match value.as_str() {
        "fail" => Err(TaskError::permanent("no", "it was told to")),
        "sleep" => {
            tokio::time::sleep(PATIENCE * 10).await;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// A runtime in memory that does jobs, and its clock.
pub(crate) fn at(now: Timestamp) -> (Builder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(now));
    let told: Arc<ManualClock> = Arc::clone(&clock);
    (Runtime::builder().memory().task("job", work).clock(told), clock)
}

/// How often a generator of `job` had this outcome.
pub(crate) fn generated(runtime: &Runtime, outcome: &str) -> f64 {
    let labels = [("generator", "job"), ("outcome", outcome)];
    Scrape::read(&runtime.metrics().text()).value("ergate_generator_batches_total", &labels)
}

/// What became of the notices of an observer of `job`.
pub(crate) fn noticed(runtime: &Runtime, outcome: &str) -> f64 {
    let labels = [("observer", "job"), ("outcome", outcome)];
    Scrape::read(&runtime.metrics().text()).value("ergate_observer_notices_total", &labels)
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Payloads and keys of all requests in the log.
pub(crate) fn requests(runtime: &Runtime) -> Vec<(String, String)> {
    let (reader, mut found) = (runtime.reader(), Vec::new());
    let mut cursor = reader.cursor(reader.span().first).unwrap();
    while let Some(block) = cursor.next_block().unwrap() {
        for envelope in block.records() {
            if let Event::Requested { payload, key, .. } = envelope.unwrap().event {
                let key = key.map_or_else(String::new, |key| key.key.to_owned());
                found.push((String::from_utf8(payload.to_vec()).unwrap(), key));
            }
        }
    }
    found
}

pub(crate) async fn submit(runtime: &Runtime, payloads: &[&str]) -> ergate::Batch {
    let (id, mut batch) = (runtime.task_type("job").unwrap(), RequestBatch::new());
    payloads.iter().for_each(|payload| batch.push(id, format!("{payload:?}").as_bytes(), None));
    runtime.submit_batch(batch).await.unwrap()
}
