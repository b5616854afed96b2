//! The loop: one thing happens after another, and between any two of them the power may go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ergate_events::block::Hash;
use ergate_events::command::{Accepted, Rejection};
use ergate_events::event::{Departure, Envelope, Event};
use ergate_events::id::{Ordinal, Position, ReplicaId};
use ergate_events::invariant;
use ergate_events::shard::Answer;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::task::{Ask as Setting, RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::{Micros, Timestamp};

use super::Report;
use super::ask::{Ask, Done};
use super::disk::{Disk, DiskError};
use super::engine::{Effect, Engine, Waiting};
use super::ledger::Ledger;
use super::random::{Options, Random};

const MINUTE: u64 = 60_000_000;
/// Everything accepted must have ended this long after the last fault.
const PATIENCE: u64 = 6 * 60 * MINUTE;
/// More steps than any run needs; beyond it the engine turns in a circle.
const STEPS_MAX: u64 = 1_000_000;

/// Something that happens at a moment. A number names the process that it belongs to.
#[derive(Clone, Copy, Debug)]
enum What {
    Arrive,
    Meddle,
    Calm,
    Restart,
    Step(u64),
    Tick(u64, u64),
    Append(u64),
    Sync(u64),
    Release(u64),
    End(Ordinal, u32),
    Silence(Ordinal, u32),
    Up(ReplicaId),
}

pub(crate) struct World {
    options: Options,
    random: Random,
    types: TypeSettings,
    now: u64,
    sequence: u64,
    steps: u64,
    agenda: BTreeMap<(u64, u64), What>,
    disk: Disk,
    engine: Option<Engine>,
    /// Counts processes; what an old one had planned does not happen.
    process: u64,
    stepping: bool,
    tick: Option<u64>,
    ledger: Ledger,
    /// Attempts that workers are running.
    running: BTreeMap<(Ordinal, u32), ReplicaId>,
    /// Reports whose answer has not come.
    unreported: BTreeMap<(Ordinal, u32), Ask>,
    /// Requests whose answer has not come.
    unanswered: BTreeMap<u64, Ask>,
    alive: BTreeSet<ReplicaId>,
    starting: BTreeSet<ReplicaId>,
    pending: BTreeSet<(u8, ReplicaId)>,
    clients: u64,
    blocks: u64,
    restarts: u64,
    /// Digests of the live state behind some blocks, for comparing with what is recovered.
    digests: BTreeMap<Position, Hash>,
    calm: bool,
    trace: u64,
    tail: VecDeque<String>,
    coverage: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let options = Options::draw(seed, &mut random);
        let retry = RetryPolicy { attempts: 4, initial: Micros::from_millis(200), ..RetryPolicy::default() };
        let timeouts = Timeouts {
            start_to_close: Micros::from_secs(45),
            schedule_to_close: random.chance(300).then_some(Micros::from_secs(1_800)),
            schedule_to_start: random.chance(300).then_some(Micros::from_secs(600)),
            heartbeat: None,
        };
        let types = TypeSettings { retry, timeouts, losses_max: 3, ..TypeSettings::default() };
        let mut world = World {
            options,
            random,
            types,
            now: 1_000_000,
            sequence: 0,
            steps: 0,
            agenda: BTreeMap::new(),
            disk: Disk::default(),
            engine: None,
            process: 0,
            stepping: false,
            tick: None,
            ledger: Ledger::default(),
            running: BTreeMap::new(),
            unreported: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            alive: BTreeSet::new(),
            starting: BTreeSet::new(),
            pending: BTreeSet::new(),
            clients: 0,
            blocks: 0,
            restarts: 0,
            digests: BTreeMap::new(),
            calm: false,
            trace: 0xcbf2_9ce4_8422_2325,
            tail: VecDeque::new(),
            coverage: BTreeMap::new(),
        };
        world.plan(0, What::Restart);
        world.plan(0, What::Arrive);
        world.plan(0, What::Meddle);
        let end = world.options.minutes * MINUTE;
        world.plan(end, What::Calm);
        world
    }

    pub(crate) fn run(mut self) -> Result<Report, String> {
        let end = self.now + self.options.minutes * MINUTE;
        let outcome = self.live(end).and_then(|()| self.check_log());
        match outcome {
            Ok(events) => Ok(Report {
                runs: 1,
                simulated_micros: self.now,
                events,
                steps: self.steps,
                restarts: self.restarts,
                trace: self.trace,
                coverage: std::mem::take(&mut self.coverage),
            }),
            Err(violation) => Err(self.tell(&violation)),
        }
    }

    fn tell(&self, violation: &str) -> String {
        let tail: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        let seed = self.options.seed;
        format!("{violation}\nseed {seed} (ERGATE_SIM_SEED={seed})\n{}\n  {}", self.options, tail.join("\n  "))
    }

    fn live(&mut self, end: u64) -> Result<(), String> {
        while let Some(((at, _), what)) = self.agenda.pop_first() {
            self.now = at;
            self.steps += 1;
            if self.engine.is_some() && self.random.below(100_000) < self.options.crash {
                self.crash("the power goes");
            }
            self.happen(what)?;
            if self.calm && self.is_done() {
                return Ok(());
            }
            if self.now > end + PATIENCE || self.steps > STEPS_MAX {
                let left = self.engine.as_ref().map_or(0, |engine| engine.shard.state().work.tasks.len());
                return Err(format!("I6: after {} steps {left} tasks have not ended", self.steps));
            }
        }
        Err("I6: nothing happens any more".to_owned())
    }

    fn is_done(&self) -> bool {
        let idle = self.engine.as_ref().is_some_and(|engine| engine.is_idle() && engine.shard.state().work.tasks.is_empty());
        idle && self.unanswered.is_empty() && self.unreported.is_empty()
    }

    fn check_log(&self) -> Result<u64, String> {
        let (blocks, torn) = self.disk.blocks();
        let live = self.engine.as_ref().ok_or("the engine is down at the end")?.shard.state();
        if torn {
            return Err("I3: a block of the final log is torn".to_owned());
        }
        self.ledger.check(&blocks, live, true)
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Arrive => self.arrive(),
            What::Meddle => self.meddle(),
            What::Calm => self.calm_down(),
            What::Restart => self.restart()?,
            What::Step(process) if process == self.process => self.step()?,
            What::Tick(process, due) if process == self.process && self.tick == Some(due) => self.step()?,
            What::Append(process) if process == self.process => self.append(),
            What::Sync(process) if process == self.process => self.sync(),
            What::Release(process) if process == self.process => self.release()?,
            What::Step(_) | What::Tick(..) | What::Append(_) | What::Sync(_) | What::Release(_) => {}
            What::End(task, attempt) => self.end_attempt(task, attempt),
            What::Silence(task, attempt) => {
                if self.running.contains_key(&(task, attempt)) {
                    self.send(Ask::MissHeartbeat { task, attempt });
                }
            }
            What::Up(replica) => {
                if self.starting.remove(&replica) {
                    self.alive.insert(replica);
                    self.send(Ask::Ready(replica));
                }
            }
        }
        Ok(())
    }

    fn plan(&mut self, after: u64, what: What) {
        self.sequence += 1;
        // Ties are broken by chance, so that no order of equal moments is taken for granted.
        let tie = self.random.below(1 << 20) << 32 | self.sequence;
        self.agenda.insert((self.now + after, tie), what);
    }

    fn note(&mut self, line: &str) {
        let line = format!("{:>12} {line}", self.now);
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.tail.push_back(line);
        if self.tail.len() > 20 {
            self.tail.pop_front();
        }
    }

    fn cover(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    /// Puts a request into the engine's inbox, if there is an engine.
    fn send(&mut self, ask: Ask) {
        let Some(engine) = &mut self.engine else { return };
        engine.inbox.push(ask);
        if !std::mem::replace(&mut self.stepping, true) {
            let delay = self.random.below(1_000);
            self.plan(delay, What::Step(self.process));
        }
    }
}

