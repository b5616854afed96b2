//! The shard's actor: decides into the accepted state, hands blocks to the log thread, and tells everybody what became durable.
//!
//! Data comes by two bounded lanes, submissions and reports, each a stream of batches; control messages come by the mailbox, which is
//! looked at first. While [`BLOCKS_IN_FLIGHT_MAX`] blocks wait for the disk the data lanes are not read: that is the backpressure.

mod intake;
mod leases;
mod pools;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, StreamHandler};
use ergate_events::command::{Command, Rejection};
use ergate_events::id::{Ordinal, Position, ReplicaId, ShardId, TaskId};
use ergate_events::log::{Head, LogError};
use ergate_events::shard::{Answer, Shard};
use ergate_events::state::State;
use ergate_events::state::schedules::Schedules;
use ergate_events::time::Timestamp;
use ergate_events::worker::WorkerId;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::dispatcher::{Attach, Carry, Dispatcher, Fleet, LOOK_EVERY, ReplicaIdle};
use crate::effects::{Collector, Effects};
use crate::lane::{Lane, Valve};
use crate::log_thread::{LogCounters, LogNews, LogThread};
use crate::log_writer::intake::Intake;
pub use crate::log_writer::intake::{EndsOf, IntakeParts};
pub use crate::log_writer::leases::{
    Attach as AttachWorker, Depart as DepartWorker, Pace as PaceWorker, Recall as RecallWorkers,
};
pub use crate::log_writer::pools::{AtWork, LookAtPools, LookAtWork, SizedBy, SizedPool};
use crate::proposal::Proposal;
use crate::report::{Item, Report, ReportReply};
use crate::snapshot::{SnapshotRule, StateCopy};
use crate::submission::{AnswerRun, BatchAnswer, BatchEnd, Extras, Submission, SubmitError};
use crate::waiters::{Waiters, Watch};

/// Blocks that may wait for the disk; more would add latency and no throughput.
pub const BLOCKS_IN_FLIGHT_MAX: usize = 8;

/// Owns a shard. See the module's documentation.
pub struct LogWriter {
    shard: Shard,
    clock: Arc<dyn Clock>,
    log: Option<LogThread>,
    tail: watch::Sender<Tail>,
    fleet: Fleet,
    /// Its child, which it starts again from the state when it failed.
    dispatcher: Addr<Dispatcher>,
    waiters: Waiters,
    /// Tasks from here on are requested right now: whoever waits for them is not among the waiters yet.
    fresh: Ordinal,
    /// What is to be done for the open block.
    open: Pending,
    /// What is to be done for blocks in flight, oldest first.
    in_flight: VecDeque<Pending>,
    valve: Valve,
    failed: Option<Arc<LogError>>,
    alarm: Timestamp,
    /// Whether the log was taken over in this run.
    opened: bool,
    /// Sleeps until then; there is never more than one.
    sleeper: Option<tokio::task::JoinHandle<()>>,
    snapshots: SnapshotRule,
    /// Whom to tell while the shard closes.
    closing: Option<Close>,
    /// Records that requests come from, where they come from a topic.
    intake: Option<Intake>,
    /// Blocks are handed over at most this often, unless they are full.
    pace: Duration,
    in_flight_max: usize,
    counters: Arc<LogCounters>,
    /// When the last block was handed over.
    handed_over: Instant,
    /// Whether a timer is set for the next one.
    pacing: bool,
    /// The replicas that workers are here; some may have left.
    worker_replicas: BTreeMap<WorkerId, ReplicaId>,
    /// Whether it was told that somebody waits and has not looked yet.
    poked: Arc<AtomicBool>,
}

/// What a shard's log looks like from outside.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// Everything before it is durable.
    pub head: Head,
    /// Why the log refuses to go on, if it does.
    pub failed: Option<String>,
    /// Whether it refuses because another process has taken the shard over.
    pub fenced: bool,
    /// Tasks that are live in the accepted state.
    pub live: usize,
}

/// What waits for a block to become durable.
#[derive(Default)]
struct Pending {
    /// Position after the block.
    next: Position,
    replies: Vec<Reply>,
    effects: Effects,
    snapshot: Option<StateCopy>,
}

