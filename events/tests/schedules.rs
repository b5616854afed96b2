//! Schedules: each slot is dealt with once, in order, and what a firing does follows from its schedule.

mod common;

use common::{Story, audit, keyed, plain};
use ergate_events::block::{Block, Hash, OpenBlock};
use ergate_events::command::{Command, Rejection};
use ergate_events::event::Event;
use ergate_events::firing::Firing;
use ergate_events::id::{Ordinal, ScheduleId, ShardId};
use ergate_events::schedule::{
    Label, Overlap, Passed, PassedOver, SCHEDULE_PAYLOAD_BYTES_MAX, ScheduleSettings, When, firing_key,
};
use ergate_events::state::schedules::Schedule;
use ergate_events::task::Ask;
use ergate_events::time::{Micros, Timestamp};

const NIGHTLY: ScheduleId = ScheduleId(0);

fn cron() -> ScheduleSettings {
    ScheduleSettings::new(When::Cron("0 3 * * *".to_owned()), "job")
}

fn second(number: u64) -> Timestamp {
    Timestamp(number * 1_000_000)
}

fn define(story: &mut Story, plan: &ScheduleSettings) {
    story.tell(&Command::DefineSchedule { name: "nightly", plan, by: "me" }).expect("it is in range");
}

/// A story with `nightly`, two slots for tasks and the clock at one second.
fn scheduled(overlap: Overlap) -> Story {
    let mut story = Story::running(&plain(), 2);
    define(&mut story, &ScheduleSettings { overlap, ..cron() });
    story.news();
    story
}

fn nightly(story: &Story) -> &Schedule {
    story.shard.state().control.schedules.get(NIGHTLY).expect("it is defined")
}

fn pause(story: &mut Story) {
    story.tell(&Command::PauseSchedule { schedule: NIGHTLY, by: "me", reason: "" }).expect("it is there");
}

fn resume(story: &mut Story) {
    story.tell(&Command::ResumeSchedule { schedule: NIGHTLY, by: "me", reason: "" }).expect("it is there");
}

fn pass_over(from: u64, to: u64, because: PassedOver) -> Command<'static> {
    let passed = Passed { from: second(from), to: second(to), count: to - from + 1, because };
    Command::PassOver { schedule: NIGHTLY, after: None, passed }
}

#[test]
fn a_firing_and_its_request_are_one_batch_and_the_key_names_the_slot() {
    let mut story = Story::running(&plain(), 2);
    let labels = vec![Label { name: "team".to_owned(), value: "blue".to_owned() }];
    define(&mut story, &ScheduleSettings { labels, priority: Some(7), payload: "{\"a\":1}".to_owned(), ..cron() });
    story.news();
    story.fire("nightly", second(20)).unwrap();
    story.expect(&["requested type-0", "fired schedule-0 20 as 0", "started 0.1 r0"]);
    let log = story.log();
    let records: Vec<_> = log.iter().flat_map(Block::records).map(Result::unwrap).collect();
    let at = records.iter().position(|record| matches!(record.event, Event::Fired { .. })).unwrap();
    assert_eq!(records[at - 1].recorded_at, records[at].recorded_at);
    let Event::Requested { payload, key: Some(key), ref asks, .. } = records[at - 1].event else {
        panic!("{:?}", records[at - 1])
    };
    assert_eq!((payload, key.key), (&b"{\"a\":1}"[..], "schedule/nightly/1970-01-01T00:00:20.000000Z"));
    assert_eq!(asks[..], [Ask::Priority(7), Ask::Label("team", "blue"), Ask::FiredBy(ScheduleId(0))]);
}

/// A shard on Kafka knows by its answers which record of the requests is next.
#[test]
fn a_firing_answers_no_record() {
    let mut story = scheduled(Overlap::Allow);
    let next = |story: &Story| story.shard.state().work.source_next;
    let before = next(&story);
    story.fire("nightly", second(20)).unwrap();
    assert_eq!(next(&story), before);
    // Somebody else has taken the key of the next slot.
    let key = firing_key("nightly", second(30));
    let payload = cron().payload;
    story.submit(&keyed(0, &key, payload.as_bytes()));
    assert_eq!(next(&story), before + 1);
    story.news();
    story.fire("nightly", second(30)).unwrap();
    story.expect(&["fired schedule-0 30 as 1"]);
    assert_eq!(next(&story), before + 1);
    audit(&story.log()).unwrap();
}