/// Clients, and whoever meddles.
impl World {
    fn arrive(&mut self) {
        if self.calm {
            return;
        }
        self.clients += 1;
        let client = self.clients;
        let key = self.random.chance(self.options.keyed).then(|| format!("client {client}"));
        let mut settings = Vec::new();
        if let Some(engine) = self.engine.as_ref().filter(|_| self.random.chance(self.options.delayed)) {
            let due = engine.log_time(self.now).after(Micros(self.random.below(5 * MINUTE)));
            settings.push(Setting::NotBefore(due));
        }
        settings.extend(self.random.chance(200).then(|| Setting::Priority((client % 10) as u8)));
        let ask = Ask::Submit { client, payload: client.to_le_bytes(), key, settings };
        if self.engine.is_some() {
            self.unanswered.insert(client, ask.clone());
            self.send(ask);
        }
        let next = self.random.spread(self.options.arrival_millis * 1_000);
        self.plan(next, What::Arrive);
    }

    fn meddle(&mut self) {
        if self.calm {
            return;
        }
        let target =
            Ordinal(self.ledger.acknowledged.len() as u64 - self.random.below(20).min(self.ledger.acknowledged.len() as u64));
        if self.random.chance(self.options.cancel) {
            self.send(Ask::Cancel(target));
        }
        if self.random.chance(self.options.kill) {
            self.send(Ask::Kill(target));
        }
        let dead = self.engine.as_ref().and_then(|engine| engine.shard.state().work.dead.keys().next().copied());
        if let Some(dead) = dead.filter(|_| self.random.chance(self.options.redrive)) {
            self.send(Ask::Redrive(dead));
        }
        if self.random.chance(self.options.resize) {
            let (replicas, slots) = (self.random.below(6) as u32, self.random.between(1, 6) as u32);
            self.send(Ask::Resize { replicas, slots });
        }
        if self.random.chance(self.options.lose_replica) {
            self.lose_replica();
        }
        let running = self.running.keys().next().copied();
        if let Some((task, attempt)) = running.filter(|_| self.random.chance(300)) {
            self.send(Ask::Checkpoint { task, attempt });
        }
        let next = self.random.spread(MINUTE / 20);
        self.plan(next, What::Meddle);
    }

