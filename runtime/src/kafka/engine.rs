//! An engine: leads the shards that the group gives it, and gives them back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::{Arbiter, System};
use ergate_actors::clock::{Clock, SystemClock};
use ergate_actors::lane::lane;
use ergate_actors::log_writer::{Close, IntakeParts, Propose};
use ergate_actors::proposal::Proposal;
use ergate_actors::records::{Records, Source};
use ergate_actors::results::Results;
use ergate_events::id::{ShardId, TypeId};
use ergate_events::log::Head;
use ergate_events::shard::BLOCK_BYTES_TARGET;
use ergate_events::state::State;
use ergate_events::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::Answers;
use super::capacity::{self, Pools, Readings};
use super::cluster::Cluster;
use super::copy::Place;
use super::feed::Feed;
use super::front::Publishing;
use super::group::{Group, GroupEvent, Held};
use super::logs::CAPACITY;
use super::open::Opening;
use super::settings::KafkaSettings;
use super::snapshots;
use super::standby::Standby;
use crate::builder::Builder;
use crate::runtime::StartError;
use crate::snapshots::Also;
use crate::wiring::{self, Figures, Parts, ShardSpec};

/// Batches of records that may wait for a shard.
const RECORDS_MAX: usize = 8;
/// Most blocks of a shard on their way to the brokers.
const BLOCKS_MAX: usize = 64;
/// Newest blocks that a shard keeps decoded; there are many shards.
const RECENT_BYTES: usize = 1 << 20;
/// How long a shard that could not be opened is left alone.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Events between two snapshots of a shard: an engine without a copy folds at most so many from the topic, in about half a second.
const SNAPSHOT_EVERY_EVENTS: u64 = 500_000;
/// How often the owner of the capacity log records how far the shards are, where something has changed.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);
/// How often the engine looks whether a shard's log has failed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What an engine leads, as others see it.
#[derive(Default)]
pub(crate) struct Leading(Mutex<BTreeMap<ShardId, Parts>>);

impl Leading {
    /// The shards that are led now, the log of pools among them.
    pub(crate) fn all(&self) -> Vec<Parts> {
        self.lock().values().cloned().collect()
    }

    /// A shard, if it is led now.
    pub(crate) fn get(&self, shard: ShardId) -> Option<Parts> {
        self.lock().get(&shard).cloned()
    }

