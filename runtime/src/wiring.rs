//! The one file that names every actor: recovers the shard, starts its thread and everything on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, System};
use ergate_actors::clock::{Clock, SystemClock};
use ergate_actors::dispatcher::{Fleet, Restarts};
use ergate_actors::lane::lane;
use ergate_actors::log_thread::{LogCounters, LogThread};
use ergate_actors::log_writer::{BLOCKS_IN_FLIGHT_MAX, IntakeParts, LogWriter, LogWriterParts, Propose, SlotsInUse, Tail};
use ergate_actors::observe::{SharedWatch, Watch};
use ergate_actors::projector::{Projector, SharedProgress, SharedTally};
use ergate_actors::proposal::Proposal;
use ergate_actors::recent::{RECENT_BYTES_MAX, Recent};
use ergate_actors::report::Report;
use ergate_actors::submission::{Submission, SubmitError};
use ergate_actors::timings::Timings;
use ergate_events::id::{Epoch, Position, ShardId, TypeId};
use ergate_events::log::index::TaskIndex;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{LogError, LogReader};
use ergate_events::resources::PoolResources;
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::state::control::PoolSize;
use ergate_events::time::Timestamp;
use ergate_events::view::{Progress, Tally};
use ergate_events::worker::WORKER_FIRST;
use tokio::sync::{mpsc, oneshot, watch};

use crate::builder::Builder;
use crate::indexer::Indexer;
use crate::runtime::{Front, Runtime, StartError};
use crate::scheduler::{self, Calendars};
use crate::snapshots::{Also, Snapshots};
use crate::store::{Opened, RecoverError};
use crate::tallies::Tallies;

/// Submissions that may wait to be decided; more wait at their sender.
const SUBMISSIONS_MAX: usize = 1_024;
/// Reports that may wait to be decided; more grow in their executor, by at most what its slots hold.
const REPORTS_MAX: usize = 1_024;

/// What the threads of a shard hand to its front.
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the service and figures read all of it"))]
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) shard: ShardId,
    pub(crate) submissions: mpsc::Sender<Submission>,
    pub(crate) writer: Addr<LogWriter>,
    pub(crate) tail: watch::Receiver<Tail>,
    pub(crate) progress: SharedProgress,
    pub(crate) tally: SharedTally,
    /// How full the lane of reports is; it must not be kept open from here.
    pub(crate) reports: mpsc::WeakSender<Report>,
    pub(crate) figures: Figures,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) counters: Arc<LogCounters>,
    pub(crate) restarts: Arc<Restarts>,
    pub(crate) projector: Arc<Mutex<Addr<Projector>>>,
    pub(crate) types: BTreeMap<String, TypeId>,
    pub(crate) system: System,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) snapshotting: Arc<AtomicBool>,
    pub(crate) indexer: Option<Arc<Indexer>>,
    /// The indexes beside the log, or none at all, which gives the same answers.
    pub(crate) index: Arc<TaskIndex>,
    pub(crate) snapshots: Option<SnapshotStore>,
    #[cfg(feature = "requests")]
    pub(crate) sources: crate::sources::Sources,
}

/// Starts a runtime: a thread for the shard and, from there, all others.
pub(crate) async fn start(builder: Builder) -> Result<Runtime, StartError> {
    let calendars = scheduler::calendars(&builder)?;
    #[cfg(feature = "requests")]
    crate::sources::check(&builder)?;
    #[cfg(feature = "kafka")]
    if let Some(settings) = builder.kafka.clone() {
        crate::sources::refuse_on_kafka(&builder)?;
        let data = builder.store.dir().map_or_else(|| crate::builder::DATA_DEFAULT.into(), std::path::Path::to_owned);
        let engine = crate::kafka::Engine::start(builder.clone(), settings, data).await?;
        let runtime = Runtime::new(&builder, Front::Kafka(Box::new(engine)), None);
        crate::generators::follow(&builder, &runtime);
        return Ok(runtime);
    }
    let (ready, started) = oneshot::channel();
    let settings = builder.clone();
    let thread = std::thread::Builder::new()
        .name("ergate-shard".to_owned())
        .spawn(move || {
            let system = System::new();
            system.block_on(async move {
                // Whoever called `start` may have given up; then the thread ends with its system.
                if let Err(Ok(parts)) = ready.send(wire(settings, calendars).await) {
                    parts.system.stop();
                }
            });
            if let Err(error) = system.run() {
                tracing::error!(%error, "the shard's thread ended badly");
            }
        })
        .map_err(StartError::Thread)?;
    let parts = started.await.map_err(|_| StartError::Panicked)??;
    Ok(Runtime::new(&builder, Front::Local(Box::new(parts)), Some(thread)))
}

