//! The embedding API as an application uses it: what it answers to wrong, repeated, abandoned and simultaneous calls.
//!
//! Bugs found here, each with its test below:
//!
//! - A wait that came between the decision that a task had ended and its block's sync found no end and said that there is no such task.
//! - A batch of more than one block whose first tasks fell due before its last ones were decided never told its ends.
//! - `try_submit_batch` after a shutdown said that the runtime is busy.
//! - A runtime whose last handle was dropped went on and kept its log locked.
//! - Of two shutdowns at once the first returned before the log was closed.
#![allow(clippy::wildcard_enum_match_arm, reason = "tests say aloud how they went, and look for a few events among many")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ergate::events::command::Rejection;
use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::id::{Ordinal, TaskId};
use ergate::events::log::LogError;
use ergate::events::time::Micros;
use ergate::store::RecoverError;
use ergate::{
    Context, Extras, IntoTask, Outcome, RequestBatch, RetryPolicy, Runtime, StartError, SubmitError, TaskError, Timeouts,
    TypeSettings, WaitError,
};
use process::{block_on, facts_of, small_files};

const LIMIT: Duration = Duration::from_secs(60);

fn once() -> TypeSettings {
    TypeSettings { retry: RetryPolicy::NEVER, ..TypeSettings::default() }
}

async fn double(value: u32) -> Result<u32, TaskError> {
    Ok(value * 2)
}

async fn started() -> Runtime {
    Runtime::builder().memory().task("double", double).pool("default", 2, 16).start().await.expect("it starts")
}

async fn on(dir: &Path) -> Result<Runtime, StartError> {
    Runtime::builder().file(dir).log_options(small_files()).task("double", double).start().await
}

fn keyed(key: &str) -> Extras {
    Extras { key: Some(key.to_owned()), ..Extras::default() }
}

