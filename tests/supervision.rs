//! Panics, hangs and stops in every place where foreign code or an actor can have them: nothing is lost, nothing ends twice, nobody waits for
//! ever.
//!
//! Bugs found here, each with its test below:
//!
//! - A function that kept a checkpoint and succeeded in the same poll had the checkpoint's bytes behind its result.
//! - `Context::cancelled` woke only the last of several futures that waited on clones of one context.
//! - After the log writer had panicked, `shutdown` said that all was well, executors went on, and the lock could outlive `shutdown`.
//! - A panic of the log thread left everybody waiting.
//! - A replica that drained said that it was idle while attempts for it were on their way: and its word
//!   overtook its reports: each shrinking of a pool cost some tasks a loss, and work that was done was done again.
//! - A replica that was given up before it came up was taken off the views' count of replicas.
//! - Replicas of the process before were given work by the batch that took over the log, which cost each such task a loss.
#![allow(clippy::wildcard_enum_match_arm, reason = "tests say aloud how they went, and look for a few events among many")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ergate::events::command::Rejection;
use ergate::events::event::Cause;
use ergate::events::time::Micros;
use ergate::{
    Builder, Context, IntoTask, Outcome, RequestBatch, RetryPolicy, Runtime, SubmitError, TaskError, TaskFunction, Timeouts,
    TypeSettings, WaitError, blocking,
};
use ergate_actors::dispatcher::PanicNow as ChildPanic;
use ergate_actors::log_writer::PanicNow;
use process::{Facts, block_on, facts, facts_of, small_files};

const LIMIT: Duration = Duration::from_secs(60);

fn quick_retry() -> TypeSettings {
    let retry =
        RetryPolicy { attempts: 3, initial: Micros::from_millis(1), max: Micros::from_millis(5), ..RetryPolicy::default() };
    TypeSettings { retry, losses_max: 1_000, ..TypeSettings::default() }
}

fn once() -> TypeSettings {
    TypeSettings { retry: RetryPolicy::NEVER, ..quick_retry() }
}

fn function<Args>(function: impl IntoTask<Args>) -> Arc<dyn TaskFunction> {
    function.into_task()
}

fn file(dir: &Path) -> Builder {
    Runtime::builder().file(dir).log_options(small_files()).snapshot_every_events(2_000)
}

/// What the log of a running or stopped runtime says.
fn folded(ergate: &Runtime) -> Facts {
    facts_of(ergate.reader().as_ref(), &BTreeSet::new()).expect("the log verifies")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn submit_many(ergate: &Runtime, task_type: &str, count: u64) -> ergate::Batch {
    let id = ergate.task_type(task_type).expect("it is registered");
    let mut requests = RequestBatch::new();
    (0..count).for_each(|index| requests.push(id, index.to_string().as_bytes(), None));
    ergate.submit_batch(requests).await.expect("it is accepted")
}

/// Waits for all ends and counts those that succeeded.
async fn succeeded(batch: ergate::Batch) -> usize {
    let end = batch.wait().await.expect("the runtime runs");
    end.into_ends().filter(|(_, end)| end.outcome == Outcome::Succeeded).count()
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("dropped badly");
    }
}

struct PanicsInSerialize;

impl serde::Serialize for PanicsInSerialize {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("written badly");
    }
}

struct PanicsInDeserialize;

impl<'de> serde::Deserialize<'de> for PanicsInDeserialize {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("read badly");
    }
}

