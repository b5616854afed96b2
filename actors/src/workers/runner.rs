//! Runs attempts in a process that is no engine: the executor of a worker, on a thread of its own.
//!
//! ```text
//!  worker ──run, stop──▶ Runner ──▶ Executor ──▶ task functions
//!     ▲                                │
//!     └──────────── News ◀─────────────┘
//! ```
//! Attempts have numbers of the worker's own here, so that those of several shards and engines are told apart.

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter};
use ergate_events::id::{Epoch, Ordinal, ReplicaId, ShardId};
use ergate_events::ran::Ran;
use ergate_events::task::{Failure, Outcome};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::effects::Attempts;
use crate::executor::context::Progress;
use crate::executor::function::TaskFunction;
use crate::executor::{Executor, ExecutorParts, Functions, Hello, Run, Stop};
use crate::report::{Item, OwnedFailure, Report};

/// Reports on their way to the worker; while they are not taken, the executor gathers more in the next.
const REPORTS_AHEAD: usize = 4;

/// What a runner is made of.
pub struct RunnerParts {
    /// How many attempts it runs at a time.
    pub slots: u32,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What it can run; an attempt names one by its index.
    pub functions: Vec<Arc<dyn TaskFunction>>,
}

/// Runs attempts.
pub struct Runner {
    address: Addr<Executor>,
    arbiter: Arbiter,
    functions: Functions,
}

/// What became of attempts, as the runner tells it.
pub struct Reports(mpsc::Receiver<Report>);

