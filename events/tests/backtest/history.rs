//! A pool that a shard really ran, with its autoscaler on a manual clock, is run again from nothing but its events.

use std::collections::BTreeMap;

use ergate_events::backtest::history::{History, Recorded, TOLERANCE};
use ergate_events::backtest::{self, Change, Setup, bounds};
use ergate_events::command::{Command, PoolRef};
use ergate_events::event::{Departure, Envelope, Event, PoolMode, RuleVersions};
use ergate_events::id::{Ordinal, PoolId, ReplicaId, ShardId, TypeId};
use ergate_events::resources::{Ceiling, PoolResources};
use ergate_events::scaling::looks::{self, There};
use ergate_events::scaling::measure::{self, Measure, Totals};
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::{Bounds, Reading, names};
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::task::{Ask, Failure, Outcome, RetryPolicy, TypeSettings};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Tally;

use crate::support::{BEGAN, Lots};

const POOL: PoolId = PoolId(0);

/// What is to happen.
#[derive(Clone, Debug)]
enum Plan {
    End {
        task: u64,
        attempt: u32,
        well: bool,
    },
    Up(u32),
    Gone(u32),
    Arrive {
        service: u64,
        fails: u32,
        delay: u64,
    },
    Policy(&'static str, u32, u32),
    Size(u32),
    Shadow(&'static str, &'static str),
    Hold(Option<u32>, u64),
    /// At most so many slots; any number of them where there is none.
    Ceiling(Option<u64>),
    Mode(PoolMode),
    Lose(u32),
}

/// A shard, whoever does its work, and whoever looks at its pool.
struct Engine {
    shard: Shard,
    plans: BTreeMap<(u64, u64), Plan>,
    planned: u64,
    now: u64,
    /// How long tasks take, how often they fail.
    work: Vec<(u64, u32)>,
    start: u64,
    tally: Tally,
    measure: Measure,
    starts: u64,
    asked: Option<(Timestamp, There)>,
    history: History,
    state: State,
    /// When another history begins, and that history.
    halfway: u64,
    half: Option<(History, State)>,
    /// Whether each attempt at a task takes longer than the one before.
    longer: bool,
}

impl Engine {
    fn new(start: u64) -> Engine {
        let mut engine = Engine {
            shard: Shard::new(ShardId(0), State::default()),
            plans: BTreeMap::new(),
            planned: 0,
            now: BEGAN.0,
            work: Vec::new(),
            start,
            tally: Tally::default(),
            measure: Measure::default(),
            starts: 0,
            asked: None,
            history: History::new("models", &State::default()),
            state: State::default(),
            halfway: u64::MAX,
            half: None,
            longer: false,
        };
        let retry = RetryPolicy { attempts: 3, initial: Micros::from_secs(2), jitter_milli: 0, ..RetryPolicy::default() };
        let settings = TypeSettings { pool: "models".to_owned(), retry, ..TypeSettings::default() };
        engine.tell(&Command::Open { rules: RuleVersions::CURRENT, writer: "test" });
        engine.tell(&Command::DefineType { name: "job", settings: &settings, by: "test" });
        engine.tell(&Command::DefinePool { pool: "models", replicas: 0, slots: 2, by: "test", reason: "" });
        engine
    }

    fn plan(&mut self, at: u64, plan: Plan) {
        self.planned += 1;
        self.plans.insert((at, self.planned), plan);
    }

    /// Decides one command, hears what follows, and plans what that leads to.
    fn tell(&mut self, command: &Command<'_>) {
        self.tell_all(std::slice::from_ref(command));
    }

