//! A story about a shard: commands and moments in, events and answers out. When it ends, its log must fold, audit and continue.
#![allow(dead_code, reason = "every test file uses another part of it")]

use std::sync::Arc;

use ergate_events::audit::{Audit, Depth};
use ergate_events::block::{Block, Hash};
use ergate_events::command::{Command, PoolRef, Rejection};
use ergate_events::event::{Departure, Envelope, Event, PoolMode, RuleVersions, ShardReading, hex};
use ergate_events::firing::Firing;
use ergate_events::id::{LimitId, Ordinal, PoolId, Position, ReplicaId, ScheduleId, ShardId, TypeId};
use ergate_events::invariant;
use ergate_events::limit::LimitSettings;
use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
use ergate_events::resources::{Asked, Ceiling, PoolResources};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::scaling::usage::{ReplicaReading, Stage, Used};
use ergate_events::schedule::{CatchUp, Label, Overlap, Passed, PassedOver, ScheduleSettings, When, firing_key};
use ergate_events::shard::{Answer, Shard};
use ergate_events::state::State;
use ergate_events::task::{Ask, Dependency, Failure, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::{WorkerFacts, WorkerId};

/// Batches that a quiet shard may need to settle; more is a loop without end.
const BATCHES_MAX: usize = 200;

/// A shard with its log, and what happened since somebody last looked.
pub(crate) struct Story {
    pub(crate) shard: Shard,
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) now: Timestamp,
    head: Hash,
    news: Vec<String>,
}

/// A type whose attempts are repeated after 100 ms, 200 ms, 400 ms, and whose tasks end for good after four.
pub(crate) fn plain() -> TypeSettings {
    let retry = RetryPolicy {
        attempts: 4,
        initial: Micros::from_millis(100),
        coefficient_milli: 2_000,
        max: Micros::from_secs(10),
        jitter_milli: 0,
    };
    let timeouts = Timeouts { start_to_close: Micros::from_secs(60), ..Timeouts::default() };
    TypeSettings { retry, timeouts, ..TypeSettings::default() }
}

impl Story {
    /// An opened log and nothing else.
    pub(crate) fn empty() -> Story {
        let mut story = Story {
            shard: Shard::new(ShardId(0), State::default()),
            blocks: Vec::new(),
            now: Timestamp(1_000_000),
            head: Hash::ZERO,
            news: Vec::new(),
        };
        story.tell(&Command::Open { rules: RuleVersions::CURRENT, writer: "test" }).expect("a log can be opened");
        story.news.clear();
        story
    }

    /// An opened log with one type, `job`.
    pub(crate) fn with(settings: &TypeSettings) -> Story {
        let mut story = Story::empty();
        story.define("job", settings);
        story.news.clear();
        story
    }

    /// A story with one type, `job`, and replica 0 with this many slots.
    pub(crate) fn running(settings: &TypeSettings, slots: u32) -> Story {
        let mut story = Story::with(settings);
        story.join(0, slots);
        story.news.clear();
        story
    }

    /// Decides one command now.
    pub(crate) fn tell(&mut self, command: &Command<'_>) -> Answer {
        let mut answers = self.tell_all(std::slice::from_ref(command));
        answers.pop().expect("every command has an answer")
    }

    /// Decides some commands in one batch.
    pub(crate) fn tell_all(&mut self, commands: &[Command<'_>]) -> Vec<Answer> {
        let (mut answers, news) = (Vec::new(), &mut self.news);
        let mut observer = |envelope: &Envelope<'_>, _: &State| news.push(short(envelope));
        let taken = self.shard.batch(self.now, commands, &mut answers, &mut observer);
        assert_eq!((taken, answers.len()), (commands.len(), commands.len()), "the block was sealed before, so it has room");
        self.now = self.now.max(self.shard.state().last_at);
        self.check();
        if self.shard.open_block().body_len() > 64 << 10 {
            self.seal();
        }
        answers
    }

    fn check(&self) {
        let state = self.shard.state();
        if is_small(state) {
            invariant::check(state).unwrap_or_else(|broken| panic!("{broken}\nafter {:?}", self.news));
        }
    }

    /// Ends the open block.
    pub(crate) fn seal(&mut self) {
        if let Some(sealed) = self.shard.seal(self.head) {
            self.head = sealed.hash;
            self.blocks.push(sealed.bytes);
        }
    }

    /// Lets time pass until this many milliseconds after now, and lets everything happen that falls due on the way.
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now.after(Micros::from_millis(millis));
        for _ in 0..BATCHES_MAX {
            let due = self.shard.next_due();
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
            self.tell_all(&[]);
        }
        panic!("the shard does not settle: {:?}", self.news.iter().rev().take(5).collect::<Vec<_>>());
    }

