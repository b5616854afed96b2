//! The one file that names every actor: recovers the shard, starts its thread and everything on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use actix::{Actor, Addr, Arbiter, System};
use ergate_actors::clock::{Clock, SystemClock};
use ergate_actors::dispatcher::{Fleet, Restarts};
use ergate_actors::lane::lane;
use ergate_actors::log_thread::{LogCounters, LogThread};
use ergate_actors::log_writer::{LogWriter, LogWriterParts, Propose, Tail};
use ergate_actors::projector::{Projector, SharedProgress};
use ergate_actors::proposal::Proposal;
use ergate_actors::recent::Recent;
use ergate_actors::submission::Submission;
use ergate_events::id::{Epoch, ShardId, TypeId};
use ergate_events::log::LogReader;
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::view::Progress;
use tokio::sync::{mpsc, oneshot, watch};

use crate::builder::Builder;
use crate::indexer::Indexer;
use crate::runtime::{Runtime, StartError};
use crate::snapshots::Snapshots;
use crate::store::Opened;

/// Submissions that may wait to be decided; more wait at their sender.
const SUBMISSIONS_MAX: usize = 1_024;
/// Reports that may wait to be decided; more grow in their executor, by at most what its slots hold.
const REPORTS_MAX: usize = 1_024;

/// What the threads of a runtime hand to its front.
pub(crate) struct Parts {
    pub(crate) submissions: mpsc::Sender<Submission>,
    pub(crate) writer: Addr<LogWriter>,
    pub(crate) tail: watch::Receiver<Tail>,
    pub(crate) progress: SharedProgress,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) counters: Arc<LogCounters>,
    pub(crate) restarts: Arc<Restarts>,
    pub(crate) projector: Arc<Mutex<Addr<Projector>>>,
    pub(crate) types: BTreeMap<String, TypeId>,
    pub(crate) system: System,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) snapshotting: Arc<AtomicBool>,
    pub(crate) indexer: Option<Arc<Indexer>>,
}

/// Starts a runtime: a thread for the shard and, from there, all others.
pub(crate) async fn start(builder: Builder) -> Result<Runtime, StartError> {
    let (ready, started) = oneshot::channel();
    let settings = builder.clone();
    let thread = std::thread::Builder::new()
        .name("ergate-shard".to_owned())
        .spawn(move || {
            let system = System::new();
            system.block_on(async move {
                // Whoever called `start` may have given up; then the thread ends with its system.
                if let Err(Ok(parts)) = ready.send(wire(settings).await) {
                    parts.system.stop();
                }
            });
            if let Err(error) = system.run() {
                tracing::error!(%error, "the shard's thread ended badly");
            }
        })
        .map_err(StartError::Thread)?;
    let parts = started.await.map_err(|_| StartError::Panicked)??;
    Ok(Runtime::new(builder, parts, thread))
}

/// Runs on the shard's thread.
async fn wire(builder: Builder) -> Result<Parts, StartError> {
    let outcome = assemble(builder).await;
    if outcome.is_err() {
        System::current().stop();
    }
    outcome
}

