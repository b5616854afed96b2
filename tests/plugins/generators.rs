//! Generators: a slot has one batch however often it is generated, and nothing that a generator does harms anybody else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ergate::clock::ManualClock;
use ergate::events::task::{Outcome, RetryPolicy};
use ergate::events::time::Micros;
use ergate::generate::{AGAIN_AFTER, CLEAN_UP_WITHIN};
use ergate::{Builder, GeneratedBatch, Runtime, StartError, TypeSettings};
use serde_json::json;

use crate::process::{block_on, child, role, run, tell};
use crate::support::{HOUR, Jobs, NOW, PATIENCE, at, generated, requests, submit, until, work};

fn file(dir: &Path) -> (Builder, Arc<ManualClock>) {
    let (builder, clock) = at(NOW);
    (builder.file(dir), clock)
}

/// Waits until `job` was asked about this often, with this outcome.
async fn asked(runtime: &Runtime, outcome: &str, times: f64) {
    until(outcome, || generated(runtime, outcome) >= times).await;
}

#[test]
fn a_slot_that_is_generated_twice_creates_nothing_twice() {
    block_on(PATIENCE, async {
        let dir = tempfile::tempdir().unwrap();
        for (run, outcome) in ["accepted", "duplicate", "duplicate"].into_iter().enumerate() {
            let (builder, _) = file(dir.path());
            let runtime = builder.generator(Jobs::many(3).maker()).start().await.unwrap();
            asked(&runtime, outcome, 1.0).await;
            let key = |index| format!("generator/job/2026-03-01T12:00:00.000000Z/{index}");
            let payload = |index| format!("\"2026-03-01T12:00:00.000000Z {index}\"");
            assert_eq!(requests(&runtime), (0..3).map(|index| (payload(index), key(index))).collect::<Vec<_>>(), "run {run}");
            runtime.shutdown().await.unwrap();
        }
        let (builder, clock) = file(dir.path());
        let runtime = builder.generator(Jobs::many(3).maker()).start().await.unwrap();
        asked(&runtime, "duplicate", 1.0).await;
        clock.advance(HOUR.into());
        asked(&runtime, "accepted", 1.0).await;
        assert_eq!(requests(&runtime).len(), 6, "the next slot is another batch");
        runtime.shutdown().await.unwrap();
    });
}

/// Generates a batch, and dies by itself a moment after the generator has answered.
pub(crate) fn child_that_crashes() {
    let Some((_, dir, argument)) = role() else { return };
    let delay = Duration::from_micros(argument.parse().unwrap());
    block_on(PATIENCE, async {
        let answered = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&answered);
        let jobs = Jobs::new(move |view| {
            let mut batch = GeneratedBatch::new();
            (0..2_000).try_for_each(|index| batch.push(&format!("{} {index}", view.slot())))?;
            mark.store(true, Relaxed);
            Ok(batch)
        });
        let (builder, _) = file(&dir);
        std::thread::spawn(move || {
            while !answered.load(Relaxed) {
                std::hint::spin_loop();
            }
            std::thread::sleep(delay);
            tell("answered");
            std::process::abort();
        });
        let _runtime = builder.generator(jobs.maker()).start().await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    });
}

#[test]
fn a_crash_after_the_generator_has_answered_loses_nothing_and_doubles_nothing() {
    let mut kept = Vec::new();
    for delay in ["0", "500", "2000", "5000", "20000", "3000000"] {
        let dir = tempfile::tempdir().unwrap();
        let ran = run(child("crash", dir.path(), delay), PATIENCE);
        assert_eq!((ran.code, ran.told), (None, vec!["answered".to_owned()]), "{}", ran.stderr);
        block_on(PATIENCE, async {
            let (builder, _) = file(dir.path());
            let runtime = builder.start().await.unwrap();
            kept.push(requests(&runtime).len());
            runtime.shutdown().await.unwrap();
            let (builder, _) = file(dir.path());
            let runtime = builder.generator(Jobs::many(2_000).maker()).start().await.unwrap();
            until("an answer", || generated(&runtime, "accepted") + generated(&runtime, "duplicate") >= 1.0).await;
            let found = requests(&runtime);
            let keys: BTreeSet<_> = found.iter().map(|(_, key)| key.clone()).collect();
            assert_eq!((found.len(), keys.len()), (2_000, 2_000), "after {delay} µs the log had {kept:?}");
            runtime.shutdown().await.unwrap();
        });
    }
    assert!(kept.iter().any(|count| *count < 2_000) && kept.contains(&2_000), "no crash came before, or none after: {kept:?}");
}

