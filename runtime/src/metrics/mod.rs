//! Figures for Prometheus, counted from events and not by sampling: a counter has every task exactly once.
//!
//! [`Runtime::metrics`] gives them to whoever embeds the runtime, as text or as a [`Collector`] for a registry of its own; the HTTP service has them
//! under `/metrics`. `docs/operations.md` says what each means. Counters begin at zero with the process; what is there now comes from the
//! recovered state.
//!
//! Each shard folds its events into a [`Tally`](ergate_events::view::Tally) behind the durable head, in plain numbers by numeric type, so that
//! counting costs the shard's own thread nothing and nobody a lock or a lookup by name for each task. Names and text are made when
//! somebody asks.

mod family;
#[cfg(feature = "gpu")]
mod gpu;
mod labels;
mod process;
mod table;
mod tasks;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use self::family::{Family, Form};
use self::labels::Names;
use crate::Runtime;
use crate::runtime::WeakRuntime;
use crate::tallies::Kind as TaskKind;

#[cfg(all(feature = "gpu", feature = "http"))]
pub(crate) use self::gpu::read as read_gpus;
pub use self::labels::{OTHER, POOLS_MAX, SHARDS_MAX, TYPES_MAX};
pub use self::table::{ALL, Kind, Metric};
pub use prometheus;

/// What [`Metrics::text`] gives: the text format of Prometheus.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The figures of a runtime, which they do not keep alive.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ergate::Runtime;
/// use ergate::metrics::prometheus::Registry;
///
/// let runtime = Runtime::builder().memory().start().await?;
/// // For an endpoint that has nothing else …
/// assert!(runtime.metrics().text().contains("ergate_log_fsync_seconds_count"));
/// // … or beside figures of your own.
/// let registry = Registry::new();
/// registry.register(Box::new(runtime.metrics()))?;
/// # assert!(registry.gather().iter().any(|family| family.name() == "ergate_build_info"));
/// # Ok(runtime.shutdown().await?)
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics {
    runtime: WeakRuntime,
    descs: Arc<Vec<Desc>>,
}

impl Metrics {
    pub(crate) fn new(runtime: WeakRuntime) -> Metrics {
        let labels = |metric: &Metric| metric.labels.iter().map(|label| (*label).to_owned()).collect();
        let desc =
            |metric: &&Metric| Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels(metric), Default::default());
        let descs = ALL.iter().map(|metric| desc(metric).expect("the table has valid names, each once")).collect();
        Metrics { runtime, descs: Arc::new(descs) }
    }

    /// All figures in the text format of Prometheus, see [`CONTENT_TYPE`]; empty when the runtime is gone. Takes up to 0.25 s where a GPU is slow to
    /// tell what it does, which is asked at most once a second.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.families(Form::Text).into_iter().for_each(|family| family.write(&mut text));
        text
    }

    /// The same with what only the HTTP service knows.
    #[cfg(feature = "http")]
    pub(crate) fn text_with(&self, is_ready: bool) -> String {
        let mut text = self.text();
        Family::of(&table::READY, Form::Text, f64::from(u8::from(is_ready))).write(&mut text);
        text
    }

    fn families(&self, form: Form) -> Vec<Family> {
        let Some(runtime) = self.runtime.upgrade() else { return Vec::new() };
        // Without the lock, for this may wait.
        #[cfg(feature = "gpu")]
        let devices = gpu::families(form);
        let mut labels = runtime.told().0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = tasks::families(&runtime, &mut labels, form);
        families.extend(process::families(&runtime, &mut labels, form));
        #[cfg(feature = "gpu")]
        families.extend(devices);
        families
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families(Form::Registry).into_iter().filter_map(Family::gather).collect()
    }
}

/// What was told before, of a runtime.
#[derive(Default)]
pub(crate) struct Told(Mutex<Labels>);

/// The labels that were given.
struct Labels {
    types: Names,
    pools: Names,
    shards: Names,
}

impl Default for Labels {
    fn default() -> Self {
        Labels { types: Names::at_most(TYPES_MAX), pools: Names::at_most(POOLS_MAX), shards: Names::at_most(SHARDS_MAX) }
    }
}

impl Labels {
    /// The labels of a pool and a task type.
    fn kind(&mut self, pool: &str, task_type: &str) -> TaskKind {
        (self.pools.label(pool).to_owned(), self.types.label(task_type).to_owned())
    }
}

impl Runtime {
    /// The figures of this runtime for Prometheus.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.downgrade())
    }
}