async fn assemble(builder: Builder) -> Result<Parts, StartError> {
    let Opened { log, reader, state, snapshots, index, snapshot_at } = builder.store.open(&builder.options)?;
    if builder.own_tasks_only {
        require_own(&builder, &state)?;
    }
    let clock = builder.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::starting(state.last_at)));
    let epoch = Epoch(state.epoch.0.saturating_add(1));
    let view = Progress::of(&state);
    let (submissions, submission_lane) = lane(SUBMISSIONS_MAX);
    let (reports, report_lane) = lane(REPORTS_MAX);
    let (tail_sender, tail) = watch::channel(Tail { head: log.head(), failed: None, live: state.work.tasks.len() });
    let functions = builder.types.iter().map(|(name, (_, function))| (name.clone(), Arc::clone(function))).collect();
    let restarts = Arc::new(Restarts::default());
    let fleet =
        Fleet { functions: Arc::new(functions), clock: Arc::clone(&clock), epoch, reports, restarts: Arc::clone(&restarts) };
    let snapshots = Snapshots::new(snapshots, Arc::clone(&reader), builder.retention, Arc::clone(&clock));
    let (retain_through, snapshotting) = (snapshots.retain_slot(), snapshots.busy());
    let parts = LogWriterParts {
        shard: Shard::new(ShardId(0), state),
        clock: Arc::clone(&clock),
        fleet,
        tail: tail_sender,
        submissions: submission_lane,
        reports: report_lane,
        snapshots: snapshots.into_rule(builder.snapshot_every_events, snapshot_at),
        intake: None,
        pace: std::time::Duration::ZERO,
    };
    let mut counters = Arc::default();
    let recent = Arc::new(Recent::default());
    let writer = LogWriter::start_with(parts, |news| {
        let thread = LogThread::start(log, builder.durability, Arc::clone(&recent), news)?;
        counters = Arc::clone(&thread.counters);
        Ok(thread)
    })
    .map_err(StartError::Thread)?;
    // Nobody else sets it.
    let _ = retain_through.set(writer.clone());
    let progress = SharedProgress::default();
    let projector = start_projector(&reader, &recent, &view, &tail, &progress, &restarts);
    let types = define(&builder, &writer).await.map_err(|error| match tail.borrow().failed.clone() {
        Some(reason) => StartError::LogFailed { reason },
        None => error,
    })?;
    let indexer = index.map(|index| Arc::new(Indexer::start(index, Arc::clone(&reader), Arc::clone(&counters))));
    Ok(Parts {
        submissions,
        writer,
        tail,
        progress,
        reader,
        counters,
        restarts,
        projector,
        types,
        system: System::current(),
        clock,
        snapshotting,
        indexer,
    })
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
/// types and pools.
async fn define(builder: &Builder, writer: &Addr<LogWriter>) -> Result<BTreeMap<String, TypeId>, StartError> {
    let by = &builder.by;
    propose(writer, Proposal::Open { writer: concat!("ergate ", env!("CARGO_PKG_VERSION")).to_owned() }).await?;
    let mut pools = builder.pools.clone();
    for (name, (settings, _)) in &builder.types {
        pools.entry(settings.pool.clone()).or_insert((1, crate::builder::SLOTS_DEFAULT));
        propose(writer, Proposal::DefineType { name: name.clone(), settings: Box::new(settings.clone()), by: by.clone() })
            .await?;
    }
    for (pool, (replicas, slots)) in pools {
        let reason = "start of the runtime".to_owned();
        propose(writer, Proposal::DefinePool { pool, replicas, slots, by: by.clone(), reason }).await?;
    }
    let state = writer.send(ergate_actors::log_writer::CopyState).await.map_err(|_| StartError::Panicked)?;
    Ok(builder.types.keys().filter_map(|name| Some((name.clone(), *state.work.type_names.get(name)?))).collect())
}

async fn propose(writer: &Addr<LogWriter>, proposal: Proposal) -> Result<(), StartError> {
    let (reply, answer) = oneshot::channel();
    writer.send(Propose { proposal, reply }).await.map_err(|_| StartError::Panicked)?;
    answer.await.map_err(|_| StartError::Panicked)??;
    Ok(())
}

/// Starts the projector on a thread of its own, and starts it again from the beginning of its view whenever it fails.
fn start_projector(
    reader: &Arc<dyn LogReader>,
    recent: &Arc<Recent>,
    view: &Progress,
    tail: &watch::Receiver<Tail>,
    progress: &SharedProgress,
    restarts: &Arc<Restarts>,
) -> Arc<Mutex<Addr<Projector>>> {
    let arbiter = Arbiter::new();
    let (reader, recent, view, tail, progress, restarts) =
        (Arc::clone(reader), Arc::clone(recent), view.clone(), tail.clone(), Arc::clone(progress), Arc::clone(restarts));
    let handle = arbiter.handle();
    let start = move || {
        let (reader, recent, view, tail, progress) =
            (Arc::clone(&reader), Arc::clone(&recent), view.clone(), tail.clone(), Arc::clone(&progress));
        Projector::start_in_arbiter(&handle, move |_| Projector::new(reader, recent, &view, tail, progress))
    };
    let current = Arc::new(Mutex::new(start()));
    let watched = Arc::clone(&current);
    actix::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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