    /// What happened since the last look.
    pub(crate) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Compares what happened since the last look.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.news(), expected);
    }

    /// Expects this answer to a command, and that nothing happened.
    #[track_caller]
    pub(crate) fn refuses(&mut self, command: &Command<'_>, expected: Rejection) {
        self.news.clear();
        assert_eq!(self.tell(command), Err(expected));
        self.expect(&[]);
    }

    pub(crate) fn define(&mut self, name: &str, settings: &TypeSettings) {
        self.tell(&Command::DefineType { name, settings, by: "test" }).expect("the settings are in range");
    }

    /// Limits type 0 in these ways, each a limit named by its number.
    pub(crate) fn limit(&mut self, limits: &[LimitSettings]) {
        for (index, allows) in limits.iter().enumerate() {
            let name = format!("limit {index}");
            self.tell(&Command::DefineLimit { name: &name, allows, by: "test" }).expect("the limit is in range");
        }
        let ids: Vec<LimitId> = (0..).map(LimitId).take(limits.len()).collect();
        self.tell(&Command::LimitType { task_type: TypeId(0), limits: ids, by: "test" }).expect("the limits are defined");
        self.news.clear();
    }

    pub(crate) fn join(&mut self, replica: u32, slots: u32) {
        self.tell(&Command::JoinReplica { replica: ReplicaId(replica), pool: "default", slots }).expect("the replica is new");
    }

    /// Takes a worker in and says under which id.
    pub(crate) fn join_worker(&mut self, pool: &str, slots: u32, worker: &WorkerFacts) -> ReplicaId {
        let replica = self.shard.state().work.next_worker().expect("there are ids left");
        self.tell(&Command::JoinWorker { replica, pool, slots, worker }).expect("the worker is new");
        replica
    }

    pub(crate) fn leave(&mut self, replica: u32) {
        let departure = Departure::Lost;
        self.tell(&Command::LeaveReplica { replica: ReplicaId(replica), departure }).expect("the replica is there");
    }

    pub(crate) fn drain(&mut self, replica: u32) {
        self.tell(&Command::DrainReplica { replica: ReplicaId(replica) }).expect("the replica is there");
    }

    pub(crate) fn request(&mut self, asks: &[Ask<'_>]) -> Ordinal {
        self.submit(&request(b"{}", asks))
    }

    pub(crate) fn submit(&mut self, command: &Command<'_>) -> Ordinal {
        self.tell(command).expect("the request is taken").task.expect("a request creates a task")
    }

    pub(crate) fn succeed(&mut self, task: u64, attempt: u32) -> Answer {
        self.tell(&success(task, attempt))
    }

    pub(crate) fn fail(&mut self, task: u64, attempt: u32) -> Answer {
        self.tell(&failure(task, attempt))
    }

    pub(crate) fn cancel(&mut self, task: u64) -> Answer {
        self.tell(&Command::Cancel { task: Ordinal(task), by: "me", reason: "" })
    }

    pub(crate) fn kill(&mut self, task: u64) -> Answer {
        self.tell(&Command::Kill { task: Ordinal(task), by: "me", reason: "" })
    }

    pub(crate) fn redrive(&mut self, task: u64) -> Answer {
        self.tell(&Command::Redrive { task: Ordinal(task), by: "me", reason: "" })
    }

    /// Fires a slot of the schedule with this name, as whoever has looked at it now would.
    pub(crate) fn fire(&mut self, name: &str, slot: Timestamp) -> Answer {
        let (schedule, known) = self.shard.state().control.schedules.named(name).expect("it is defined");
        let (after, plan, key) = (Some(known.dealt), Arc::clone(&known.settings), firing_key(name, slot));
        self.tell(&Command::Fire { schedule, after, slot, firing: Firing::Request { key: &key, plan: &plan } })
    }

    pub(crate) fn release(&mut self, task: u64, attempt: u32, replica: u32) -> Answer {
        self.tell(&Command::ReleaseSlot { task: Ordinal(task), attempt, replica: ReplicaId(replica) })
    }

    /// Slots in use on a replica.
    pub(crate) fn used(&self, replica: u32) -> usize {
        self.shard.state().work.replicas.get(ReplicaId(replica)).map_or(0, ergate_events::state::replicas::Replica::used)
    }

    /// The log as it would be read back, every block parsed.
    pub(crate) fn log(&mut self) -> Vec<Block> {
        self.seal();
        self.blocks.iter().map(|bytes| Block::parse(bytes).expect("it was just sealed")).collect()
    }
}