/// Runs on the shard's thread.
async fn wire(builder: Builder, calendars: Calendars) -> Result<Parts, StartError> {
    let outcome = assemble(builder, calendars).await;
    if outcome.is_err() {
        System::current().stop();
    }
    outcome
}

async fn assemble(builder: Builder, calendars: Calendars) -> Result<Parts, StartError> {
    let began = Instant::now();
    let opened = builder.store.open(&builder.options)?;
    let figures = Figures::default();
    figures.replays.record(began.elapsed());
    #[cfg(feature = "requests")]
    let registries = crate::sources::registries(&builder)?;
    #[cfg_attr(not(feature = "requests"), allow(unused_mut, reason = "sources are added to it"))]
    let mut parts = shard(&builder, ShardSpec { figures, ..ShardSpec::local(opened) }).await?;
    scheduler::start(&parts, calendars, builder.tasks_live_max);
    crate::autoscaler::start(&parts, &builder.workers);
    crate::generators::start(&builder, &parts);
    #[cfg(feature = "requests")]
    {
        parts.sources = crate::sources::start(&builder, &parts, registries)?;
    }
    Ok(parts)
}

/// What a shard is started with.
pub(crate) struct ShardSpec {
    pub(crate) id: ShardId,
    pub(crate) opened: Opened,
    /// Requests from a topic.
    pub(crate) intake: Option<IntakeParts>,
    /// Time between two blocks that are not full.
    pub(crate) pace: Duration,
    /// Blocks that may wait to become durable.
    pub(crate) in_flight_max: usize,
    /// Time between two snapshots, beside the number of events.
    pub(crate) snapshot_every: Option<Duration>,
    /// Bytes of the newest blocks that are kept decoded.
    pub(crate) recent_bytes: usize,
    /// Where the projector runs; on a thread of its own without this.
    pub(crate) projectors: Option<ArbiterHandle>,
    /// Keeps snapshots elsewhere as well.
    pub(crate) snapshots_also: Option<Also>,
    /// Whether the shard has executors: one that only decides how many there should be has none.
    pub(crate) executes: bool,
    /// What all shards of a process count into.
    pub(crate) figures: Figures,
}

/// What all shards of a process count into.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read all of it"))]
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) counters: Arc<LogCounters>,
    pub(crate) restarts: Arc<Restarts>,
    pub(crate) tallies: Arc<Tallies>,
    /// Opening a log and folding it, each time.
    pub(crate) replays: Arc<Timings>,
    /// How often the group gave shards or took them.
    pub(crate) rebalances: Arc<AtomicU64>,
}

impl ShardSpec {
    /// The one shard of a log that only this process has.
    fn local(opened: Opened) -> ShardSpec {
        ShardSpec {
            id: ShardId(0),
            opened,
            intake: None,
            pace: Duration::ZERO,
            in_flight_max: BLOCKS_IN_FLIGHT_MAX,
            snapshot_every: None,
            recent_bytes: RECENT_BYTES_MAX,
            projectors: None,
            snapshots_also: None,
            executes: true,
            figures: Figures::default(),
        }
    }
}

