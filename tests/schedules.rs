//! Schedules of a running runtime, under a clock that the tests move: both days when clocks are set, outages, restarts, pauses.
#![allow(clippy::wildcard_enum_match_arm, reason = "tests look for a few events among many")]

#[path = "support/process.rs"]
mod process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ergate::clock::{Clock, ManualClock};
use ergate::events::block::Block;
use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::time::{Micros, Timestamp};
use ergate::schedule::{CatchUp, Overlap, ScheduleSettings, When, firing_key};
use ergate::{Extras, Runtime, StartError, SubmitError, TaskError};
use process::{block_on, small_files};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a scheduler to have looked again, twice.
const TWO_LOOKS: Duration = Duration::from_millis(1_200);
const HOUR: Micros = Micros::from_secs(3_600);
/// 2026-03-28T00:00:00Z.
const MARCH: Timestamp = Timestamp(1_774_656_000_000_000);
/// 2026-10-24T00:00:00Z.
const OCTOBER: Timestamp = Timestamp(1_792_800_000_000_000);

async fn clean(_: ()) -> Result<(), TaskError> {
    Ok(())
}

async fn sleep(_: ()) -> Result<(), TaskError> {
    tokio::time::sleep(LIMIT).await;
    Ok(())
}

fn nightly(cron: &str) -> ScheduleSettings {
    let when = When::Cron(cron.to_owned());
    ScheduleSettings { timezone: "Europe/Berlin".to_owned(), ..ScheduleSettings::new(when, "clean") }
}

async fn start(dir: &Path, clock: &Arc<ManualClock>, settings: ScheduleSettings) -> Runtime {
    let builder = Runtime::builder().file(dir).log_options(small_files()).task("clean", clean).task("sleep", sleep);
    builder.clock(Arc::clone(clock) as Arc<_>).schedule("nightly", settings).start().await.expect("it starts")
}

/// What became of slots, in the order of the log: `fired SLOT`, `triggered`, `passed COUNT REASON to SLOT`.
fn facts(runtime: &Runtime) -> Vec<String> {
    let mut cursor = runtime.reader().cursor(Position(0)).expect("the log can be read");
    let blocks: Vec<Block> = std::iter::from_fn(|| cursor.next_block().expect("a block")).collect();
    let short = |at: Timestamp| at.rfc3339()[5..16].to_owned();
    let fact = |event: &Event<'_>| match event {
        Event::Fired { slot, .. } => Some(format!("fired {}", short(*slot))),
        Event::Triggered { .. } => Some("triggered".to_owned()),
        Event::SlotsPassed { to, count, because, .. } => Some(format!("passed {count} {} to {}", because.name(), short(*to))),
        _ => None,
    };
    blocks.iter().flat_map(Block::records).filter_map(|record| fact(&record.expect("a record").event)).collect()
}

async fn dealt(runtime: &Runtime) -> Timestamp {
    runtime.durable_state().await.expect("it runs").control.schedules.list[0].dealt
}

/// Waits until every slot up to this one was dealt with.
async fn until_dealt(runtime: &Runtime, slot: Timestamp) {
    let started = Instant::now();
    while dealt(runtime).await < slot {
        assert!(started.elapsed() < LIMIT, "never: {}; {:?}", slot.rfc3339(), facts(runtime));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets a schedule live through three days in steps of an hour and says what fired.
fn three_days(cron: &str, from: Timestamp) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    block_on(LIMIT, async {
        let clock = Arc::new(ManualClock::at(from));
        let runtime = start(dir.path(), &clock, nightly(cron)).await;
        let calendar = ergate::calendar::Calendar::of(&nightly(cron)).expect("it is cron");
        for _ in 0..72 {
            let now = runtime.now();
            // A step ends at each slot, for the scheduler to be there in time.
            for slot in calendar.slots(now).take_while(|slot| *slot <= now.after(HOUR)) {
                clock.advance(slot.since(runtime.now()));
                until_dealt(&runtime, slot).await;
            }
            clock.advance(now.after(HOUR).since(runtime.now()));
        }
        tokio::time::sleep(TWO_LOOKS).await;
        let facts = facts(&runtime);
        runtime.shutdown().await.expect("it closes");
        facts
    })
}

#[test]
fn on_the_days_when_clocks_are_set_a_fixed_time_fires_once_each_day() {
    assert_eq!(three_days("30 2 * * *", MARCH), ["fired 03-28T01:30", "fired 03-29T01:00", "fired 03-30T00:30"]);
    assert_eq!(three_days("30 2 * * *", OCTOBER), ["fired 10-24T00:30", "fired 10-25T00:30", "fired 10-26T01:30"]);
}

#[test]
fn on_the_days_when_clocks_are_set_a_star_fires_as_clocks_show_it() {
    let spring = ["03-28T01:00", "03-28T01:30", "03-30T00:00", "03-30T00:30", "03-31T00:00"].map(|slot| format!("fired {slot}"));
    assert_eq!(three_days("*/30 2 * * *", MARCH), spring);
    let autumn = ["10-24T00:30", "10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-26T01:00", "10-26T01:30"];
    assert_eq!(three_days("*/30 2 * * *", OCTOBER), autumn.map(|slot| format!("fired {slot}")));
}

/// Three days without anybody, over the night when clocks were set.
fn after_an_outage(catch_up: CatchUp) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = ScheduleSettings { catch_up, ..nightly("0 3 * * *") };
    block_on(LIMIT, async {
        let clock = Arc::new(ManualClock::at(MARCH));
        let runtime = start(dir.path(), &clock, settings.clone()).await;
        let first = MARCH.after(Micros::from_secs(2 * 3_600));
        clock.advance(first.since(MARCH));
        until_dealt(&runtime, first).await;
        runtime.shutdown().await.expect("it closes");

        clock.advance(Micros::from_secs(3 * 24 * 3_600));
        let runtime = start(dir.path(), &clock, settings.clone()).await;
        until_dealt(&runtime, first.after(Micros::from_secs(71 * 3_600))).await;
        let found = facts(&runtime);
        runtime.shutdown().await.expect("it closes");

        let runtime = start(dir.path(), &clock, settings).await;
        tokio::time::sleep(TWO_LOOKS).await;
        assert_eq!(facts(&runtime), found, "another start at the same time finds nothing to do");
        runtime.shutdown().await.expect("it closes");
        found
    })
}