    /// Reads what shards with tasks are led now.
    pub(crate) fn each(&self, read: impl FnMut(&Parts)) {
        self.lock().values().filter(|parts| parts.shard != CAPACITY).for_each(read);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, Parts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) answers: Answers,
    /// Started by the first submission; gone when the engine has ended.
    pub(crate) requests: Mutex<Publishing>,
    stop: mpsc::UnboundedSender<Stop>,
    system: System,
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Asks the engine to let work finish for a while, give everything back and end.
struct Stop {
    drain: Duration,
    done: oneshot::Sender<()>,
}

impl Engine {
    /// Starts an engine on a thread of its own; it joins the group as soon as it has seen that everything is there.
    pub(crate) async fn start(builder: Builder, settings: KafkaSettings, data: PathBuf) -> Result<Engine, StartError> {
        let settings = Arc::new(settings);
        let asked = Arc::clone(&settings);
        let cluster = tokio::task::spawn_blocking(move || Cluster::ask(&asked)).await.map_err(|_| StartError::Panicked)??;
        let shards = cluster.shards;
        let (ready, started) = oneshot::channel();
        let (stop, stops) = mpsc::unbounded_channel();
        let leading = Arc::new(Leading::default());
        let (tell, standing) = watch::channel(Standing::default());
        let clock: Arc<dyn Clock> = builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::starting(Timestamp(0))));
        let types = (0..=u16::MAX).zip(builder.types.keys()).map(|(id, name)| (name.clone(), TypeId(id))).collect();
        let figures = Figures::default();
        let shared = Seen {
            settings: Arc::clone(&settings),
            cluster,
            leading: Arc::clone(&leading),
            clock: Arc::clone(&clock),
            figures: figures.clone(),
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
        Ok(Engine { settings, shards, leading, standing, figures, clock, types, answers, requests, stop, system, thread })
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

/// A shard of this engine, from the moment that the group gives it.
enum Shard {
    /// It is being taken over.
    Opening { unwanted: Arc<AtomicBool>, number: u64 },
    /// It is led.
    Led { parts: Box<Parts>, unwanted: Arc<AtomicBool> },
    /// It failed and is left alone until then.
    Failed { until: Instant },
}

/// What opening a shard came to: the shard, where its records go, and from which offset on it needs them.
type Outcome = Result<(Box<Parts>, mpsc::Sender<Records>, u64), StartError>;

/// What the engine's thread shares with its front.
struct Seen {
    settings: Arc<KafkaSettings>,
    cluster: Cluster,
    leading: Arc<Leading>,
    clock: Arc<dyn Clock>,
    figures: Figures,
}

/// The engine's own task.
struct Lead {
    builder: Builder,
    settings: Arc<KafkaSettings>,
    data: PathBuf,
    /// The id of the cluster, and how many shards there are.
    cluster: Cluster,
    group: Group,
    /// Follows the shards of other engines, where that is wanted.
    standby: Option<Standby>,
    /// Counts openings, so that a late one is told from the one that counts.
    number: u64,
    shards: BTreeMap<ShardId, Shard>,
    leading: Arc<Leading>,
    figures: Figures,
    standing: watch::Sender<Standing>,
    projectors: Arbiter,
    /// The sizes of pools as the capacity log has them, and when this engine ends.
    pools: watch::Receiver<Pools>,
    ended: Arc<AtomicBool>,
    /// How far shards are, and what of it was last recorded.
    readings: Readings,
    observing: Option<tokio::task::JoinHandle<()>>,
    opened: mpsc::UnboundedSender<(ShardId, u64, Outcome)>,
    openings: mpsc::UnboundedReceiver<(ShardId, u64, Outcome)>,
}

impl Lead {
    fn new(
        builder: Builder,
        data: PathBuf,
        seen: Seen,
        standing: watch::Sender<Standing>,
    ) -> Result<(Lead, mpsc::UnboundedReceiver<GroupEvent>), String> {
        let Seen { settings, cluster, leading, clock, figures } = seen;
        let (told, events) = mpsc::unbounded_channel();
        let types = builder.types.iter().map(|(name, (settings, _))| (name.clone(), settings.clone())).collect();
        let mut replies = settings.reply_topics.clone();
        replies.push(settings.topics().results);
        let group = Group::join(&settings, Feed::new(types, replies), clock, told)?;
        let (opened, openings) = mpsc::unbounded_channel();
        let projectors = Arbiter::new();
        let (ended, readings) = (Arc::new(AtomicBool::new(false)), Readings::default());
        let place = Place::new(&settings, CAPACITY, &data, &builder.options, &cluster.id);
        let pools = capacity::follow(Arc::clone(&settings), place, Arc::clone(&ended));
        let mut lead = Lead {
            builder,
            settings,
            data,
            cluster,
            group,
            standby: None,
            number: 0,
            shards: BTreeMap::new(),
            leading,
            figures,
            standing,
            projectors,
            pools,
            ended,
            readings,
            observing: None,
            opened,
            openings,
        };
        if lead.settings.standby {
            let (settings, place) = (Arc::clone(&lead.settings), lead.places());
            lead.standby = Some(Standby::start(settings, place, lead.readings.clone())?);
            lead.follow_others();
        }
        Ok((lead, events))
    }

    async fn run(mut self, mut events: mpsc::UnboundedReceiver<GroupEvent>, mut stops: mpsc::UnboundedReceiver<Stop>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut observe = tokio::time::interval(OBSERVE_EVERY);
        let mut pools = self.pools.clone();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.follow(event).await,
                    None => return,
                },
                Some((shard, number, outcome)) = self.openings.recv() => self.take_up(shard, number, outcome),
                stop = stops.recv() => {
                    let drain = stop.as_ref().map_or(Duration::ZERO, |stop| stop.drain);
                    self.leave(drain, &mut events).await;
                    self.tell();
                    if let Some(stop) = stop {
                        let _ = stop.done.send(());
                    }
                    return;
                }
                _ = look.tick() => self.look_after().await,
                _ = observe.tick() => self.observe(),
                Ok(()) = pools.changed() => self.size_all(),
            }
            self.tell();
        }
    }

    async fn follow(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(held) => held.into_iter().for_each(|held| self.open(shard_of(held))),
            GroupEvent::Revoked { held, lost, done } => {
                let shards = held.into_iter().map(shard_of).collect();
                self.give_back(shards, lost).await;
                let _ = done.send(());
                self.follow_others();
            }
            GroupEvent::Fatal(reason) => {
                tracing::error!(reason, "the membership in the group has failed");
                self.standing.send_modify(|standing| standing.failed = Some(reason));
            }
        }
    }

    /// Gives the pools of every shard led here the sizes that the capacity log has.
    fn size_all(&self) {
        let pools = self.pools.borrow().clone();
        let led = self.shards.iter().filter(|(shard, _)| **shard != CAPACITY);
        for parts in led.filter_map(|(_, state)| if let Shard::Led { parts, .. } = state { Some(parts) } else { None }) {
            for proposal in sizes(&pools) {
                // What is not durable yet when the shard goes is proposed again by its next owner.
                let (reply, _) = oneshot::channel();
                parts.writer.do_send(Propose { proposal, reply });
            }
        }
    }

    /// Records how far the shards are, where this engine leads the capacity log and something has changed.
    fn observe(&mut self) {
        let Some(Shard::Led { parts, .. }) = self.shards.get(&CAPACITY) else { return };
        if self.observing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (writer, led, readings) = (parts.writer.clone(), self.leading.all(), self.readings.clone());
        let (settings, shards) = (Arc::clone(&self.settings), self.cluster.shards);
        self.observing = Some(actix::spawn(async move { capacity::observe(&writer, led, &readings, settings, shards).await }));
    }

    /// Begins to take a shard over.
    fn open(&mut self, shard: ShardId) {
        let unwanted = Arc::new(AtomicBool::new(false));
        let opening = Opening {
            settings: Arc::clone(&self.settings),
            place: (self.places())(shard),
            group: self.group.metadata(),
            unwanted: Arc::clone(&unwanted),
            standby: self.standby.as_ref().map(|standby| standby.take(shard)),
        };
        self.number += 1;
        let number = self.number;
        self.shards.insert(shard, Shard::Opening { unwanted, number });
        let (mut builder, settings, opened) = (self.builder.clone(), Arc::clone(&self.settings), self.opened.clone());
        // Sizes that were decided count over those that this program was built with.
        builder.pools.extend(self.pools.borrow().sizes.iter().map(|(name, size)| (name.clone(), *size)));
        if shard == CAPACITY {
            builder.pools.clone_from(&self.builder.pools);
        }
        let (projectors, figures) = (self.projectors.handle(), self.figures.clone());
        actix::spawn(async move {
            let outcome = start(builder, settings, opening, projectors, figures).await;
            // An engine that has ended wants no shard.
            let _ = opened.send((shard, number, outcome));
        });
    }

    /// Goes on with a shard that was opened, if it is still wanted.
    fn take_up(&mut self, shard: ShardId, number: u64, outcome: Outcome) {
        let Some((unwanted, _)) = self.opening(shard).filter(|(_, wanted)| *wanted == number) else {
            if let Ok((parts, _, _)) = outcome {
                actix::spawn(async move { close(&parts, false).await });
            }
            return;
        };
        match outcome {
            Ok((parts, lane, offset)) => {
                if let Held::Shard(partition) = held_of(shard) {
                    self.group.start(partition, offset, lane);
                }
                self.leading.lock().insert(shard, (*parts).clone());
                self.shards.insert(shard, Shard::Led { parts, unwanted });
            }
            Err(error) => {
                tracing::error!(%shard, error = super::describe(&error), "a shard could not be taken over");
                self.shards.insert(shard, Shard::Failed { until: Instant::now() + OPEN_AGAIN_AFTER });
            }
        }
    }

    /// The opening of a shard that counts.
    fn opening(&self, shard: ShardId) -> Option<(Arc<AtomicBool>, u64)> {
        match self.shards.get(&shard) {
            Some(Shard::Opening { unwanted, number }) => Some((Arc::clone(unwanted), *number)),
            Some(Shard::Led { .. } | Shard::Failed { .. }) | None => None,
        }
    }

    /// Where shards and their copies are.
    fn places(&self) -> impl Fn(ShardId) -> Place + Send + 'static {
        let (settings, data, options) = (Arc::clone(&self.settings), self.data.clone(), self.builder.options.clone());
        let cluster = self.cluster.id.clone();
        move |shard| Place::new(&settings, shard, &data, &options, &cluster)
    }

    /// Keeps warm what this engine does not lead.
    fn follow_others(&self) {
        if let Some(standby) = &self.standby {
            let others = (0..self.cluster.shards).map(ShardId).filter(|shard| !self.shards.contains_key(shard));
            standby.follow(others.collect());
        }
    }

    /// Stops leading shards that go to others; `lost` when the group has given them away already, so that nothing can be committed.
    async fn give_back(&mut self, shards: Vec<ShardId>, lost: bool) {
        let mut closing = Vec::new();
        for shard in shards {
            if let Held::Shard(partition) = held_of(shard) {
                self.group.stop(partition);
            }
            self.leading.lock().remove(&shard);
            match self.shards.remove(&shard) {
                Some(Shard::Led { parts, unwanted }) => {
                    unwanted.store(lost, Ordering::Relaxed);
                    closing.push(actix::spawn(async move { close(&parts, !lost).await }));
                }
                Some(Shard::Opening { unwanted, .. }) => unwanted.store(true, Ordering::Relaxed),
                Some(Shard::Failed { .. }) | None => {}
            }
        }
        for closed in closing {
            let _ = closed.await;
        }
    }

    /// Drops shards whose logs have failed, and takes up again those that were left alone for long enough and are still this engine's.
    async fn look_after(&mut self) {
        let now = Instant::now();
        let (mut failed, mut again) = (Vec::new(), Vec::new());
        for (shard, state) in &self.shards {
            match state {
                Shard::Led { parts, .. } => {
                    let tail = parts.tail.borrow();
                    failed.extend(tail.failed.clone().map(|reason| (*shard, reason, tail.fenced)));
                }
                Shard::Failed { until } if *until <= now => again.push(*shard),
                Shard::Failed { .. } | Shard::Opening { .. } => {}
            }
        }
        for (shard, reason, fenced) in failed {
            tracing::warn!(%shard, reason, "a shard is dropped");
            self.give_back(vec![shard], true).await;
            // A fenced shard has another owner by then, or this engine's claim was confirmed by the group in the meantime.
            let pause = if fenced { self.settings.clients.session_timeout } else { OPEN_AGAIN_AFTER };
            self.shards.insert(shard, Shard::Failed { until: now + pause });
        }
        again.into_iter().for_each(|shard| self.open(shard));
    }

    /// Lets work finish, then leaves the group, which takes every shard back.
    async fn leave(&mut self, drain: Duration, events: &mut mpsc::UnboundedReceiver<GroupEvent>) {
        let led: Vec<Parts> = self.leading.all();
        for parts in &led {
            if let Held::Shard(partition) = held_of(parts.shard) {
                self.group.stop(partition);
            }
        }
        let draining: Vec<_> =
            led.into_iter().map(|parts| actix::spawn(async move { wiring::drain(&parts, drain).await })).collect();
        for drained in draining {
            let _ = drained.await;
        }
        let Some(thread) = self.group.leave() else { return };
        while !thread.is_finished() {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.follow(event).await,
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        self.ended.store(true, Ordering::Relaxed);
        let rest: Vec<ShardId> = self.shards.keys().copied().collect();
        self.give_back(rest, true).await;
        let ending = self.standby.take().and_then(|mut standby| standby.end());
        if let Some(thread) = ending
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the thread that follows other shards panicked");
        }
    }

    fn tell(&self) {
        let with = |wanted: fn(&Shard) -> bool| {
            self.shards.iter().filter(|(_, state)| wanted(state)).map(|(shard, _)| *shard).collect::<Vec<_>>()
        };
        let leads = with(|state| matches!(state, Shard::Led { .. }));
        let opening = with(|state| matches!(state, Shard::Opening { .. } | Shard::Failed { .. }));
        self.standing.send_if_modified(|standing| {
            let changed = (&standing.leads, &standing.opening) != (&leads, &opening);
            (standing.leads, standing.opening) = (leads, opening);
            changed
        });
    }
}