/// Starts a shard and everything on it, on the current system.
pub(crate) async fn shard(builder: &Builder, spec: ShardSpec) -> Result<Parts, StartError> {
    let ShardSpec { id, opened, intake, pace, in_flight_max, snapshot_every, recent_bytes, .. } = spec;
    let ShardSpec { projectors, snapshots_also, executes, figures, .. } = spec;
    let Figures { counters, restarts, .. } = figures.clone();
    let Opened { log, reader, state, snapshots, index, snapshot_at } = opened;
    if builder.own_tasks_only {
        require_own(builder, &state)?;
    }
    let settled = if executes { None } else { Some(settled_by_hand(builder, &state, reader.as_ref())?) };
    let builder = settled.as_ref().unwrap_or(builder);
    let clock = builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::starting(state.last_at)));
    let epoch = Epoch(state.epoch.0.saturating_add(1));
    let view = Progress::of(&state);
    let watch = Watch::start(id, &state, builder.plugins.observers());
    let tally = figures.tallies.add(Tally::of(&state));
    let (submissions, submission_lane) = lane(SUBMISSIONS_MAX);
    let (reports, report_lane) = lane(REPORTS_MAX);
    let reports_seen = reports.downgrade();
    let (tail_sender, tail) = watch::channel(Tail { head: log.head(), live: state.work.tasks.len(), ..Tail::default() });
    let own = builder.types.iter().filter(|(name, _)| !builder.abroad.contains(*name));
    let functions = own.map(|(name, (_, function))| (name.clone(), Arc::clone(function))).collect();
    let fleet = Fleet {
        functions: Arc::new(functions),
        clock: Arc::clone(&clock),
        shard: id,
        epoch,
        executes,
        external: Arc::new(builder.external.clone()),
        processes: builder.processes.clone(),
        workers: Arc::clone(&builder.workers),
        reports,
        restarts: Arc::clone(&restarts),
    };
    let kept = snapshots.clone();
    let snapshots = Snapshots::new(snapshots, Arc::clone(&reader), builder.retention, Arc::clone(&clock), snapshots_also);
    let (retain_through, snapshotting) = (snapshots.retain_slot(), snapshots.busy());
    let parts = LogWriterParts {
        shard: Shard::new(id, state),
        clock: Arc::clone(&clock),
        fleet,
        tail: tail_sender,
        submissions: submission_lane,
        reports: report_lane,
        snapshots: snapshots.into_rule(builder.snapshot_every_events, snapshot_every, snapshot_at),
        intake,
        pace,
        in_flight_max,
        counters: Arc::clone(&counters),
    };
    let recent = Arc::new(Recent::with_limit(recent_bytes));
    let writer = LogWriter::start_with(parts, |news| {
        LogThread::start(log, builder.durability, Arc::clone(&recent), Arc::clone(&counters), news)
    })
    .map_err(StartError::Thread)?;
    // Nobody else sets it.
    let _ = retain_through.set(writer.clone());
    let progress = SharedProgress::default();
    let views = Views { start: view, progress: Arc::clone(&progress), tally: Arc::clone(&tally), watch };
    let projector = start_projector(&reader, &recent, views, &tail, &restarts, projectors);
    let types = define(builder, &writer, executes).await.map_err(|error| match tail.borrow().failed.clone() {
        Some(reason) => StartError::LogFailed { reason },
        None => error,
    })?;
    let index = index.map(Arc::new);
    let indexer = index.clone().map(|index| Arc::new(Indexer::start(index, Arc::clone(&reader), Arc::clone(&counters))));
    let index = index.map_or_else(|| no_index(&reader).map_err(RecoverError::from), Ok)?;
    Ok(Parts {
        shard: id,
        submissions,
        writer,
        tail,
        progress,
        tally,
        reports: reports_seen,
        figures,
        reader,
        counters,
        restarts,
        projector,
        types,
        system: System::current(),
        clock,
        snapshotting,
        indexer,
        index,
        snapshots: kept,
        #[cfg(feature = "requests")]
        sources: crate::sources::Sources::default(),
    })
}