#[test]
fn payloads_and_results_of_other_types_are_named_and_not_retried() {
    block_on(LIMIT, async {
        let ergate = started().await;
        let end =
            ergate.submit("double", "a text").await.expect("the runtime does not know the type").end().await.expect("it ends");
        let failure = end.failure.expect("it failed");
        assert_eq!((end.outcome, failure.class.as_str()), (Outcome::Failed, "payload"));
        assert!(failure.message.contains("invalid type"), "{}", failure.message);
        let result = ergate.submit("double", &4_u32).await.expect("accepted").result::<String>().await;
        assert!(matches!(result, Err(WaitError::Result { .. })), "{result:?}");
        let error = ergate.submit("dobule", &4_u32).await.err().expect("no such type");
        assert_eq!(error.to_string(), "task type \"dobule\" is not registered here; registered are: double");
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(ergate.submit("double", &unwritable).await, Err(SubmitError::Payload { .. })));
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_key_names_one_task_while_it_lives_and_long_after() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let ergate = on(dir.path()).await.expect("it starts");
        let later = Extras { not_before: Some(ergate.now().after(Micros::from_millis(100))), ..keyed("a") };
        let first = ergate.submit_with("double", &21_u32, later).await.expect("accepted");
        let second = ergate.submit_with("double", &21_u32, keyed("a")).await.expect("accepted");
        assert!(!first.duplicate && second.duplicate && first.id == second.id);
        let conflict = ergate.submit_with("double", &22_u32, keyed("a")).await.err();
        assert!(matches!(conflict, Some(SubmitError::Rejected(Rejection::KeyConflict { .. }))), "{conflict:?}");
        let (id, a, b) = (first.id, first.result::<u32>(), second.result::<u32>());
        let (a, b) = tokio::join!(a, b);
        assert_eq!((a.expect("a result"), b.expect("a result")), (42, 42));
        ergate.shutdown().await.expect("it closes");
        let ergate = on(dir.path()).await.expect("it starts");
        let third = ergate.submit_with("double", &21_u32, keyed("a")).await.expect("accepted");
        assert!(third.duplicate && third.id == id);
        assert_eq!(third.result::<u32>().await.expect("the log knows"), 42);
        // A thousand at once are one task.
        let many: Vec<_> = (0..1_000)
            .map(|_| ergate.clone())
            .map(|ergate| {
                tokio::spawn(async move { ergate.submit_with("double", &5_u32, keyed("b")).await.expect("accepted").id })
            })
            .collect();
        let mut ids = BTreeSet::new();
        for id in many {
            ids.insert(id.await.expect("no panic"));
        }
        assert_eq!(ids.len(), 1);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_wait_at_the_very_moment_of_the_end_learns_it() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let ergate = on(dir.path()).await.expect("it starts");
        let waits: Vec<_> = (0..8_u32)
            .map(|submitter| {
                let ergate = ergate.clone();
                tokio::spawn(async move {
                    for index in 0..150_u32 {
                        let task = ergate.submit("double", &index).await.expect("accepted");
                        for _ in 0..submitter {
                            tokio::task::yield_now().await;
                        }
                        let end = ergate.wait(task.id).await.unwrap_or_else(|error| panic!("task {}: {error}", task.id));
                        assert_eq!(end.result.as_ref(), (index * 2).to_string().as_bytes());
                    }
                })
            })
            .collect();
        for wait in waits {
            wait.await.expect("no panic");
        }
        let nobody = ergate.wait(TaskId::embedded(Ordinal(1_000_000))).await;
        assert!(matches!(nobody, Err(WaitError::NoSuchTask(_))), "{nobody:?}");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn higher_priorities_start_first_and_nothing_starts_before_its_time() {
    block_on(LIMIT, async {
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let note = move |value: u32| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().expect("no panic").push(value);
                tokio::time::sleep(Duration::from_millis(u64::from(value == 99) * 150)).await;
                Ok::<_, TaskError>(())
            }
        };
        let ergate = Runtime::builder().memory().task("note", note).pool("default", 1, 1).start().await.expect("it starts");
        let id = ergate.task_type("note").expect("registered");
        let plug = ergate.submit("note", &99_u32).await.expect("accepted");
        while ergate.with_progress(|progress| progress.running == 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut requests = RequestBatch::new();
        for priority in [0_u8, 9, 4, 7, 9, 0] {
            let extras = Extras { priority: Some(priority), ..Extras::default() };
            requests.push(id, priority.to_string().as_bytes(), Some(Box::new(extras)));
        }
        let batch = ergate.submit_batch(requests).await.expect("accepted");
        plug.end().await.expect("it ends");
        batch.wait().await.expect("they end");
        assert_eq!(*order.lock().expect("no panic"), [99, 9, 9, 7, 4, 0, 0]);
        let (delay, started) = (Duration::from_millis(120), Instant::now());
        let extras = Extras { not_before: Some(ergate.now().after(delay.into())), ..Extras::default() };
        ergate.submit_with("note", &1_u32, extras).await.expect("accepted").end().await.expect("it ends");
        assert!(started.elapsed() >= delay && started.elapsed() < delay + Duration::from_secs(2), "{:?}", started.elapsed());
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_batch_answers_each_of_its_requests_and_tells_the_ends_of_those_it_took() {
    block_on(LIMIT, async {
        let ergate = started().await;
        let id = ergate.task_type("double").expect("registered");
        let mut requests = RequestBatch::new();
        requests.push(id, b"1", None);
        requests.push(id, &vec![b'1'; ergate::events::task::PAYLOAD_BYTES_MAX + 1], None);
        requests.push(id, b"2", Some(Box::new(keyed("k"))));
        requests.push(id, b"2", Some(Box::new(keyed("k"))));
        requests.push(id, b"3", Some(Box::new(Extras { priority: Some(10), ..Extras::default() })));
        requests.push(id, b"4", Some(Box::new(keyed(&"k".repeat(257)))));
        requests.push(ergate::events::id::TypeId(77), b"5", None);
        requests.push(id, b"6", None);
        let batch = ergate.submit_batch(requests).await.expect("it is answered");
        let answers: Vec<_> = batch.answer.iter().collect();
        let task = |ordinal| TaskId::embedded(Ordinal(ordinal));
        assert_eq!(answers.len(), 8);
        assert_eq!(
            (&answers[0], &answers[2], &answers[3], &answers[7]),
            (&Ok((task(0), false)), &Ok((task(1), false)), &Ok((task(1), true)), &Ok((task(2), false)))
        );
        assert!(matches!(answers[1], Err(SubmitError::Rejected(Rejection::TooLarge { .. }))));
        assert!(matches!(answers[4], Err(SubmitError::Rejected(Rejection::OutOfRange { .. }))));
        assert!(matches!(answers[5], Err(SubmitError::Rejected(Rejection::TooLarge { .. }))));
        assert!(matches!(answers[6], Err(SubmitError::Rejected(Rejection::UnknownType(_)))));
        let ends: Vec<_> =
            batch.wait().await.expect("they end").into_ends().map(|(task, end)| (task.ordinal.0, end.result.to_vec())).collect();
        assert_eq!(ends, [(0, b"2".to_vec()), (1, b"4".to_vec()), (2, b"12".to_vec())]);
        // All refused, and none at all.
        let mut refused = RequestBatch::new();
        refused.push(ergate::events::id::TypeId(77), b"5", None);
        for requests in [refused, RequestBatch::new()] {
            let batch = ergate.submit_batch(requests).await.expect("it is answered");
            assert_eq!(batch.wait().await.expect("nothing to wait for").into_ends().count(), 0);
        }
        let mut requests = RequestBatch::new();
        (0..=ergate::runtime::BATCH_REQUESTS_MAX).for_each(|_| requests.push(id, b"1", None));
        assert!(matches!(ergate.submit_batch(requests).await, Err(SubmitError::BatchTooLarge { requests: 65_537, .. })));
        let mut requests = RequestBatch::new();
        (0..65).for_each(|_| requests.push(id, &vec![b' '; 1 << 20], None));
        assert!(matches!(ergate.submit_batch(requests).await, Err(SubmitError::BatchTooLarge { requests: 65, .. })));
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_long_batch_whose_tasks_fall_due_while_it_is_decided_tells_its_ends() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .task_with("double", once(), double.into_task())
            .pool("default", 0, 1)
            .start()
            .await
            .expect("it starts");
        let id = ergate.task_type("double").expect("registered");
        let timeouts = Timeouts { schedule_to_close: Some(Micros(1)), ..Timeouts::default() };
        let mut requests = RequestBatch::new();
        for _ in 0..3_000 {
            requests.push(id, &[b' '; 500], Some(Box::new(Extras { timeouts: Some(timeouts), ..Extras::default() })));
        }
        let batch = ergate.submit_batch(requests).await.expect("accepted");
        let ends = tokio::time::timeout(Duration::from_secs(20), batch.wait()).await.expect("the wait hangs").expect("it runs");
        assert_eq!(ends.into_ends().filter(|(_, end)| end.outcome == Outcome::Failed).count(), 3_000);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn an_abandoned_submit_harms_nobody() {
    block_on(LIMIT, async {
        let ergate = started().await;
        for round in 0..300_u32 {
            let submit = ergate.submit("double", &round);
            // Some are dropped before they begin, some in the middle, some with an answer that nobody reads.
            let _ = tokio::time::timeout(Duration::from_micros(u64::from(round) * 3), submit).await;
            let task = ergate.submit("double", &round).await.expect("accepted");
            drop(tokio::time::timeout(Duration::from_micros(u64::from(round)), ergate.wait(task.id)).await);
            if round % 3 == 0 {
                assert_eq!(task.result::<u32>().await.expect("a result"), round * 2);
            }
        }
        let started = Instant::now();
        while ergate.with_progress(|progress| progress.live() > 0) {
            assert!(started.elapsed() < Duration::from_secs(20), "abandoned tasks do not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ergate.submit("double", &7_u32).await.expect("accepted").result::<u32>().await.expect("a result"), 14);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn many_threads_share_a_runtime_by_clones() {
    block_on(LIMIT, async {
        let ergate = started().await;
        let handle = tokio::runtime::Handle::current();
        let threads: Vec<_> = (0..16_u32)
            .map(|thread| {
                let (ergate, handle) = (ergate.clone(), handle.clone());
                std::thread::spawn(move || {
                    handle.block_on(async {
                        for index in 0..60 {
                            let value = thread * 1_000 + index;
                            let task = ergate.clone().submit("double", &value).await.expect("accepted");
                            assert_eq!(task.result::<u32>().await.expect("a result"), value * 2);
                        }
                    });
                })
            })
            .collect();
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().expect("no panic")))
            .await
            .expect("no panic");
        assert_eq!(facts_of(ergate.reader().as_ref(), &BTreeSet::new()).expect("it verifies").ends.len(), 960);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn two_directories_are_two_runtimes_and_one_directory_is_locked_by_name() {
    block_on(LIMIT, async {
        let (left, right) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (a, b) = (on(left.path()).await.expect("it starts"), on(right.path()).await.expect("it starts"));
        let (x, y) = (a.submit("double", &1_u32).await.expect("accepted"), b.submit("double", &2_u32).await.expect("accepted"));
        assert_eq!((x.result::<u32>().await.expect("a result"), y.result::<u32>().await.expect("a result")), (2, 4));
        match on(left.path()).await.err().expect("it is locked") {
            StartError::Recover(RecoverError::Log(LogError::Locked { pid, .. })) => {
                assert_eq!(pid, std::process::id().to_string())
            }
            error => panic!("{error}"),
        }
        a.shutdown().await.expect("it closes");
        on(left.path()).await.expect("the lock is free").shutdown().await.expect("it closes");
        // A handle that is dropped without a shutdown frees it too, soon.
        drop(b);
        let began = Instant::now();
        while let Err(error) = on(right.path()).await.map(drop) {
            assert!(began.elapsed() < Duration::from_secs(10), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn it_runs_on_a_single_thread_and_inside_actix() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ergate = started().await;
        assert_eq!(ergate.submit("double", &3_u32).await.expect("accepted").result::<u32>().await.expect("a result"), 6);
        ergate.shutdown().await.expect("it closes");
    });
    actix::System::new().block_on(async {
        let ergate = started().await;
        assert_eq!(ergate.submit("double", &3_u32).await.expect("accepted").result::<u32>().await.expect("a result"), 6);
        ergate.shutdown().await.expect("it closes");
        // The application's own system lives on.
        actix::spawn(async {}).await.expect("it still spawns");
    });
}

#[test]
fn after_a_shutdown_everything_says_that_it_is_closed() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let ergate = on(dir.path()).await.expect("it starts");
        let task = ergate.submit("double", &1_u32).await.expect("accepted");
        let (one, two) = (ergate.clone(), ergate.clone());
        let (one, two) = tokio::join!(
            async move {
                one.shutdown().await.expect("it closes");
                on(dir.path()).await.map(|again| (again, dir))
            },
            async move { two.shutdown().await }
        );
        two.expect("the second waits for the first");
        let (again, dir) = one.expect("a shutdown returns when the log is closed");
        ergate.shutdown().await.expect("a third has nothing to do");
        assert!(matches!(ergate.submit("double", &1_u32).await, Err(SubmitError::Closed { .. })));
        assert!(matches!(ergate.try_submit_batch(RequestBatch::new()).await, Err(SubmitError::Closed { .. })));
        assert!(matches!(ergate.cancel(task.id, "", "").await, Err(SubmitError::Closed { .. })));
        assert!(matches!(ergate.wait(task.id).await, Err(WaitError::Stopped)));
        drop(ergate);
        again.shutdown().await.expect("it closes");
        drop(dir);
    });
}

#[test]
fn a_restart_may_register_fewer_more_and_other_types() {
    block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let builder = || Runtime::builder().file(dir.path()).log_options(small_files()).pool("default", 1, 8);
        let retry = RetryPolicy {
            attempts: 100,
            initial: Micros::from_millis(20),
            max: Micros::from_millis(50),
            ..RetryPolicy::default()
        };
        let settings = TypeSettings { retry, ..TypeSettings::default() };
        let ergate =
            builder().task("a", double).task_with("b", settings.clone(), double.into_task()).start().await.expect("it starts");
        let later = ergate.now().after(Micros::from_millis(100));
        let extras = || Extras { not_before: Some(later), ..Extras::default() };
        let a = ergate.submit_with("a", &1_u32, extras()).await.expect("accepted").id;
        let b = ergate.submit_with("b", &2_u32, extras()).await.expect("accepted").id;
        ergate.shutdown().await.expect("it closes");
        // Without a function for `b`: its task is tried, and the failure says what is missing.
        let ergate = builder().task("a", double).task("c", double).start().await.expect("it starts");
        assert_eq!(ergate.wait(a).await.expect("it ends").outcome, Outcome::Succeeded);
        assert!(matches!(ergate.submit("b", &1_u32).await, Err(SubmitError::UnknownType { .. })));
        assert_eq!(ergate.submit("c", &4_u32).await.expect("accepted").result::<u32>().await.expect("a result"), 8);
        tokio::time::sleep(Duration::from_millis(250)).await;
        ergate.shutdown().await.expect("it closes");
        // With it again, and with other settings: the task goes on under those it was accepted with.
        let ergate = builder().task("a", double).task_with("b", once(), double.into_task()).start().await.expect("it starts");
        assert_eq!(ergate.wait(b).await.expect("it ends").result.as_ref(), b"4");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_result_is_the_functions_and_nothing_else() {
    block_on(LIMIT, async {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let work = move |context: Context, value: u32| {
            let calls = counter.fetch_add(1, Ordering::Relaxed);
            async move {
                match value % 3 {
                    0 => context.keep(b"details"),
                    1 => context.set_partial(),
                    _ => context.set_skipped(),
                }
                Ok::<_, TaskError>((value, calls))
            }
        };
        let ergate = Runtime::builder().memory().task("work", work).pool("default", 1, 4).start().await.expect("it starts");
        for value in 0..30_u32 {
            let end = ergate.submit("work", &value).await.expect("accepted").end().await.expect("it ends");
            let expected = [Outcome::Succeeded, Outcome::Partial, Outcome::Skipped][value as usize % 3];
            assert_eq!((end.outcome, end.result.as_ref()), (expected, format!("[{value},{value}]").as_bytes()));
        }
        ergate.shutdown().await.expect("it closes");
    });
}

/// What the log says that attempts told: the percentage and the stage, in its order.
fn progress_of(ergate: &Runtime) -> Vec<(Option<u8>, String)> {
    let (reader, mut told) = (ergate.reader(), Vec::new());
    let mut cursor = reader.cursor(Position(0)).expect("a cursor");
    while let Some(block) = cursor.next_block().expect("a block") {
        for envelope in block.records() {
            if let Event::Progressed { percent, stage, .. } = envelope.expect("an event").event {
                told.push((percent, stage.to_owned()));
            }
        }
    }
    told
}

#[test]
fn the_newest_progress_is_recorded_once_a_second_and_at_the_end_of_a_failure() {
    block_on(LIMIT, async {
        let work = |context: Context, (): ()| async move {
            for percent in 0..40_u8 {
                context.progress(Some(percent), "reading", "");
                context.progress(Some(percent), "reading", "");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            context.progress(Some(99), "writing", "nearly there");
            Err::<(), _>(TaskError::permanent("full", "no room"))
        };
        let ergate = Runtime::builder().memory().task("work", work).start().await.expect("it starts");
        let task = ergate.submit("work", &()).await.expect("accepted");
        assert_eq!(task.end().await.expect("it ends").outcome, Outcome::Failed);
        let told = progress_of(&ergate);
        assert_eq!(
            (told.first(), told.last()),
            (Some(&(Some(0), "reading".to_owned())), Some(&(Some(99), "writing".to_owned())))
        );
        // The function takes 1.2 s, longer on a busy machine; it tells 41 times.
        assert!((3..=10).contains(&told.len()), "{told:?}");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_program_gives_a_pool_shadows_holds_its_size_and_lets_it_go() {
    use ergate::scaling::AnyPolicy;
    use ergate::scaling::rate::Rate;

    block_on(LIMIT, async {
        let policy = AnyPolicy::Rate(Rate::default());
        let builder = Runtime::builder().memory().task("double", double).pool_between("default", 0, 4, 2);
        let runtime = builder.policy("default", policy.clone()).shadow("default", "same", policy.clone()).start().await.unwrap();
        runtime.set_shadow("default", "other", Some(&policy), "test", "to see").await.unwrap();
        runtime.set_shadow("default", "same", None, "test", "seen").await.unwrap();
        assert!(matches!(
            runtime.set_shadow("default", "no name", Some(&policy), "test", "").await,
            Err(SubmitError::Rejected(Rejection::OutOfRange { .. }))
        ));
        for span in [Micros(1), Micros::from_secs(32 * 86_400)] {
            let held = runtime.hold_pool("default", 3, span, "test", "").await;
            assert!(matches!(held, Err(SubmitError::Rejected(Rejection::OutOfRange { .. }))), "{span}");
        }
        // What is there of the only pool: its size, its shadows, and whether somebody holds it.
        let there = async || {
            let state = runtime.state().await.unwrap();
            let scaling = state.control.scaling.values().next().unwrap();
            let names: Vec<String> = scaling.shadows.keys().cloned().collect();
            (state.control.pools[0].replicas, names.join(" "), scaling.hold.is_some())
        };
        runtime.hold_pool("default", 3, Micros::from_secs(3_600), "test", "the launch").await.unwrap();
        assert_eq!(there().await, (3, "other".to_owned(), true));
        let before = Instant::now();
        runtime.release_pool("default", "test", "it is over").await.unwrap();
        while there().await.0 != 0 {
            assert!(before.elapsed() < LIMIT, "{:?}", there().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(there().await, (0, "other".to_owned(), false));
        runtime.shutdown().await.unwrap();
    });
}
