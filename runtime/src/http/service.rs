//! What the routes of a service share.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ergate_events::id::{ShardId, TaskId};
use ergate_events::log::LogReader;
use ergate_events::log::index::TaskIndex;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::state::State;
use tokio::sync::{Semaphore, watch};

use super::client::{self, TlsConnector};
use super::forward::FORWARDS_MAX;
use super::problem::{INVALID, NOT_FOUND, Problem, elsewhere, internal};
use super::token::Tokens;
use crate::Runtime;
use crate::look::cost::Prices;
use crate::shards::{CAPACITY, shard_named};
use crate::whereabouts::Kept;

/// Whom the service lets in, and what it takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may do what; without it everybody may do everything.
    pub tokens: Option<Arc<Tokens>>,
    /// The names that it answers to beside those of this machine; without it, to any.
    pub hosts: Option<Vec<String>>,
    /// Bytes of the body of one request; a stream of lines may be longer.
    pub body_bytes_max: usize,
    /// How long nothing of a body may come; the body of one request has three times as long in all.
    pub body_timeout: Duration,
    /// Clients that follow the log at one time.
    pub streams_max: usize,
    /// The certificates by which other engines are trusted; without it, those that this machine trusts.
    pub peer_ca: Option<PathBuf>,
    /// What an hour of a replica costs, by pool.
    pub prices: Prices,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tokens: None,
            hosts: None,
            body_bytes_max: 2 << 20,
            body_timeout: Duration::from_secs(10),
            streams_max: 64,
            peer_ca: None,
            prices: Prices::new(),
        }
    }
}

/// What the routes of a service share.
pub(super) struct Service {
    pub(super) runtime: Runtime,
    pub(super) settings: Settings,
    /// Room for clients that follow the log.
    pub(super) streams: Arc<Semaphore>,
    /// Room for requests that are with other engines.
    pub(super) forwards: Arc<Semaphore>,
    /// Whether it is looked for other engines, for workers.
    pub(super) is_looking: AtomicBool,
    /// Made of the settings when it is needed first.
    trust: OnceLock<Result<TlsConnector, String>>,
    stopping: watch::Sender<bool>,
    pub(super) ready: super::health::Ready,
}

/// The log of a shard that is led here.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) reader: Arc<dyn LogReader>,
    pub(super) index: Arc<TaskIndex>,
    pub(super) snapshots: Option<SnapshotStore>,
}

impl Service {
    pub(super) fn new(runtime: Runtime, settings: Settings) -> Service {
        let streams = Arc::new(Semaphore::new(settings.streams_max));
        Service {
            runtime,
            settings,
            streams,
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            is_looking: AtomicBool::new(false),
            trust: OnceLock::new(),
            stopping: watch::Sender::new(false),
            ready: super::health::Ready::default(),
        }
    }

    /// Ends what waits: long polls answer with what is known, streams end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the service is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the service stops.
    pub(super) async fn stopped(&self) {
        // The sender is in this very struct, so it is there while somebody waits.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// The shard that a text names, or the only one; `None` where it has to be all of several.
    pub(super) fn named(&self, text: Option<&str>) -> Result<Option<ShardId>, Problem> {
        let shards = self.runtime.shards();
        let is_there = |shard: &ShardId| shard.0 < shards || (*shard == CAPACITY && self.runtime.is_on_kafka());
        match text {
            None => Ok((!self.runtime.is_on_kafka()).then_some(ShardId(0))),
            Some(text) => shard_named(text).filter(is_there).map(Some).ok_or_else(|| {
                let shown: String = text.chars().take(64).collect();
                let detail = format!("`shard` is {shown:?} where a number below {shards}, or on Kafka `capacity`, is expected");
                Problem::new(INVALID, detail).field("shard")
            }),
        }
    }

    /// The shard that a text names, where it has to be one.
    pub(super) fn one(&self, text: Option<&str>) -> Result<ShardId, Problem> {
        self.named(text)?.ok_or_else(|| {
            let detail = format!(
                "each of the {} shards has a log of its own; `shard` is expected to say which, or `capacity`",
                self.runtime.shards()
            );
            Problem::new(INVALID, detail).field("shard")
        })
    }

    /// Where the sizes of pools are decided.
    pub(super) fn sizes(&self) -> ShardId {
        if self.runtime.is_on_kafka() { CAPACITY } else { ShardId(0) }
    }

    /// A shard that is led here.
    pub(super) fn shard(&self, id: ShardId) -> Result<Shard, Problem> {
        let Kept { reader, index, snapshots } = self.runtime.kept(id).ok_or_else(|| elsewhere(id))?;
        Ok(Shard { id, reader, index, snapshots })
    }

    /// A durable copy of the state of a shard that is led here.
    pub(super) async fn state(&self, id: ShardId) -> Result<Box<State>, Problem> {
        Ok(self.runtime.durable_state_of(id).await?)
    }

    /// What is needed to trust other engines.
    pub(super) fn trust(&self) -> Result<&TlsConnector, &str> {
        let trust = || client::trust(self.settings.peer_ca.as_deref());
        self.trust.get_or_init(trust).as_ref().map_err(String::as_str)
    }
}

/// Runs what reads files where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = actix_web::web::block(work).await;
    done.unwrap_or_else(|error| Err(internal(&error)))
}

/// Reads the id in a path. What is no id names no task.
pub(super) fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|error: ergate_events::id::ParseIdError| Problem::new(NOT_FOUND, error.to_string()).field("id"))
}

/// Why nothing is known of a task.
pub(super) fn no_task(id: TaskId) -> Problem {
    Problem::new(NOT_FOUND, format!("no task {id} is in the log: it was never requested, or retention has dropped it"))
}
