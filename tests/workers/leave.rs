//! Workers that are asked to end.

use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::Ground;

#[test]
fn a_worker_that_is_stopped_under_load_loses_nothing() {
    let ground = Ground::new("");
    let worker = ground.worker(&["--slots", "50"]);
    ground.submit_many(2_000, r#"{"type":"sleep","payload":{"ms":20}}"#);
    until("it works", || ground.live("ended") > 100);
    worker.end();
    assert!(ground.live("live") > 0, "the load was over before the signal");
    assert_eq!(ground.live("running"), 0);
    let next = ground.worker(&["--slots", "500"]);
    ground.until_done();
    next.end();
    let told = ground.end();
    told.all_succeeded(2_000);
    assert_eq!((told.count("lost"), told.count("worker_missed")), (0, 0), "{told:?}");
}

#[test]
fn what_does_not_end_in_time_is_given_back_unburned() {
    let ground = Ground::new("");
    let worker = ground.worker(&["--slots", "4", "--drain", "300ms"]);
    ground.submit_many(4, r#"{"type":"sleep","payload":{"ms":600000}}"#);
    until("they run", || ground.live("running") == 4);
    let began = Instant::now();
    worker.end();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    until("they are given back", || ground.live("ready") == 4);
    let told = ground.end();
    assert_eq!((told.count("attempt_returned"), told.count("lost"), told.live), (4, 0, 4), "{told:?}");
}

#[test]
fn a_second_signal_ends_a_worker_at_once() {
    let ground = Ground::new("");
    let mut worker = ground.worker(&["--drain", "10m"]);
    ground.submit(r#"{"type":"sleep","payload":{"ms":600000}}"#);
    until("it runs", || ground.live("running") == 1);
    worker.signal("TERM");
    until("it heard", || worker.said().contains("second signal"));
    let began = Instant::now();
    worker.signal("TERM");
    assert_eq!(worker.code(), Some(130), "{}", worker.said());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_worker_that_the_engine_drains_leaves_by_itself() {
    let ground = Ground::new("");
    let mut worker = ground.worker(&[]);
    ground.submit(r#"{"type":"sleep","payload":{"ms":500}}"#);
    until("it runs", || ground.live("running") == 1);
    let id = ground.ask("GET", "/v1/workers", "").json()["workers"][0]["id"].as_str().unwrap().to_owned();
    ground.ask("POST", &format!("/v1/workers/{id}/drain"), "").expect(200);
    assert_eq!(worker.code(), Some(0), "{}", worker.said());
    assert_eq!(ground.ask("GET", "/v1/workers", "").json()["workers"].as_array().unwrap().len(), 0);
    let told = ground.end();
    told.all_succeeded(1);
    assert_eq!((told.count("lost"), told.count("attempt_returned")), (0, 0), "{told:?}");
}