/// What a new owner of the log of pools brings with it, but for pools whose policy was set after its process began: somebody did that by hand, or an
/// engine that started later, and an owner that goes must not undo it.
fn settled_by_hand(builder: &Builder, state: &State, reader: &dyn LogReader) -> Result<Builder, StartError> {
    let mut settled = builder.clone();
    let Some(begun) = builder.begun else { return Ok(settled) };
    for (pool, scaling) in &state.control.scaling {
        let Some(size) = state.control.pools.get(usize::from(pool.0)) else { continue };
        if set_at(reader, scaling.live.set_at).map_err(RecoverError::from)?.is_some_and(|at| at > begun) {
            settled.policies.remove(&size.name);
            settled.pools_least.remove(&size.name);
            settled.pools.insert(size.name.clone(), (size.replicas, size.slots));
        }
        for (name, shadow) in &scaling.shadows {
            if set_at(reader, shadow.set_at).map_err(RecoverError::from)?.is_some_and(|at| at > begun) {
                settled.shadows.remove(&(size.name.clone(), name.clone()));
            }
        }
    }
    Ok(settled)
}

/// When the event at a position was recorded, if it is still there.
fn set_at(reader: &dyn LogReader, position: Position) -> Result<Option<Timestamp>, LogError> {
    if position < reader.span().first {
        return Ok(None);
    }
    let block = reader.cursor(position)?.next_block()?;
    let found = block.and_then(|block| {
        block.records().filter_map(Result::ok).find(|record| record.position == position).map(|record| record.recorded_at)
    });
    Ok(found)
}

/// Indexes without a directory, for a log without one: everything is read from the log.
pub(crate) fn no_index(reader: &Arc<dyn LogReader>) -> Result<Arc<TaskIndex>, LogError> {
    // The name that systems give to homes that are not there.
    TaskIndex::open(Path::new("/nonexistent"), [0; 16], Arc::clone(reader)).map(Arc::new)
}

/// Refuses a log with unfinished tasks that no function here can run.
fn require_own(builder: &Builder, state: &State) -> Result<(), StartError> {
    let name = |task_type: TypeId| state.work.types.get(usize::from(task_type.0)).map_or("?", |known| known.name.as_str());
    let names = state.work.tasks.iter().map(|(_, task, _)| name(task.task_type));
    let foreign = names.filter(|name| !builder.types.contains_key(*name));
    let (tasks, types) = foreign.fold((0, BTreeSet::new()), |(tasks, mut types), name| {
        types.insert(name);
        (tasks + 1, types)
    });
    let types = types.into_iter().take(8).collect::<Vec<_>>().join(", ");
    if tasks == 0 { Ok(()) } else { Err(StartError::NotOwn { tasks, types }) }
}

/// Brings the log up to date with what this process is: takes it over, gives up replicas of processes that are gone, and defines task
/// types and pools. Everything is proposed at once, so that it is durable after one or two commits.
async fn define(builder: &Builder, writer: &Addr<LogWriter>, executes: bool) -> Result<BTreeMap<String, TypeId>, StartError> {
    let by = &builder.by;
    let name = concat!("ergate ", env!("CARGO_PKG_VERSION")).to_owned();
    let open = if executes { Proposal::Open { writer: name } } else { Proposal::OpenControl { writer: name } };
    let mut answers = vec![propose(writer, open).await?];
    if executes {
        // Before anything can be started.
        let own = builder.types.keys().filter(|name| !builder.abroad.contains(*name)).cloned().collect();
        answers.push(propose(writer, Proposal::ServeTypes(own)).await?);
    }
    let mut pools = sizes(builder, writer).await?;
    for proposal in outdated(builder, writer).await? {
        answers.push(propose(writer, proposal).await?);
    }
    for (name, allows) in builder.limits.iter().filter(|_| executes) {
        let define = Proposal::DefineLimit { name: name.clone(), allows: Box::new(allows.clone()), by: by.clone() };
        answers.push(propose(writer, define).await?);
    }
    for (name, (settings, _)) in &builder.types {
        if !builder.abroad.contains(name) {
            pools.entry(settings.pool.clone()).or_insert((1, crate::builder::SLOTS_DEFAULT));
        }
        if !executes {
            continue;
        }
        let define = Proposal::DefineType { name: name.clone(), settings: Box::new(settings.clone()), by: by.clone() };
        answers.push(propose(writer, define).await?);
        let limits = builder.limited.get(name).cloned().unwrap_or_default();
        answers.push(propose(writer, Proposal::LimitType { name: name.clone(), limits, by: by.clone() }).await?);
    }
    for (pool, (replicas, slots)) in pools {
        let reason = "start of the runtime".to_owned();
        answers.push(propose(writer, Proposal::DefinePool { pool, replicas, slots, by: by.clone(), reason }).await?);
    }
    for (pool, policy) in &builder.policies {
        let (most, _) = builder.pools.get(pool).copied().unwrap_or((1, 0));
        let least = builder.pools_least.get(pool).copied().unwrap_or(most);
        let policy = serde_json::to_string(policy).unwrap_or_default();
        let (pool, reason) = (pool.clone(), "start of the runtime".to_owned());
        answers.push(propose(writer, Proposal::SetPolicy { pool, policy, least, most, by: by.clone(), reason }).await?);
    }
    for (pool, resources) in &builder.resources {
        let (pool, resources, reason) = (pool.clone(), *resources, "start of the runtime".to_owned());
        answers.push(propose(writer, Proposal::SetResources { pool, resources, by: by.clone(), reason }).await?);
    }
    for ((pool, shadow), policy) in &builder.shadows {
        let policy = serde_json::to_string(policy).unwrap_or_default();
        let (pool, shadow, reason) = (pool.clone(), shadow.clone(), "start of the runtime".to_owned());
        answers.push(propose(writer, Proposal::SetShadow { pool, shadow, policy, by: by.clone(), reason }).await?);
    }
    if let Some(schedules) = builder.schedules.as_ref().filter(|_| executes) {
        let schedules = schedules.iter().map(|(name, settings)| (name.clone(), settings.clone())).collect();
        answers.push(propose(writer, Proposal::DefineSchedules { schedules, by: by.clone() }).await?);
    }
    for answer in answers {
        answer.await.map_err(|_| StartError::Panicked)??;
    }
    let state = writer.send(ergate_actors::log_writer::CopyState).await.map_err(|_| StartError::Panicked)?;
    Ok(builder.types.keys().filter_map(|name| Some((name.clone(), *state.work.type_names.get(name)?))).collect())
}