#[test]
fn a_panic_of_a_task_function_is_a_failed_attempt_with_its_text() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 1, 4)
            .task_with("text", once(), function(|_: u32| async { panic!("at {}", 7) as Result<(), TaskError> }))
            .task_with("value", once(), function(|_: u32| async { std::panic::panic_any(7_u64) as Result<(), TaskError> }))
            .task_with(
                "drop",
                once(),
                function(|_: u32| async {
                    let _bad = PanicsInDrop;
                    tokio::task::yield_now().await;
                    Ok::<(), TaskError>(())
                }),
            )
            .task_with("serialize", once(), function(|_: u32| async { Ok::<_, TaskError>(PanicsInSerialize) }))
            .task_with("deserialize", once(), function(|_: PanicsInDeserialize| async { Ok::<(), TaskError>(()) }))
            .task_with("thread", once(), blocking(|_, _: u32| -> Result<(), TaskError> { panic!("on a thread") }))
            .task_with("thread value", once(), blocking(|_, _: u32| -> Result<(), TaskError> { std::panic::panic_any(1_u8) }))
            .task_with(
                "thread drop",
                once(),
                blocking(|_, _: u32| -> Result<(), TaskError> {
                    let _bad = PanicsInDrop;
                    Ok(())
                }),
            )
            .task("fine", |value: u32| async move { Ok::<_, TaskError>(value + 1) })
            .start()
            .await
            .expect("it starts");
        let texts = [
            ("text", "at 7"),
            ("value", "not a text"),
            ("drop", "dropped badly"),
            ("serialize", "written badly"),
            ("deserialize", "read badly"),
            ("thread", "on a thread"),
            ("thread value", "not a text"),
            ("thread drop", "dropped badly"),
        ];
        for round in 0..3_u32 {
            for (name, text) in texts {
                let end = ergate.submit(name, &round).await.expect("accepted").end().await.expect("it ends");
                let failure = end.failure.expect("it failed");
                assert_eq!((failure.cause, failure.class.as_str()), (Cause::AttemptsExhausted, "panic"), "{name}");
                assert!(failure.message.contains(text), "{name}: {}", failure.message);
            }
            // Each panic gave its slot back, and none reached the actor.
            assert_eq!(
                ergate.submit("fine", &round).await.expect("accepted").result::<u32>().await.expect("a result"),
                round + 1
            );
        }
        assert_eq!(ergate.restarts().executors.load(Ordering::Relaxed), 0);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn attempts_on_a_replica_that_panicked_return_unburned_and_finish_on_another() {
    block_on(LIMIT, async {
        let release = Arc::new(AtomicBool::new(false));
        let (for_async, for_thread) = (Arc::clone(&release), Arc::clone(&release));
        let hold = move |index: u32| {
            let release = Arc::clone(&for_async);
            async move {
                while !release.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok::<_, TaskError>(index)
            }
        };
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 2, 8)
            .task_with("hold", once(), function(hold))
            .task_with(
                "thread",
                once(),
                blocking(move |_, index: u32| {
                    while !for_thread.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok::<_, TaskError>(index)
                }),
            )
            .start()
            .await
            .expect("it starts");
        let (held, threads) = (submit_many(&ergate, "hold", 30).await, submit_many(&ergate, "thread", 10).await);
        for round in 1..=3 {
            until("running attempts", || ergate.with_progress(|progress| progress.started == 16 * round)).await;
            let before = ergate.restarts().executors.load(Ordering::Relaxed);
            ergate.writer().expect("one shard").send(PanicNow::Child(ChildPanic::Executors)).await.expect("the writer lives");
            until("two new replicas", || ergate.restarts().executors.load(Ordering::Relaxed) == before + 2).await;
            assert_eq!(before, 2 * (round - 1));
        }
        release.store(true, Ordering::Relaxed);
        assert_eq!((succeeded(held).await, succeeded(threads).await), (30, 10));
        let facts = folded(&ergate);
        assert_eq!(facts.lost, 3 * 16, "each panic lost what ran, and one attempt was all that these tasks had");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_dispatcher_that_panicked_is_started_again_with_new_replicas() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 2, 16)
            .task_with(
                "work",
                once(),
                function(|index: u32| async move {
                    tokio::time::sleep(Duration::from_micros(u64::from(index) % 700)).await;
                    Ok::<_, TaskError>(index)
                }),
            )
            .start()
            .await
            .expect("it starts");
        for round in 1..=4 {
            let batch = submit_many(&ergate, "work", 2_000).await;
            ergate.writer().expect("one shard").send(PanicNow::Child(ChildPanic::Dispatcher)).await.expect("the writer lives");
            assert_eq!(succeeded(batch).await, 2_000);
            until("the restart", || ergate.restarts().dispatchers.load(Ordering::Relaxed) == round).await;
        }
        // No replica came up twice: there are as many slots as the pool says.
        let state = ergate.state().await.expect("it runs");
        until("two replicas", || ergate.with_progress(|progress| progress.replicas.values().sum::<i64>() == 2)).await;
        assert!(state.work.replicas.iter().count() <= 2);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn views_of_a_projector_that_panicked_catch_up_and_equal_a_fold_from_the_beginning() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .task("work", |index: u32| async move { Ok::<_, TaskError>(index) })
            .start()
            .await
            .expect("starts");
        for round in 1..=3 {
            let batch = submit_many(&ergate, "work", 1_500).await;
            ergate.projector().expect("one shard").do_send(ergate_actors::projector::Panic);
            assert_eq!(succeeded(batch).await, 1_500);
            until("the restart", || ergate.restarts().projectors.load(Ordering::Relaxed) == round).await;
        }
        until("the views", || ergate.with_progress(|progress| progress.position == ergate.durable())).await;
        let facts = folded(&ergate);
        let progress = ergate.progress();
        assert_eq!((progress.requested, progress.done(), progress.live()), (4_500, 4_500, 0));
        assert_eq!(progress.started, facts.starts.len() as u64);
        assert_eq!(progress.position, facts.state.position);
        assert_eq!(progress.running, 0);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_log_writer_that_panicked_ends_the_runtime_with_errors_for_everyone() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let ran = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&ran);
        let never = move |_: u32| {
            let counter = Arc::clone(&counter);
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
                Ok::<(), TaskError>(())
            }
        };
        let ergate = file(dir.path())
            .pool("default", 1, 8)
            .task_with("never", once(), function(never.clone()))
            .start()
            .await
            .expect("starts");
        let waits: Vec<_> = {
            let mut waits = Vec::new();
            for index in 0..20_u32 {
                let task = ergate.submit("never", &index).await.expect("accepted");
                let (id, other) = (task.id, ergate.clone());
                waits.push(tokio::spawn(async move { task.end().await.map(|_| ()) }));
                waits.push(tokio::spawn(async move { other.wait(id).await.map(|_| ()) }));
            }
            waits
        };
        let failed = tokio::spawn({
            let ergate = ergate.clone();
            async move { ergate.failed().await }
        });
        // Some submits are in flight when it happens.
        let in_flight: Vec<_> = (0..50_u32)
            .map(|index| {
                let ergate = ergate.clone();
                tokio::spawn(async move { ergate.submit("never", &index).await.map(|task| task.id) })
            })
            .collect();
        ergate.writer().expect("one shard").do_send(PanicNow::LogWriter);
        for wait in waits {
            let answer = tokio::time::timeout(Duration::from_secs(10), wait).await.expect("a wait hangs").expect("no panic");
            assert!(matches!(answer, Err(WaitError::Stopped)), "{answer:?}");
        }
        let mut acknowledged = Vec::new();
        for submit in in_flight {
            match tokio::time::timeout(Duration::from_secs(10), submit).await.expect("a submit hangs").expect("no panic") {
                Ok(id) => acknowledged.push(id),
                Err(SubmitError::Unknown { .. } | SubmitError::Closed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(matches!(ergate.submit("never", &1_u32).await, Err(SubmitError::Closed { .. })));
        assert!(matches!(ergate.state().await, Err(WaitError::Stopped)));
        assert!(matches!(
            ergate.cancel(ergate::events::id::TaskId::embedded(ergate::events::id::Ordinal(0)), "", "").await,
            Err(SubmitError::Closed { .. })
        ));
        tokio::time::timeout(Duration::from_secs(10), failed).await.expect("`failed` hangs").expect("no panic");
        let closed = ergate.shutdown().await;
        assert!(closed.is_err(), "a shutdown after a panic must not say that all is well");
        assert!(ergate.shutdown().await.is_ok(), "a second one has nothing left to do");
        drop(ergate);
        // The lock is free at once, and what was acknowledged is there.
        let ergate = file(dir.path())
            .pool("default", 1, 8)
            .task_with("never", once(), function(never))
            .start()
            .await
            .expect("it starts again");
        let facts = folded(&ergate);
        assert!(facts.tasks.len() >= 20 && acknowledged.iter().all(|id| (id.ordinal.0 as usize) < facts.tasks.len()));
        ergate.shutdown_within(Duration::ZERO).await.expect("it closes");
    });
}