#[test]
fn a_slot_fires_once_and_so_does_every_one_before_it() {
    let mut story = scheduled(Overlap::Allow);
    story.fire("nightly", second(20)).unwrap();
    story.news();
    for repeated in [20, 19, 1] {
        story.fire("nightly", second(repeated)).unwrap();
        story.expect(&[]);
    }
    // Whoever looked before the last firing would leave out what lies between.
    let (slot, plan) = (second(40), cron());
    let key = firing_key("nightly", slot);
    let fire =
        Command::Fire { schedule: NIGHTLY, after: Some(second(10)), slot, firing: Firing::Request { key: &key, plan: &plan } };
    story.refuses(&fire, Rejection::NotNextSlot { schedule: NIGHTLY, slot });
}

#[test]
fn tasks_overlap_or_are_passed_over_or_cancel_the_one_before() {
    for (overlap, expected) in [
        (Overlap::Allow, &["requested type-0", "fired schedule-0 30 as 1", "started 1.1 r0"][..]),
        (Overlap::Skip, &["passed schedule-0 30-30 1 overlap"]),
        (Overlap::CancelPrevious, &["requested type-0", "cancel 0", "fired schedule-0 30 as 1", "started 1.1 r0"]),
    ] {
        let mut story = scheduled(overlap);
        story.fire("nightly", second(20)).unwrap();
        story.news();
        story.fire("nightly", second(30)).unwrap();
        story.expect(expected);
    }
    let mut story = scheduled(Overlap::Skip);
    story.fire("nightly", second(20)).unwrap();
    story.succeed(0, 1).unwrap();
    story.news();
    story.fire("nightly", second(30)).unwrap();
    story.expect(&["requested type-0", "fired schedule-0 30 as 1", "started 1.1 r0"]);
}

#[test]
fn a_task_that_waits_is_cancelled_at_once() {
    let mut story = scheduled(Overlap::CancelPrevious);
    (0..2).for_each(|_| _ = story.request(&[]));
    story.fire("nightly", second(20)).unwrap();
    story.news();
    story.fire("nightly", second(30)).unwrap();
    story.expect(&["requested type-0", "cancel 2", "ended 2 CANCELLED Cancelled", "fired schedule-0 30 as 3"]);
}

#[test]
fn a_paused_schedule_fires_when_it_is_triggered_and_not_otherwise() {
    let mut story = scheduled(Overlap::Skip);
    pause(&mut story);
    pause(&mut story);
    story.expect(&["paused schedule-0"]);
    let slot = second(20);
    let plan = ScheduleSettings { overlap: Overlap::Skip, ..cron() };
    let key = firing_key("nightly", slot);
    let firing = Firing::Request { key: &key, plan: &plan };
    let fire = Command::Fire { schedule: NIGHTLY, after: None, slot, firing };
    story.refuses(&fire, Rejection::NotNextSlot { schedule: NIGHTLY, slot });
    let trigger = Command::Trigger { schedule: NIGHTLY, slot, firing, by: "me", reason: "now" };
    assert_eq!(story.tell(&trigger).unwrap().task, Some(Ordinal(0)));
    story.expect(&["requested type-0", "triggered schedule-0 as 0", "started 0.1 r0"]);
    story.refuses(&trigger, Rejection::Overlaps { schedule: NIGHTLY, of: Ordinal(0) });
    // A firing beside the slots takes none of them away.
    assert!(nightly(&story).dealt < slot);
    story.now = second(60);
    resume(&mut story);
    assert_eq!(nightly(&story).held, second(60));
    story.tell(&pass_over(20, 50, PassedOver::Paused)).unwrap();
    story.expect(&["resumed schedule-0", "passed schedule-0 20-50 31 paused"]);
    let rule = "behind what was dealt with, at least one, and for a reason that holds";
    let unreal = Rejection::OutOfRange { what: "what is passed over", rule };
    story.refuses(&pass_over(55, 70, PassedOver::Paused), unreal);
    story.refuses(&pass_over(45, 70, PassedOver::Missed), unreal);
    assert_eq!(nightly(&story).passed, [0, 0, 31, 0]);
}

