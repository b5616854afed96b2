//! The loop: one thing happens after another, and between any two of them the power may go.

mod clients;
mod guests;
mod process;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ergate_events::block::Hash;
use ergate_events::id::{Ordinal, Position, ReplicaId};
use ergate_events::task::{RetryPolicy, Timeouts, TypeSettings};
use ergate_events::time::Micros;
use ergate_events::worker::WorkerFacts;

use self::guests::Guest;
use super::Report;
use super::ask::Ask;
use super::disk::Disk;
use super::engine::Engine;
use super::ledger::Ledger;
use super::random::{GUESTS_MAX, Options, Random};

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
    Poll(u64),
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
    /// Workers that come by themselves, and what they say of themselves.
    guests: Vec<Guest>,
    facts: Vec<WorkerFacts>,
    /// When guests gave the last sign of life, as the process that is there saw it.
    seen: BTreeMap<ReplicaId, u64>,
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
            guests: Vec::new(),
            facts: (0..GUESTS_MAX).map(guests::facts).collect(),
            seen: BTreeMap::new(),
            clients: 0,
            blocks: 0,
            restarts: 0,
            digests: BTreeMap::new(),
            calm: false,
            trace: 0xcbf2_9ce4_8422_2325,
            tail: VecDeque::new(),
            coverage: BTreeMap::new(),
        };
        world.invite();
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
            What::Poll(guest) => self.poll_guest(guest),
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