/// News of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// It ended with a result.
    Succeeded(Outcome, &'a [u8]),
    /// It ended without one.
    Failed(Failure<'a>),
    /// It was told to end at once, and is gone.
    Released,
    /// It keeps this for the next attempt.
    Kept(&'a [u8]),
    /// It told how far it is.
    Progressed(&'a Progress),
    /// It ran on this device; how it ended is the next news.
    Ran(&'a Ran),
    /// It gave a sign of life.
    Alive,
}

impl Runner {
    /// Starts one. `None` when its thread does not come up.
    ///
    /// # Panics
    /// Outside of an actix system.
    pub async fn start(parts: RunnerParts) -> Option<(Runner, Reports)> {
        let RunnerParts { slots, clock, functions } = parts;
        let functions: Functions = functions.into();
        let (reports, told) = mpsc::channel(REPORTS_AHEAD);
        let parts = ExecutorParts {
            // What attempts say of themselves they have from their origin.
            shard: ShardId(0),
            replica: ReplicaId(0),
            slots,
            epoch: Epoch(0),
            clock,
            functions: Arc::clone(&functions),
            types: (0..functions.len()).map(Some).collect(),
            reports,
            tells_signs: true,
        };
        let arbiter = Arbiter::new();
        let address = Executor::start_in_arbiter(&arbiter.handle(), move |_| Executor::new(parts));
        address.send(Hello).await.ok()?;
        Some((Runner { address, arbiter, functions }, Reports(told)))
    }

    /// Runs attempts, of which there must never be more than slots.
    pub fn run(&self, attempts: Attempts) {
        if !attempts.is_empty() {
            self.address.do_send(Run(attempts));
        }
    }

    /// Asks an attempt to stop (`is_hard`: ends it now, which [`News::Released`] tells).
    pub fn stop(&self, task: Ordinal, attempt: u32, is_hard: bool) {
        self.address.do_send(Stop { task, attempt, hard: is_hard });
    }

    /// Ends it with all that runs. Blocks its thread, for at most a few seconds.
    pub fn end(self) {
        // An arbiter that takes no message has stopped already.
        let _ = self.arbiter.stop();
        self.functions.iter().for_each(|function| function.close());
    }
}

impl Reports {
    /// The next report; `None` when the runner is gone. Nothing is lost when this is dropped and called again.
    pub async fn next(&mut self) -> Option<Report> {
        self.0.recv().await
    }

    /// The next report, if it is there already.
    pub fn next_now(&mut self) -> Option<Report> {
        self.0.try_recv().ok()
    }
}

impl Report {
    /// The news, each with the attempt that it is about.
    pub fn news(&self) -> impl Iterator<Item = (Ordinal, u32, News<'_>)> {
        let ended = self.items.iter().filter_map(|item| {
            let (task, attempt) = item.attempt();
            Some((task, attempt, self.news_of(item)?))
        });
        ended.chain(self.alive.iter().map(|(task, attempt)| (*task, *attempt, News::Alive)))
    }

    fn news_of<'a>(&'a self, item: &'a Item) -> Option<News<'a>> {
        Some(match item {
            Item::Succeeded { outcome, result, .. } => News::Succeeded(*outcome, &self.bytes[result.clone()]),
            Item::Failed { failure, .. } => {
                let OwnedFailure { class, message, retryable, delay } = &**failure;
                News::Failed(Failure { class, message, retryable: *retryable, delay: *delay })
            }
            Item::Released { .. } | Item::Returned { .. } => News::Released,
            Item::Checkpoint { details, .. } => News::Kept(&self.bytes[details.clone()]),
            Item::Progress { progress, .. } => News::Progressed(progress),
            Item::Ran { ran, .. } => News::Ran(ran),
            // An executor that tells signs of life tells of none that is missing.
            Item::Silent { .. } => return None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use ergate_events::id::TypeId;
    use ergate_events::ran::{CudaVersion, KernelDigest};
    use ergate_events::time::{Micros, Timestamp};

    use super::*;
    use crate::clock::SystemClock;
    use crate::effects::{Given, Origin};
    use crate::executor::context::Context;
    use crate::executor::function::{TaskError, function};

    const ORIGIN: Origin = Origin { shard: ShardId(7), task: Ordinal(41), epoch: Epoch(3) };

    async fn tell(context: Context, _: ()) -> Result<String, TaskError> {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            context.heartbeat();
        }
        Ok(format!("{} {}", context.attempt(), context.fence()))
    }

    async fn hang(_: ()) -> Result<(), TaskError> {
        std::future::pending().await
    }

    fn ran(device: &str, batch_size: u32) -> Ran {
        let (driver, kernel) = (Some(CudaVersion { major: 13, minor: 0 }), KernelDigest([7; 32]));
        let spans = [200, 100, 50].map(Micros);
        let [queue, copy, compute] = spans;
        Ran { device: device.to_owned(), driver, kernel, batch_size, queue, copy, compute, memory_bytes: 4_096 }
    }

    async fn run_on(context: Context, how: String) -> Result<(), TaskError> {
        match how.as_str() {
            "nowhere" => {}
            "slow" => tokio::time::sleep(Duration::from_millis(60)).await,
            "device" => context.ran_on(ran("GPU-1", 32)),
            "twice" => ["GPU-1", "GPU-2"].into_iter().for_each(|device| context.ran_on(ran(device, 32))),
            "long" => context.ran_on(ran(&"ä".repeat(40), 32)),
            "never begun" => [32, 0].into_iter().for_each(|size| context.ran_on(ran("GPU-1", size))),
            "odd" => context.ran_on(ran("GPU\n1", 32)),
            "failing" => {
                context.ran_on(ran("GPU-1", 1));
                context.keep(b"kept");
                return Err(TaskError::new("sad", "it did not work"));
            }
            "hanging" => {
                context.ran_on(ran("GPU-1", 1));
                std::future::pending::<()>().await;
            }
            _ => {
                // Of an attempt that is over, nothing counts for the next one in its slot.
                let late = context.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    late.ran_on(ran("GPU-late", 1));
                });
            }
        }
        Ok(())
    }

    async fn start() -> (Runner, Reports) {
        let clock = Arc::new(SystemClock::starting(Timestamp(0)));
        let functions = vec![function(tell), function(hang), function(run_on)];
        Runner::start(RunnerParts { slots: 2, clock, functions }).await.unwrap()
    }

    fn given(task: u64, task_type: u16, heartbeat: Option<Micros>) -> Given<'static> {
        Given {
            task: Ordinal(task),
            number: 2,
            task_type: TypeId(task_type),
            deadline: Timestamp::NEVER,
            heartbeat,
            origin: ORIGIN,
            payload: b"null",
            checkpoint: None,
            trace_parent: None,
        }
    }

    #[test]
    fn an_attempt_knows_its_engines_names_and_tells_signs_of_life() {
        actix::System::new().block_on(async {
            let (runner, mut reports) = start().await;
            let mut attempts = Attempts::default();
            attempts.add(given(0, 0, Some(Micros::from_millis(150))));
            let began = std::time::Instant::now();
            runner.run(attempts);
            let mut signs = 0;
            let result = loop {
                let report = reports.next().await.unwrap();
                for (task, number, news) in report.news() {
                    assert_eq!((task, number), (Ordinal(0), 2));
                    signs += u128::from(news == News::Alive);
                }
                let ended = report.news().find_map(|(_, _, news)| match news {
                    News::Succeeded(_, result) => Some(result.to_vec()),
                    News::Failed(_) | News::Released | News::Kept(_) | News::Progressed(_) | News::Ran(_) | News::Alive => None,
                });
                if let Some(result) = ended {
                    break result;
                }
            };
            assert_eq!(result, br#""7-41.2 3.2""#);
            // At most every third of the limit, however long it took.
            assert!(signs >= 1 && signs <= 1 + began.elapsed().as_millis() / 50, "{signs} in {:?}", began.elapsed());
            runner.end();
        });
    }

    #[test]
    fn where_an_attempt_ran_is_told_right_before_how_it_ended_and_once() {
        actix::System::new().block_on(async {
            let (runner, mut reports) = start().await;
            let long = format!("{} 32", "ä".repeat(32));
            let cases = [
                ("\"nowhere\"", vec!["succeeded"]),
                ("\"device\"", vec!["GPU-1 32", "succeeded"]),
                ("\"nowhere\"", vec!["succeeded"]),
                ("\"twice\"", vec!["GPU-2 32", "succeeded"]),
                ("\"failing\"", vec!["kept", "GPU-1 1", "failed"]),
                ("\"late\"", vec!["succeeded"]),
                ("\"slow\"", vec!["succeeded"]),
                ("\"long\"", vec![&*long, "succeeded"]),
                ("\"never begun\"", vec!["succeeded"]),
                ("\"odd\"", vec!["succeeded"]),
                ("\"hanging\"", vec!["released"]),
                ("\"nowhere\"", vec!["succeeded"]),
            ];
            for (task, (payload, expected)) in (0..).zip(&cases) {
                let mut attempts = Attempts::default();
                attempts.add(Given { payload: payload.as_bytes(), ..given(task, 2, None) });
                runner.run(attempts);
                if payload.contains("hanging") {
                    runner.stop(Ordinal(task), 2, true);
                }
                let report = reports.next().await.unwrap();
                let told: Vec<String> = report.news().map(|(_, _, news)| word(news)).collect();
                assert_eq!(told, *expected, "{payload}");
            }
            runner.end();
        });
    }

    fn word(news: News<'_>) -> String {
        match news {
            News::Succeeded(..) => "succeeded".to_owned(),
            News::Failed(_) => "failed".to_owned(),
            News::Released => "released".to_owned(),
            News::Kept(_) => "kept".to_owned(),
            News::Progressed(_) => "progressed".to_owned(),
            News::Ran(ran) => format!("{} {}", ran.device, ran.batch_size),
            News::Alive => "alive".to_owned(),
        }
    }

    #[test]
    fn what_is_told_to_end_is_released_and_its_place_is_free() {
        actix::System::new().block_on(async {
            let (runner, mut reports) = start().await;
            for round in 0..3 {
                let mut attempts = Attempts::default();
                attempts.add(given(round, 1, None));
                attempts.add(given(round + 10, 1, None));
                runner.run(attempts);
                for task in [round, round + 10] {
                    runner.stop(Ordinal(task), 2, true);
                    let report = reports.next().await.unwrap();
                    assert_eq!(report.news().collect::<Vec<_>>(), [(Ordinal(task), 2, News::Released)]);
                }
            }
            runner.end();
        });
    }
}