    fn lose_replica(&mut self) {
        let index = self.random.below(self.alive.len() as u64) as usize;
        let Some(replica) = self.alive.iter().nth(index).copied() else { return };
        self.note(&format!("{replica} is lost"));
        self.alive.remove(&replica);
        // Some attempts go on where nobody sees them, and report late.
        let zombie = self.random.chance(self.options.zombie);
        self.running.retain(|_, runs_on| *runs_on != replica || zombie);
        self.plan(1_000, What::Step(self.process));
    }

    fn calm_down(&mut self) {
        self.note("no more faults");
        self.calm = true;
        let options = &mut self.options;
        for fault in [
            &mut options.crash,
            &mut options.disk_error,
            &mut options.disk_full,
            &mut options.torn,
            &mut options.hang,
            &mut options.zombie,
        ] {
            *fault = 0;
        }
        self.send(Ask::Resize { replicas: 2, slots: 4 });
    }
}

/// Workers.
impl World {
    fn take_effect(&mut self, effect: Effect) -> Result<(), String> {
        self.note(&format!("{effect:?}"));
        match effect {
            Effect::Start { task, attempt, replica, again } => self.start_attempt(task, attempt, replica, again)?,
            Effect::Stop { task, attempt, replica } => {
                self.running.remove(&(task, attempt));
                if self.alive.contains(&replica) && !self.unreported.contains_key(&(task, attempt)) {
                    self.report(task, attempt, replica, Done::Stopped);
                }
            }
            Effect::Cancel { task, attempt, replica } => {
                let deaf = self.random.chance(self.options.deaf);
                if !deaf && self.running.remove(&(task, attempt)).is_some() {
                    let done = if self.random.chance(300) { Done::Succeeded } else { Done::Failed { retryable: true } };
                    self.report(task, attempt, replica, done);
                }
            }
        }
        Ok(())
    }

    fn start_attempt(&mut self, task: Ordinal, attempt: u32, replica: ReplicaId, again: bool) -> Result<(), String> {
        if !self.alive.contains(&replica) {
            return Ok(());
        }
        if !self.ledger.execute(task, attempt, replica, again)? {
            self.cover("repeated start");
            return Ok(());
        }
        self.running.insert((task, attempt), replica);
        if self.random.chance(self.options.hang) {
            if self.random.chance(500) {
                self.plan(MINUTE / 2, What::Silence(task, attempt));
            }
        } else {
            let duration = self.random.spread(self.options.run_millis * 1_000);
            self.plan(duration, What::End(task, attempt));
        }
        Ok(())
    }

