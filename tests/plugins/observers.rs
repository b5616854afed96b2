//! Observers: told in the order of the log, once, and of no consequence to the tasks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ergate::events::event::Cause;
use ergate::events::task::{Outcome, RetryPolicy};
use ergate::events::time::Micros;
use ergate::observe::{FINISH_WITHIN, NOTICES_MAX, PANICS_MAX};
use ergate::{
    Context, EventObserver, EventObserverFactory, FactoryError, ObservedAttempt, ObservedError, ObservedProgress, Runtime,
    TaskError, TypeSettings,
};

use crate::process::block_on;
use crate::support::{NOW, PATIENCE, at, noticed, submit, until, work};

type Hear = dyn Fn(&ObservedAttempt, String) + Send + Sync;

/// An observer of `job` that hands everything on as a line.
#[derive(Clone)]
struct Listener {
    made: Arc<AtomicU32>,
    hear: Arc<Hear>,
}

impl Listener {
    fn new(hear: impl Fn(&ObservedAttempt, String) + Send + Sync + 'static) -> Listener {
        Listener { made: Arc::default(), hear: Arc::new(hear) }
    }

    /// One that keeps what it is told.
    fn keeping() -> (Listener, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        (Listener::new(move |_, line| kept.lock().unwrap().push(line)), heard)
    }

    fn hear(&self, attempt: &ObservedAttempt, what: &str) {
        let ObservedAttempt { task, attempt: number, task_type, .. } = attempt;
        (self.hear)(attempt, format!("{task_type} {task}.{number} {what}"));
    }
}

impl EventObserverFactory for Listener {
    fn task_type(&self) -> &str {
        "job"
    }

    fn create(&self) -> Result<Box<dyn EventObserver>, FactoryError> {
        self.made.fetch_add(1, Relaxed);
        Ok(Box::new(self.clone()))
    }
}

impl EventObserver for Listener {
    fn start(&mut self, attempt: &ObservedAttempt) {
        self.hear(attempt, "start");
    }

    fn progress(&mut self, attempt: &ObservedAttempt, progress: &ObservedProgress<'_>) {
        self.hear(attempt, &format!("progress {:?} {} {}", progress.percent, progress.stage, progress.message));
    }

    fn success(&mut self, attempt: &ObservedAttempt, outcome: Outcome, result: &[u8]) {
        self.hear(attempt, &format!("success {} {}", outcome.name(), String::from_utf8_lossy(result)));
    }

    fn cancelled(&mut self, attempt: &ObservedAttempt, cause: Cause) {
        self.hear(attempt, &format!("cancelled {cause:?}"));
    }

    fn error(&mut self, attempt: &ObservedAttempt, error: &ObservedError<'_>) {
        let ObservedError { class, message, again, cause } = error;
        self.hear(attempt, &format!("error {class}: {message}, again {}, {cause:?}", again.is_some()));
    }
}

/// Tells how far it is, fails once, and succeeds.
async fn second_time(context: Context, (): ()) -> Result<u32, TaskError> {
    context.progress(Some(50), "trying", "");
    tokio::time::sleep(Duration::from_millis(20)).await;
    if context.attempt().number == 1 { Err(TaskError::new("oops", "not yet")) } else { Ok(7) }
}

#[test]
fn every_turn_of_a_task_is_told_in_order_and_all_of_it_before_the_shutdown_returns() {
    block_on(PATIENCE, async {
        let (listener, heard) = Listener::keeping();
        let dir = tempfile::tempdir().unwrap();
        let retry = RetryPolicy { initial: Micros::from_millis(1), ..RetryPolicy::default() };
        let settings = TypeSettings { retry, ..TypeSettings::default() };
        let start = async || {
            let builder = Runtime::builder().file(dir.path()).task("other", work);
            let builder = builder.task_with("job", settings.clone(), ergate::function(second_time));
            builder.observer(listener.clone()).start().await.unwrap()
        };
        let runtime = start().await;
        let task = runtime.submit("job", &()).await.unwrap();
        runtime.submit("other", "x").await.unwrap().end().await.unwrap();
        task.end().await.unwrap();
        runtime.shutdown().await.unwrap();
        let expected = [
            "job 0-0.1 start",
            "job 0-0.1 progress Some(50) trying ",
            "job 0-0.1 error oops: not yet, again true, None",
            "job 0-0.2 start",
            "job 0-0.2 progress Some(50) trying ",
            "job 0-0.2 success SUCCEEDED 7",
        ];
        assert_eq!(*heard.lock().unwrap(), expected);
        let runtime = start().await;
        runtime.shutdown().await.unwrap();
        assert_eq!(heard.lock().unwrap().len(), expected.len(), "a restart tells nothing again");
    });
}