#[test]
fn what_three_days_missed_is_passed_over_or_fired_once_or_each() {
    let first = "fired 03-28T02:00";
    assert_eq!(after_an_outage(CatchUp::Skip), [first, "passed 3 missed to 03-31T01:00"]);
    assert_eq!(after_an_outage(CatchUp::RunOnce), [first, "passed 2 missed to 03-30T01:00", "fired 03-31T01:00"]);
    assert_eq!(after_an_outage(CatchUp::RunAll), [first, "fired 03-29T01:00", "fired 03-30T01:00", "fired 03-31T01:00"]);
}

#[test]
fn a_runtime_that_begins_earlier_than_its_log_ended_fires_nothing_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let every = || ScheduleSettings::new(When::Every(HOUR), "clean");
    block_on(LIMIT, async {
        let clock = Arc::new(ManualClock::at(MARCH));
        let runtime = start(dir.path(), &clock, every()).await;
        for hour in 1..=3 {
            clock.advance(HOUR);
            until_dealt(&runtime, MARCH.after(Micros::from_secs(3_600 * hour))).await;
        }
        let found = facts(&runtime);
        assert_eq!(found.len(), 3);
        runtime.shutdown().await.expect("it closes");

        let clock = Arc::new(ManualClock::at(MARCH));
        let runtime = start(dir.path(), &clock, every()).await;
        for _ in 0..3 {
            clock.advance(HOUR);
            tokio::time::sleep(TWO_LOOKS).await;
        }
        assert_eq!(facts(&runtime), found);
        clock.advance(HOUR);
        until_dealt(&runtime, MARCH.after(Micros::from_secs(4 * 3_600))).await;
        assert_eq!(facts(&runtime).len(), 4);
        runtime.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_paused_schedule_waits_and_a_triggered_one_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let every = ScheduleSettings { overlap: Overlap::Skip, ..ScheduleSettings::new(When::Every(HOUR), "sleep") };
    block_on(LIMIT, async {
        let clock = Arc::new(ManualClock::at(MARCH));
        let runtime = start(dir.path(), &clock, every.clone()).await;
        let missing = runtime.pause_schedule("weekly", "me", "").await;
        assert!(matches!(&missing, Err(SubmitError::UnknownSchedule { known, .. }) if known == "nightly"), "{missing:?}");
        runtime.pause_schedule("nightly", "me", "the disk is full").await.expect("it is there");
        clock.advance(HOUR);
        tokio::time::sleep(TWO_LOOKS).await;
        assert_eq!(facts(&runtime), Vec::<String>::new());
        let (task, _) = runtime.trigger_schedule("nightly", "me", "now").await.expect("nothing of it runs");
        let refused = runtime.trigger_schedule("nightly", "me", "now").await.expect_err("it runs for a minute");
        assert!(refused.to_string().contains("still going on"), "{refused}");
        let state = runtime.state().await.expect("it runs");
        assert_eq!(state.control.schedules.list[0].last.map(|last| last.task), Some(task.ordinal));
        clock.advance(HOUR);
        runtime.resume_schedule("nightly", "me", "there is room").await.expect("it is there");
        until_dealt(&runtime, MARCH.after(Micros::from_secs(2 * 3_600))).await;
        clock.advance(HOUR);
        until_dealt(&runtime, MARCH.after(Micros::from_secs(3 * 3_600))).await;
        let expected = ["triggered", "passed 2 paused to 03-28T02:00", "passed 1 overlap to 03-28T03:00"];
        assert_eq!(facts(&runtime), expected);
        runtime.shutdown_within(Duration::ZERO).await.expect("it closes");
    });
}

#[test]
fn what_is_wrong_with_a_schedule_is_said_before_the_log_is_touched() {
    let refused = |settings: ScheduleSettings| {
        block_on(LIMIT, async {
            let dir = tempfile::tempdir().expect("a directory");
            let builder = Runtime::builder().file(dir.path().join("log")).task("clean", clean);
            let error = builder.schedule("nightly", settings).start().await.err().expect("it cannot be");
            assert!(!dir.path().join("log").exists(), "the log was touched");
            assert!(matches!(error, StartError::Schedule { .. }));
            error.to_string()
        })
    };
    let cron = refused(nightly("0 25 * * *"));
    assert_eq!(cron, "the schedule \"nightly\" cannot be: \"25\" is no hour; 0 to 23 are\n  0 25 * * *\n    ^^");
    let zone = refused(ScheduleSettings { timezone: "Europe/Berln".to_owned(), ..nightly("0 3 * * *") });
    assert!(zone.ends_with("the nearest is Europe/Berlin\n  Europe/Berln\n             ^"), "{zone}");
    let task = refused(ScheduleSettings { task: "cleen".to_owned(), ..nightly("0 3 * * *") });
    assert!(task.ends_with("its task type \"cleen\" is not registered; registered are: clean"), "{task}");
}

#[test]
fn a_schedule_that_a_builder_no_longer_has_is_removed_and_one_without_schedules_leaves_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let plain = || Runtime::builder().file(dir.path()).log_options(small_files()).task("clean", clean);
    let active = |runtime: Runtime| async move {
        let state = runtime.state().await.expect("it runs");
        runtime.shutdown().await.expect("it closes");
        state.control.schedules.active().iter().map(|(_, known)| known.name.clone()).collect::<Vec<_>>()
    };
    block_on(LIMIT, async {
        let both = plain().schedule("nightly", nightly("0 3 * * *")).schedule("monthly", nightly("@monthly"));
        assert_eq!(active(both.start().await.expect("it starts")).await, ["monthly", "nightly"]);
        assert_eq!(active(plain().start().await.expect("it starts")).await, ["monthly", "nightly"]);
        let one = plain().schedule("monthly", nightly("@monthly"));
        assert_eq!(active(one.start().await.expect("it starts")).await, ["monthly"]);
        let none = plain().schedules(std::collections::BTreeMap::new());
        assert_eq!(active(none.start().await.expect("it starts")).await, Vec::<String>::new());
    });
}

