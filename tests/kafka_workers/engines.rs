//! Engines and workers that come and go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::{Ground, SHARDS, Told};
use crate::kafka::shared;

#[test]
fn workers_that_name_one_engine_do_the_work_of_all() {
    let Some(kafka) = shared() else { return };
    let mut ground = Ground::new("all", kafka, 3);
    let before = ground.leaders();
    let (first, second) = (ground.worker(0, 100), ground.worker(0, 100));
    (0..3).for_each(|engine| ground.until_known(engine, &[&first, &second]));
    ground.submit(3_000, r#"{"type":"noop"}"#);
    let told = ground.until_ended(3_000);
    assert_eq!((told.count("succeeded"), told.count("lost"), told.count("worker_missed")), (3_000, 0, 0), "{told:?}");
    // What was given beyond the slots went back and was no attempt that ran.
    assert_eq!(told.count("started"), 3_000 + told.count("left"), "{told:?}");
    let all: BTreeSet<u16> = (0..SHARDS).collect();
    for worker in [&first, &second] {
        assert_eq!(told.given[&worker.name].1, all, "{told:?}");
    }

    // Others do what one had that died, and more or fewer workers move no shard.
    let third = ground.worker(1, 40);
    ground.submit(120, r#"{"type":"sleep","payload":{"ms":3000}}"#);
    until("the third one has work", || ground.told().given.contains_key(&third.name));
    third.kill();
    first.end();
    ground.namespace.until_done();
    let told = ground.told();
    assert_eq!(
        (told.count("succeeded"), told.count("started")),
        (3_120, 3_120 + told.count("left") + told.count("lost")),
        "{told:?}"
    );
    assert!(told.count("lost") > 0, "{told:?}");
    assert_eq!(ground.leaders(), before);

    // An engine that comes later is found by workers that run.
    ground.add();
    ground.until_shared();
    ground.until_known(3, &[&second]);
    ground.submit(400, r#"{"type":"noop"}"#);
    assert_eq!(ground.until_ended(3_520).count("succeeded"), 3_520);
    second.end();
}

#[test]
fn an_engine_that_dies_costs_its_workers_a_reconnect_and_repeats_nothing() {
    let Some(kafka) = shared() else { return };
    let mut ground = Ground::new("dies", kafka, 3);
    // Both know the one that dies as their first.
    let workers = [ground.worker(0, 60), ground.worker(0, 60)];
    (0..3).for_each(|engine| ground.until_known(engine, &workers.each_ref()));
    // Some end while nobody leads their shard, others when it is led again.
    let spans = [4_000, 8_000, 16_000];
    spans.iter().for_each(|ms| ground.submit(40, &format!(r#"{{"type":"sleep","payload":{{"ms":{ms}}}}}"#)));
    until("all run", || ground.count(1, "running") == 120);
    let began = Instant::now();
    assert!(!ground.leaders()[0].is_empty());
    let mut before = ground.told();
    until("no attempt is on its way back", || {
        before = ground.told();
        before.count("started") == 120 + before.count("left")
    });
    ground.engines.remove(0).kill();
    let told = ground.until_ended(120);
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    let ended = ["started", "succeeded", "lost", "left", "worker_missed"].map(|name| told.count(name));
    assert_eq!(
        ended,
        [before.count("started"), 120, 0, before.count("left"), 0],
        "{told:?}\n{}\n{}",
        workers[0].said(),
        workers[1].said()
    );
    // They go on with the shards that it had.
    ground.until_shared();
    ground.submit(400, r#"{"type":"noop"}"#);
    assert_eq!(ground.until_ended(520).count("succeeded"), 520);
    // One that is stopped in order leaves what workers have as it is, too.
    ground.submit(80, r#"{"type":"sleep","payload":{"ms":5000}}"#);
    until("all run", || ground.count(0, "running") == 80);
    let before = ground.told();
    let stopped = ground.engines.remove(0);
    stopped.signal("TERM");
    assert_eq!(stopped.end(), Some(0));
    let told = ground.until_ended(600);
    let lost = |told: &Told| ["started", "lost", "left", "worker_missed"].map(|name| told.count(name));
    assert_eq!((told.count("succeeded"), lost(&told)), (600, lost(&before)), "{told:?}");
    workers.into_iter().for_each(crate::ground::Worker::end);
}
