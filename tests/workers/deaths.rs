//! Workers that die, and workers that seem to.

use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::{Ground, LEASE};

/// What two busy cores may add to any time.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn what_a_killed_worker_had_is_done_by_others_within_its_lease() {
    let ground = Ground::new("");
    let mut first = ground.worker(&["--slots", "20"]);
    ground.submit_many(20, r#"{"type":"sleep","payload":{"ms":1500}}"#);
    until("they run", || ground.live("running") == 20);
    let second = ground.worker(&["--slots", "20"]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let killed = Instant::now();
    ground.until_done();
    assert!(killed.elapsed() < LEASE + Duration::from_millis(2_500) + SLACK, "{:?}", killed.elapsed());
    second.end();
    let told = ground.end();
    told.all_succeeded(20);
    assert_eq!((told.count("lost"), told.count("started"), told.count("worker_missed")), (20, 40, 1), "{told:?}");
}

#[test]
fn a_worker_that_slept_too_long_changes_nothing_that_others_did() {
    let ground = Ground::new("");
    let sleeper = ground.worker(&["--slots", "10"]);
    ground.submit_many(10, r#"{"type":"sleep","payload":{"ms":1000}}"#);
    until("they run", || ground.live("running") == 10);
    sleeper.signal("STOP");
    let other = ground.worker(&["--slots", "10"]);
    // Everything goes to the other one, and ends there.
    ground.until_done();
    sleeper.signal("CONT");
    other.end();
    // It goes on, as the only one.
    ground.submit_many(10, r#"{"type":"noop"}"#);
    ground.until_done();
    sleeper.end();
    let told = ground.end();
    told.all_succeeded(20);
    assert_eq!((told.count("lost"), told.count("worker_missed")), (10, 1), "{told:?}");
}

#[test]
fn a_worker_keeps_long_work_by_signs_of_life() {
    let ground = Ground::new("");
    let worker = ground.worker(&["--slots", "3"]);
    let ms = LEASE.as_millis() * 5 / 2;
    ground.submit_many(2, &format!(r#"{{"type":"sleep","payload":{{"ms":{ms}}}}}"#));
    ground.until_done();
    worker.end();
    let told = ground.end();
    told.all_succeeded(2);
    assert_eq!((told.count("lost"), told.count("started")), (0, 2), "{told:?}");
}