    fn tell_all(&mut self, commands: &[Command<'_>]) {
        self.now = self.now.max(self.shard.state().last_at.0 + 1);
        let (mut follows, longer) = (Vec::new(), self.longer);
        if self.half.is_none() && self.now >= self.halfway {
            self.half = Some((History::new("models", &self.state), self.state.clone()));
        }
        let (tally, history, state, half, work, start, now) =
            (&mut self.tally, &mut self.history, &mut self.state, &mut self.half, &self.work, self.start, self.now);
        let mut hear = |envelope: &Envelope<'_>, _: &State| {
            tally.apply(envelope);
            history.follow(state, envelope);
            if let Some((history, state)) = half {
                history.follow(state, envelope);
            }
            #[expect(clippy::wildcard_enum_match_arm, reason = "the other events lead to nothing here")]
            match envelope.event {
                Event::Started { task, attempt, .. } => {
                    let (service, fails) = work[task.0 as usize];
                    let service = if longer { service * u64::from(attempt) } else { service };
                    follows.push((now + service, Plan::End { task: task.0, attempt, well: attempt > fails }));
                }
                Event::ReplicaRequested { replica, .. } => follows.push((now + start, Plan::Up(replica.0))),
                Event::DrainRequested { replica } => follows.push((now, Plan::Gone(replica.0))),
                _ => {}
            }
        };
        let mut answers = Vec::new();
        self.shard.batch(Timestamp(self.now), commands, &mut answers, &mut hear);
        for (at, plan) in follows {
            self.plan(at, plan);
        }
        self.shard.seal(ergate_events::block::Hash::ZERO);
    }

    fn run(&mut self) -> Recorded {
        loop {
            let next = self.plans.first_key_value().map(|((at, _), _)| *at);
            let due = Some(self.shard.next_due()).filter(|due| *due != Timestamp::NEVER).map(|due| due.0);
            let Some(next) = [next, due].into_iter().flatten().min() else { break };
            let look = self.next_look().unwrap_or(u64::MAX);
            if look <= next {
                self.now = look.max(self.now);
                self.look();
                continue;
            }
            self.now = next.max(self.now);
            match self.plans.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => {
                    let plan = entry.remove();
                    self.act(plan);
                }
                // What falls due by itself does so in a batch of its own.
                None => self.tell_all(&[]),
            }
        }
        std::mem::replace(&mut self.history, History::new("", &State::default())).finish(None).unwrap()
    }

    fn act(&mut self, plan: Plan) {
        match plan {
            Plan::Arrive { service, fails, delay } => {
                self.work.push((service, fails));
                let due = [Ask::NotBefore(Timestamp(self.now + delay))];
                let asks = if delay > 0 { &due[..] } else { &[] };
                self.tell(&Command::Request { task_type: TypeId(0), payload: b"", key: None, asks });
            }
            Plan::End { task, attempt, well: true } => {
                self.tell(&Command::Succeed { task: Ordinal(task), attempt, outcome: Outcome::Succeeded, result: b"" });
            }
            Plan::End { task, attempt, well: false } => {
                let failure = Failure { class: "test", message: "as planned", retryable: true, delay: None };
                self.tell(&Command::Fail { task: Ordinal(task), attempt, failure });
            }
            Plan::Up(replica) => {
                // One that was let go meanwhile does not come up.
                if self.shard.state().control.replicas.contains_key(&ReplicaId(replica)) {
                    self.tell(&Command::ReadyReplica { replica: ReplicaId(replica) });
                    self.tell(&Command::JoinReplica { replica: ReplicaId(replica), pool: "models", slots: 2 });
                }
            }
            Plan::Gone(replica) => self.let_go(ReplicaId(replica)),
            Plan::Policy(policy, least, most) => {
                let pool = PoolRef::Name("models");
                self.asked = None;
                self.tell(&Command::SetPolicy { pool, policy, least, most, by: "test", reason: "" });
            }
            Plan::Size(replicas) => {
                self.tell(&Command::DefinePool { pool: "models", replicas, slots: 2, by: "test", reason: "by hand" });
            }
            Plan::Shadow(shadow, policy) => {
                let pool = PoolRef::Name("models");
                self.tell(&Command::SetShadow { pool, shadow, policy, by: "test", reason: "" });
            }
            Plan::Hold(replicas, seconds) => {
                let (pool, until) = (PoolRef::Name("models"), Timestamp(self.now + seconds * SECOND));
                self.asked = None;
                self.tell(&Command::HoldSize { pool, replicas, until, by: "test", reason: "" });
            }
            Plan::Ceiling(slots) => {
                self.asked = None;
                let resources = PoolResources { ceiling: Ceiling { slots, ..Ceiling::default() }, ..PoolResources::default() };
                let pool = PoolRef::Name("models");
                self.tell(&Command::SetResources { pool, resources: &resources, by: "test", reason: "" });
            }
            Plan::Mode(mode) => self.tell(&Command::SetPoolMode { pool: "models", mode, by: "test", reason: "" }),
            Plan::Lose(replica) => {
                self.tell(&Command::LeaveReplica { replica: ReplicaId(replica), departure: Departure::Lost });
                self.tell(&Command::StopReplica { replica: ReplicaId(replica), departure: Departure::Lost });
            }
        }
    }