enum Reply {
    Submission(oneshot::Sender<Result<BatchAnswer, SubmitError>>, BatchAnswer),
    Proposal(oneshot::Sender<Result<Position, SubmitError>>, Result<Position, Rejection>),
    Report(ReportReply, Vec<Result<(), Rejection>>),
    Attached(oneshot::Sender<Result<Vec<(Ordinal, u32)>, SubmitError>>, Vec<(Ordinal, u32)>),
}

/// What a log writer is made of.
pub struct LogWriterParts {
    /// The recovered shard.
    pub shard: Shard,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What starts executors.
    pub fleet: Fleet,
    /// Where the durable head is published.
    pub tail: watch::Sender<Tail>,
    /// Requests from clients.
    pub submissions: Lane<Submission>,
    /// Reports from executors.
    pub reports: Lane<Report>,
    /// When snapshots are taken.
    pub snapshots: SnapshotRule,
    /// Requests from a topic, where they come from one.
    pub intake: Option<IntakeParts>,
    /// Time between two blocks that are not full: zero for a log whose sync is cheap, more where a commit costs others something.
    pub pace: Duration,
    /// Blocks that may wait to become durable; [`BLOCKS_IN_FLIGHT_MAX`] is enough for a disk.
    pub in_flight_max: usize,
    /// Counts how often too much waited for the disk.
    pub counters: Arc<LogCounters>,
}

impl LogWriter {
    /// Starts the actor on the current arbiter; `log` makes the log thread, given where its news go.
    ///
    /// # Errors
    /// When the log thread cannot be started.
    pub fn start_with(
        parts: LogWriterParts,
        log: impl FnOnce(Box<dyn Fn(LogNews) + Send>) -> std::io::Result<LogThread>,
    ) -> std::io::Result<Addr<LogWriter>> {
        let mut outcome = Ok(());
        let address = LogWriter::create(|context| {
            context.set_mailbox_capacity(MAILBOX_MAX);
            let valve = Valve::default();
            <LogWriter as StreamHandler<Vec<Submission>>>::add_stream(parts.submissions.behind(&valve), context);
            <LogWriter as StreamHandler<Vec<Report>>>::add_stream(parts.reports.behind(&valve), context);
            let intake = parts.intake.map(|intake| Intake::start(intake, context));
            let news = context.address();
            let thread = log(Box::new(move |item| {
                // Past a full mailbox, for nothing repeats lost news: there is one for each block in flight, and a failure.
                news.do_send(News(item));
            }));
            let log = match thread {
                Ok(thread) => Some(thread),
                Err(error) => {
                    outcome = Err(error);
                    None
                }
            };
            LogWriter::adopt_workers(parts.shard.state(), &parts.fleet.workers);
            let worker_replicas = LogWriter::workers_of(parts.shard.state()).collect();
            let poked = Arc::new(AtomicBool::new(false));
            let (own, is_poked) = (context.address().downgrade(), Arc::clone(&poked));
            let poke = move || {
                // One at a time; where the mailbox is full, whoever empties it looks as well.
                if !is_poked.swap(true, Ordering::AcqRel) && own.upgrade().is_none_or(|own| own.try_send(leases::Poked).is_err())
                {
                    is_poked.store(false, Ordering::Release);
                }
            };
            parts.fleet.workers.add_shard(parts.shard.open_block().shard(), Arc::new(poke));
            LogWriter {
                clock: parts.clock,
                log,
                tail: parts.tail,
                dispatcher: dispatcher(&parts.shard, &parts.fleet, context),
                fleet: parts.fleet,
                shard: parts.shard,
                waiters: Waiters::default(),
                open: Pending::default(),
                in_flight: VecDeque::new(),
                valve,
                failed: None,
                alarm: Timestamp::NEVER,
                opened: false,
                sleeper: None,
                fresh: Ordinal(u64::MAX),
                snapshots: parts.snapshots,
                closing: None,
                intake,
                pace: parts.pace,
                in_flight_max: parts.in_flight_max,
                counters: parts.counters,
                handed_over: Instant::now(),
                pacing: false,
                worker_replicas,
                poked,
            }
        });
        outcome.map(|()| address)
    }

    fn id(&self) -> ShardId {
        self.shard.open_block().shard()
    }