/// Every story ends the same way: its log is read back, folded, audited, and goes on from a snapshot as it would have live.
impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.log();
        let live = self.shard.state();
        fold_with_invariants(&log);
        let audit = audit(&log).expect("the rules give what was recorded");
        assert_eq!(audit.state().digest(), live.digest(), "fold and live state");
        assert_eq!(audit.head(), self.head);
        snapshots_lead_to_the_same(&log, live);
        goes_on_alike(live, self.head);
    }
}

/// Audits a whole log.
pub(crate) fn audit(log: &[Block]) -> Result<Audit, ergate_events::audit::Finding> {
    let mut audit = Audit::new(Depth::Decisions, State::default(), Some(Hash::ZERO));
    log.iter().try_for_each(|block| audit.follow(block))?;
    Ok(audit)
}

/// Whether the event belongs to the decision of the event before it, so that the state between the two is not whole.
fn is_consequence(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::Ended { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterDropped { .. }
    )
}

/// Whether the invariants cost little enough to be checked after every event.
fn is_small(state: &State) -> bool {
    let slots: usize = state.work.replicas.iter().map(|(_, replica)| replica.size()).sum();
    state.work.tasks.len() < 100 && slots < 200
}

fn fold_with_invariants(log: &[Block]) {
    let mut state = State::default();
    let envelopes: Vec<_> = log.iter().flat_map(Block::records).map(|record| record.expect("it was just recorded")).collect();
    for (index, envelope) in envelopes.iter().enumerate() {
        state.apply(envelope);
        let whole = envelopes.get(index + 1).is_none_or(|next| !is_consequence(&next.event));
        if whole && (is_small(&state) || index % 1_024 == 0) {
            invariant::check(&state).unwrap_or_else(|broken| panic!("{broken}\nafter {}", short(envelope)));
        }
    }
}

/// A snapshot at any block and the blocks behind it give the live state, and the audit can begin there.
fn snapshots_lead_to_the_same(log: &[Block], live: &State) {
    let mut state = State::default();
    let mut head = Hash::ZERO;
    let step = log.len() / 4 + 1;
    for (index, block) in log.iter().enumerate() {
        if index % step == 0 {
            let snapshot = copy(&state);
            invariant::check(&snapshot).expect("queues and timers are rebuilt");
            let mut audit = Audit::new(Depth::Decisions, snapshot, Some(head));
            log[index..].iter().try_for_each(|block| audit.follow(block)).expect("an audit may begin at a snapshot");
            assert_eq!(audit.state().digest(), live.digest(), "snapshot before block {index}, and tail");
        }
        for envelope in block.records() {
            state.apply(&envelope.expect("it was just recorded"));
        }
        head = block.hash();
    }
}

/// The state after it was written and read.
pub(crate) fn copy(state: &State) -> State {
    let mut bytes = Vec::new();
    state.encode(&mut bytes).expect("a vector takes every byte");
    let copy = State::decode(&bytes).expect("it was just written");
    assert_eq!(copy.digest(), state.digest(), "a state image comes back");
    copy
}

/// The state and its copy decide alike.
fn goes_on_alike(live: &State, head: Hash) {
    let copy = copy(live);
    invariant::check(&copy).expect("queues and timers are rebuilt");
    let sealed = [live.clone(), copy].map(|state| {
        let mut shard = Shard::new(ShardId(0), state);
        let later = live.last_at.after(Micros::from_secs(7_200));
        let (mut answers, mut observer) = (Vec::new(), |_: &Envelope<'_>, _: &State| {});
        let replica = Command::JoinReplica { replica: ReplicaId(9_999), pool: "default", slots: 7 };
        shard.batch(later, &[request(b"later", &[]), replica], &mut answers, &mut observer);
        shard.batch(later.after(Micros::from_secs(60)), &[], &mut answers, &mut observer);
        shard.seal(head).map(|sealed| (sealed.hash, sealed.bytes, shard.state().digest()))
    });
    assert_eq!(sealed[0], sealed[1], "a copy goes on as the original");
}

/// A request for type 0.
pub(crate) fn request<'a>(payload: &'a [u8], asks: &'a [Ask<'a>]) -> Command<'a> {
    Command::Request { task_type: TypeId(0), payload, key: None, asks }
}

