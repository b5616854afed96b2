//! More work than there is room for: it waits or is refused with a hint, and nothing that was promised gets lost on the way.
//!
//! Bugs found here, each with its test below:
//!
//! - A flood of cancellations filled the log writer's mailbox; the alarm that did not fit was never set again, so no delay, retry or timeout
//!   fell due any more, and the news of a durable block that did not fit left its callers waiting.
//! - Every timer that fired before a longer one left another sleeping task behind.
#![allow(clippy::wildcard_enum_match_arm, reason = "tests say aloud how they went, and look for a few events among many")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ergate::events::time::Micros;
use ergate::{Extras, RequestBatch, Runtime, SubmitError, TaskError};
use process::{block_on, facts_of};

const LIMIT: Duration = Duration::from_secs(90);

async fn held(open: Arc<AtomicBool>) -> Runtime {
    let hold = move |value: u32| {
        let open = Arc::clone(&open);
        async move {
            while !open.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, TaskError>(value)
        }
    };
    Runtime::builder().memory().task("hold", hold).pool("default", 1, 4).tasks_live_max(100).start().await.expect("it starts")
}

#[test]
fn too_many_live_tasks_are_refused_until_some_have_ended() {
    block_on(LIMIT, async {
        let open = Arc::new(AtomicBool::new(false));
        let ergate = held(Arc::clone(&open)).await;
        let mut tasks = Vec::new();
        let refusal = loop {
            match ergate.submit("hold", &1_u32).await {
                Ok(task) => tasks.push(task),
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, SubmitError::Busy { retry_after, .. } if retry_after > Micros(0)), "{refusal}");
        assert_eq!(tasks.len(), 100);
        let mut batch = RequestBatch::new();
        batch.push(ergate.task_type("hold").expect("registered"), b"1", None);
        assert!(matches!(ergate.try_submit_batch(batch).await, Err(SubmitError::Busy { .. })));
        // What is there goes on, reads and control included.
        assert_eq!(ergate.state().await.expect("it runs").work.tasks.len(), 100);
        ergate.kill(tasks.pop().expect("there are some").id, "test", "room").await.expect("killed");
        ergate.submit("hold", &1_u32).await.expect("there is room for one");
        open.store(true, Ordering::Relaxed);
        for task in tasks {
            task.end().await.expect("it ends");
        }
        ergate.submit("hold", &1_u32).await.expect("there is room again");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn try_submit_says_busy_where_submit_waits_and_nothing_is_lost() {
    block_on(LIMIT, async {
        let ergate = Runtime::builder()
            .memory()
            .task("work", |_: serde_json::Value| async { Ok::<_, TaskError>(()) })
            .start()
            .await
            .expect("starts");
        let id = ergate.task_type("work").expect("registered");
        let large = || {
            let mut batch = RequestBatch::new();
            (0..20).for_each(|_| batch.push(id, &[b"\"", vec![b'x'; 1_000_000].as_slice(), b"\""].concat(), None));
            batch
        };
        let waiting: Vec<_> = (0..5)
            .map(|_| (ergate.clone(), large()))
            .map(|(ergate, batch)| {
                tokio::spawn(async move { ergate.submit_batch(batch).await.expect("it waits and is accepted").wait().await })
            })
            .collect();
        let trying: Vec<_> = (0..5)
            .map(|_| (ergate.clone(), large()))
            .map(|(ergate, batch)| tokio::spawn(async move { ergate.try_submit_batch(batch).await }))
            .collect();
        let (mut busy, mut accepted) = (0, 0);
        for answer in trying {
            match answer.await.expect("no panic") {
                Ok(batch) => {
                    accepted += 1;
                    batch.wait().await.expect("they end");
                }
                Err(SubmitError::Busy { retry_after, .. }) => {
                    assert!(retry_after > Micros(0));
                    busy += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        for batch in waiting {
            assert_eq!(batch.await.expect("no panic").expect("they end").into_ends().count(), 20);
        }
        assert!(busy > 0, "64 MiB of room take at most 3 of these batches, and {accepted} were taken");
        assert_eq!(ergate.state().await.expect("it runs").work.ended[0], (5 + accepted) * 20);
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn a_flood_of_control_messages_delays_timers_and_loses_none() {
    block_on(LIMIT, async {
        let work = |value: u32| async move { Ok::<_, TaskError>(value) };
        let ergate = Runtime::builder().memory().task("work", work).pool("default", 1, 64).start().await.expect("it starts");
        for round in 0..2 {
            let mut delayed = Vec::new();
            for index in 0..40 {
                let extras =
                    Extras { not_before: Some(ergate.now().after(Micros::from_millis(5 + index * 3))), ..Extras::default() };
                delayed.push(ergate.submit_with("work", &round, extras).await.expect("accepted"));
            }
            let floods: Vec<_> = (0..4_000_u64)
                .map(|index| (ergate.clone(), ergate::events::id::TaskId::embedded(ergate::events::id::Ordinal(index))))
                .map(|(ergate, task)| tokio::spawn(async move { ergate.cancel(task, "test", "there is no such task").await }))
                .collect();
            for task in delayed {
                let id = task.id;
                let end = tokio::time::timeout(Duration::from_secs(20), task.end()).await;
                drop(end.unwrap_or_else(|_| panic!("task {id} waits for ever, or is cancelled by the flood")));
            }
            for flood in floods {
                drop(
                    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("a cancellation hangs").expect("no panic"),
                );
            }
        }
        facts_of(ergate.reader().as_ref(), &BTreeSet::new()).expect("it verifies");
        ergate.shutdown().await.expect("it closes");
    });
}

#[test]
fn timers_leave_nothing_behind() {
    block_on(LIMIT, async {
        let work = |value: u32| async move { Ok::<_, TaskError>(value) };
        let ergate = Runtime::builder().memory().task("work", work).pool("default", 1, 64).start().await.expect("it starts");
        let far = Extras { not_before: Some(ergate.now().after(Micros::from_millis(1_500))), ..Extras::default() };
        let last = ergate.submit_with("work", &0_u32, far).await.expect("accepted");
        for value in 0..200_u32 {
            let soon = Extras { not_before: Some(ergate.now().after(Micros::from_millis(2))), ..Extras::default() };
            ergate.submit_with("work", &value, soon).await.expect("accepted").end().await.expect("it ends");
        }
        last.end().await.expect("it ends");
        // What slept beside the last one would wake with it, each with a batch of its own; an idle runtime records nothing.
        let before = (ergate.durable(), Instant::now());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(ergate.durable(), before.0);
        ergate.shutdown().await.expect("it closes");
    });
}