    /// Decides one batch and collects its effects; returns how many commands it took.
    fn decide(&mut self, commands: &[Command<'_>], answers: &mut Vec<Answer>) -> usize {
        let id = self.id();
        let results = self.intake.as_mut().map(|intake| (&mut intake.results, id));
        let (effects, waiters) = (&mut self.open.effects, &self.waiters);
        let mut collector = Collector { effects, waiters, results, fresh: self.fresh, last_failure: None };
        // Until the log is taken over, time stands where it ended: downtime is nobody's running time. A log that begins has no end to stand at.
        let is_new = self.shard.state().position == Position(0);
        let now = if self.opened || is_new { self.clock.now() } else { Timestamp(0) };
        self.shard.batch(now, commands, answers, &mut collector)
    }

    /// Decides all commands, in as many batches as they need.
    fn decide_all(&mut self, commands: &[Command<'_>], answers: &mut Vec<Answer>) {
        let mut rest = commands;
        while !rest.is_empty() {
            let taken = self.decide(rest, answers);
            rest = &rest[taken..];
            if !rest.is_empty() {
                self.hand_over();
            }
        }
    }

    fn submit(&mut self, submissions: Vec<Submission>) {
        let mut answers: Vec<Answer> = Vec::new();
        self.fresh = self.shard.state().next_ordinal();
        {
            let requests = || submissions.iter().flat_map(|submission| submission.requests.iter());
            let shard = self.id();
            let asks = requests().map(|(_, _, extras)| extras.map(|extras| extras.asks(shard)).unwrap_or_default());
            let asks: Vec<Vec<_>> = asks.collect();
            let command = |((task_type, payload, extras), asks)| {
                let key = Option::<&Extras>::and_then(extras, Extras::key);
                Command::Request { task_type, payload, key, asks }
            };
            let commands: Vec<Command<'_>> = requests().zip(asks.iter().map(Vec::as_slice)).map(command).collect();
            self.decide_all(&commands, &mut answers);
        }
        self.fresh = Ordinal(u64::MAX);
        let mut answers = answers.as_slice();
        for Submission { requests, reply, done, .. } in submissions {
            let (own, rest) = answers.split_at(requests.len());
            answers = rest;
            self.answer(own, reply, done);
        }
    }

    /// Keeps the answer to a submission until it is durable, and notes who waits for the ends.
    fn answer(
        &mut self,
        answers: &[Answer],
        reply: oneshot::Sender<Result<BatchAnswer, SubmitError>>,
        done: Option<oneshot::Sender<BatchEnd>>,
    ) {
        let answer = BatchAnswer::of(runs(answers, self.id()), self.shard.state().position);
        if let Some(done) = done {
            // Nothing comes between the requests of a submission, so its accepted tasks have consecutive ordinals.
            let accepted: u32 = answer.runs.iter().map(AnswerRun::accepted).sum();
            match answer.runs.iter().find_map(AnswerRun::first) {
                Some(first) => self.waiters.add_batch(first, u64::from(accepted), done),
                None => drop(done.send(BatchEnd::default())),
            }
        }
        self.open.replies.push(Reply::Submission(reply, answer));
    }

    /// The answer to everything once the log has failed or is being closed.
    fn refusal(&self) -> Option<SubmitError> {
        match (&self.failed, &self.closing) {
            (Some(error), _) => Some(SubmitError::Closed { reason: chain(error.as_ref()) }),
            (None, Some(_)) => Some(SubmitError::Closed { reason: "it is being shut down".to_owned() }),
            (None, None) => None,
        }
    }

    /// Hands the open block over if the log thread is free or the block is full enough.
    fn commit(&mut self, context: &mut Context<Self>) {
        if self.failed.is_some() {
            return;
        }
        self.give_work();
        let is_full = self.shard.open_block().body_len() >= ergate_events::shard::BLOCK_BYTES_TARGET;
        if is_full || (self.in_flight.is_empty() && self.is_time(context)) {
            self.hand_over();
        }
        let open = self.in_flight.len() < self.in_flight_max || self.closing.is_some();
        if self.valve.set_open(open) && !open {
            self.counters.holds.fetch_add(1, Ordering::Relaxed);
        }
        self.set_alarm(context);
    }

    /// Whether the pace allows another block now; if not, a timer asks again when it does.
    fn is_time(&mut self, context: &Context<Self>) -> bool {
        let wait = self.pace.saturating_sub(self.handed_over.elapsed());
        if wait.is_zero() || self.closing.is_some() {
            return true;
        }
        if !self.pacing && self.shard.open_block().count() > 0 {
            self.pacing = true;
            let address = context.address();
            actix::spawn(async move {
                tokio::time::sleep(wait).await;
                // Past a full mailbox, for the block waits for nothing else, and there is one at a time.
                address.do_send(Paced);
            });
        }
        // What recorded nothing has nothing to wait for.
        self.shard.open_block().count() == 0
    }

    fn hand_over(&mut self) {
        let mut pending = std::mem::take(&mut self.open);
        pending.next = self.shard.state().position;
        let Some(block) = self.shard.take_open() else {
            // Nothing was recorded, so the answers hold at what is in flight or already durable.
            match self.in_flight.back_mut() {
                Some(last) => last.replies.append(&mut pending.replies),
                None => self.release(pending),
            }
            return;
        };
        pending.snapshot = self.snapshots.copy(self.shard.state());
        if let Some(log) = &self.log {
            log.write(block, std::mem::take(&mut pending.effects.messages));
            self.handed_over = Instant::now();
            if pending.snapshot.is_some() {
                // A commit with later blocks would not tell the hash of this one, and without it there is no snapshot.
                log.commit();
            }
        }
        self.in_flight.push_back(pending);
    }

    /// Tells everybody what became durable; the tail first, so that whoever hears of an end finds it there.
    fn become_durable(&mut self, head: Head) {
        let live = self.shard.state().work.tasks.len();
        self.tail.send_modify(|tail| (tail.head, tail.live) = (head, live));
        while self.in_flight.front().is_some_and(|pending| pending.next <= head.next) {
            let Some(mut pending) = self.in_flight.pop_front() else { break };
            match pending.snapshot.take() {
                Some(copy) if pending.next == head.next => (self.snapshots.take)(copy, head),
                Some(copy) => self.snapshots.give_up(copy),
                None => {}
            }
            self.release(pending);
        }
    }

    fn release(&mut self, pending: Pending) {
        for reply in pending.replies {
            // Whoever no longer listens has no use for the answer.
            match reply {
                Reply::Submission(reply, answer) => drop(reply.send(Ok(answer))),
                Reply::Proposal(reply, answer) => drop(reply.send(answer.map_err(SubmitError::from))),
                Reply::Report(reply, answers) => drop(reply.send(Ok(answers))),
                Reply::Attached(reply, stale) => drop(reply.send(Ok(stale))),
            }
        }
        for (task, end) in pending.effects.ends {
            self.waiters.end(task, end);
        }
        let carry = Carry { starts: pending.effects.starts, instructions: pending.effects.instructions };
        if !carry.is_empty() {
            self.dispatcher
                .try_send(carry)
                .unwrap_or_else(|error| tracing::error!(%error, "the dispatcher takes no more; its replicas will be replaced"));
        }
    }

    /// Whether an item is one that its sender may report: workers may, of attempts that are their own.
    fn counts(&self, report: &Report, item: &Item) -> bool {
        let Some(worker) = report.worker else { return true };
        let ((task, attempt), state) = (item.attempt(), self.shard.state());
        let Some(replica) = self.replica_of(worker) else { return false };
        let is_own = state.work.tasks.get(task).is_some_and(|known| known.has_slot() && known.replica == replica);
        is_own || state.work.holder(task, attempt) == Some(replica)
    }

    /// Keeps for those who want to know what became of their reports until that is durable.
    fn tell(&mut self, reports: Vec<Report>, counts: &[bool], answers: Vec<Answer>) {
        let (mut counts, mut answers) = (counts.iter(), answers.into_iter());
        for report in reports {
            let verdict = |item: &Item| {
                let (task, attempt) = item.attempt();
                match counts.next() {
                    Some(true) => answers.next().map_or(Ok(()), |answer| item.verdict(answer)),
                    Some(false) | None => Err(Rejection::StaleAttempt { task, attempt }),
                }
            };
            match report.reply {
                Some(reply) => {
                    let verdicts = report.items.iter().map(verdict).collect();
                    self.open.replies.push(Reply::Report(reply, verdicts));
                }
                None => {
                    let _ = report.items.iter().map(verdict).count();
                }
            }
            if let Some(replica) = report.idle {
                // The dispatcher asks again if this is lost to a full mailbox.
                let _ = self.dispatcher.try_send(ReplicaIdle(replica));
            }
        }
    }

    fn fail(&mut self, error: &Arc<LogError>, context: &mut Context<Self>) {
        let reason = chain(error.as_ref());
        tracing::error!(reason, "the log failed, nothing more is acknowledged");
        self.failed = Some(Arc::clone(error));
        // The reason first: whoever loses an answer below asks for it.
        let fenced = matches!(**error, LogError::Fenced { .. });
        self.tail.send_modify(|tail| (tail.failed, tail.fenced) = (Some(reason), fenced));
        self.in_flight.drain(..).filter_map(|pending| pending.snapshot).for_each(StateCopy::drop_elsewhere);
        self.open = Pending::default();
        self.waiters = Waiters::default();
        // What comes by the lanes is refused from here on, instead of left to wait.
        self.valve.set_open(true);
        self.finish_closing(context);
    }

    /// Starts the dispatcher again if it failed. Its executors went with it, so every replica is lost by rule and asked for anew.
    fn look_after(&mut self, context: &mut Context<Self>) {
        if self.dispatcher.connected() || self.failed.is_some() || self.closing.is_some() {
            return;
        }
        tracing::error!("the dispatcher failed and is started again");
        self.fleet.restarts.dispatchers.fetch_add(1, Ordering::Relaxed);
        self.dispatcher = dispatcher(&self.shard, &self.fleet, context);
        let commands = Proposal::LoseAllReplicas.commands(self.shard.state());
        self.decide_all(&commands, &mut Vec::new());
        self.commit(context);
    }

    /// Wakes the shard when something falls due.
    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let due = self.shard.next_due();
        if due >= self.alarm || !self.opened {
            return;
        }
        self.alarm = due;
        let wait = due.since(self.clock.now()).to_std();
        let address = context.address();
        // Not `run_later`: actix polls its timers only while the mailbox is empty.
        let sleeper = actix::spawn(async move {
            tokio::time::sleep(wait).await;
            // Past a full mailbox: a lost alarm would be the last one, and there is one at a time.
            address.do_send(Alarm);
        });
        if let Some(earlier) = self.sleeper.replace(sleeper) {
            earlier.abort();
        }
    }

    fn finish_closing(&mut self, context: &mut Context<Self>) {
        if self.failed.is_none() && !self.in_flight.is_empty() {
            return;
        }
        let Some(Close { quiet, reply }) = self.closing.take() else { return };
        // Whoever does not listen waits for the end.
        let _ = quiet.send(());
        match self.log.take() {
            // Its thread is waited for elsewhere: an engine's other shards live on this one.
            Some(log) => drop(tokio::task::spawn_blocking(move || reply.send(log.close()))),
            None => drop(reply.send(Ok(()))),
        }
        context.stop();
    }
}

/// Room for control messages and for news about every block in flight.
const MAILBOX_MAX: usize = 1_024;

impl Actor for LogWriter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.commit(context);
        let address = context.address().downgrade();
        actix::spawn(async move {
            while let Some(address) = address.upgrade() {
                // A full mailbox is looked after at the next turn.
                let _ = address.try_send(LookAfter);
                drop(address);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
}

/// A dispatcher on the current arbiter that proposes to this log writer.
fn dispatcher(shard: &Shard, fleet: &Fleet, context: &Context<LogWriter>) -> Addr<Dispatcher> {
    let types: Vec<String> = shard.state().work.types.iter().map(|known| known.name.clone()).collect();
    let workers = LogWriter::workers_of(shard.state());
    let dispatcher = Dispatcher::new(fleet.clone(), &types, workers).start();
    if let Err(error) = dispatcher.try_send(Attach(context.address())) {
        tracing::error!(%error, "a new dispatcher takes no message");
    }
    dispatcher
}

/// From its own timer: look after the dispatcher.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAfter;

impl Handler<LookAfter> for LogWriter {
    type Result = ();

    fn handle(&mut self, LookAfter: LookAfter, context: &mut Context<Self>) {
        self.look_after(context);
        self.miss_workers();
        self.take_records(context);
        self.commit(context);
    }
}

/// For tests: panics here or in a child, which ends the actor for good.
#[derive(Message)]
#[rtype(result = "()")]
pub enum PanicNow {
    /// In the log writer.
    LogWriter,
    /// In its dispatcher, or in the executors.
    Child(crate::dispatcher::PanicNow),
}

impl Handler<PanicNow> for LogWriter {
    type Result = ();

    #[expect(clippy::panic, reason = "that is its purpose")]
    fn handle(&mut self, message: PanicNow, _: &mut Context<Self>) {
        match message {
            PanicNow::LogWriter => panic!("the log writer was told to panic"),
            PanicNow::Child(message) => drop(self.dispatcher.try_send(message)),
        }
    }
}

/// From clients: requests. The reply of each promises that its answer is durable.
impl StreamHandler<Vec<Submission>> for LogWriter {
    fn handle(&mut self, submissions: Vec<Submission>, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            submissions.into_iter().for_each(|submission| drop(submission.reply.send(Err(refusal.clone()))));
            return;
        }
        self.submit(submissions);
        self.commit(context);
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

/// From executors: what became of attempts.
impl StreamHandler<Vec<Report>> for LogWriter {
    fn handle(&mut self, reports: Vec<Report>, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            // Attempts of this process are repeated at the next start; workers report again.
            reports.into_iter().filter_map(|report| report.reply).for_each(|reply| drop(reply.send(Err(refusal.clone()))));
            return;
        }
        let counts: Vec<bool> =
            reports.iter().flat_map(|report| report.items.iter().map(|item| self.counts(report, item))).collect();
        let all = reports.iter().flat_map(Report::commands).zip(&counts);
        let commands: Vec<Command<'_>> = all.filter(|(_, counts)| **counts).map(|(command, _)| command).collect();
        let mut answers = Vec::with_capacity(commands.len());
        self.decide_all(&commands, &mut answers);
        for (command, answer) in commands.iter().zip(&answers) {
            if let Err(rejection) = answer {
                tracing::debug!(?command, %rejection, "a report was refused");
            }
        }
        drop(commands);
        self.tell(reports, &counts, answers);
        self.commit(context);
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

/// From the log thread: what became durable, or that nothing more will.
#[derive(Message)]
#[rtype(result = "()")]
struct News(LogNews);

impl Handler<News> for LogWriter {
    type Result = ();

    fn handle(&mut self, News(news): News, context: &mut Context<Self>) {
        match news {
            LogNews::Durable(head) => {
                self.become_durable(head);
                self.take_records(context);
                self.commit(context);
                self.finish_closing(context);
            }
            LogNews::Failed(error) => self.fail(&error, context),
        }
    }
}

/// From its own timer: the open block may be handed over.
#[derive(Message)]
#[rtype(result = "()")]
struct Paced;

impl Handler<Paced> for LogWriter {
    type Result = ();

    fn handle(&mut self, Paced: Paced, context: &mut Context<Self>) {
        self.pacing = false;
        self.commit(context);
    }
}

/// From the clock: something may be due.
#[derive(Message)]
#[rtype(result = "()")]
struct Alarm;

impl Handler<Alarm> for LogWriter {
    type Result = ();

    fn handle(&mut self, Alarm: Alarm, context: &mut Context<Self>) {
        self.alarm = Timestamp::NEVER;
        if self.refusal().is_none() {
            if let Some((from, to)) = self.clock.step() {
                self.decide_all(&[Command::StepClock { from, to }], &mut Vec::new());
            } else {
                self.decide(&[], &mut Vec::new());
            }
        }
        self.commit(context);
    }
}

/// From operators and the runtime: a few commands that are not requests. The reply holds one answer for each and promises that all
/// are durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Propose {
    /// What is wanted; owned forms of [`Command`].
    pub proposal: Proposal,
    /// Gets the answer once it is durable.
    pub reply: oneshot::Sender<Result<Position, SubmitError>>,
}

impl Handler<Propose> for LogWriter {
    type Result = ();

    fn handle(&mut self, Propose { proposal, reply }: Propose, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            let _ = reply.send(Err(refusal));
            return;
        }
        let commands = proposal.commands(self.shard.state());
        let mut answers = Vec::new();
        self.decide_all(&commands, &mut answers);
        self.opened |= matches!(proposal, Proposal::Open { .. } | Proposal::OpenControl { .. });
        let position = self.shard.state().position;
        let answer = answers.into_iter().collect::<Result<Vec<_>, _>>().map(|_| position);
        self.open.replies.push(Reply::Proposal(reply, answer));
        self.commit(context);
    }
}

/// From whoever duplicates a request or lists tasks: wait for the end of a task.
#[derive(Message)]
#[rtype(result = "Watched")]
pub struct WatchTask {
    /// The task.
    pub task: Ordinal,
    /// Gets its end; is dropped when the task is not live.
    pub watch: Watch,
}

/// Where the end of a task is to be found.
#[derive(Debug)]
pub enum Watched {
    /// It is live and will be told.
    Live,
    /// Its end, if it has one, is in the log before this position, which may not be durable yet.
    Before(Position),
    /// It is live and nothing is written any more: it ends after the next start.
    Stopped,
}

impl Handler<WatchTask> for LogWriter {
    type Result = actix::MessageResult<WatchTask>;

    fn handle(&mut self, WatchTask { task, watch }: WatchTask, _: &mut Context<Self>) -> Self::Result {
        let state = self.shard.state();
        let live = state.work.tasks.get(task).is_some();
        actix::MessageResult(match (live, self.failed.is_some()) {
            (true, false) => {
                self.waiters.watch(task, watch);
                Watched::Live
            }
            (true, true) => Watched::Stopped,
            (false, _) => Watched::Before(state.position),
        })
    }
}

/// From whoever shows it: a copy of the accepted state, which shares with it whatever neither changes.
#[derive(Message)]
#[rtype(result = "Box<State>")]
pub struct CopyState;

impl Handler<CopyState> for LogWriter {
    type Result = actix::MessageResult<CopyState>;

    fn handle(&mut self, CopyState: CopyState, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(Box::new(self.shard.state().clone()))
    }
}

/// From the scheduler: the schedules of the accepted state.
#[derive(Message)]
#[rtype(result = "Schedules")]
pub struct CopySchedules;

impl Handler<CopySchedules> for LogWriter {
    type Result = actix::MessageResult<CopySchedules>;

    fn handle(&mut self, CopySchedules: CopySchedules, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(self.shard.state().control.schedules.clone())
    }
}

/// From the runtime while it drains: which replicas are there, and how many slots of each are in use.
#[derive(Message)]
#[rtype(result = "Vec<(ReplicaId, usize)>")]
pub struct SlotsInUse;

impl Handler<SlotsInUse> for LogWriter {
    type Result = Vec<(ReplicaId, usize)>;

    fn handle(&mut self, SlotsInUse: SlotsInUse, _: &mut Context<Self>) -> Self::Result {
        self.shard.state().work.replicas.iter().map(|(id, replica)| (id, replica.used())).collect()
    }
}

/// From the runtime: keep what lies at or after this position.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retain(pub Position);

impl Handler<Retain> for LogWriter {
    type Result = ();

    fn handle(&mut self, Retain(position): Retain, _: &mut Context<Self>) {
        if let Some(log) = &self.log {
            log.retain(position);
        }
    }
}

/// From the runtime: make everything durable, close the log and stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Close {
    /// Told as soon as everything is durable and nothing more will be: who leads the shard next need not wait for the rest.
    pub quiet: oneshot::Sender<()>,
    /// Gets what the log answered when it was closed.
    pub reply: oneshot::Sender<Result<(), LogError>>,
}

impl Handler<Close> for LogWriter {
    type Result = ();

    fn handle(&mut self, close: Close, context: &mut Context<Self>) {
        self.closing = Some(close);
        if self.failed.is_none() {
            self.hand_over();
        }
        self.valve.set_open(true);
        self.finish_closing(context);
    }
}

/// The answers of a shard as others see them.
fn runs(answers: &[Answer], shard: ShardId) -> impl Iterator<Item = AnswerRun> {
    let id = move |ordinal| TaskId { shard, ordinal };
    answers.iter().map(move |answer| match *answer {
        Err(rejection) => AnswerRun::Rejected(rejection),
        Ok(accepted) => match (accepted.task, accepted.duplicate) {
            (Some(of), true) => AnswerRun::Duplicate(id(of)),
            (task, _) => AnswerRun::Accepted { first: id(task.unwrap_or_default()), count: 1 },
        },
    })
}

/// An error with everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