/// What gives a shard's pools their sizes.
fn sizes(pools: &Pools) -> impl Iterator<Item = Proposal> {
    let reason = format!("position {} of the capacity log", pools.at);
    pools.sizes.iter().map(move |(pool, (replicas, slots))| Proposal::DefinePool {
        pool: pool.clone(),
        replicas: *replicas,
        slots: *slots,
        by: "capacity".to_owned(),
        reason: reason.clone(),
    })
}

fn shard_of(held: Held) -> ShardId {
    match held {
        Held::Shard(partition) => u16::try_from(partition).map_or(CAPACITY, ShardId),
        Held::Capacity => CAPACITY,
    }
}

fn held_of(shard: ShardId) -> Held {
    if shard == CAPACITY { Held::Capacity } else { Held::Shard(i32::from(shard.0)) }
}

/// Opens a shard and starts everything on it; answers with where its records go and from which offset on it needs them.
async fn start(
    builder: Builder,
    settings: Arc<KafkaSettings>,
    opening: Opening,
    projectors: actix::ArbiterHandle,
    figures: Figures,
) -> Outcome {
    let (shard, place) = (opening.place.shard, opening.place.clone());
    let opened = tokio::task::spawn_blocking(move || opening.open()).await.map_err(|_| StartError::Panicked)??;
    let offset = opened.state.work.source_next;
    let topics = settings.topics();
    let (records, record_lane) = lane(RECORDS_MAX);
    let intake = (shard != CAPACITY).then(|| IntakeParts {
        records: record_lane,
        place: Source { requests: topics.requests, partition: i32::from(shard.0), dead_letters: topics.dead_letters },
        results: Results::new(settings.results.then_some(topics.results), &opened.state),
        tasks_live_max: builder.tasks_live_max,
    });
    let (pace, recent_bytes) = (settings.batch_time, RECENT_BYTES);
    let uploads = Arc::clone(&settings);
    let snapshots_also: Also = Arc::new(move |state: &State, head: &Head| snapshots::save(&uploads, &place, head, state));
    let spec = ShardSpec {
        id: shard,
        opened,
        intake,
        pace,
        in_flight_max: (settings.batch_bytes / BLOCK_BYTES_TARGET).clamp(1, BLOCKS_MAX),
        snapshot_every: Some(settings.snapshot_every),
        recent_bytes,
        projectors: Some(projectors),
        snapshots_also: Some(snapshots_also),
        executes: shard != CAPACITY,
        figures,
    };
    let mut builder = builder;
    builder.snapshot_every_events = builder.snapshot_every_events.min(SNAPSHOT_EVERY_EVENTS);
    let parts = wiring::shard(&builder, spec).await?;
    Ok((Box::new(parts), records, offset))
}

/// Ends a shard here; first returns what runs to the queue where that can still be committed.
async fn close(parts: &Parts, give_back: bool) {
    // The log of pools has no replicas of its own to give back.
    if give_back && parts.shard != CAPACITY {
        let (reply, answer) = oneshot::channel();
        if parts.writer.send(Propose { proposal: Proposal::GiveBack, reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
    let (reply, closed) = oneshot::channel();
    if parts.writer.send(Close { reply }).await.is_ok() {
        match closed.await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!(shard = %parts.shard, %error, "a shard's log was not closed well"),
        }
    }
}