/// A request for a type with an idempotency key.
pub(crate) fn keyed<'a>(task_type: u16, key: &'a str, payload: &'a [u8]) -> Command<'a> {
    Command::Request { task_type: TypeId(task_type), payload, key: Some(IdempotencyKey { key, window: None }), asks: &[] }
}

pub(crate) fn success(task: u64, attempt: u32) -> Command<'static> {
    Command::Succeed { task: Ordinal(task), attempt, outcome: Outcome::Succeeded, result: b"ok" }
}

pub(crate) fn failure(task: u64, attempt: u32) -> Command<'static> {
    let failure = Failure { class: "boom", message: "it broke", retryable: true, delay: None };
    Command::Fail { task: Ordinal(task), attempt, failure }
}

/// Where an attempt ran: with 31 others, without a driver.
pub(crate) fn ran() -> Ran {
    Ran {
        device: "GPU-5c1ce4f1".to_owned(),
        driver: None,
        kernel: KernelDigest(std::array::from_fn(|index| 0xa0 ^ index as u8)),
        batch_size: 32,
        queue: Micros(200),
        copy: Micros(100),
        compute: Micros(50),
        memory_bytes: 4 << 20,
    }
}

pub(crate) const fn ran_on(task: u64, attempt: u32, ran: &Ran) -> Command<'_> {
    Command::Ran { task: Ordinal(task), attempt, ran }
}

/// The refusal of a report that no longer counts.
pub(crate) fn stale(task: u64, attempt: u32) -> Rejection {
    Rejection::StaleAttempt { task: Ordinal(task), attempt }
}