/// Takes back what was said of the resources of pools where something else is said now: a size that fits now may not have fitted then.
async fn outdated(builder: &Builder, writer: &Addr<LogWriter>) -> Result<Vec<Proposal>, StartError> {
    let state = writer.send(ergate_actors::log_writer::CopyState).await.map_err(|_| StartError::Panicked)?;
    let control = &state.control;
    let said = control.resources.iter().filter_map(|(id, said)| Some((control.pools.get(usize::from(id.0))?, said.resources)));
    let stays = |pool: &PoolSize, said: &PoolResources| {
        let slots = builder.pools.get(&pool.name).map_or(pool.slots, |(_, slots)| *slots);
        slots == pool.slots && builder.resources.get(&pool.name) == Some(said)
    };
    let outdated = said.filter(|(pool, said)| !stays(pool, said)).map(|(pool, _)| Proposal::SetResources {
        pool: pool.name.clone(),
        resources: PoolResources::default(),
        by: builder.by.clone(),
        reason: "start of the runtime".to_owned(),
    });
    Ok(outdated.collect())
}

/// The sizes that pools begin with; those that may vary keep theirs.
async fn sizes(builder: &Builder, writer: &Addr<LogWriter>) -> Result<BTreeMap<String, (u32, u32)>, StartError> {
    let mut sizes = builder.pools.clone();
    if builder.pools_least.is_empty() && builder.policies.is_empty() {
        return Ok(sizes);
    }
    let fitting = |pool: &str, slots, replicas: u32| {
        let fit = builder.resources.get(pool).and_then(|said| said.fit(slots));
        fit.map_or(replicas, |fit| replicas.min(fit.replicas()))
    };
    for (pool, least) in builder.pools_least.iter().filter(|(pool, _)| builder.policies.contains_key(*pool)) {
        // Its policy sees soon enough what it needs.
        if let Some((replicas, _)) = sizes.get_mut(pool) {
            *replicas = *least;
        }
    }
    let state = writer.send(ergate_actors::log_writer::CopyState).await.map_err(|_| StartError::Panicked)?;
    for known in &state.control.pools {
        if let (Some(least), Some((most, _))) = (builder.pools_least.get(&known.name), sizes.get_mut(&known.name)) {
            *most = known.replicas.clamp(*least, builder.pools.get(&known.name).map_or(*most, |(most, _)| *most));
        }
    }
    // Who holds a pool does so over a restart, and where the time is over the policy sees that at once.
    for (pool, _) in state.control.scaling.iter().filter(|(_, scaling)| scaling.hold.is_some()) {
        let known = state.control.pools.get(usize::from(pool.0));
        if let Some((known, (replicas, _))) = known.and_then(|known| Some((known, sizes.get_mut(&known.name)?))) {
            *replicas = known.replicas;
        }
    }
    // One that may vary begins with as many as fit; one that may not is refused where they do not.
    for (pool, (replicas, slots)) in sizes.iter_mut().filter(|(pool, _)| builder.pools_least.contains_key(*pool)) {
        *replicas = fitting(pool, *slots, *replicas);
    }
    Ok(sizes)
}