/// Somebody used the key of a slot for other work: that slot can never fire, and must not hold up those behind it.
#[test]
fn a_slot_whose_request_is_refused_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    block_on(LIMIT, async {
        let clock = Arc::new(ManualClock::at(MARCH));
        let every = ScheduleSettings { catch_up: CatchUp::RunAll, ..ScheduleSettings::new(When::Every(HOUR), "clean") };
        let runtime = start(dir.path(), &clock, every).await;
        let slots = [1, 2, 3].map(|hour| MARCH.after(Micros::from_secs(3_600 * hour)));
        let extras = Extras {
            key: Some(firing_key("nightly", slots[1])),
            key_window: Some(Micros::from_secs(24 * 3_600)),
            ..Extras::default()
        };
        runtime.submit_with("clean", &7, extras).await.expect("it is taken");
        clock.advance(Micros::from_secs(3 * 3_600 + 60));
        until_dealt(&runtime, slots[2]).await;
        assert_eq!(facts(&runtime), ["fired 03-28T01:00", "passed 1 refused to 03-28T02:00", "fired 03-28T03:00"]);
        runtime.shutdown().await.expect("it closes");
    });
}

/// Shows the wall to the scheduler, which is the only one to look at it unless asked, and panics when it is told to.
struct BadClock {
    clock: ManualClock,
    panics: AtomicU32,
}

impl Clock for BadClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn wall(&self) -> Timestamp {
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "the clock fails");
        self.clock.now()
    }
}

#[test]
fn a_scheduler_that_fails_starts_again_and_fires_what_fell_due_meanwhile_once() {
    let dir = tempfile::tempdir().expect("a directory");
    block_on(LIMIT, async {
        let clock = Arc::new(BadClock { clock: ManualClock::at(MARCH), panics: AtomicU32::new(0) });
        let every = ScheduleSettings { catch_up: CatchUp::RunAll, ..ScheduleSettings::new(When::Every(HOUR), "clean") };
        let builder = Runtime::builder().file(dir.path()).log_options(small_files()).task("clean", clean);
        let runtime = builder.clock(Arc::clone(&clock) as Arc<_>).schedule("hourly", every).start().await.expect("it starts");
        let slots = [1, 2, 3].map(|hour| MARCH.after(Micros::from_secs(3_600 * hour)));
        clock.clock.advance(HOUR);
        until_dealt(&runtime, slots[0]).await;
        clock.panics.store(2, Ordering::SeqCst);
        clock.clock.advance(HOUR);
        until_dealt(&runtime, slots[1]).await;
        assert_eq!(runtime.restarts().schedulers.load(Ordering::Relaxed), 2);
        clock.clock.advance(HOUR);
        until_dealt(&runtime, slots[2]).await;
        assert_eq!(facts(&runtime), ["fired 03-28T01:00", "fired 03-28T02:00", "fired 03-28T03:00"]);
        runtime.shutdown().await.expect("it closes");
    });
}
