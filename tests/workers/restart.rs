//! An engine that dies under its workers.

use std::time::Duration;

use crate::command::until;
use crate::ground::Ground;

#[test]
fn workers_find_an_engine_again_and_everything_ends_exactly_once() {
    let mut ground = Ground::new("");
    let workers: Vec<_> = (0..3).map(|_| ground.worker(&["--slots", "100"])).collect();
    ground.submit_many(600, r#"{"type":"sleep","payload":{"ms":700}}"#);
    for _ in 0..2 {
        until("many leases are out", || ground.live("running") > 200);
        ground.kill();
        // Some end while nobody hears of it.
        std::thread::sleep(Duration::from_millis(400));
        ground.start();
    }
    ground.until_done();
    workers.into_iter().for_each(crate::ground::Worker::end);
    let told = ground.end();
    told.all_succeeded(600);
    // What a worker did not know of was given back: no task has lost anything.
    assert_eq!((told.count("lost"), told.count("worker_missed")), (0, 0), "{told:?}");
    assert_eq!(told.count("started"), 600 + told.count("attempt_returned"), "{told:?}");
}

#[test]
fn what_ended_while_the_engine_was_away_is_not_done_again() {
    let mut ground = Ground::new("");
    let worker = ground.worker(&["--slots", "30"]);
    ground.submit_many(30, r#"{"type":"sleep","payload":{"ms":600}}"#);
    until("they run", || ground.live("running") == 30);
    ground.kill();
    std::thread::sleep(Duration::from_millis(900));
    ground.start();
    ground.until_done();
    worker.end();
    let told = ground.end();
    told.all_succeeded(30);
    assert_eq!((told.count("started"), told.count("attempt_returned"), told.count("lost")), (30, 0, 0), "{told:?}");
}

#[test]
fn a_worker_waits_for_an_engine_that_is_not_there_yet() {
    let mut ground = Ground::new("");
    ground.kill();
    let worker = ground.spawn("", &[]);
    until("it says so", || worker.said().contains("does not answer"));
    ground.start();
    let id = ground.submit(r#"{"type":"noop"}"#);
    assert_eq!(ground.outcome(&id), "SUCCEEDED");
    worker.end();
    ground.end().all_succeeded(1);
}

#[test]
fn an_engine_that_is_stopped_well_and_started_again_goes_on_with_its_workers() {
    let mut ground = Ground::new("");
    let worker = ground.worker(&["--slots", "8"]);
    ground.submit_many(8, r#"{"type":"sleep","payload":{"ms":900}}"#);
    until("they run", || ground.live("running") == 8);
    let began = std::time::Instant::now();
    ground.stop();
    // It waits for what runs in its own process, and nothing does.
    assert!(began.elapsed() < Duration::from_millis(700), "it took {:?}", began.elapsed());
    ground.start();
    ground.submit_many(40, r#"{"type":"noop"}"#);
    ground.until_done();
    worker.end();
    let told = ground.end();
    told.all_succeeded(48);
    assert_eq!((told.count("started"), told.count("lost"), told.count("replica_draining")), (48, 0, 2), "{told:?}");
}