#[test]
fn a_schedule_keeps_its_place_until_its_times_change() {
    let mut story = scheduled(Overlap::Allow);
    story.fire("nightly", second(20)).unwrap();
    story.now = second(50);
    story.news();
    define(&mut story, &cron());
    story.expect(&[]);
    define(&mut story, &ScheduleSettings { payload: "1".to_owned(), ..cron() });
    story.expect(&["defined schedule-0 nightly"]);
    assert_eq!(nightly(&story).dealt, second(20));
    define(&mut story, &ScheduleSettings { timezone: "Asia/Tokyo".to_owned(), ..cron() });
    assert!(nightly(&story).dealt >= second(50));
}

#[test]
fn a_removed_schedule_fires_nothing_and_begins_anew_when_it_is_defined_again() {
    let mut story = scheduled(Overlap::Allow);
    story.tell(&Command::RemoveSchedule { schedule: NIGHTLY, by: "me" }).unwrap();
    assert_eq!(story.fire("nightly", second(20)), Err(Rejection::UnknownSchedule(NIGHTLY)));
    story.now = second(100);
    define(&mut story, &cron());
    assert!(!nightly(&story).removed && nightly(&story).dealt >= second(100));
}

#[test]
fn what_no_schedule_can_be_is_refused() {
    let mut story = Story::with(&plain());
    let text = |text: &str| When::Cron(text.to_owned());
    let long = "x".repeat(SCHEDULE_PAYLOAD_BYTES_MAX + 1);
    for plan in [
        ScheduleSettings { when: text("0 25 * * *"), ..cron() },
        ScheduleSettings { when: When::Every(Micros::from_millis(999)), ..cron() },
        ScheduleSettings { priority: Some(10), ..cron() },
        ScheduleSettings { payload: long, ..cron() },
        ScheduleSettings { task: String::new(), ..cron() },
    ] {
        let refused = story.tell(&Command::DefineSchedule { name: "nightly", plan: &plan, by: "me" });
        assert!(matches!(refused, Err(Rejection::OutOfRange { what: "the schedule", .. })), "{plan:?}");
    }
    let unnamed = story.tell(&Command::DefineSchedule { name: "a/b", plan: &cron(), by: "me" });
    assert!(matches!(unnamed, Err(Rejection::OutOfRange { what: "the schedule", .. })));
    define(&mut story, &ScheduleSettings { task: "unknown".to_owned(), ..cron() });
    assert_eq!(story.fire("nightly", second(20)), Err(Rejection::NoScheduledType(NIGHTLY)));
}

/// The log with its last block changed.
fn forged(mut log: Vec<Block>, change: impl Fn(Event<'_>) -> Option<Event<'_>>) -> Vec<Block> {
    let last = log.pop().expect("there are blocks");
    let header = last.header;
    let mut open = OpenBlock::new(ShardId(0), header.epoch, header.first_position, header.first_ordinal);
    for envelope in last.records().map(Result::unwrap) {
        if let Some(event) = change(envelope.event) {
            open.push(envelope.recorded_at, &event);
        }
    }
    let previous = log.last().map_or(Hash::ZERO, Block::hash);
    log.push(Block::parse(&open.seal(previous).bytes).expect("it was just sealed"));
    log
}

#[test]
fn the_audit_finds_a_firing_without_its_request_and_one_that_should_not_be() {
    let mut story = scheduled(Overlap::CancelPrevious);
    story.fire("nightly", second(20)).unwrap();
    story.seal();
    story.fire("nightly", second(30)).unwrap();
    audit(&story.log()).expect("nothing was changed");
    for (what, is_dropped) in [
        ("the request", (|event| matches!(event, Event::Requested { .. })) as fn(&Event<'_>) -> bool),
        ("the cancellation", |event| matches!(event, Event::CancelRequested { .. })),
    ] {
        let changed = forged(story.log(), |event| Some(event).filter(|event| !is_dropped(event)));
        assert!(audit(&changed).is_err(), "{what} is missing");
    }
    let changed = forged(story.log(), |event| {
        if let Event::Fired { schedule, task, .. } = event {
            return Some(Event::Fired { schedule, slot: second(31), task });
        }
        Some(event)
    });
    assert!(audit(&changed).is_err(), "the request was another slot's");
}
