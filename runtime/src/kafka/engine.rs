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
use ergate_actors::records::{Place, Records};
use ergate_actors::results::Results;
use ergate_events::id::{ShardId, TypeId};
use ergate_events::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::Answers;
use super::feed::Feed;
use super::front::Publishing;
use super::group::{Group, GroupEvent, Held};
use super::open::{CAPACITY, Opening};
use super::settings::KafkaSettings;
use super::survey;
use crate::builder::Builder;
use crate::runtime::StartError;
use crate::wiring::{self, Figures, Parts, ShardSpec};

/// Batches of records that may wait for a shard.
const RECORDS_MAX: usize = 8;
/// Newest blocks that a shard keeps decoded; there are many shards.
const RECENT_BYTES: usize = 1 << 20;
/// How long a shard that could not be opened is left alone.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
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
        let looked = Arc::clone(&settings);
        let shards = tokio::task::spawn_blocking(move || survey::look(&looked)).await.map_err(|_| StartError::Panicked)??;
        let (ready, started) = oneshot::channel();
        let (stop, stops) = mpsc::unbounded_channel();
        let leading = Arc::new(Leading::default());
        let (tell, standing) = watch::channel(Standing::default());
        let clock: Arc<dyn Clock> = builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::starting(Timestamp(0))));
        let types = (0..=u16::MAX).zip(builder.types.keys()).map(|(id, name)| (name.clone(), TypeId(id))).collect();
        let figures = Figures::default();
        let shared = Seen {
            settings: Arc::clone(&settings),
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
    Opening { unwanted: Arc<AtomicBool> },
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
    leading: Arc<Leading>,
    clock: Arc<dyn Clock>,
    figures: Figures,
}

/// The engine's own task.
struct Lead {
    builder: Builder,
    settings: Arc<KafkaSettings>,
    data: PathBuf,
    group: Group,
    shards: BTreeMap<ShardId, Shard>,
    leading: Arc<Leading>,
    figures: Figures,
    standing: watch::Sender<Standing>,
    projectors: Arbiter,
    opened: mpsc::UnboundedSender<(ShardId, Outcome)>,
    openings: mpsc::UnboundedReceiver<(ShardId, Outcome)>,
}

impl Lead {
    fn new(
        builder: Builder,
        data: PathBuf,
        seen: Seen,
        standing: watch::Sender<Standing>,
    ) -> Result<(Lead, mpsc::UnboundedReceiver<GroupEvent>), String> {
        let Seen { settings, leading, clock, figures } = seen;
        let (told, events) = mpsc::unbounded_channel();
        let types = builder.types.iter().map(|(name, (settings, _))| (name.clone(), settings.clone())).collect();
        let mut replies = settings.reply_topics.clone();
        replies.push(settings.topics().results);
        let group = Group::join(&settings, Feed::new(types, replies), clock, told)?;
        let (opened, openings) = mpsc::unbounded_channel();
        let (projectors, shards) = (Arbiter::new(), BTreeMap::new());
        Ok((Lead { builder, settings, data, group, shards, leading, figures, standing, projectors, opened, openings }, events))
    }