    /// A replica takes nothing new, and goes when it has nothing left.
    fn let_go(&mut self, replica: ReplicaId) {
        let used = self.shard.state().work.replicas.get(replica).map(|replica| (replica.draining, replica.used()));
        match used {
            Some((false, _)) => self.tell(&Command::DrainReplica { replica }),
            Some((true, 0)) => {
                self.tell(&Command::LeaveReplica { replica, departure: Departure::Drained });
                self.tell(&Command::StopReplica { replica, departure: Departure::Drained });
                return;
            }
            Some((true, _)) => {}
            None => {
                self.tell(&Command::StopReplica { replica, departure: Departure::Drained });
                return;
            }
        }
        self.plan(self.now + 1_000, Plan::Gone(replica.0));
    }

    fn there(&self) -> Option<(There, u32, u64)> {
        let state = self.shard.state();
        let (size, bounds) = (state.control.pools.first()?, state.control.bounds(POOL)?);
        if state.control.mode(POOL) != PoolMode::Running {
            return None;
        }
        let pool = state.work.pools.iter().find(|pool| pool.name == "models");
        let ready = pool.map_or(0, |pool| state.work.ready_count(pool) as u64);
        let running = state.work.replicas.iter().map(|(_, replica)| replica.used() as u64).sum();
        Some((There { ready, running, wanted: size.replicas }, bounds.max, running))
    }

    fn next_look(&self) -> Option<u64> {
        let (there, most, _) = self.there()?;
        let scaling = &self.shard.state().control.scaling[&POOL];
        let again = scaling.live.last.as_ref().and_then(|last| last.decision.look_again);
        let due = |last| looks::due(scaling.live.policy().cadence(), last, there, most, again).0;
        // Nobody looks for ever at a pool in which nothing happens any more.
        Some(self.asked.map_or(self.now, due)).filter(|_| !self.plans.is_empty())
    }

    /// As the autoscaler does it.
    fn look(&mut self) {
        let now = Timestamp(self.now);
        let Some((there, ..)) = self.there() else { return };
        let mut totals = Totals::default();
        for known in &self.tally.types {
            totals.arrivals += known.counts.requests + known.counts.redrives;
            totals.runs.merge(&known.counts.runs);
            totals.waits.merge(&known.counts.waits);
        }
        *self.measure.totals(now) = totals;
        self.measure.begin(now);
        if let Some(starts) = self.tally.starts.get(&POOL) {
            let new = (starts.count - self.starts) as usize;
            starts.last.iter().rev().take(new).for_each(|took| self.measure.replica_started(*took));
            self.starts = starts.count;
        }
        let signals = self.shard.state().control.scaling[&POOL].live.signals().to_vec();
        let read = |name: &String| match name.as_str() {
            names::READY => measure::count(there.ready),
            names::RUNNING => measure::count(there.running),
            names => self.measure.read(names, now).unwrap(),
        };
        let readings: Vec<Reading> = signals.iter().map(read).collect();
        self.asked = Some((now, there));
        // Shadows here read what the policy reads.
        let all = self.shard.state().control.scaling[&POOL].deciders().fold(0, |all, (bit, ..)| all | bit);
        self.tell(&Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: all, seen: &[] });
    }
}