    fn end_attempt(&mut self, task: Ordinal, attempt: u32) {
        let Some(replica) = self.running.remove(&(task, attempt)) else { return };
        let failed = self.random.chance(self.options.fail);
        let retryable = self.random.chance(900);
        self.report(task, attempt, replica, if failed { Done::Failed { retryable } } else { Done::Succeeded });
    }

    fn report(&mut self, task: Ordinal, attempt: u32, replica: ReplicaId, done: Done) {
        let ask = Ask::Report { task, attempt, replica, done };
        self.unreported.insert((task, attempt), ask.clone());
        self.send(ask);
    }
}

/// The engine's process.
impl World {
    fn step(&mut self) -> Result<(), String> {
        (self.stepping, self.tick) = (false, None);
        let (now, mut seen) = (self.now, Vec::new());
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let released = engine.step(now, &self.types, &mut |envelope| seen.push((kind(envelope), envelope.position)));
        for (what, position) in seen {
            self.note(&format!("{position} {}", what.unwrap_or("event")));
            what.into_iter().for_each(|what| self.cover(what));
        }
        self.spread_word(released)?;
        self.reconcile();
        self.look_after();
        if self.steps % 8 == 0 {
            let state = self.engine.as_ref().map(|engine| engine.shard.state());
            state.map_or(Ok(()), invariant::check).map_err(|broken| broken.to_string())?;
        }
        Ok(())
    }

    /// Sends off what is ready to be written, and plans the next batch.
    fn look_after(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        if engine.launch() {
            let (position, sample) = (engine.shard.state().position, self.random.chance(60));
            if sample {
                self.digests.insert(position, engine.shard.state().digest());
            }
            let delay = self.random.below(200);
            self.plan(delay, What::Append(self.process));
        }
        let Some(engine) = &self.engine else { return };
        let due = engine.due().map(|due| due.max(self.now + 1));
        if let Some(due) = due.filter(|due| self.tick.is_none_or(|tick| *due < tick)) {
            self.tick = Some(due);
            self.plan(due - self.now, What::Tick(self.process, due));
        }
    }

    fn append(&mut self) {
        let Some(flight) = self.engine.as_ref().and_then(|engine| engine.flight.as_ref()) else { return };
        match self.disk.append(&flight.sealed.bytes, &mut self.random, &self.options) {
            Ok(()) => {
                let delay = self.random.spread(self.options.sync_micros);
                self.plan(delay, What::Sync(self.process));
            }
            Err(error) => self.poison(error),
        }
    }

    fn sync(&mut self) {
        let Some(flight) = self.engine.as_ref().and_then(|engine| engine.flight.as_ref()) else { return };
        let next = flight.sealed.header.next_position();
        match self.disk.sync(next, &mut self.random, &self.options) {
            Ok(()) => self.plan(1, What::Release(self.process)),
            Err(error) => self.poison(error),
        }
    }

