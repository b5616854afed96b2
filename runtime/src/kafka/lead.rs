//! The engine's own task: takes up the shards that the group gives it, looks after them, and gives them back.
//!
//! Nothing here waits for a shard. One that ends does so beside the others, and its place is *busy* until then: nobody else on this machine
//! opens its copy meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use actix::Arbiter;
use ergate_actors::clock::Clock;
use ergate_actors::log_writer::{Propose, RecallWorkers};
use ergate_actors::proposal::Proposal;
use ergate_events::id::ShardId;
use tokio::sync::{mpsc, oneshot, watch};

use super::capacity::{self, Pools, Readings};
use super::cluster::Cluster;
use super::copy::Place;
use super::ends::Ends;
use super::engine::{Leading, Standing, Stop};
use super::feed::Feed;
use super::group::{Group, GroupEvent, Held};
use super::logs::CAPACITY;
use super::open::Opening;
use super::partition::home;
use super::settings::KafkaSettings;
use super::shard::{Outcome, close, start};
use super::share::Share;
use super::standby::Standby;
use super::stuck::{QUIET, Watch};
use super::whole::Whole;
use crate::autoscaler;
use crate::builder::Builder;
use crate::scheduler::{self, Calendars};
use crate::wiring::{self, Figures, Parts};

/// How long a shard that could not be opened is left alone.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the same reason for that is not told again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How often the owner of the capacity log records how far the shards are, where something has changed.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);
/// How often the engine looks whether a shard's log has failed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an engine that ends waits for its shards: longer than brokers that do not answer are waited for.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A shard of this engine, from the moment that the group gives it.
enum Shard {
    /// It is being taken over.
    Opening { unwanted: Arc<AtomicBool>, number: u64 },
    /// It is led.
    Led { parts: Box<Parts>, unwanted: Arc<AtomicBool> },
    /// It is opened at this time, if its place is no longer busy by then.
    Waiting { until: Instant },
}

/// What the engine's thread shares with its front.
pub(super) struct Seen {
    pub(super) settings: Arc<KafkaSettings>,
    pub(super) cluster: Cluster,
    pub(super) leading: Arc<Leading>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) figures: Figures,
    pub(super) ends: Arc<Ends>,
}

/// The engine's own task.
pub(super) struct Lead {
    builder: Builder,
    settings: Arc<KafkaSettings>,
    data: PathBuf,
    /// The id of the cluster, and how many shards there are.
    cluster: Cluster,
    group: Group,
    /// When schedules are due, whichever shard they are of.
    calendars: Calendars,
    /// Follows the shards of other engines, where that is wanted.
    standby: Option<Standby>,
    /// Counts openings, so that a late one is told from the one that counts.
    number: u64,
    shards: BTreeMap<ShardId, Shard>,
    leading: Arc<Leading>,
    figures: Figures,
    ends: Arc<Ends>,
    standing: watch::Sender<Standing>,
    projectors: Arbiter,
    /// The sizes of pools as the capacity log has them, and when this engine ends.
    pools: watch::Receiver<Pools>,
    ended: Arc<AtomicBool>,
    /// How far shards are, and what of it was last recorded.
    readings: Readings,
    observing: Option<tokio::task::JoinHandle<()>>,
    /// Why shards could not be taken over, and when that was said.
    troubles: BTreeMap<ShardId, (String, Instant)>,
    /// Shards whose places are still in use by what ends or is no longer wanted.
    busy: BTreeSet<ShardId>,
    /// What happens beside this task, and where it is told.
    tell: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
}

/// From beside the engine's task.
enum News {
    /// The opening of this number came to its end.
    Opened(ShardId, u64, Outcome),
    /// A shard's place is no longer in use.
    Free(ShardId),
}

