//! An engine: leads the shards that the group gives it, and gives them back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::System;
use ergate_actors::clock::{Clock, SystemClock};
use ergate_events::event::PoolMode;
use ergate_events::id::{ShardId, TypeId};
use ergate_events::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::Answers;
use super::capacity::Pools;
use super::cluster::Cluster;
use super::ends::Ends;
use super::front::Publishing;
use super::lead::{Lead, Seen};
use super::logs::CAPACITY;
#[cfg(feature = "http")]
use super::peers::Peers;
use super::settings::KafkaSettings;
use crate::builder::Builder;
use crate::runtime::StartError;
use crate::wiring::{Figures, Parts};

/// What an engine leads, as others see it, and what it knows of pools.
#[derive(Default)]
pub(crate) struct Leading {
    led: Mutex<BTreeMap<ShardId, Parts>>,
    /// What the log of pools says, as far as it was read.
    pub(super) pools: OnceLock<watch::Receiver<Pools>>,
}

impl Leading {
    /// The shards that are led now, the log of pools among them.
    pub(crate) fn all(&self) -> Vec<Parts> {
        self.lock().values().cloned().collect()
    }

    /// A shard, if it is led now.
    pub(crate) fn get(&self, shard: ShardId) -> Option<Parts> {
        self.lock().get(&shard).cloned()
    }

    /// Reads a shard, if it is led now.
    pub(crate) fn with<T>(&self, shard: ShardId, read: impl FnOnce(&Parts) -> T) -> Option<T> {
        self.lock().get(&shard).map(read)
    }

    /// Reads what shards with tasks are led now.
    pub(crate) fn each(&self, read: impl FnMut(&Parts)) {
        self.lock().values().filter(|parts| parts.shard != CAPACITY).for_each(read);
    }

    /// The shards with tasks that are led now.
    fn shards(&self) -> Vec<ShardId> {
        self.lock().keys().copied().filter(|shard| *shard != CAPACITY).collect()
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, Parts>> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an engine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The shards that it leads.
    pub leads: Vec<ShardId>,
    /// The shards that it is taking over.
    pub opening: Vec<ShardId>,
    /// Why it cannot go on, if it cannot.
    pub failed: Option<String>,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |shard: &ShardId| if *shard == CAPACITY { "capacity".to_owned() } else { shard.to_string() };
        let list = |shards: &[ShardId]| shards.iter().map(name).collect::<Vec<_>>().join(" ");
        match (self.leads.is_empty(), self.opening.is_empty()) {
            (true, true) => f.write_str("leads no shard"),
            (true, false) => write!(f, "takes over {}", list(&self.opening)),
            (false, true) => write!(f, "leads {}", list(&self.leads)),
            (false, false) => write!(f, "leads {}; takes over {}", list(&self.leads), list(&self.opening)),
        }
    }
}

/// A running engine.
pub(crate) struct Engine {
    pub(crate) settings: Arc<KafkaSettings>,
    /// How many shards there are in all.
    pub(crate) shards: u16,
    pub(crate) leading: Arc<Leading>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) figures: Figures,
    pub(crate) clock: Arc<dyn Clock>,
    /// The task types by name. Shards number theirs on their own; these numbers are this engine's.
    pub(crate) types: BTreeMap<String, TypeId>,
    /// Pools whose replicas are started by others.
    external: BTreeSet<String>,
    pub(crate) answers: Answers,
    /// Where the engines are that lead the other shards.
    #[cfg(feature = "http")]
    pub(crate) peers: Peers,
    /// Where requests end, for the lag.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read it"))]
    pub(crate) ends: Arc<Ends>,
    /// Started by the first submission; gone when the engine has ended.
    pub(crate) requests: Mutex<Publishing>,
    stop: mpsc::UnboundedSender<Stop>,
    pub(crate) system: System,
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Asks the engine to let work finish for a while, give everything back and end.
pub(super) struct Stop {
    pub(super) drain: Duration,
    pub(super) done: oneshot::Sender<()>,
}