/// An event in as few words as a table needs. Moments are given from the event's own time.
pub(crate) fn short(envelope: &Envelope<'_>) -> String {
    let span = |due: Timestamp| due.since(envelope.recorded_at);
    match &envelope.event {
        Event::Opened { epoch, .. } => format!("opened {epoch}"),
        Event::TypeDefined { task_type, name, .. } => format!("defined {task_type} {name}"),
        Event::Requested { task_type, .. } => format!("requested {task_type}"),
        Event::Deduplicated { of, .. } => format!("duplicate of {of}"),
        Event::Succeeded { task, attempt, outcome, .. } => format!("{} {task}.{attempt}", outcome.name().to_lowercase()),
        Event::Failed { task, attempt, failure } => format!("failed {task}.{attempt} {}", failure.class),
        Event::SlotReleased { task, attempt, replica } => format!("released {task}.{attempt} {replica}"),
        Event::Checkpointed { task, attempt, details } => format!("checkpoint {task}.{attempt} {}", hex(details)),
        Event::HeartbeatMissed { task, attempt, .. } => format!("heartbeat missed {task}.{attempt}"),
        Event::CancelRequested { task, .. } => format!("cancel {task}"),
        Event::KillRequested { task, .. } => format!("kill {task}"),
        Event::Redriven { task, .. } => format!("redriven {task}"),
        Event::ReplicaJoined { replica, slots, .. } => format!("joined {replica} {slots}"),
        Event::ReplicaDraining { replica } => format!("draining {replica}"),
        Event::ReplicaLeft { replica, departure } => format!("left {replica} {departure:?}"),
        Event::PoolDefined { pool, replicas, slots, .. } => format!("sized {pool} {replicas}x{slots}"),
        Event::ReplicaReady { replica } => format!("up {replica}"),
        Event::ReplicaStopped { replica, departure } => format!("stopped {replica} {departure:?}"),
        Event::ClockStepped { .. } => "clock stepped".to_owned(),
        Event::LossAccepted { missing, .. } => format!("loss of {missing} accepted"),
        Event::Started { task, attempt, replica } => format!("started {task}.{attempt} {replica}"),
        Event::Ready { task } => format!("ready {task}"),
        Event::TimedOut { task, attempt, timeout } => format!("timed out {task}.{attempt} {timeout:?}"),
        Event::RetryScheduled { task, due } => format!("retry {task} in {}", span(*due)),
        Event::Lost { task, attempt, .. } => format!("lost {task}.{attempt}"),
        Event::Ended { task, outcome, cause } => format!("ended {task} {} {cause:?}", outcome.name()),
        Event::DeadLettered { task, cause } => format!("dead {task} {cause:?}"),
        Event::DeadLetterDropped { task } => format!("dropped {task}"),
        Event::ReplicaRequested { replica, pool } => format!("wanted {replica} {pool}"),
        Event::DrainRequested { replica } => format!("unwanted {replica}"),
        Event::SourceMoved { next } => format!("source at {next}"),
        Event::RequestRefused { .. } => "record refused".to_owned(),
        Event::ShardsObserved { shards } => format!("{} shards seen", shards.len()),
        Event::LimitDefined { limit, name, .. } => format!("defined {limit} {name}"),
        Event::TypeLimited { task_type, limits, .. } => format!("{task_type} has {} limits", limits.len()),
        Event::Progressed { task, attempt, percent, stage, .. } => format!("progress {task}.{attempt} {percent:?} {stage}"),
        Event::Limited { task, limit } => format!("limited {task} {limit}"),
        Event::Admitted { task } => format!("admitted {task}"),
        Event::DependencyMet { task, dependency, left } => format!("met {task} {dependency} {left} left"),
        Event::ScheduleDefined { schedule, name, .. } => format!("defined {schedule} {name}"),
        Event::ScheduleRemoved { schedule, .. } => format!("removed {schedule}"),
        Event::SchedulePaused { schedule, .. } => format!("paused {schedule}"),
        Event::ScheduleResumed { schedule, .. } => format!("resumed {schedule}"),
        Event::Fired { schedule, slot, task } => format!("fired {schedule} {} as {task}", slot.0 / 1_000_000),
        Event::Triggered { schedule, task, .. } => format!("triggered {schedule} as {task}"),
        Event::PoolModeSet { pool, mode, .. } => format!("{} {pool}", mode.name()),
        Event::TypesServed { types } => format!("serves {}", types.join(" ")),
        Event::WorkerJoined { replica, slots, worker, .. } => format!("worker {} {replica} {slots}", worker.name),
        Event::WorkAsked { replica, slots } => format!("asked {replica} {slots}"),
        Event::WorkerMissed { replica, last_seen } => format!("missed {replica} {}", envelope.recorded_at.since(*last_seen)),
        Event::AttemptReturned { task, attempt } => format!("returned {task}.{attempt}"),
        Event::ProcessExited { replica, code, signal, .. } => format!("exited {replica} {code:?} {signal:?}"),
        Event::PolicySet { pool, policy, least, most, .. } if policy.is_empty() => format!("no policy {pool} {least} {most}"),
        Event::PolicySet { pool, least, most, .. } => format!("policy {pool} {least} {most}"),
        Event::PoolObserved { pool, readings, work, asked, .. } => {
            let of = if *asked == 1 { String::new() } else { format!(" for {asked:b}") };
            let work = if work.is_empty() { String::new() } else { format!(" in {work:?}") };
            format!("observed {pool} {}{work}{of}", readings.len())
        }
        Event::PoolScaled { pool, replicas, shadow: Some(shadow), .. } => format!("shadow {pool} {shadow} {replicas}"),
        Event::PoolScaled { pool, replicas, .. } => format!("scaled {pool} {replicas}"),
        Event::ShadowSet { pool, shadow, policy, .. } if policy.is_empty() => format!("no shadow {pool} {shadow}"),
        Event::ShadowSet { pool, shadow, .. } => format!("shadow set {pool} {shadow}"),
        Event::SizeHeld { pool, replicas: Some(replicas), until, .. } => {
            format!("held {pool} {replicas} for {}", until.since(envelope.recorded_at))
        }
        Event::SizeHeld { pool, replicas: None, .. } => format!("released {pool}"),
        Event::AttemptRan { task, attempt, ran } => format!("ran {task}.{attempt} {} {}", ran.device, ran.batch_size),
        Event::PoolResourcesSet { pool, resources, .. } => format!("resources {pool} {:?}", resources.asked.cpu_milli),
        Event::ConcurrencyChanged { replica, before, concurrency, .. } => format!("concurrency {replica} {before} {concurrency}"),
        Event::SlotsPassed { schedule, from, to, count, because } => {
            format!("passed {schedule} {}-{} {count} {}", from.0 / 1_000_000, to.0 / 1_000_000, because.name())
        }
    }
}

/// A log with every kind of event but `DeadLetterDropped`, which takes ten thousand dead letters.
pub(crate) fn everything() -> Vec<Block> {
    let mut story = Story::with(&plain());
    let once = TypeSettings { retry: RetryPolicy::NEVER, dead_letter: false, cancel_grace: Micros::from_secs(1), ..plain() };
    story.define("once", &once);
    story
        .tell(&Command::DefinePool { pool: "default", replicas: 2, slots: 3, by: "me", reason: "first" })
        .expect("it is in range");
    story.pass(0);
    for replica in [0, 1] {
        story.tell(&Command::ReadyReplica { replica: ReplicaId(replica) }).expect("it was wanted");
        story.join(replica, 3);
    }
    story.seal();
    working_day(&mut story);
    story.seal();
    bad_day(&mut story);
    story.seal();
    busy_day(&mut story);
    story.seal();
    planned_day(&mut story);
    story.seal();
    dependent_day(&mut story);
    story.seal();
    strangers_day(&mut story);
    let pause = Command::SetPoolMode { pool: "default", mode: PoolMode::Paused, by: "me", reason: "the night is short" };
    story.tell(&pause).expect("it has a size");
    story.log()
}