impl Lead {
    pub(super) fn new(
        builder: Builder,
        data: PathBuf,
        seen: Seen,
        standing: watch::Sender<Standing>,
    ) -> Result<(Lead, mpsc::UnboundedReceiver<GroupEvent>), String> {
        let Seen { settings, cluster, leading, clock, figures, ends } = seen;
        let (told, events) = mpsc::unbounded_channel();
        let types = builder.types.iter().map(|(name, (settings, _))| (name.clone(), settings.clone())).collect();
        let watch = Watch::new(Arc::clone(&settings), Arc::clone(&ends), QUIET);
        let group = Group::join(&settings, Feed::new(types, settings.reply_topics()), clock, told, watch)?;
        let (tell, news) = mpsc::unbounded_channel();
        let calendars = scheduler::calendars(&builder).map_err(|error| error.to_string())?;
        let projectors = Arbiter::new();
        let (ended, readings) = (Arc::new(AtomicBool::new(false)), Readings::default());
        let place = Place::new(&settings, CAPACITY, &data, &builder.options, &cluster.id);
        let pools = capacity::follow(Arc::clone(&settings), place, Arc::clone(&ended));
        // Nobody else sets it.
        let _ = leading.pools.set(pools.clone());
        let mut lead = Lead {
            builder,
            settings,
            data,
            cluster,
            group,
            calendars,
            standby: None,
            number: 0,
            shards: BTreeMap::new(),
            leading,
            figures,
            ends,
            standing,
            projectors,
            pools,
            ended,
            readings,
            observing: None,
            troubles: BTreeMap::new(),
            busy: BTreeSet::new(),
            tell,
            news,
        };
        if lead.settings.standby {
            let (settings, place) = (Arc::clone(&lead.settings), lead.places());
            lead.standby = Some(Standby::start(settings, place, lead.readings.clone())?);
            lead.follow_others();
        }
        Ok((lead, events))
    }

    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<GroupEvent>, mut stops: mpsc::UnboundedReceiver<Stop>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut observe = tokio::time::interval(OBSERVE_EVERY);
        let mut pools = self.pools.clone();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.follow(event),
                    None => return,
                },
                Some(news) = self.news.recv() => self.hear(news),
                stop = stops.recv() => {
                    let drain = stop.as_ref().map_or(Duration::ZERO, |stop| stop.drain);
                    self.leave(drain, &mut events).await;
                    self.show();
                    if let Some(stop) = stop {
                        let _ = stop.done.send(());
                    }
                    return;
                }
                _ = look.tick() => self.look_after(),
                _ = observe.tick() => self.observe(),
                Ok(()) = pools.changed() => self.follow_all(),
            }
            self.show();
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Opened(shard, number, outcome) => self.take_up(shard, number, outcome),
            News::Free(shard) => {
                self.busy.remove(&shard);
                self.follow_others();
            }
        }
    }

    fn follow(&mut self, event: GroupEvent) {
        if matches!(event, GroupEvent::Assigned(_) | GroupEvent::Revoked { .. }) {
            self.figures.rebalances.fetch_add(1, Ordering::Relaxed);
        }
        match event {
            GroupEvent::Assigned(held) => held.into_iter().for_each(|held| self.open(shard_of(held))),
            GroupEvent::Revoked { held, lost, done } => {
                let shards = held.into_iter().map(shard_of).collect();
                self.give_back(shards, lost, Some(done));
                // Those that were not led have nothing here that ends.
                self.follow_others();
            }
            GroupEvent::Fatal(reason) => {
                tracing::error!(reason, "the membership in the group has failed");
                self.standing.send_modify(|standing| standing.failed = Some(reason));
            }
        }
    }

    /// Gives the pools of every shard led here the sizes and modes that the capacity log has.
    fn follow_all(&self) {
        let pools = self.pools.borrow().clone();
        let led = self.shards.iter().filter(|(shard, _)| **shard != CAPACITY);
        for parts in led.filter_map(|(_, state)| if let Shard::Led { parts, .. } = state { Some(parts) } else { None }) {
            follow(parts, &pools);
        }
    }

    /// Records how far the shards are, where this engine leads the capacity log and something has changed. Where policies size pools, that is
    /// recorded with what they see.
    fn observe(&mut self) {
        let Some(Shard::Led { parts, .. }) = self.shards.get(&CAPACITY) else { return };
        if !self.pools.borrow().sized.is_empty() || self.observing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (writer, led, readings) = (parts.writer.clone(), self.leading.all(), self.readings.clone());
        let (settings, shards) = (Arc::clone(&self.settings), self.cluster.shards);
        self.observing = Some(actix::spawn(async move { capacity::observe(&writer, led, &readings, settings, shards).await }));
    }

    /// Begins to take a shard over.
    fn open(&mut self, shard: ShardId) {
        if self.busy.contains(&shard) {
            self.shards.insert(shard, Shard::Waiting { until: Instant::now() });
            return;
        }
        let unwanted = Arc::new(AtomicBool::new(false));
        let opening = Opening {
            settings: Arc::clone(&self.settings),
            place: (self.places())(shard),
            group: self.group.metadata(),
            unwanted: Arc::clone(&unwanted),
            standby: self.standby.as_ref().map(|standby| standby.taking(shard)),
            beside: self.cluster.beside.of(shard),
            ends: Arc::clone(&self.ends),
        };
        self.number += 1;
        let number = self.number;
        self.shards.insert(shard, Shard::Opening { unwanted, number });
        let (mut builder, settings, tell) = (self.builder.clone(), Arc::clone(&self.settings), self.tell.clone());
        // Sizes that were decided count over those that this program was built with.
        builder.pools_least.retain(|name, _| !self.pools.borrow().sizes.contains_key(name));
        builder.pools.extend(self.pools.borrow().sizes.iter().map(|(name, size)| (name.clone(), *size)));
        if let Some(schedules) = &mut builder.schedules {
            schedules.retain(|name, _| self.is_home(name, shard));
        }
        if shard == CAPACITY {
            builder.pools.clone_from(&self.builder.pools);
            builder.pools_least.clone_from(&self.builder.pools_least);
        } else {
            self.share_out(shard, &mut builder);
        }
        let (projectors, figures) = (self.projectors.handle(), self.figures.clone());
        actix::spawn(async move {
            let outcome = start(builder, settings, opening, projectors, figures).await;
            // An engine that has ended wants no shard.
            let _ = tell.send(News::Opened(shard, number, outcome));
        });
    }

    /// Gives a shard its parts of the pools that policies size, which are decided about elsewhere; none where that is not known yet.
    fn share_out(&self, shard: ShardId, builder: &mut Builder) {
        let pools = self.pools.borrow();
        builder.shadows.clear();
        for pool in pools.sized.keys().chain(std::mem::take(&mut builder.policies).keys()) {
            let (_, slots) = builder.pools.get(pool).copied().unwrap_or((0, crate::builder::SLOTS_DEFAULT));
            let is_known = pools.sized.contains_key(pool) && !builder.external.contains(pool);
            let part = if is_known { pools.part(pool, shard, self.cluster.shards) } else { 0 };
            builder.pools.insert(pool.clone(), (part, slots));
            builder.pools_least.remove(pool);
            // All shards together have the ceiling, and where that is kept they are seen together.
            builder.resources.remove(pool);
        }
    }

    /// Starts what looks after the sizes of pools where a shard was opened: their parts of them, or, in the log of pools, the decisions.
    fn size_pools(&self, parts: &Parts) {
        if parts.shard == CAPACITY {
            match Whole::start(&self.settings, self.places(), self.cluster.shards) {
                Ok((whole, moved)) => {
                    autoscaler::start_with(parts, Arc::new(whole), moved, &self.builder.workers);
                }
                Err(error) => tracing::error!(%error, "no policy sizes a pool"),
            }
            return;
        }
        let (parts, pools, shards) = (parts.clone(), self.pools.clone(), self.cluster.shards);
        actix::spawn(Share { parts, pools, shards, external: Arc::new(self.builder.external.clone()) }.keep());
    }

    /// Goes on with a shard that was opened, if it is still wanted.
    fn take_up(&mut self, shard: ShardId, number: u64, outcome: Outcome) {
        let Some((unwanted, _)) = self.opening(shard).filter(|(_, wanted)| *wanted == number) else {
            let tell = self.tell.clone();
            actix::spawn(async move {
                if let Ok((parts, _, _)) = outcome {
                    let (quiet, _) = oneshot::channel();
                    close(&parts, false, quiet).await;
                }
                let _ = tell.send(News::Free(shard));
            });
            return;
        };
        match outcome {
            Ok((parts, lane, offset)) => {
                if let Held::Shard(partition) = held_of(shard) {
                    self.group.start(partition, offset, lane);
                }
                self.troubles.remove(&shard);
                if shard != CAPACITY {
                    follow(&parts, &self.pools.borrow());
                    self.fire_schedules(&parts);
                }
                self.size_pools(&parts);
                self.leading.lock().insert(shard, (*parts).clone());
                // Only from here on do registrations of workers reach it.
                parts.writer.do_send(RecallWorkers);
                self.shards.insert(shard, Shard::Led { parts, unwanted });
            }
            Err(error) => {
                self.say_trouble(shard, super::describe(&error));
                self.shards.insert(shard, Shard::Waiting { until: Instant::now() + OPEN_AGAIN_AFTER });
            }
        }
    }

    /// Fires the schedules of a shard for as long as it is led here.
    fn fire_schedules(&self, parts: &Parts) {
        let homed = self.calendars.iter().filter(|(name, _)| self.is_home(name, parts.shard));
        let calendars = homed.map(|(name, calendar)| (name.clone(), calendar.clone())).collect();
        scheduler::start(parts, calendars, self.builder.tasks_live_max);
    }

    fn is_home(&self, name: &str, shard: ShardId) -> bool {
        home(name, self.cluster.shards) == shard
    }

    /// Says why a shard could not be taken over; one that cannot be for long is tried often and told of seldom.
    fn say_trouble(&mut self, shard: ShardId, error: String) {
        let now = Instant::now();
        let is_known = |(known, said): &(String, Instant)| *known == error && now.duration_since(*said) < SAY_AGAIN_AFTER;
        if !self.troubles.get(&shard).is_some_and(is_known) {
            tracing::error!(%shard, error, "a shard could not be taken over");
            self.troubles.insert(shard, (error, now));
        }
    }

    /// The opening of a shard that counts.
    fn opening(&self, shard: ShardId) -> Option<(Arc<AtomicBool>, u64)> {
        match self.shards.get(&shard) {
            Some(Shard::Opening { unwanted, number }) => Some((Arc::clone(unwanted), *number)),
            Some(Shard::Led { .. } | Shard::Waiting { .. }) | None => None,
        }
    }

    /// Where shards and their copies are.
    fn places(&self) -> impl Fn(ShardId) -> Place + Send + Sync + 'static {
        let (settings, data, options) = (Arc::clone(&self.settings), self.data.clone(), self.builder.options.clone());
        let cluster = self.cluster.id.clone();
        move |shard| Place::new(&settings, shard, &data, &options, &cluster)
    }

    /// Keeps warm what this engine does not lead.
    fn follow_others(&self) {
        if let Some(standby) = &self.standby {
            let is_free = |shard: &ShardId| !self.shards.contains_key(shard) && !self.busy.contains(shard);
            let others = (0..self.cluster.shards).map(ShardId).filter(is_free);
            standby.follow(others.collect());
        }
    }

    /// Stops leading shards that go to others; `lost` when the group has given them away already, so that nothing can be committed.
    /// `done` is told when nothing more of them will be committed here; their copies are closed after that.
    fn give_back(&mut self, shards: Vec<ShardId>, lost: bool, done: Option<Sender<()>>) {
        let mut ending = Vec::new();
        for shard in shards {
            if let Held::Shard(partition) = held_of(shard) {
                self.group.stop(partition);
            }
            self.leading.lock().remove(&shard);
            match self.shards.remove(&shard) {
                Some(Shard::Led { parts, unwanted }) => {
                    unwanted.store(lost, Ordering::Relaxed);
                    self.busy.insert(shard);
                    let (tell, workers) = (self.tell.clone(), Arc::clone(&self.builder.workers));
                    let (quiet, is_quiet) = oneshot::channel();
                    let (still, is_still) = oneshot::channel();
                    ending.push(is_quiet);
                    actix::spawn(async move {
                        let hush = async {
                            // Before anybody else can lead it; what fails is still as well.
                            let _ = is_still.await;
                            workers.remove_shard(shard);
                            let _ = quiet.send(());
                        };
                        tokio::join!(close(&parts, !lost, still), hush);
                        let _ = tell.send(News::Free(shard));
                    });
                }
                Some(Shard::Opening { unwanted, .. }) => {
                    unwanted.store(true, Ordering::Relaxed);
                    self.busy.insert(shard);
                }
                Some(Shard::Waiting { .. }) | None => {}
            }
        }
        actix::spawn(async move {
            for is_quiet in ending {
                // One that failed drops its end, and is quiet too.
                let _ = is_quiet.await;
            }
            // The group goes on without an answer after a while.
            done.map(|done| done.send(()))
        });
    }

    /// Drops shards whose logs have failed, and takes up again those that were left alone for long enough and are still this engine's.
    fn look_after(&mut self) {
        let now = Instant::now();
        let (mut failed, mut again) = (Vec::new(), Vec::new());
        for (shard, state) in &self.shards {
            match state {
                Shard::Led { parts, .. } => {
                    let tail = parts.tail.borrow();
                    failed.extend(tail.failed.clone().map(|reason| (*shard, reason, tail.fenced)));
                }
                Shard::Waiting { until } if *until <= now && !self.busy.contains(shard) => again.push(*shard),
                Shard::Waiting { .. } | Shard::Opening { .. } => {}
            }
        }
        for (shard, reason, fenced) in failed {
            tracing::warn!(%shard, reason, "a shard is dropped");
            self.give_back(vec![shard], true, None);
            // A fenced shard has another owner by then, or this engine's claim was confirmed by the group in the meantime.
            let pause = if fenced { self.settings.clients.session_timeout } else { OPEN_AGAIN_AFTER };
            self.shards.insert(shard, Shard::Waiting { until: now + pause });
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
                    Some(event) => self.follow(event),
                    None => break,
                },
                Some(news) = self.news.recv() => self.hear(news),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        self.ended.store(true, Ordering::Relaxed);
        let rest: Vec<ShardId> = self.shards.keys().copied().collect();
        self.give_back(rest, true, None);
        self.wait_free().await;
        let ending = self.standby.take().and_then(|mut standby| standby.end());
        if let Some(thread) = ending
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the thread that follows other shards panicked");
        }
    }

    /// Waits until nothing of any shard is left, but not for ever.
    async fn wait_free(&mut self) {
        let until = tokio::time::Instant::now() + END_WITHIN;
        while !self.busy.is_empty() {
            match tokio::time::timeout_at(until, self.news.recv()).await {
                Ok(Some(news)) => self.hear(news),
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(shards = ?self.busy, "these shards did not end; whoever leads them next fences what is left of them");
                    return;
                }
            }
        }
    }

    fn show(&self) {
        let with = |wanted: fn(&Shard) -> bool| {
            self.shards.iter().filter(|(_, state)| wanted(state)).map(|(shard, _)| *shard).collect::<Vec<_>>()
        };
        let leads = with(|state| matches!(state, Shard::Led { .. }));
        let opening = with(|state| matches!(state, Shard::Opening { .. } | Shard::Waiting { .. }));
        self.standing.send_if_modified(|standing| {
            let changed = (&standing.leads, &standing.opening) != (&leads, &opening);
            (standing.leads, standing.opening) = (leads, opening);
            changed
        });
    }
}

/// Gives the pools of a shard their modes, and those that no policy sizes their sizes.
fn follow(parts: &Parts, pools: &Pools) {
    let (by, reason) = ("capacity".to_owned(), format!("position {} of the capacity log", pools.at));
    let sizes = pools.sizes.iter().filter(|(pool, _)| !pools.sized.contains_key(*pool)).map(|(pool, (replicas, slots))| {
        let (pool, by, reason) = (pool.clone(), by.clone(), reason.clone());
        Proposal::DefinePool { pool, replicas: *replicas, slots: *slots, by, reason }
    });
    let modes = pools.modes.iter().map(|(pool, mode)| {
        let (pool, by, reason) = (pool.clone(), by.clone(), reason.clone());
        Proposal::SetPoolMode { pool, mode: *mode, by, reason }
    });
    for proposal in sizes.chain(modes) {
        // What is not durable yet when the shard goes is proposed again by its next owner.
        let (reply, _) = oneshot::channel();
        parts.writer.do_send(Propose { proposal, reply });
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
