//! Sources: files of requests, one a line, that a runtime follows as they grow (`docs/sources.md`).
//!
//! Each source has a thread of its own that nobody waits for; everything it knows is in its files, its registry and the log.

mod desk;
mod files;
mod follow;
mod history;
mod lines;
mod refused;
mod registry;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ergate_actors::log_writer::chain;
use ergate_events::schedule::is_schedule_name;

use self::desk::{Desk, Stop};
use self::follow::Source;
use self::refused::RefusedFile;
use self::registry::Registry;
use crate::builder::Builder;
use crate::runtime::StartError;
use crate::wiring::Parts;

/// Most sources of a runtime: each has a thread.
pub const SOURCES_MAX: usize = 64;
/// Most files of a source: each is open, and a process often has 1,024.
pub const FILES_MAX: usize = 4_096;
/// Shortest time between two looks.
pub const POLL_MIN: Duration = Duration::from_millis(10);
/// How long the end of a runtime waits for batches that are on their way.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What a source follows, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// A file, or a directory whose `*.ndjson` are followed in the order of their names. It need not be there yet.
    pub path: PathBuf,
    /// Time between two looks for new lines, at least [`POLL_MIN`].
    pub poll: Duration,
    /// Most files that are followed at one time, from 1 to [`FILES_MAX`].
    pub files_max: usize,
    /// Bytes of the file of refused lines; beyond it they are only logged and counted.
    pub refused_max: u64,
}

impl SourceSettings {
    /// Follows this path, looking five times a second.
    pub fn new(path: impl Into<PathBuf>) -> SourceSettings {
        SourceSettings { path: path.into(), poll: Duration::from_millis(200), files_max: 256, refused_max: 16 << 20 }
    }

    const fn is_possible(&self) -> bool {
        self.poll.as_nanos() >= POLL_MIN.as_nanos() && 1 <= self.files_max && self.files_max <= FILES_MAX
    }
}

/// What became of the lines of a source since the process began, and what it has not read.
#[derive(Debug, Default)]
pub(crate) struct SourceCounts {
    pub(crate) taken: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unread_bytes: AtomicU64,
}

/// The sources that run.
#[derive(Clone, Default)]
pub(crate) struct Sources(Arc<[Host]>);

/// The thread of a source.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read all of it"))]
struct Host {
    name: String,
    counts: Arc<SourceCounts>,
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Looks whether the sources of a builder can be; before anything is opened, for what is wrong with one is no fault of the log.
pub(crate) fn check(builder: &Builder) -> Result<(), StartError> {
    for (name, settings) in &builder.sources {
        let refused = |reason: &str| Err(StartError::Source { name: name.clone(), reason: reason.to_owned() });
        if !is_schedule_name(name) {
            return refused("its name has letters, digits, `-` and `_`, at most 64 of them");
        }
        if !settings.is_possible() {
            return refused("it looks at most every 10 ms, and follows from 1 to 4096 files");
        }
        if builder.store.dir().is_none() {
            return refused("it keeps how far it is beside the log, and a log in memory has no directory; give it one");
        }
        if builder.sources.len() > SOURCES_MAX {
            return refused("a runtime has at most 64 sources, for each has a thread; let one follow a directory");
        }
    }
    Ok(())
}

/// Engines on Kafka share their requests in a topic, and a file is on one machine.
#[cfg(feature = "kafka")]
pub(crate) fn refuse_on_kafka(builder: &Builder) -> Result<(), StartError> {
    if builder.sources.is_empty() { Ok(()) } else { Err(StartError::SourcesOnKafka { count: builder.sources.len() }) }
}

/// How far the sources of a builder were, as far as they ever ran; the log is open, so that nobody else writes there.
pub(crate) fn registries(builder: &Builder) -> Result<BTreeMap<String, Option<Registry>>, StartError> {
    let data = builder.store.dir().unwrap_or(std::path::Path::new(""));
    let read = |name: &String| {
        let registry = Registry::read(&registry::path(data, name, "json"));
        let refused = |error| StartError::Source { name: name.clone(), reason: chain(&error) };
        Ok((name.clone(), registry.map_err(refused)?))
    };
    builder.sources.keys().map(read).collect()
}

/// Starts the sources of a builder on this shard.
pub(crate) fn start(
    builder: &Builder,
    parts: &Parts,
    mut registries: BTreeMap<String, Option<Registry>>,
) -> Result<Sources, StartError> {
    let data = builder.store.dir().unwrap_or(std::path::Path::new(""));
    let settings: BTreeMap<_, _> = builder.types.iter().map(|(name, (settings, _))| (name.clone(), settings.clone())).collect();
    let host = |(name, source): (&String, &SourceSettings)| {
        let waiter = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(StartError::Thread)?;
        let desk = Desk { parts: parts.clone(), settings: settings.clone(), tasks_live_max: builder.tasks_live_max, waiter };
        let (stop, counts) = (Arc::<Stop>::default(), Arc::<SourceCounts>::default());
        let refused = RefusedFile { path: registry::path(data, name, "refused.ndjson"), bytes_max: source.refused_max };
        let places = (registry::path(data, name, "json"), refused);
        let at_work = Source::new(name.clone(), source.clone(), desk, (Arc::clone(&stop), Arc::clone(&counts)), places);
        let before = registries.remove(name).flatten();
        let thread = std::thread::Builder::new().name("ergate-source".to_owned()).spawn(move || at_work.run(before));
        let thread = Mutex::new(Some(thread.map_err(StartError::Thread)?));
        Ok(Host { name: name.clone(), counts, stop, thread })
    };
    Ok(Sources(builder.sources.iter().map(host).collect::<Result<_, StartError>>()?))
}

impl Sources {
    /// Every source with what became of its lines.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, &SourceCounts)> {
        self.0.iter().map(|host| (host.name.as_str(), host.counts.as_ref()))
    }

    /// Tells all to end.
    pub(crate) fn stop(&self) {
        for host in self.0.iter() {
            host.stop.set();
            host.thread().iter().for_each(|thread| thread.thread().unpark());
        }
    }

    /// Lets batches that are on their way get their answers, and reads nothing more.
    pub(crate) async fn end(&self) {
        self.stop();
        let until = tokio::time::Instant::now() + END_WITHIN;
        for host in self.0.iter() {
            while host.thread().as_ref().is_some_and(|thread| !thread.is_finished()) {
                if tokio::time::Instant::now() >= until {
                    tracing::warn!(
                        source = host.name,
                        "a source does not come to its end and is left behind; the next start goes on where it is"
                    );
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

impl Host {
    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