/// Tasks that schedules ask for.
fn planned_day(story: &mut Story) {
    let plan = ScheduleSettings {
        labels: vec![Label { name: "team".to_owned(), value: "blue".to_owned() }],
        priority: Some(3),
        catch_up: CatchUp::RunOnce,
        overlap: Overlap::CancelPrevious,
        timezone: "Europe/Berlin".to_owned(),
        ..ScheduleSettings::new(When::Cron("0 3 * * *".to_owned()), "once")
    };
    let every = ScheduleSettings::new(When::Every(Micros::from_secs(60)), "once");
    let once = ScheduleSettings { overlap: Overlap::Skip, ..ScheduleSettings::new(When::At(Timestamp(1)), "once") };
    for (name, plan) in [("nightly", &plan), ("often", &every), ("at-last", &once)] {
        story.tell(&Command::DefineSchedule { name, plan, by: "me" }).expect("it is in range");
    }
    let (schedule, by, reason) = (ScheduleId(0), "me", "the disk is full");
    story.tell(&Command::PauseSchedule { schedule, by, reason }).expect("it is there");
    story.tell(&Command::ResumeSchedule { schedule, by, reason }).expect("it is paused");
    story.pass(1_000);
    story.fire("nightly", story.now).expect("it is due");
    story.fire("nightly", story.now.after(Micros(1))).expect("it is due");
    let slot = story.now;
    let key = firing_key("nightly", slot);
    let firing = Firing::Request { key: &key, plan: &plan };
    story.tell(&Command::Trigger { schedule, slot, firing, by, reason }).expect("one may");
    let passed = Passed { from: slot.after(Micros(2)), to: slot.after(Micros(9)), count: 4, because: PassedOver::Missed };
    story.tell(&Command::PassOver { schedule, after: None, passed }).expect("they were missed");
    story.tell(&Command::RemoveSchedule { schedule, by }).expect("it is there");
    for mode in [PoolMode::Paused, PoolMode::Drained, PoolMode::Running] {
        story.tell(&Command::SetPoolMode { pool: "default", mode, by, reason: "the night is short" }).expect("it has a size");
    }
    story.pass(2_000);
}

