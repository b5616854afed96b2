//! Limits on the flow: who is let through when, and that nobody waits for somebody else's limit.

mod common;

use common::{Story, plain, request};
use ergate_events::command::{Command, Rejection};
use ergate_events::id::{LimitId, TypeId};
use ergate_events::limit::{LimitSettings, Rate};
use ergate_events::task::{Ask, Timeouts, TypeSettings};
use ergate_events::time::Micros;

fn concurrency(most: u32) -> LimitSettings {
    LimitSettings { concurrency: Some(most), ..LimitSettings::default() }
}

fn by_tenant(limit: LimitSettings) -> LimitSettings {
    LimitSettings { key: Some("tenant".to_owned()), ..limit }
}

fn rate(permits: u32, burst: u32) -> LimitSettings {
    LimitSettings { rate: Some(Rate { permits, per: Micros::from_secs(1), burst }), ..LimitSettings::default() }
}

fn limited(slots: u32, limits: &[LimitSettings]) -> Story {
    let mut story = Story::running(&plain(), slots);
    story.limit(limits);
    story
}

fn of(story: &mut Story, tenant: &str) -> u64 {
    story.request(&[Ask::Label("tenant", tenant)]).0
}

fn starts(story: &mut Story) -> Vec<String> {
    story.news().into_iter().filter_map(|line| line.strip_prefix("started ").map(str::to_owned)).collect()
}

#[test]
fn no_more_than_the_limit_run_at_once_and_the_next_starts_when_one_ends() {
    let mut story = limited(8, &[concurrency(2)]);
    (0..4).for_each(|_| _ = story.request(&[]));
    story.expect(&[
        "requested type-0",
        "admitted 0",
        "started 0.1 r0",
        "requested type-0",
        "admitted 1",
        "started 1.1 r0",
        "requested type-0",
        "limited 2 limit-0",
        "requested type-0",
        "limited 3 limit-0",
    ]);
    story.succeed(1, 1).unwrap();
    story.expect(&["succeeded 1.1", "admitted 2", "started 2.1 r0"]);
    story.fail(0, 1).unwrap();
    story.expect(&["failed 0.1 boom", "retry 0 in 100ms", "admitted 3", "started 3.1 r0"]);
    // Its turn is over: it waits like everybody else.
    story.pass(100);
    story.expect(&["ready 0", "limited 0 limit-0"]);
    story.kill(3).unwrap();
    story.expect(&["kill 3", "ended 3 CANCELLED Killed", "admitted 0", "started 0.2 r0"]);
}

#[test]
fn a_limited_key_holds_up_nobody_else() {
    let mut story = limited(8, &[by_tenant(concurrency(1))]);
    for tenant in ["red", "red", "blue", "red", "blue"] {
        of(&mut story, tenant);
    }
    story.request(&[]);
    assert_eq!(starts(&mut story), ["0.1 r0", "2.1 r0", "5.1 r0"]);
    story.succeed(0, 1).unwrap();
    assert_eq!(starts(&mut story), ["1.1 r0"]);
    story.succeed(2, 1).unwrap();
    assert_eq!(starts(&mut story), ["4.1 r0"]);
}

#[test]
fn a_permit_comes_back_when_the_executor_dies_only_with_the_end_of_the_task() {
    let mut story = limited(1, &[concurrency(1)]);
    (0..2).for_each(|_| _ = story.request(&[]));
    story.news();
    story.leave(0);
    // The task is ready again and keeps its permit, or two would run when the executor was only slow to tell.
    story.expect(&["left r0 Lost"]);
    story.pass(0);
    story.expect(&["lost 0.1"]);
    story.join(1, 4);
    assert_eq!(starts(&mut story), ["0.2 r1"]);
    story.succeed(0, 2).unwrap();
    assert_eq!(starts(&mut story), ["1.1 r1"]);
}

#[test]
fn starts_keep_the_rate_and_a_quiet_time_saves_up_a_burst_and_no_more() {
    let mut story = limited(100, &[rate(10, 3)]);
    story.tell_all(&vec![request(b"", &[]); 8]);
    assert_eq!(starts(&mut story), ["0.1 r0", "1.1 r0", "2.1 r0"]);
    story.pass(99);
    assert!(starts(&mut story).is_empty());
    story.pass(1);
    assert_eq!(starts(&mut story), ["3.1 r0"]);
    story.pass(200);
    assert_eq!(starts(&mut story), ["4.1 r0", "5.1 r0"]);
    story.pass(30_000);
    assert_eq!(starts(&mut story), ["6.1 r0", "7.1 r0"]);
    story.tell_all(&vec![request(b"", &[]); 5]);
    assert_eq!(starts(&mut story).len(), 3);
}

/// Tasks that were let through long ago and found no slot would start all at once with a second burst behind them.
#[test]
fn tasks_that_wait_for_a_slot_save_up_no_second_burst() {
    let mut story = Story::with(&plain());
    story.limit(&[rate(10, 3)]);
    story.tell_all(&vec![request(b"", &[]); 8]);
    story.pass(60_000);
    story.join(0, 100);
    assert_eq!(starts(&mut story).len(), 3);
    story.pass(100);
    assert_eq!(starts(&mut story).len(), 1);
}