    async fn run(mut self, mut events: mpsc::UnboundedReceiver<GroupEvent>, mut stops: mpsc::UnboundedReceiver<Stop>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.follow(event).await,
                    None => return,
                },
                Some((shard, outcome)) = self.openings.recv() => self.take_up(shard, outcome),
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
            }
            GroupEvent::Fatal(reason) => {
                tracing::error!(reason, "the membership in the group has failed");
                self.standing.send_modify(|standing| standing.failed = Some(reason));
            }
        }
    }

    /// Begins to take a shard over.
    fn open(&mut self, shard: ShardId) {
        let unwanted = Arc::new(AtomicBool::new(false));
        let opening = Opening {
            settings: Arc::clone(&self.settings),
            shard,
            data: self.data.clone(),
            options: self.builder.options.clone(),
            group: self.group.metadata(),
            unwanted: Arc::clone(&unwanted),
        };
        self.shards.insert(shard, Shard::Opening { unwanted });
        let (builder, settings, opened) = (self.builder.clone(), Arc::clone(&self.settings), self.opened.clone());
        let (projectors, figures) = (self.projectors.handle(), self.figures.clone());
        actix::spawn(async move {
            let outcome = start(builder, settings, opening, projectors, figures).await;
            // An engine that has ended wants no shard.
            let _ = opened.send((shard, outcome));
        });
    }

    /// Goes on with a shard that was opened, if it is still wanted.
    fn take_up(&mut self, shard: ShardId, outcome: Outcome) {
        let Some(Shard::Opening { unwanted }) = self.shards.get(&shard) else {
            if let Ok((parts, _, _)) = outcome {
                actix::spawn(async move { close(&parts, false).await });
            }
            return;
        };
        let unwanted = Arc::clone(unwanted);
        match outcome {
            Ok((parts, lane, offset)) => {
                if let Held::Shard(partition) = held_of(shard) {
                    self.group.start(partition, offset, lane);
                }
                self.leading.lock().insert(shard, (*parts).clone());
                self.shards.insert(shard, Shard::Led { parts, unwanted });
            }
            Err(error) => {
                tracing::error!(%shard, error = describe(&error), "a shard could not be taken over");
                self.shards.insert(shard, Shard::Failed { until: Instant::now() + OPEN_AGAIN_AFTER });
            }
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
                Some(Shard::Opening { unwanted }) => unwanted.store(true, Ordering::Relaxed),
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
                Shard::Led { parts, .. } => failed.extend(parts.tail.borrow().failed.clone().map(|reason| (*shard, reason))),
                Shard::Failed { until } if *until <= now => again.push(*shard),
                Shard::Failed { .. } | Shard::Opening { .. } => {}
            }
        }
        for (shard, reason) in failed {
            tracing::warn!(%shard, reason, "a shard is dropped");
            self.give_back(vec![shard], true).await;
            // A fenced shard has another owner by then, or this engine's claim was confirmed by the group in the meantime.
            let pause = if reason.contains("has taken over") { self.settings.session_timeout } else { OPEN_AGAIN_AFTER };
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
        let rest: Vec<ShardId> = self.shards.keys().copied().collect();
        self.give_back(rest, true).await;
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

fn shard_of(held: Held) -> ShardId {
    match held {
        Held::Shard(partition) => u16::try_from(partition).map_or(CAPACITY, ShardId),
        Held::Capacity => CAPACITY,
    }
}

fn held_of(shard: ShardId) -> Held {
    if shard == CAPACITY { Held::Capacity } else { Held::Shard(i32::from(shard.0)) }
}

fn describe(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Opens a shard and starts everything on it; answers with where its records go and from which offset on it needs them.
async fn start(
    builder: Builder,
    settings: Arc<KafkaSettings>,
    opening: Opening,
    projectors: actix::ArbiterHandle,
    figures: Figures,
) -> Outcome {
    let shard = opening.shard;
    let opened = tokio::task::spawn_blocking(move || opening.open()).await.map_err(|_| StartError::Panicked)??;
    let offset = opened.state.work.source_next;
    let topics = settings.topics();
    let (records, record_lane) = lane(RECORDS_MAX);
    let intake = (shard != CAPACITY).then(|| IntakeParts {
        records: record_lane,
        place: Place { requests: topics.requests, partition: i32::from(shard.0), dead_letters: topics.dead_letters },
        results: Results::new(settings.results.then_some(topics.results), &opened.state),
        tasks_live_max: builder.tasks_live_max,
    });
    let (pace, recent_bytes) = (settings.batch_time, RECENT_BYTES);
    let spec = ShardSpec { id: shard, opened, intake, pace, recent_bytes, projectors: Some(projectors), figures };
    let parts = wiring::shard(&builder, spec).await?;
    Ok((Box::new(parts), records, offset))
}

/// Ends a shard here; first returns what runs to the queue where that can still be committed.
async fn close(parts: &Parts, give_back: bool) {
    if give_back {
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