const RATE: &str = r#"{"policy":"rate","reserve":1.0,"catch_up":5000000,"target_utilization":1.0}"#;
const SECOND: u64 = 1_000_000;

/// Twenty minutes of work in waves, some of which fails once or twice.
fn waves(engine: &mut Engine, fails: bool) {
    let mut lots = Lots(3);
    let mut at = BEGAN.0 + SECOND;
    while at < BEGAN.0 + 1_200 * SECOND {
        let rate = if ((at - BEGAN.0) / (100 * SECOND)).is_multiple_of(2) { 6.0 } else { 0.5 };
        at += (lots.exponential() / rate * 1e6) as u64;
        let service = (lots.exponential() * 1.5e6) as u64 + 1_000;
        let fails = if fails && lots.share() < 0.1 { 1 + u32::from(lots.share() < 0.5) } else { 0 };
        engine.plan(at, Plan::Arrive { service, fails, delay: 0 });
    }
}

fn setup(recorded: &Recorded) -> Setup {
    let pool = Setup::new(AnyPolicy::Rate(Rate::default()), Bounds { min: 0, max: 9 });
    Setup { slots: recorded.slots, start: recorded.start_mean().unwrap_or_default(), until: recorded.length, ..pool }
}

#[test]
fn what_really_ran_is_run_again_with_the_same_sizes_and_waits() {
    for fails in [false, true] {
        let mut engine = Engine::new(3 * SECOND);
        engine.plan(BEGAN.0 + 10, Plan::Policy(RATE, 0, 9));
        waves(&mut engine, fails);
        // Another policy, other bounds, and a size that somebody sets, on the way.
        engine.plan(BEGAN.0 + 500 * SECOND, Plan::Policy(r#"{"policy":"rate","catch_up":30000000}"#, 1, 6));
        engine.plan(BEGAN.0 + 800 * SECOND, Plan::Size(5));
        let recorded = engine.run();
        let setup = setup(&recorded);
        let fidelity = recorded.fidelity(&setup).unwrap();
        assert_eq!(fidelity.doubts(), Vec::<String>::new());
        assert!(fidelity.sizes.recorded > 20 && fidelity.decisions.recorded > 20, "{fidelity:?}");
        assert_eq!(fidelity.sizes.recorded, fidelity.sizes.simulated);
        assert!(fidelity.recorded.p99 > Micros::from_secs(1), "{fidelity:?}");
        assert_eq!(recorded.arrivals.retry_count() > 0, fails);
        // What it cost as well.
        let (happened, again) = (recorded.report(&setup), backtest::run(&recorded.arrivals, &recorded.again(&setup)).unwrap());
        let apart = happened.billed.0.abs_diff(again.billed.0) as f64 / happened.billed.0 as f64;
        assert!(apart < 0.02, "{} and {}", happened.billed, again.billed);
        assert_eq!((happened.events, happened.replicas_started), (again.events, again.replicas_started));
        assert_eq!(happened.waits.count, again.waits.count);
        assert!(happened.billed >= bounds::work_floor(&recorded.arrivals.flat(), setup.slots));
    }
}

#[test]
fn what_ran_beside_shadows_and_under_a_hold_is_run_again_as_if_there_were_no_shadow() {
    const MORE: &str = r#"{"policy":"rate","reserve":6.0,"catch_up":5000000,"target_utilization":1.0}"#;
    let run = |shadows: bool| {
        let mut engine = Engine::new(3 * SECOND);
        engine.plan(BEGAN.0 + 10, Plan::Policy(RATE, 0, 9));
        waves(&mut engine, false);
        if shadows {
            engine.plan(BEGAN.0 + 20, Plan::Shadow("same", RATE));
            engine.plan(BEGAN.0 + 20, Plan::Shadow("more", MORE));
            engine.plan(BEGAN.0 + 900 * SECOND, Plan::Shadow("more", ""));
        }
        engine.plan(BEGAN.0 + 410 * SECOND, Plan::Hold(Some(2), 40));
        engine.plan(BEGAN.0 + 700 * SECOND, Plan::Hold(Some(12), 600));
        engine.plan(BEGAN.0 + 760 * SECOND, Plan::Hold(None, 0));
        engine.run()
    };
    let (alone, recorded) = (run(false), run(true));
    assert_eq!((&alone.sizes, &alone.looks), (&recorded.sizes, &recorded.looks), "shadows change nothing");
    let at = |second: u64| recorded.sizes.iter().rev().find(|(at, _)| at.0 <= second * SECOND).map(|(_, size)| *size);
    assert_eq!((at(430), at(750)), (Some(2), Some(9)), "held, the second time at the most that there may be");
    let fidelity = recorded.fidelity(&setup(&recorded)).unwrap();
    assert_eq!(fidelity.doubts(), Vec::<String>::new());
    let names: Vec<_> = recorded.shadows.iter().map(|shadow| shadow.name.as_str()).collect();
    assert_eq!(names, ["more", "same"]);
    let live = recorded.live(Micros(0));
    let [more, same] = [0, 1].map(|index| recorded.beside(&recorded.shadows[index], Micros(0)));
    // It goes on while the pool is held, and is apart from it then and only then.
    let held = recorded.beside(&recorded.shadows[1], Micros(455 * SECOND));
    assert!(same.below > 0.0 && same.largest.is_some_and(|(at, _)| (410..450).contains(&(at.0 / SECOND))), "{same:?}");
    assert!(held.largest.is_some_and(|(at, _)| (700..761).contains(&(at.0 / SECOND))), "{held:?}");
    assert!(more.mean > 0.5 && more.wanted.replica_time > Micros(0) && live.changes > 20, "{more:?}");
    // Whoever was taken away is watched no longer.
    assert!(more.wanted.watched < Micros(901 * SECOND) && same.wanted.watched > Micros(1_100 * SECOND), "{more:?} {same:?}");
}

#[test]
fn a_ceiling_that_comes_and_goes_is_run_again_with_what_the_policy_remembers_and_cuts_what_is_held() {
    let mut engine = Engine::new(3 * SECOND);
    // What it keeps for four minutes, a policy that begins anew would not.
    const SLOW: &str = r#"{"policy":"rate","reserve":1.0,"catch_up":5000000,"target_utilization":1.0,"keep_alive":240000000}"#;
    engine.plan(BEGAN.0 + 10, Plan::Policy(SLOW, 0, 9));
    waves(&mut engine, false);
    engine.plan(BEGAN.0 + 300 * SECOND, Plan::Ceiling(Some(7)));
    engine.plan(BEGAN.0 + 420 * SECOND, Plan::Hold(Some(8), 200));
    engine.plan(BEGAN.0 + 500 * SECOND, Plan::Ceiling(Some(10)));
    engine.plan(BEGAN.0 + 560 * SECOND, Plan::Ceiling(None));
    engine.plan(BEGAN.0 + 900 * SECOND, Plan::Ceiling(Some(4)));
    let recorded = engine.run();
    let at = |second: u64| recorded.sizes.iter().rev().find(|(at, _)| at.0 <= second * SECOND).map(|(_, size)| *size);
    assert_eq!([at(419), at(430), at(510), at(570)], [Some(3), Some(3), Some(5), Some(8)], "{:?}", recorded.sizes);
    assert_eq!(at(901), Some(2), "{:?}", recorded.sizes);
    let fidelity = recorded.fidelity(&setup(&recorded)).unwrap();
    assert_eq!((fidelity.doubts(), fidelity.sizes.difference), (Vec::<String>::new(), None));
    assert_eq!(recorded.policy().map(|(_, bounds)| bounds.max), Some(2), "what others are tried under is what there is room for");
}

#[test]
fn what_is_read_from_the_middle_of_a_log_counts_from_where_it_is_told() {
    let mut engine = Engine::new(3 * SECOND);
    engine.plan(BEGAN.0 + 10, Plan::Policy(RATE, 0, 9));
    waves(&mut engine, true);
    // In the middle of a wave, with tasks that wait, that run, and that will be tried again.
    engine.halfway = BEGAN.0 + 205 * SECOND;
    let whole = engine.run();
    let (half, _) = engine.half.take().unwrap();
    let half = half.finish(None).unwrap();
    assert!(half.arrivals.carried() > 5, "{}", half.arrivals.carried());
    assert_eq!(half.decisions.difference, None);
    let since = BEGAN.0 + 700 * SECOND;
    let counted = |recorded: &Recorded| {
        let count_from = Micros(since - recorded.arrivals.began().0);
        Setup { count_from, ..setup(recorded) }
    };
    let (one, two) = (whole.report(&counted(&whole)), half.report(&counted(&half)));
    assert_eq!((one.waits, one.events, one.length), (two.waits, two.events, two.length));
    assert_eq!((one.billed, one.shares), (two.billed, two.shares));
    assert!(one.waits.count > 100 && one.billed < whole.report(&setup(&whole)).billed);
    // Waits are what they were. Which replica did what at the beginning is not known, so another one may go first, and a size differs now and then.
    let fidelity = half.fidelity(&counted(&half)).unwrap();
    assert!(fidelity.doubts().iter().all(|doubt| doubt.starts_with("sizes differ: ")), "{fidelity:?}");
    assert!(fidelity.sizes.recorded > 5 && fidelity.sizes.off < 0.01, "{fidelity:?}");
}

#[test]
fn attempts_delays_and_losses_are_read_as_they_were() {
    let mut engine = Engine::new(SECOND);
    engine.longer = true;
    let at = |seconds: u64| BEGAN.0 + seconds * SECOND;
    engine.plan(at(1), Plan::Size(1));
    // Fails twice, two and four seconds before the next attempt; a task that is due after 20 s; and one whose replica is lost at 41 s.
    engine.plan(at(5), Plan::Arrive { service: SECOND, fails: 2, delay: 0 });
    engine.plan(at(6), Plan::Arrive { service: 2 * SECOND, fails: 0, delay: 20 * SECOND });
    engine.plan(at(40), Plan::Arrive { service: 5 * SECOND, fails: 0, delay: 0 });
    engine.plan(at(41), Plan::Lose(0));
    let recorded = engine.run();
    let near = |span: Micros| (span.0 as f64 / 1e6).round();
    let tasks: Vec<_> = recorded.arrivals.tasks().iter().map(|task| (near(task.at), near(task.service))).collect();
    // It comes anew when its replica is gone.
    assert_eq!(tasks, [(5.0, 1.0), (26.0, 2.0), (41.0, 10.0)]);
    assert_eq!((recorded.arrivals.retry_count(), recorded.left.lost, recorded.left.unstarted), (2, 1, 0));
    let flat: Vec<_> = recorded.arrivals.flat().tasks().iter().map(|task| near(task.at)).collect();
    assert_eq!(flat, [5.0, 8.0, 14.0, 26.0, 41.0], "retries come two and four seconds after the ends before them");
    assert_eq!(recorded.starts.iter().map(|span| near(*span)).collect::<Vec<_>>(), [1.0, 1.0]);
    let report = recorded.report(&setup(&recorded));
    assert_eq!((report.waits.count, near(report.waits.max)), (5, 1.0), "the lost one waits for another replica");
    let again = backtest::run(&recorded.arrivals, &recorded.again(&setup(&recorded))).unwrap();
    let busy = again.shares.busy * again.billed.0 as f64 / 1e6 * 2.0;
    assert!((busy - 18.0).abs() < 0.1, "1, 2, 3, 2 and 10 s, on two slots: {busy}");
}

#[test]
fn a_pause_holds_work_back_when_it_is_run_again_as_well() {
    let mut engine = Engine::new(SECOND);
    let at = |seconds: u64| BEGAN.0 + seconds * SECOND;
    engine.plan(at(1), Plan::Policy(RATE, 1, 4));
    (5..60).for_each(|second| engine.plan(at(second), Plan::Arrive { service: SECOND, fails: 0, delay: 0 }));
    engine.plan(at(20), Plan::Mode(PoolMode::Paused));
    engine.plan(at(35), Plan::Mode(PoolMode::Running));
    let recorded = engine.run();
    assert!(recorded.changes.iter().any(|(_, change)| *change == Change::Runs(false)));
    let fidelity = recorded.fidelity(&setup(&recorded)).unwrap();
    assert_eq!(fidelity.doubts(), Vec::<String>::new());
    assert!(fidelity.recorded.max > Micros::from_secs(14), "{fidelity:?}");
}

#[test]
fn a_back_test_of_something_else_is_doubted_by_name() {
    let mut engine = Engine::new(3 * SECOND);
    engine.plan(BEGAN.0 + 10, Plan::Policy(RATE, 0, 9));
    waves(&mut engine, false);
    let recorded = engine.run();
    // Starts that take five times as long: waits are not what they were.
    let fidelity = recorded.fidelity(&Setup { start: Micros::from_secs(15), ..setup(&recorded) }).unwrap();
    let doubts = fidelity.doubts();
    assert!(!fidelity.is_reliable() && doubts.iter().any(|doubt| doubt.starts_with("wait p99 differs: ")), "{doubts:?}");
    let (_, before, after) = fidelity.waits()[3];
    assert!(before.0.abs_diff(after.0) as f64 > TOLERANCE * before.0 as f64);
    // One slot instead of two: sizes are not, either.
    let fidelity = recorded.fidelity(&Setup { slots: 1, ..setup(&recorded) }).unwrap();
    assert!(fidelity.doubts().iter().any(|doubt| doubt.starts_with("sizes differ: ")), "{fidelity:?}");
    assert!(fidelity.sizes.off > 0.05, "{fidelity:?}");
}

#[test]
fn a_decision_that_does_not_follow_is_named_with_its_position() {
    let mut engine = Engine::new(3 * SECOND);
    engine.plan(BEGAN.0 + 10, Plan::Policy(RATE, 0, 9));
    waves(&mut engine, false);
    engine.run();
    // The same log, in which one recorded decision says something else, and one in which one is missing.
    let good = engine.shard.state().clone();
    assert!(good.position.0 > 100);
    let mut state = State::default();
    let mut history = History::new("models", &state);
    let settings = TypeSettings { pool: "models".to_owned(), ..TypeSettings::default() };
    let mut position = 0;
    let mut follow = |history: &mut History, state: &mut State, event: Event<'_>| {
        let envelope =
            Envelope { position: ergate_events::id::Position(position), recorded_at: Timestamp(BEGAN.0 + position), event };
        position += 1;
        history.follow(state, &envelope);
    };
    follow(
        &mut history,
        &mut state,
        Event::TypeDefined { task_type: TypeId(0), name: "job", settings: Box::new(settings), by: "" },
    );
    follow(
        &mut history,
        &mut state,
        Event::PoolDefined { pool: POOL, name: "models", replicas: 0, slots: 1, by: "", reason: "" },
    );
    let policy = r#"{"policy":"rate"}"#.into();
    follow(&mut history, &mut state, Event::PolicySet { pool: POOL, policy, least: 0, most: 5, by: "", reason: "" });
    let readings = [3, 0, 1, 1, 1].map(measure::count).to_vec();
    let looked = |readings| Event::PoolObserved { pool: POOL, readings, work: Vec::new(), asked: 1, seen: Vec::new() };
    follow(&mut history, &mut state, looked(readings.clone()));
    assert_eq!(history.decisions().difference, None);
    follow(&mut history, &mut state, Event::PoolScaled { pool: POOL, replicas: 5, decision: "{}".into(), shadow: None });
    assert_eq!(history.decisions().difference.map(|at| at.0), Some(4));
    // It is the first one that is told.
    follow(&mut history, &mut state, looked(readings));
    follow(&mut history, &mut state, Event::ReplicaReady { replica: ReplicaId(0) });
    assert_eq!((history.decisions().difference.map(|at| at.0), history.decisions().looks), (Some(4), 2));
}