#[test]
fn cancelled_tasks_are_told_with_who_ended_them() {
    block_on(PATIENCE, async {
        let (listener, heard) = Listener::keeping();
        let settings = TypeSettings { cancel_grace: Micros::from_millis(10), ..TypeSettings::default() };
        let builder = Runtime::builder().memory().task_with("job", settings, ergate::function(work));
        let runtime = builder.observer(listener).start().await.unwrap();
        let tasks = [runtime.submit("job", "sleep").await.unwrap(), runtime.submit("job", "sleep").await.unwrap()];
        until("both starts", || heard.lock().unwrap().len() == 2).await;
        runtime.cancel(tasks[0].id, "me", "").await.unwrap();
        runtime.kill(tasks[1].id, "me", "").await.unwrap();
        for task in tasks {
            task.end().await.unwrap();
        }
        runtime.shutdown().await.unwrap();
        let heard: BTreeSet<_> = heard.lock().unwrap().iter().filter(|line| line.contains("cancelled")).cloned().collect();
        assert_eq!(heard.into_iter().collect::<Vec<_>>(), ["job 0-0.1 cancelled Cancelled", "job 0-1.1 cancelled Killed"]);
    });
}

#[test]
fn an_observer_that_blocks_holds_no_task_up_and_what_it_misses_is_counted() {
    block_on(PATIENCE, async {
        let blocked = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&blocked);
        let listener = Listener::new(move |_, _| {
            while gate.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (builder, _) = at(NOW);
        let runtime = builder.observer(listener).start().await.unwrap();
        let payloads = vec!["x"; NOTICES_MAX];
        let ends = submit(&runtime, &payloads).await.wait().await.unwrap();
        assert_eq!(ends.into_ends().filter(|(_, end)| end.outcome == Outcome::Succeeded).count(), NOTICES_MAX);
        // A start and a success of each.
        let all = 2.0 * NOTICES_MAX as f64;
        until("a dropped notice", || noticed(&runtime, "dropped") >= all - NOTICES_MAX as f64 - 1.0).await;
        blocked.store(false, Relaxed);
        until("the rest", || noticed(&runtime, "told") + noticed(&runtime, "dropped") >= all).await;
        assert!(noticed(&runtime, "told") <= NOTICES_MAX as f64 + 1.0);
        runtime.submit("job", "x").await.unwrap().end().await.unwrap();
        until("what comes later", || noticed(&runtime, "told") + noticed(&runtime, "dropped") >= all + 2.0).await;
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn the_end_of_a_runtime_does_not_wait_for_an_observer_that_never_returns() {
    block_on(PATIENCE, async {
        let (builder, _) = at(NOW);
        let runtime = builder.observer(Listener::new(|_, _| std::thread::sleep(10 * PATIENCE))).start().await.unwrap();
        runtime.submit("job", "x").await.unwrap().end().await.unwrap();
        let began = Instant::now();
        runtime.shutdown().await.unwrap();
        assert!((FINISH_WITHIN..FINISH_WITHIN * 3).contains(&began.elapsed()), "{:?}", began.elapsed());
    });
}

#[test]
fn an_observer_that_panics_is_made_anew_until_it_has_panicked_too_often() {
    block_on(PATIENCE, async {
        let listener = Listener::new(|_, line| assert!(!line.contains("start"), "it was told to panic"));
        let made = Arc::clone(&listener.made);
        let (builder, _) = at(NOW);
        let runtime = builder.observer(listener).start().await.unwrap();
        for _ in 0..=PANICS_MAX {
            let end = runtime.submit("job", "x").await.unwrap().end().await.unwrap();
            assert_eq!(end.outcome, Outcome::Succeeded);
        }
        let (panics, all) = (PANICS_MAX as f64, 2.0 * (PANICS_MAX + 1) as f64);
        let counted = || ["told", "panicked", "dropped"].map(|outcome| noticed(&runtime, outcome));
        until("the last of them", || counted().iter().sum::<f64>() >= all).await;
        // Each success but the last before it was given up is heard by the one that took the place of another.
        assert_eq!(counted().map(|count| count as u64), [PANICS_MAX - 1, PANICS_MAX, all as u64 - 2 * PANICS_MAX + 1]);
        assert!(panics > 1.0 && u64::from(made.load(Relaxed)) == PANICS_MAX, "{made:?}");
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn a_projector_that_starts_again_tells_nothing_twice() {
    block_on(PATIENCE, async {
        let (listener, heard) = Listener::keeping();
        let (builder, _) = at(NOW);
        let runtime = builder.observer(listener).start().await.unwrap();
        submit(&runtime, &["x"; 100]).await.wait().await.unwrap();
        until("the first", || heard.lock().unwrap().len() == 200).await;
        let _ = runtime.projector().unwrap().send(ergate_actors::projector::Panic).await;
        // More than before: tasks that were counted twice would be taken for these.
        submit(&runtime, &["x"; 150]).await.wait().await.unwrap();
        until("the rest", || heard.lock().unwrap().len() >= 500).await;
        runtime.shutdown().await.unwrap();
        assert_eq!(heard.lock().unwrap().len(), 500);
    });
}