#[test]
fn with_one_ready_task_for_each_key_the_keys_take_turns() {
    let mut story = limited(2, &[by_tenant(LimitSettings { ready: Some(1), ..LimitSettings::default() })]);
    (0..6).for_each(|_| _ = of(&mut story, "big"));
    let (small, other) = (of(&mut story, "small"), of(&mut story, "other"));
    starts(&mut story);
    let mut order = Vec::new();
    for task in [0, 1, 2, small, 3, other] {
        story.succeed(task, 1).unwrap();
        order.extend(starts(&mut story));
    }
    let expected = [2, small, other, 3, 4, 5].map(|task| format!("{task}.1 r0"));
    assert_eq!(order, expected, "one of the big tenant's was ready before the others came");
}

#[test]
fn a_task_needs_room_in_all_its_limits_and_the_log_names_the_one_that_has_none() {
    let mut story = limited(8, &[concurrency(2), by_tenant(concurrency(1))]);
    for tenant in ["red", "red", "blue", "green"] {
        of(&mut story, tenant);
    }
    let waits: Vec<String> = story.news().into_iter().filter(|line| line.starts_with("limited")).collect();
    assert_eq!(waits, ["limited 1 limit-1", "limited 3 limit-0"]);
    story.succeed(0, 1).unwrap();
    // Its own key has room now, and the other limit has none any more.
    story.expect(&["succeeded 0.1", "admitted 3", "limited 1 limit-0", "started 3.1 r0"]);
    story.succeed(2, 1).unwrap();
    story.expect(&["succeeded 2.1", "admitted 1", "started 1.1 r0"]);
}

#[test]
fn those_that_wait_go_by_priority_and_newcomers_do_not_overtake() {
    let mut story = limited(8, &[concurrency(1)]);
    for priority in [4, 0, 9, 4] {
        story.request(&[Ask::Priority(priority)]);
    }
    story.news();
    let mut order = Vec::new();
    for task in [0, 2, 3] {
        story.succeed(task, 1).unwrap();
        order.extend(starts(&mut story));
    }
    assert_eq!(order, ["2.1 r0", "3.1 r0", "1.1 r0"]);
}

#[test]
fn a_waiting_task_can_be_cancelled_and_can_run_out_of_time() {
    let timeouts = Timeouts { schedule_to_close: Some(Micros::from_secs(5)), ..plain().timeouts };
    let mut story = Story::running(&TypeSettings { timeouts, dead_letter: false, ..plain() }, 4);
    story.limit(&[concurrency(1)]);
    (0..3).for_each(|_| _ = story.request(&[]));
    story.news();
    story.cancel(1).unwrap();
    story.expect(&["cancel 1", "ended 1 CANCELLED Cancelled"]);
    story.pass(5_000);
    assert!(story.news().contains(&"ended 2 FAILED TimedOut(ScheduleToClose)".to_owned()));
}

#[test]
fn a_changed_limit_counts_for_those_that_wait_already() {
    let mut story = limited(8, &[concurrency(1)]);
    story.tell_all(&vec![request(b"", &[]); 4]);
    story.news();
    story.tell(&Command::DefineLimit { name: "limit 0", allows: &concurrency(3), by: "me" }).unwrap();
    story.expect(&["defined limit-0 limit 0", "admitted 1", "admitted 2", "started 1.1 r0", "started 2.1 r0"]);
    story.tell(&Command::DefineLimit { name: "limit 0", allows: &concurrency(1), by: "me" }).unwrap();
    story.succeed(0, 1).unwrap();
    assert!(starts(&mut story).is_empty(), "two still run");
    // Without limits those that wait need none any more.
    story.tell(&Command::LimitType { task_type: TypeId(0), limits: Vec::new(), by: "me" }).unwrap();
    story.succeed(1, 1).unwrap();
    story.succeed(2, 1).unwrap();
    assert_eq!(starts(&mut story), ["3.1 r0"]);
}

#[test]
fn a_delayed_task_and_a_redriven_one_pass_the_gate_with_their_labels() {
    let once = TypeSettings { retry: ergate_events::task::RetryPolicy::NEVER, ..plain() };
    let mut story = Story::running(&once, 8);
    story.limit(&[by_tenant(concurrency(1))]);
    let due = story.now.after(Micros::from_millis(500));
    let first = of(&mut story, "red");
    let second = story.request(&[Ask::Label("tenant", "red"), Ask::NotBefore(due)]).0;
    story.pass(500);
    story.fail(first, 1).unwrap();
    story.news();
    let third = story.redrive(first).unwrap().task.unwrap().0;
    story.expect(&[&format!("redriven {first}"), &format!("limited {third} limit-0")]);
    story.succeed(second, 1).unwrap();
    assert_eq!(starts(&mut story), [format!("{third}.1 r0")]);
}

#[test]
fn what_makes_no_limit_is_refused() {
    let mut story = Story::with(&plain());
    let nothing = LimitSettings::default();
    let zero = concurrency(0);
    let never = LimitSettings { rate: Some(Rate { permits: 1, per: Micros::from_secs(86_401), burst: 1 }), ..nothing.clone() };
    for allows in [&nothing, &zero, &never, &rate(0, 1), &rate(1, 0)] {
        let refused = story.tell(&Command::DefineLimit { name: "x", allows, by: "me" });
        assert!(matches!(refused, Err(Rejection::OutOfRange { what: "the limit", .. })), "{allows:?}: {refused:?}");
    }
    let unknown = Command::LimitType { task_type: TypeId(0), limits: vec![LimitId(0)], by: "me" };
    story.refuses(&unknown, Rejection::UnknownLimit(LimitId(0)));
    let of_nothing = Command::LimitType { task_type: TypeId(9), limits: Vec::new(), by: "me" };
    story.refuses(&of_nothing, Rejection::UnknownType(TypeId(9)));
}