#[test]
fn pools_grow_and_shrink_under_load_and_lose_nothing() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let work = |index: u32| async move {
            tokio::time::sleep(Duration::from_micros(u64::from(index) * 7 % 900)).await;
            Ok::<_, TaskError>(index)
        };
        let ergate =
            file(dir.path()).pool("default", 2, 8).task_with("work", once(), function(work)).start().await.expect("starts");
        let batch = submit_many(&ergate, "work", 6_000).await;
        for (replicas, slots) in [(6, 8), (1, 8), (3, 2), (0, 2), (4, 16), (2, 1), (2, 32)] {
            ergate.resize_pool("default", replicas, slots, "test", "to see").await.expect("resized");
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        assert_eq!(succeeded(batch).await, 6_000);
        until("two replicas", || ergate.with_progress(|progress| progress.replicas.values().sum::<i64>() == 2)).await;
        let facts = folded(&ergate);
        assert_eq!((facts.lost, facts.starts.len()), (0, 6_000), "draining gives every attempt its time");
        assert_eq!(ergate.restarts().executors.load(Ordering::Relaxed), 0);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_shutdown_under_load_loses_nothing_whether_the_drain_deadline_is_reached_or_not() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let builder = || {
            let work = |index: u32| async move {
                tokio::time::sleep(Duration::from_millis(u64::from(index) % 40)).await;
                Ok::<_, TaskError>(index)
            };
            let thread = |_: Context, index: u32| {
                std::thread::sleep(Duration::from_millis(u64::from(index) % 10));
                Ok::<_, TaskError>(index)
            };
            file(dir.path()).pool("default", 2, 32).task_with("work", once(), function(work)).task_with(
                "thread",
                once(),
                blocking(thread),
            )
        };
        let mut accepted = 0;
        for drain in [Duration::from_secs(10), Duration::ZERO, Duration::from_millis(15), Duration::from_secs(10)] {
            let ergate = builder().start().await.expect("starts");
            let submitters: Vec<_> = (0..4_u32)
                .map(|submitter| {
                    let ergate = ergate.clone();
                    tokio::spawn(async move {
                        let mut accepted = 0_usize;
                        loop {
                            let name = if submitter == 0 { "thread" } else { "work" };
                            match ergate.submit(name, &(accepted as u32)).await {
                                Ok(_) => accepted += 1,
                                Err(SubmitError::Closed { .. } | SubmitError::Unknown { .. }) => return accepted,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(120)).await;
            let started = Instant::now();
            ergate.shutdown_within(drain).await.expect("it closes");
            assert!(
                started.elapsed() < drain + Duration::from_secs(3),
                "it took {:?} for a drain of {drain:?}",
                started.elapsed()
            );
            for submitter in submitters {
                let own =
                    tokio::time::timeout(Duration::from_secs(5), submitter).await.expect("a submitter hangs").expect("no panic");
                accepted += own;
            }
            let facts = facts(dir.path(), &BTreeSet::new()).expect("the log verifies");
            assert!(facts.tasks.len() >= accepted, "{} tasks are in the log, {accepted} were acknowledged", facts.tasks.len());
            if drain > Duration::from_secs(1) {
                assert_eq!(facts.state.work.replicas.iter().map(|(_, replica)| replica.used()).sum::<usize>(), 0, "it drained");
            }
        }
        let ergate = builder().start().await.expect("starts");
        until("the end of everything", || ergate.with_progress(|progress| progress.live() == 0)).await;
        let facts = folded(&ergate);
        assert_eq!(facts.outcomes.get("SUCCEEDED").copied(), Some(facts.tasks.len() as u64), "{:?}", facts.outcomes);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_start_after_a_crash_gives_no_work_to_replicas_that_are_gone() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let work = |_: u32| async move { Ok::<_, TaskError>(()) };
        let start = || file(dir.path()).pool("default", 2, 8).task_with("work", once(), function(work)).start();
        let ergate = start().await.expect("starts");
        let later = ergate.now().after(Micros::from_millis(150));
        let id = ergate.task_type("work").expect("registered");
        let mut requests = RequestBatch::new();
        for _ in 0..10 {
            requests.push(id, b"1", Some(Box::new(ergate::Extras { not_before: Some(later), ..ergate::Extras::default() })));
        }
        drop(ergate.submit_batch(requests).await.expect("accepted"));
        // Without a drain the log still knows both replicas and their free slots, as after a kill.
        drop(ergate);
        let mut ergate = start().await;
        for _ in 0..200 {
            if ergate.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            ergate = start().await;
        }
        let ergate = ergate.expect("dropping the last handle frees the lock");
        until("the end of everything", || ergate.with_progress(|progress| progress.live() == 0)).await;
        assert_eq!(folded(&ergate).lost, 0);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn silence_ends_an_attempt_and_its_checkpoint_goes_to_the_next() {
    block_on(LIMIT, async {
        let timeouts = Timeouts { heartbeat: Some(Micros::from_millis(120)), ..Timeouts::default() };
        let settings = TypeSettings { timeouts, ..quick_retry() };
        let work = |context: Context, _: u32| async move {
            let before = context.checkpoint().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            match context.attempt().number {
                1 => {
                    context.keep(b"half");
                    std::future::pending::<()>().await;
                }
                2 => {
                    assert_eq!(before.as_deref(), Some("half"));
                    for _ in 0..20 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        context.heartbeat();
                    }
                    context.keep(b"three quarters");
                    return Err(TaskError::new("again", "on purpose"));
                }
                _ => {}
            }
            // Kept and succeeded in one poll: the result must be the result alone.
            context.keep(b"everything");
            Ok(before.unwrap_or_default())
        };
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 1, 2)
            .task_with("work", settings, function(work))
            .start()
            .await
            .expect("starts");
        let result: String = ergate.submit("work", &1_u32).await.expect("accepted").result().await.expect("a result");
        assert_eq!(result, "three quarters");
        assert_eq!(folded(&ergate).starts.len(), 3);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn cancellation_is_heard_by_all_who_wait_and_hard_for_those_who_do_not() {
    block_on(LIMIT, async {
        let settings = TypeSettings { cancel_grace: Micros::from_millis(150), ..once() };
        let polite = |context: Context, _: u32| async move {
            let waits: Vec<_> = (0..3)
                .map(|_| context.clone())
                .map(|own| tokio::task::spawn_local(async move { own.cancelled().await }))
                .collect();
            for wait in waits {
                wait.await.expect("no panic");
            }
            Err::<(), _>(TaskError::new("cancelled", "cleaned up"))
        };
        let deaf = |_: u32| std::future::pending::<Result<(), TaskError>>();
        let polite_thread = blocking(|context: Context, _: u32| -> Result<(), TaskError> {
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TaskError::new("cancelled", "cleaned up"))
        });
        let held = Arc::new(AtomicBool::new(true));
        let holding = Arc::clone(&held);
        let deaf_thread = blocking(move |_, _: u32| -> Result<(), TaskError> {
            while holding.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 1, 4)
            .task_with("polite", settings.clone(), function(polite))
            .task_with("deaf", settings.clone(), function(deaf))
            .task_with("polite thread", settings.clone(), polite_thread)
            .task_with("deaf thread", settings, deaf_thread)
            .start()
            .await
            .expect("starts");
        let mut tasks = Vec::new();
        for name in ["polite", "deaf", "polite thread", "deaf thread"] {
            tasks.push((name, ergate.submit(name, &1_u32).await.expect("accepted")));
        }
        until("running attempts", || ergate.with_progress(|progress| progress.running == 4)).await;
        for (_, task) in &tasks {
            ergate.cancel(task.id, "test", "enough").await.expect("cancelled");
        }
        for (name, task) in tasks {
            let end = tokio::time::timeout(Duration::from_secs(10), task.end())
                .await
                .unwrap_or_else(|_| panic!("{name} hangs"))
                .expect("ends");
            assert_eq!(end.outcome, Outcome::Cancelled, "{name}");
        }
        // The thread that does not listen keeps its slot until it returns, and only then gives it back.
        let used =
            |state: &ergate::events::state::State| state.work.replicas.iter().map(|(_, replica)| replica.used()).sum::<usize>();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(used(&ergate.state().await.expect("runs")), 1);
        held.store(false, Ordering::Relaxed);
        let started = Instant::now();
        while used(&ergate.state().await.expect("runs")) > 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "the slot is not given back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(folded(&ergate).live(), 0);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_killed_task_ends_at_once_while_its_attempt_is_still_stopping() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .pool("default", 1, 1)
            .task_with("never", once(), function(|_: u32| std::future::pending::<Result<(), TaskError>>()))
            .task("fine", |value: u32| async move { Ok::<_, TaskError>(value) })
            .start()
            .await
            .expect("starts");
        let task = ergate.submit("never", &1_u32).await.expect("accepted");
        until("a running attempt", || ergate.with_progress(|progress| progress.running == 1)).await;
        let next = ergate.submit("fine", &5_u32).await.expect("accepted");
        ergate.kill(task.id, "test", "enough").await.expect("killed");
        assert!(matches!(ergate.kill(task.id, "test", "enough").await, Err(SubmitError::Rejected(Rejection::TaskEnded(_)))));
        assert_eq!(task.end().await.expect("ends").outcome, Outcome::Cancelled);
        assert_eq!(next.result::<u32>().await.expect("the slot is free again"), 5);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_hung_thread_times_out_and_holds_its_slot_until_it_ends() {
    block_on(LIMIT, async {
        let timeouts = Timeouts { start_to_close: Micros::from_millis(80), ..Timeouts::default() };
        let settings = TypeSettings { timeouts, ..quick_retry() };
        let fences = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&fences);
        let work = blocking(move |context: Context, _: u32| -> Result<u32, TaskError> {
            seen.lock().expect("no panic").push(context.fence());
            if context.attempt().number == 1 {
                std::thread::sleep(Duration::from_millis(600));
            }
            Ok(context.attempt().number)
        });
        let ergate =
            Runtime::builder().memory().pool("default", 1, 1).task_with("work", settings, work).start().await.expect("starts");
        let started = Instant::now();
        let task = ergate.submit("work", &1_u32).await.expect("accepted");
        let number: u32 = task.result().await.expect("the second attempt succeeds");
        assert_eq!(number, 2, "the result of the attempt that was given up does not count");
        assert!(started.elapsed() >= Duration::from_millis(600), "the only slot was held by the hung thread");
        let fences = fences.lock().expect("no panic").clone();
        assert!(fences.windows(2).all(|pair| pair[0] < pair[1]), "{fences:?}");
        assert_eq!(folded(&ergate).ends.len(), 1);
        ergate.shutdown().await.expect("it closes");
    });
}

/// Two attempts of one task at a time in one process, of which the late one must not be believed. Here its executor stops it before the fence does;
/// the fence alone is shown by the stories of the core.
#[test]
fn a_late_report_of_an_old_attempt_is_refused() {
    block_on(LIMIT, async {
        // Wide margins: on a busy machine a thread wakes up late.
        let timeouts = Timeouts { start_to_close: Micros::from_millis(800), ..Timeouts::default() };
        let settings = TypeSettings { timeouts, ..quick_retry() };
        let work = blocking(move |context: Context, _: u32| -> Result<u32, TaskError> {
            let number = context.attempt().number;
            // The first comes back while the second runs.
            std::thread::sleep(Duration::from_millis(if number == 1 { 1_000 } else { 400 }));
            Ok(number)
        });
        let ergate =
            Runtime::builder().memory().pool("default", 2, 8).task_with("work", settings, work).start().await.expect("starts");
        let mut tasks = Vec::new();
        for index in 0..6_u32 {
            tasks.push(ergate.submit("work", &index).await.expect("accepted"));
        }
        for task in tasks {
            let number: u32 = task.result().await.expect("a later attempt succeeds");
            assert!(number > 1, "the result of an attempt that had timed out was taken");
        }
        folded(&ergate);
        ergate.shutdown().await.expect("it closes");
    });
}

/// A machine that was off for two hours did not run its attempts for two hours: they are returned, not timed out.
#[test]
fn downtime_beyond_the_timeout_burns_no_attempt() {
    block_on(LIMIT, async {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let begin = ergate::events::time::Timestamp(1_800_000_000_000_000);
        let settings = TypeSettings { retry: ergate::RetryPolicy::NEVER, ..TypeSettings::default() };
        let hang = |_: u32| async { std::future::pending::<Result<u32, TaskError>>().await };
        let clock = std::sync::Arc::new(ergate::clock::ManualClock::at(begin));
        let builder = Runtime::builder().file(scratch.path()).clock(clock);
        let ergate = builder.task_with("work", settings.clone(), ergate::function(hang)).start().await.expect("starts");
        let id = ergate.submit("work", &1_u32).await.expect("accepted").id;
        while ergate.state().await.expect("runs").work.tasks.get(id.ordinal).is_none_or(|task| task.attempt == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(ergate.shutdown_within(Duration::ZERO).await);
        let later = std::sync::Arc::new(ergate::clock::ManualClock::at(begin.after(Micros::from_secs(7_200))));
        let answer = |number: u32| async move { Ok::<u32, TaskError>(number) };
        let builder = Runtime::builder().file(scratch.path()).clock(later);
        let ergate = builder.task_with("work", settings, ergate::function(answer)).start().await.expect("starts again");
        let end = ergate.wait(id).await.expect("it ends");
        assert_eq!((end.outcome, &*end.result), (ergate::Outcome::Succeeded, &b"1"[..]));
        ergate.shutdown().await.expect("it closes");
    });
}

/// A replica that is given up before its thread runs must neither serve uncounted nor stay wanted for ever.
#[test]
fn replicas_given_up_before_they_came_up_leave_both_halves() {
    block_on(LIMIT, async {
        let echo = |number: u32| async move { Ok::<u32, TaskError>(number) };
        let ergate = Runtime::builder().memory().pool("default", 1, 4).task("work", echo).start().await.expect("starts");
        for round in 0..20_u32 {
            for replicas in [6, 1, 4, 1] {
                ergate.resize_pool("default", replicas, 4, "test", "up and down at once").await.expect("taken");
            }
            ergate.submit("work", &round).await.expect("accepted").result::<u32>().await.expect("it runs");
        }
        for _ in 0..400 {
            let state = ergate.state().await.expect("runs");
            if state.work.replicas.iter().count() == 1 && state.control.replicas.len() == 1 {
                ergate.shutdown().await.expect("it closes");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let state = ergate.state().await.expect("runs");
        let joined: Vec<_> = state.work.replicas.iter().map(|(id, replica)| (id, replica.draining)).collect();
        panic!("one replica is wanted; joined: {joined:?}, counted: {:?}", state.control.replicas);
    });
}