    fn release(&mut self) -> Result<(), String> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        self.blocks += 1;
        let whole = engine.shard.open_block().count() == 0;
        let head = engine.flight.as_ref().map(|flight| flight.sealed.hash);
        let released = engine.land();
        let snapshot = self.options.snapshot_blocks > 0 && self.blocks.is_multiple_of(self.options.snapshot_blocks);
        if let Some(head) = head.filter(|_| whole && snapshot) {
            self.disk.write_snapshot(engine.shard.state(), head, &mut self.random, &self.options);
        }
        self.spread_word(released)?;
        self.look_after();
        Ok(())
    }

    fn spread_word(&mut self, released: Waiting) -> Result<(), String> {
        for effect in released.effects {
            self.take_effect(effect)?;
        }
        released.replies.into_iter().try_for_each(|(ask, answer)| self.answer(ask, answer))
    }

    fn answer(&mut self, ask: Ask, answer: Answer) -> Result<(), String> {
        match (ask, answer) {
            (Ask::Submit { client, key, payload, settings }, Ok(Accepted { task: Some(task), duplicate, .. })) => {
                self.note(&format!("request {client} is task {task}"));
                self.ledger.acknowledge(client, task)?;
                self.unanswered.remove(&client);
                if duplicate {
                    self.cover("duplicate");
                }
                if key.is_some() && self.random.chance(self.options.repeat) {
                    self.send(Ask::Submit { client, key, payload, settings });
                }
            }
            (ask @ Ask::Submit { .. }, answer) => return Err(format!("I1: {ask:?} was answered with {answer:?}")),
            (ask @ Ask::Report { task, attempt, .. }, answer) => {
                self.unreported.remove(&(task, attempt));
                self.take_receipt(ask, (task, attempt), answer)?;
            }
            (Ask::Ready(replica), _) => self.settle(0, replica),
            (Ask::Join(replica, _), _) => self.settle(1, replica),
            (Ask::Drain(replica), _) => self.settle(2, replica),
            (Ask::Leave(replica, _), _) => self.settle(3, replica),
            (Ask::Stop(replica, departure), _) => {
                self.settle(4, replica);
                if departure == Departure::Drained {
                    self.cover("drained");
                    self.alive.remove(&replica);
                }
            }
            (_, _) => {}
        }
        Ok(())
    }

    fn take_receipt(&mut self, ask: Ask, attempt: (Ordinal, u32), answer: Answer) -> Result<(), String> {
        match answer {
            Ok(_) => {
                self.ledger.reported.insert(attempt);
                if self.random.chance(self.options.repeat) {
                    self.send(ask);
                }
            }
            Err(Rejection::StaleAttempt { .. }) => self.cover("stale report"),
            Err(other) => return Err(format!("I1: {ask:?} was answered with {other:?}")),
        }
        Ok(())
    }

    fn settle(&mut self, kind: u8, replica: ReplicaId) {
        self.pending.remove(&(kind, replica));
        self.plan(1, What::Step(self.process));
    }

    fn propose(&mut self, kind: u8, replica: ReplicaId, ask: Ask) {
        if self.pending.insert((kind, replica)) {
            self.send(ask);
        }
    }

    /// Makes the fleet what the control half wants, and tells the work half what became of it.
    fn reconcile(&mut self) {
        let Some(engine) = &self.engine else { return };
        let (work, control) = (&engine.shard.state().work, &engine.shard.state().control);
        let lives: Vec<_> = control.replicas.iter().map(|(id, life)| (*id, life.phase, life.pool)).collect();
        let present: BTreeMap<_, _> =
            work.replicas.iter().map(|(id, replica)| (id, (replica.draining, replica.used()))).collect();
        let slots: Vec<u32> = control.pools.iter().map(|pool| pool.slots).collect();
        let orphans: Vec<_> = present.keys().filter(|id| !control.replicas.contains_key(id)).copied().collect();
        for replica in orphans {
            self.propose(3, replica, Ask::Leave(replica, Departure::Lost));
        }
        for (replica, phase, pool) in lives {
            let here = present.get(&replica).copied();
            let alive = self.alive.contains(&replica);
            match (phase, here) {
                (ReplicaPhase::Requested, _) if !alive => {
                    if self.starting.insert(replica) {
                        let delay = self.random.spread(5_000_000);
                        self.plan(delay, What::Up(replica));
                    }
                }
                (ReplicaPhase::Requested, _) => self.propose(0, replica, Ask::Ready(replica)),
                (ReplicaPhase::Ready, None) if alive => {
                    self.propose(1, replica, Ask::Join(replica, slots[usize::from(pool.0)]));
                }
                (ReplicaPhase::Ready | ReplicaPhase::Draining, Some(_)) if !alive => {
                    self.propose(3, replica, Ask::Leave(replica, Departure::Lost));
                    self.propose(4, replica, Ask::Stop(replica, Departure::Lost));
                }
                (ReplicaPhase::Ready, None) => self.propose(4, replica, Ask::Stop(replica, Departure::Lost)),
                (ReplicaPhase::Ready, Some(_)) => {}
                (ReplicaPhase::Draining, Some((false, _))) => self.propose(2, replica, Ask::Drain(replica)),
                (ReplicaPhase::Draining, Some((true, 0))) => {
                    self.propose(3, replica, Ask::Leave(replica, Departure::Drained));
                    self.propose(4, replica, Ask::Stop(replica, Departure::Drained));
                }
                (ReplicaPhase::Draining, Some((true, _))) => {}
                (ReplicaPhase::Draining, None) => self.propose(4, replica, Ask::Stop(replica, Departure::Drained)),
            }
        }
    }

    fn poison(&mut self, error: DiskError) {
        self.cover(match error {
            DiskError::Io => "disk error",
            DiskError::Full => "disk full",
        });
        self.crash("the disk fails");
    }

    /// The process ends here and now; of its memory nothing remains.
    fn crash(&mut self, why: &str) {
        self.note(&format!("{why}; the engine is gone"));
        self.cover("crash");
        self.engine = None;
        self.process += 1;
        (self.stepping, self.tick) = (false, None);
        self.pending.clear();
        self.starting.clear();
        self.disk.lose_power(&mut self.random, &self.options);
        if !self.options.remote {
            self.alive.clear();
            self.running.clear();
            self.unreported.clear();
        }
        // Who had a key asks again; the others will never know.
        self.unanswered.retain(|_, ask| matches!(ask, Ask::Submit { key: Some(_), .. }));
        let delay = self.random.between(10_000, 5_000_000);
        self.plan(delay, What::Restart);
    }

    fn restart(&mut self) -> Result<(), String> {
        let recovered = self.disk.recover()?;
        self.restarts += 1;
        if recovered.cut {
            self.cover("torn block");
        }
        if recovered.from_snapshot {
            self.cover("snapshot");
        }
        let state = recovered.state;
        self.note(&format!("recovered up to {}", state.position));
        invariant::check(&state).map_err(|broken| broken.to_string())?;
        if self.digests.get(&state.position).is_some_and(|live| *live != state.digest()) {
            return Err(format!("I4: what is recovered at {} is not what was live there", state.position));
        }
        self.digests.retain(|position, _| *position <= state.position);
        let wall = self.wall_clock();
        let last = state.last_at;
        let stepped = last > Timestamp(0) && (wall < last || wall > last.after(Micros(60 * MINUTE)));
        self.engine = Some(Engine::new(state, recovered.head, self.now, wall.max(last)));
        self.send(Ask::Open);
        self.send(Ask::DefineType);
        if stepped {
            self.send(Ask::StepClock { from: last, to: wall });
        }
        self.take_over()
    }

    fn wall_clock(&mut self) -> Timestamp {
        let day = 24 * 60 * MINUTE;
        let jumps = self.random.chance(self.options.clock_jump);
        let jump = if jumps { self.random.below(2 * day) } else { day };
        Timestamp((10 * day + self.now + jump).saturating_sub(day))
    }

    fn take_over(&mut self) -> Result<(), String> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let (reminders, new) = (engine.remind(), engine.shard.state().control.pools.is_empty());
        let (replicas, slots) = (self.options.replicas as u32, self.options.slots as u32);
        if new || self.calm {
            self.send(Ask::Resize { replicas, slots });
        }
        let again: Vec<Ask> = self.unreported.values().chain(self.unanswered.values()).cloned().collect();
        again.into_iter().for_each(|ask| self.send(ask));
        reminders.into_iter().try_for_each(|effect| self.take_effect(effect))
    }
}

/// Events that a run should meet.
fn kind(envelope: &Envelope<'_>) -> Option<&'static str> {
    Some(match envelope.event {
        Event::RetryScheduled { .. } => "retry",
        Event::Lost { .. } => "lost",
        Event::CancelRequested { .. } => "cancelled",
        Event::KillRequested { .. } => "killed",
        Event::DeadLettered { .. } => "dead letter",
        Event::Redriven { .. } => "redriven",
        Event::ClockStepped { .. } => "clock stepped",
        Event::HeartbeatMissed { .. } => "heartbeat missed",
        Event::TimedOut { .. } => "timed out",
        Event::SlotReleased { .. } => "slot released",
        Event::Checkpointed { .. } => "checkpoint",
        _ => return None,
    })
}