impl Engine {
    /// Starts an engine on a thread of its own; it joins the group as soon as it has seen that everything is there.
    pub(crate) async fn start(builder: Builder, settings: KafkaSettings, data: PathBuf) -> Result<Engine, StartError> {
        if !super::is_mended() {
            tracing::warn!("the client library can crash this program while a broker restarts; see ergate::kafka::is_mended");
        }
        let settings = Arc::new(settings);
        let asked = Arc::clone(&settings);
        let cluster = tokio::task::spawn_blocking(move || Cluster::ask(&asked)).await.map_err(|_| StartError::Panicked)??;
        let shards = cluster.shards;
        let (ready, started) = oneshot::channel();
        let (stop, stops) = mpsc::unbounded_channel();
        let leading = Arc::new(Leading::default());
        let (tell, standing) = watch::channel(Standing::default());
        let clock: Arc<dyn Clock> = builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::starting(Timestamp(0))));
        let builder = Builder { begun: Some(clock.now()), ..builder };
        let external = builder.external.clone();
        let types = (0..=u16::MAX).zip(builder.types.keys()).map(|(id, name)| (name.clone(), TypeId(id))).collect();
        let figures = Figures::default();
        let led = Arc::clone(&leading);
        let ends = Ends::follow(Arc::clone(&settings), move || led.shards()).map_err(StartError::Thread)?;
        let shared = Seen {
            settings: Arc::clone(&settings),
            cluster,
            leading: Arc::clone(&leading),
            clock: Arc::clone(&clock),
            figures: figures.clone(),
            ends: Arc::clone(&ends),
        };
        let thread = std::thread::Builder::new()
            .name("ergate-engine".to_owned())
            .spawn(move || {
                let system = System::new();
                system.block_on(async move {
                    match Lead::new(builder, data, shared, tell) {
                        Ok((lead, events)) => {
                            // Whoever called `start` may have given up; then nobody asks to stop and the engine ends.
                            let _ = ready.send(Ok(System::current()));
                            lead.run(events, stops).await;
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                    System::current().stop();
                });
                let _ = system.run();
            })
            .map_err(StartError::Thread)?;
        let system = started.await.map_err(|_| StartError::Panicked)?.map_err(|reason| StartError::LogFailed { reason })?;
        let (answers, requests) = (Answers::new(Arc::clone(&settings), shards), Mutex::new(Publishing::NotYet));
        let thread = tokio::sync::Mutex::new(Some(thread));
        Ok(Engine {
            #[cfg(feature = "http")]
            peers: Peers::new(Arc::clone(&settings)),
            settings,
            shards,
            leading,
            standing,
            figures,
            clock,
            types,
            external,
            answers,
            ends,
            requests,
            stop,
            system,
            thread,
        })
    }

    /// How many replicas each pool should have that others start, over all shards.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read it"))]
    pub(crate) fn wanted_of_others(&self) -> Vec<(String, u32)> {
        let Some(pools) = self.leading.pools.get() else { return Vec::new() };
        let pools = pools.borrow();
        let own = pools.sizes.iter().filter(|(name, _)| self.external.contains(*name));
        let is_drained = |name: &String| pools.modes.get(name) == Some(&PoolMode::Drained);
        own.map(|(name, (size, _))| (name.clone(), if is_drained(name) { 0 } else { *size })).collect()
    }

    /// Ends without a word to the group: nobody holds the engine any more.
    pub(crate) fn abandon(&self) {
        self.stop_publishing();
        self.answers.end();
        self.system.stop();
    }

    /// Lets running attempts finish for at most `drain`, gives the shards back and ends.
    pub(crate) async fn stop(&self, drain: Duration) {
        let mut thread = self.thread.lock().await;
        let Some(joined) = thread.take() else { return };
        // What was submitted gets to the topic, and its answer back while others commit it.
        let publishing = self.stop_publishing();
        let (done, stopped) = oneshot::channel();
        if self.stop.send(Stop { drain, done }).is_ok() {
            let _ = stopped.await;
        }
        self.system.stop();
        let threads = [Some(joined), publishing, self.answers.end()];
        let join = move || threads.into_iter().flatten().map(JoinHandle::join).all(|joined| joined.is_ok());
        if !matches!(tokio::task::spawn_blocking(join).await, Ok(true)) {
            tracing::error!("a thread of the engine panicked");
        }
    }
}