/// Hands a proposal over; the answer comes when it is durable.
async fn propose(
    writer: &Addr<LogWriter>,
    proposal: Proposal,
) -> Result<oneshot::Receiver<Result<Position, SubmitError>>, StartError> {
    let (reply, answer) = oneshot::channel();
    writer.send(Propose { proposal, reply }).await.map_err(|_| StartError::Panicked)?;
    Ok(answer)
}

/// Starts nothing more on a shard and waits until nothing runs.
pub(crate) async fn drain(parts: &Parts, limit: Duration) {
    let started = Instant::now();
    let writer = &parts.writer;
    let Ok(replicas) = writer.send(SlotsInUse).await else { return };
    let own = replicas.into_iter().filter(|(replica, _)| *replica < WORKER_FIRST);
    for (replica, _) in own {
        // It holds from now on; what comes next waits until it is durable.
        if propose(writer, Proposal::DrainReplica(replica)).await.is_err() {
            return;
        }
    }
    while started.elapsed() < limit {
        let Ok(replicas) = writer.send(SlotsInUse).await else { return };
        // Workers go on without this process.
        let mut own = replicas.iter().filter(|(replica, _)| *replica < WORKER_FIRST);
        if own.all(|(_, used)| *used == 0) || parts.tail.borrow().failed.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!("the time to drain is over; attempts that still run are repeated at the next start");
}

/// What a projector feeds, and where it begins.
struct Views {
    start: Progress,
    progress: SharedProgress,
    tally: SharedTally,
    watch: Option<SharedWatch>,
}

/// Starts the projector on a thread of its own, and starts it again from the beginning of its view whenever it fails.
fn start_projector(
    reader: &Arc<dyn LogReader>,
    recent: &Arc<Recent>,
    views: Views,
    tail: &watch::Receiver<Tail>,
    restarts: &Arc<Restarts>,
    projectors: Option<ArbiterHandle>,
) -> Arc<Mutex<Addr<Projector>>> {
    let shard = tail.clone();
    let arbiter = projectors.is_none().then(Arbiter::new);
    let (reader, recent, tail, restarts) = (Arc::clone(reader), Arc::clone(recent), tail.clone(), Arc::clone(restarts));
    let handle = projectors.or_else(|| arbiter.as_ref().map(Arbiter::handle)).unwrap_or_else(Arbiter::current);
    let start = move || {
        let (reader, recent, tail) = (Arc::clone(&reader), Arc::clone(&recent), tail.clone());
        let (start, progress, tally) = (views.start.clone(), Arc::clone(&views.progress), Arc::clone(&views.tally));
        let watch = views.watch.clone();
        Projector::start_in_arbiter(&handle, move |_| {
            Projector::new(reader, recent, &start, tail, progress, tally).watching(watch)
        })
    };
    let current = Arc::new(Mutex::new(start()));
    let watched = Arc::clone(&current);
    actix::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if shard.has_changed().is_err() {
                // The shard is gone, and nothing follows that could be shown.
                return;
            }
            let mut address = watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !address.connected() {
                tracing::error!("the projector failed and starts again");
                restarts.projectors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                *address = start();
            }
            // The arbiter must outlive the projectors on it.
            let _ = &arbiter;
        }
    });
    current
}