/// Tasks that come after others.
fn dependent_day(story: &mut Story) {
    fn once<'a>(asks: &'a [Ask<'a>]) -> Command<'a> {
        Command::Request { task_type: TypeId(1), payload: b"", key: None, asks }
    }
    let [first, second] = [(); 2].map(|()| story.submit(&once(&[])));
    let both = [Ask::After(Dependency::Task(first)), Ask::After(Dependency::Task(second))];
    let last = story.submit(&once(&both));
    let doomed = story.submit(&once(&both[1..]));
    story.submit(&once(&[Ask::After(Dependency::Task(doomed)), Ask::OnFailure(OnFailure::Run)]));
    story.succeed(first.0, 1).expect("it runs");
    story.fail(second.0, 1).expect("it runs");
    assert!(story.shard.state().work.tasks.get(last).is_none(), "it came after one that failed");
    let known = Ask::After(Dependency::Ended(first, Outcome::Succeeded));
    story.submit(&once(&[known]));
}

/// Workers that come, ask, give back and fall silent.
fn strangers_day(story: &mut Story) {
    let types = ["job".to_owned(), "once".to_owned()];
    story.tell(&Command::ServeTypes { types: &types }).expect("they are in order");
    story.define("abroad", &plain());
    let abroad = TypeId(3);
    let worker = worker("a", &["abroad"]);
    let label = Label { name: "zone".to_owned(), value: "b".to_owned() };
    let worker = WorkerFacts { labels: vec![label], ..worker };
    let replica = story.join_worker("default", 2, &worker);
    let request = Command::Request { task_type: abroad, payload: b"", key: None, asks: &[] };
    let [first, second] = [(); 2].map(|()| story.submit(&request));
    story.tell(&Command::AskWork { replica, slots: 2 }).expect("it is there");
    story.tell(&Command::ReturnAttempt { task: first, attempt: 1 }).expect("it runs");
    let reason = "more at a time take longer and do no more";
    story.tell(&Command::ChangeConcurrency { replica, before: 2, concurrency: 1, reason }).expect("it is there");
    let requested = story.shard.state().control.replicas.keys().next().copied();
    if let Some(replica) = requested {
        let wait = Micros::from_secs(1);
        let exit = Command::ExitProcess { replica, code: None, signal: Some(9), note: "", wait };
        story.tell(&exit).expect("it is known");
        let exit = Command::ExitProcess { replica, code: Some(1), signal: None, note: "no model in /models", wait };
        story.tell(&exit).expect("it is known");
    }
    sizes(story);
    let last_seen = story.now;
    story.pass(5_000);
    story.tell(&Command::MissWorker { replica, last_seen }).expect("it was silent for long");
    story.pass(1);
    assert!(story.shard.state().work.tasks.get(second).is_some_and(|task| task.losses == 1), "it was lost with its worker");
}

/// What a replica asks for, and a ceiling that is not in the way.
fn resources<'a>() -> Command<'a> {
    const SAID: PoolResources = PoolResources {
        asked: Asked { cpu_milli: Some(500), memory_bytes: Some(1 << 30) },
        ceiling: Ceiling { slots: Some(1 << 20), cpu_milli: None, memory_bytes: Some(1 << 40) },
    };
    Command::SetResources { pool: PoolRef::Id(PoolId(0)), resources: &SAID, by: "me", reason: "a test" }
}

/// A policy that sizes a pool, and has nothing more to say of it.
fn sizes(story: &mut Story) {
    let policy = r#"{"policy":"rate"}"#;
    let set = |policy| Command::SetPolicy { pool: PoolRef::Id(PoolId(0)), policy, least: 0, most: 3, by: "me", reason: "" };
    let real = Real::new(0.25).map(Value::Real).expect("it is finite");
    let numbers = [Value::Integer(7), Value::Integer(2), Value::Milli(-1_500), real].map(Reading::Value);
    let readings: Vec<Reading> = numbers.into_iter().chain([Reading::Failed("nobody answers".to_owned())]).collect();
    if !story.shard.state().control.pools.is_empty() {
        story.tell(&set(policy)).expect("it is a policy");
        story.tell(&resources()).expect("it fits");
        let used = Used { cpu_milli: Some(700), memory_bytes: None, at: story.now, over: Micros::from_secs(2) };
        let seen = [(Stage::Starting, None), (Stage::Ready, Some(used)), (Stage::Draining, None)];
        let seen = seen.map(|(stage, used)| ReplicaReading { stage, since: story.now, busy_milli: 500, used });
        let observe =
            |asked| Command::ObservePool { pool: PoolId(0), readings: &readings, work: &[5, 0, 300], asked, seen: &seen };
        story.tell(&observe(1)).expect("there are five");
        let pool = PoolRef::Id(PoolId(0));
        let shadow = |policy| Command::SetShadow { pool, shadow: "eager", policy, by: "me", reason: "to see" };
        story.tell(&shadow(r#"{"policy":"rate","reserve":2}"#)).expect("it is a policy");
        story.tell(&observe(3)).expect("both name the same signals");
        let until = story.now.after(Micros::from_secs(60));
        let hold = |replicas| Command::HoldSize { pool, replicas, until, by: "me", reason: "the launch" };
        story.tell(&hold(Some(2))).expect("a policy sizes the pool");
        story.tell(&observe(1)).expect("there are five");
        story.tell(&hold(None)).expect("it is held");
        story.tell(&shadow("")).expect("it is there");
        story.tell(&set("")).expect("none is fine");
    }
}

/// What a worker says of itself, with a lease of five seconds.
pub(crate) fn worker(name: &str, types: &[&str]) -> WorkerFacts {
    let mut id = WorkerId::default();
    id.0[..name.len()].copy_from_slice(name.as_bytes());
    let types = types.iter().map(|name| (*name).to_owned()).collect();
    WorkerFacts { id, name: name.to_owned(), types, labels: Vec::new(), lease: Micros::from_secs(5) }
}

/// Tasks that wait for limits.
fn busy_day(story: &mut Story) {
    story.define("job", &TypeSettings { priority: 1, ..plain() });
    let newest = TypeId(2);
    let allows = LimitSettings { key: Some("team".to_owned()), concurrency: Some(1), ..LimitSettings::default() };
    story.tell(&Command::DefineLimit { name: "teams", allows: &allows, by: "me" }).expect("it is in range");
    story.tell(&Command::LimitType { task_type: newest, limits: vec![LimitId(0)], by: "me" }).expect("it is defined");
    story.join(7, 50);
    let asks = [Ask::Label("team", "red")];
    let limited = Command::Request { task_type: newest, payload: b"", key: None, asks: &asks };
    let first = story.submit(&limited);
    let second = story.submit(&limited);
    let progress = Command::Progress { task: first, attempt: 1, percent: Some(40), stage: "resize", message: "4 of 10" };
    story.tell(&progress).expect("it runs");
    story.succeed(first.0, 1).expect("it runs");
    story.succeed(second.0, 1).expect("it runs now");
}

/// Requests that end well, after a failure, a checkpoint, a delay.
fn working_day(story: &mut Story) {
    story.tell_all(&[request(b"{\"a\":1}", &[Ask::Priority(7)]), keyed(0, "k", b"{}"), keyed(0, "k", b"{}")]);
    let due = story.now.after(Micros::from_millis(500));
    let asks = [Ask::NotBefore(due), Ask::Label("team", "red"), Ask::ContentType("text/plain"), Ask::TraceParent("00-1-2-01")];
    story.submit(&request(&[b'x'; 300], &asks));
    story.tell(&Command::Checkpoint { task: Ordinal(0), attempt: 1, details: &[1, 2, 0xff] }).expect("it runs");
    let driver = Some(CudaVersion { major: 13, minor: 0 });
    let failed = story.tell_all(&[ran_on(0, 1, &Ran { driver, ..ran() }), failure(0, 1)]);
    story.pass(1_000);
    let succeeded = story.tell_all(&[ran_on(0, 2, &ran()), success(0, 2)]);
    assert!(failed.iter().chain(&succeeded).all(Result::is_ok), "it ran, and ran again");
    story.succeed(2, 1).expect("it was delayed");
    let from = story.now;
    story.tell(&Command::StepClock { from, to: from.after(Micros::from_secs(60)) }).expect("clocks do that");
    story.tell(&Command::AcceptLoss { missing: 3, by: "me", reason: "the disk" }).expect("one may");
    story.tell(&Command::Open { rules: RuleVersions::CURRENT, writer: "test 2" }).expect("a log can be opened again");
    from_a_topic(story);
}

/// What only a shard with a requests topic has.
fn from_a_topic(story: &mut Story) {
    let next = story.shard.state().work.source_next + 7;
    story.tell(&Command::MoveSource { from: None, next }).expect("it lies ahead");
    story.tell(&Command::RefuseRecord { offset: None, reason: "type: missing" }).expect("a record may be anything");
    story.submit(&request(b"reply", &[Ask::ReplyTo("answers"), Ask::CorrelationId("c-1")]));
    let reading = ShardReading { shard: ShardId(3), position: Position(9), waiting: 1, running: 2, lag: 300 };
    story.tell(&Command::ObserveShards { shards: &[reading] }).expect("shards can be looked at");
}

/// Everything that can go wrong.
fn bad_day(story: &mut Story) {
    let last_seen = story.now;
    story.tell(&Command::MissHeartbeat { task: Ordinal(1), attempt: 1, last_seen }).expect("it runs");
    story.release(1, 1, 1).or_else(|_| story.release(1, 1, 0)).expect("one of them holds the slot");
    story.pass(200);
    let once = Command::Request { task_type: TypeId(1), payload: b"once", key: None, asks: &[] };
    story.tell_all(&[once.clone(), once.clone(), once.clone()]);
    story.fail(3, 1).expect("it runs");
    story.cancel(4).expect("it runs");
    story.kill(5).expect("it runs");
    story.pass(2_000);
    let failure = Failure { class: "fatal", message: "no", retryable: false, delay: None };
    story.tell(&Command::Fail { task: Ordinal(1), attempt: 2, failure }).expect("it runs");
    story.redrive(1).expect("it is a dead letter");
    let limits =
        Timeouts { start_to_close: Micros::from_secs(5), schedule_to_start: Some(Micros::from_secs(90)), ..Timeouts::default() };
    let asks = [Ask::Timeouts(limits)];
    story.tell_all(&[request(b"", &asks), request(b"", &asks), request(b"", &asks), request(b"", &asks)]);
    story.leave(0);
    story.tell(&Command::StopReplica { replica: ReplicaId(0), departure: Departure::Lost }).expect("it is known");
    story.pass(6_000);
    story.drain(1);
    story
        .tell(&Command::DefinePool { pool: "default", replicas: 1, slots: 3, by: "me", reason: "night" })
        .expect("it is in range");
    story.pass(120_000);
}