#[test]
fn another_answer_for_the_same_slot_is_refused_where_it_contradicts_and_said() {
    block_on(PATIENCE, async {
        let dir = tempfile::tempdir().unwrap();
        for (payloads, outcome) in [(["a", "b"], "accepted"), (["a", "c"], "refused")] {
            let jobs = Jobs::new(move |_| {
                let mut batch = GeneratedBatch::named("one")?;
                payloads.iter().try_for_each(|payload| batch.push(payload))?;
                Ok(batch)
            });
            let (builder, _) = file(dir.path());
            let runtime = builder.generator(jobs.maker()).start().await.unwrap();
            asked(&runtime, outcome, 1.0).await;
            let kept: Vec<_> = requests(&runtime).into_iter().map(|(payload, key)| format!("{payload} {key}")).collect();
            assert_eq!(kept, ["\"a\" generator/job/one/0", "\"b\" generator/job/one/1"]);
            runtime.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_generator_sees_what_waits_runs_and_has_ended_at_one_position() {
    block_on(PATIENCE, async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let jobs = Jobs::new(move |view| {
            let payload = |task: ergate::generate::LiveTask<'_>| String::from_utf8(task.payload.to_vec()).unwrap();
            let (running, waiting): (Vec<_>, Vec<_>) =
                (view.running().map(payload).collect(), view.waiting().map(payload).collect());
            let ended: Vec<_> = view.ended(10)?.iter().map(|task| (task.id.to_string(), task.outcome)).collect();
            let newest = view.ended(1)?.len();
            told.lock().unwrap().push((running, waiting, ended, newest, view.configuration().clone(), view.position()));
            Ok(GeneratedBatch::new())
        });
        let (builder, clock) = at(NOW);
        let builder = builder.task("other", work).pool("default", 1, 1).configuration("job", json!({ "folder": "in" }));
        let runtime = builder.generator(jobs.maker()).start().await.unwrap();
        asked(&runtime, "empty", 1.0).await;
        submit(&runtime, &["one", "fail"]).await.wait().await.unwrap();
        runtime.submit("other", "x").await.unwrap().end().await.unwrap();
        drop(submit(&runtime, &["sleep"]).await);
        // The generator's own promise: one at a time.
        drop(submit(&runtime, &["next"]).await);
        let position = runtime.durable();
        clock.advance(HOUR.into());
        asked(&runtime, "empty", 2.0).await;
        let (running, waiting, ended, newest, configuration, at) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((running, waiting), (vec!["\"sleep\"".to_owned()], vec!["\"next\"".to_owned()]));
        assert_eq!(ended, [("0-1".to_owned(), Outcome::Failed), ("0-0".to_owned(), Outcome::Succeeded)]);
        assert_eq!((newest, configuration), (1, json!({ "folder": "in" })));
        assert!(position <= at && at <= runtime.durable(), "{position} {at}");
        assert_eq!(seen.lock().unwrap().pop().unwrap().0, [""; 0], "nothing was there at first");
        runtime.shutdown_within(Duration::ZERO).await.unwrap();
    });
}

#[test]
fn a_generator_that_panics_is_made_anew_and_harms_nobody() {
    block_on(PATIENCE, async {
        let (made, asked_about) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (count, calls) = (Arc::clone(&made), Arc::clone(&asked_about));
        let make = move || {
            count.fetch_add(1, Relaxed);
            let calls = Arc::clone(&calls);
            Jobs::new(move |_| {
                assert!(calls.fetch_add(1, Relaxed) > 0, "it was told to panic");
                let mut batch = GeneratedBatch::new();
                batch.push("made")?;
                Ok(batch)
            })
        };
        let (builder, clock) = at(NOW);
        let runtime = builder.generator(make).start().await.unwrap();
        asked(&runtime, "panicked", 1.0).await;
        assert_eq!(runtime.submit("job", "own").await.unwrap().result::<String>().await.unwrap(), "own");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(asked_about.load(Relaxed), 1, "it is left alone for a while");
        clock.advance(Micros::from(AGAIN_AFTER));
        asked(&runtime, "accepted", 1.0).await;
        assert_eq!((made.load(Relaxed), asked_about.load(Relaxed)), (2, 2));
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn a_generator_that_fails_is_asked_again_about_the_same_slot() {
    block_on(PATIENCE, async {
        let slots = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&slots);
        let jobs = Jobs::new(move |view| {
            told.lock().unwrap().push(view.slot().to_string());
            if told.lock().unwrap().len() < 3 { Err("the share is not mounted".into()) } else { Ok(GeneratedBatch::new()) }
        });
        let (builder, clock) = at(NOW);
        let runtime = builder.generator(jobs.maker()).start().await.unwrap();
        for times in [1.0, 2.0] {
            asked(&runtime, "failed", times).await;
            clock.advance(Micros::from(AGAIN_AFTER));
        }
        asked(&runtime, "empty", 1.0).await;
        assert_eq!(*slots.lock().unwrap(), ["2026-03-01T12:00:00.000000Z"; 3]);
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn a_generator_that_blocks_is_named_once_and_not_asked_again_until_it_answers() {
    block_on(PATIENCE, async {
        let (blocked, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (gate, count) = (Arc::clone(&blocked), Arc::clone(&calls));
        let jobs = Jobs {
            within: Duration::from_secs(5),
            ..Jobs::new(move |view| {
                count.fetch_add(1, Relaxed);
                while gate.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let mut batch = GeneratedBatch::new();
                batch.push(&view.slot().to_string())?;
                Ok(batch)
            })
        };
        let (builder, clock) = at(NOW);
        let runtime = builder.generator(jobs.maker()).start().await.unwrap();
        until("a call", || calls.load(Relaxed) == 1).await;
        assert!(generated(&runtime, "overdue") < 0.5);
        for _ in 0..3 {
            clock.advance(HOUR.into());
            asked(&runtime, "overdue", 1.0).await;
            assert_eq!(runtime.submit("job", "own").await.unwrap().result::<String>().await.unwrap(), "own");
        }
        assert_eq!((calls.load(Relaxed), generated(&runtime, "overdue") as u32), (1, 1));
        blocked.store(false, Relaxed);
        // What it says late is taken, and then it is asked about the slot that it is now; those between are gone.
        asked(&runtime, "accepted", 2.0).await;
        let own = requests(&runtime).into_iter().filter(|(_, key)| !key.is_empty()).map(|(payload, _)| payload);
        assert_eq!(own.collect::<Vec<_>>(), ["\"2026-03-01T12:00:00.000000Z\"", "\"2026-03-01T15:00:00.000000Z\""]);
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn the_end_of_a_runtime_does_not_wait_for_a_generator_that_never_answers() {
    block_on(PATIENCE, async {
        let calls = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&calls);
        let jobs = Jobs::new(move |_| {
            count.fetch_add(1, Relaxed);
            std::thread::sleep(10 * PATIENCE);
            Ok(GeneratedBatch::new())
        });
        let (builder, _) = at(NOW);
        let runtime = builder.generator(jobs.maker()).start().await.unwrap();
        until("a call", || calls.load(Relaxed) == 1).await;
        let began = Instant::now();
        runtime.shutdown().await.unwrap();
        assert!((CLEAN_UP_WITHIN..CLEAN_UP_WITHIN * 3).contains(&began.elapsed()), "{:?}", began.elapsed());
    });
}

#[test]
fn a_generator_cleans_up_when_the_runtime_ends_and_when_it_is_dropped() {
    block_on(PATIENCE, async {
        let cleaned = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&cleaned);
        let jobs = Jobs { clean_up: Arc::new(move || _ = count.fetch_add(1, Relaxed)), ..Jobs::many(0) };
        let start = || at(NOW).0.generator(jobs.maker()).start();
        let runtime = start().await.unwrap();
        runtime.shutdown().await.unwrap();
        assert_eq!(cleaned.load(Relaxed), 1, "before the shutdown returns");
        drop(start().await.unwrap());
        until("the other one's end", || cleaned.load(Relaxed) == 2).await;
        let started = at(NOW).0.own_tasks_only().limit("bad", Default::default()).generator(jobs.maker()).start().await;
        assert!(matches!(started, Err(StartError::Refused(_))), "{:?}", started.err());
        until("the end of one whose runtime did not start", || cleaned.load(Relaxed) == 3).await;
    });
}

#[test]
fn what_a_generator_promises_is_the_types_where_nobody_has_said_anything_else() {
    block_on(PATIENCE, async {
        let (builder, _) = at(NOW);
        let runtime = builder.pool("default", 3, 8).generator(Jobs::many(0).maker()).start().await.unwrap();
        let settings = runtime.type_settings("job").unwrap();
        assert_eq!((settings.retry.attempts, settings.timeouts.start_to_close), (1, Micros::from_secs(3_600)));
        let state = runtime.state().await.unwrap();
        let (_, limit) = state.work.flow.named("generator-job").unwrap();
        assert_eq!(limit.allows.concurrency, Some(3), "one for each replica");
        assert!(state.work.flow.limits(runtime.task_type("job").unwrap()));
        runtime.shutdown().await.unwrap();

        let own = TypeSettings { retry: RetryPolicy { attempts: 7, ..RetryPolicy::default() }, ..TypeSettings::default() };
        let builder = Runtime::builder().memory().task_with("job", own.clone(), ergate::function(work)).limited("job", &[]);
        let runtime = builder.generator(Jobs::many(0).maker()).start().await.unwrap();
        assert_eq!(runtime.type_settings("job"), Some(&own));
        assert!(runtime.state().await.unwrap().work.flow.named("generator-job").is_none());
        runtime.shutdown().await.unwrap();
    });
}
