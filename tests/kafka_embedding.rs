//! The embedding API on Kafka: the program is the one of `embedding.rs` and the examples, and the log is a real Apache Kafka.
//!
//! Each test has a namespace of its own on one broker.
//!
//! Bugs found here, each with its test below:
//!
//! - An engine that found more than 2,000 records at once lost the one after them, and said in the log that there was none.
//! - An engine that took a shard over from a snapshot knew no task that had ended before it.
//! - An engine that had ended still named the shards that it had led.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "http/exposition.rs"]
mod exposition;
#[path = "kafka_embedding/generators.rs"]
mod generators;
#[path = "support/kafka/mod.rs"]
mod kafka;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../examples/kafka.rs"]
mod service;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ergate::events::command::Rejection;
use ergate::events::event::PoolMode;
use ergate::events::id::{Ordinal, PoolId, ShardId, TaskId};
use ergate::events::time::Micros;
use ergate::kafka::admin::Admin;
use ergate::kafka::topics::Shape;
use ergate::kafka::{CAPACITY, KafkaSettings, KafkaUrl, Settings, Topic};
use ergate::{
    Builder, Extras, Outcome, RequestBatch, RetryPolicy, Runtime, StartError, SubmitError, TaskError, TypeSettings, WaitError,
};
use exposition::Scrape;
use kafka::{Cluster, namespace, shared};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, future).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.expect("the test hangs")
}

/// A namespace with its topics.
struct Log {
    settings: KafkaSettings,
    kafka: &'static Cluster,
}

impl Log {
    /// Makes the topics; `None` where Kafka is to be skipped.
    async fn new(test: &str, shards: u32) -> Option<Log> {
        let kafka = shared()?;
        let url: KafkaUrl = format!("kafka://{}/{}", kafka.bootstrap(), namespace(test)).parse().unwrap();
        let (there, shape) = (url.clone(), Shape { partitions: shards, replication: 1 });
        let make = move || Admin::new(&there, &Settings::default()).unwrap().create(&Topic::ALL, shape, false);
        let made = tokio::task::spawn_blocking(make).await.unwrap().unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        Some(Log { settings: url.into(), kafka })
    }

    /// An engine with the task types of these tests, whose copies are in a directory of its own.
    async fn engine(&self, name: &str) -> (Runtime, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let builder = program(name).data(dir.path()).kafka(self.settings.clone());
        (builder.start().await.unwrap(), dir)
    }
}

/// Task types that say where they ran, wait, and fail.
fn program(name: &str) -> Builder {
    let name = name.to_owned();
    let whoami = move |value: u64| {
        let name = name.clone();
        async move { Ok::<_, TaskError>(format!("{name} {value}")) }
    };
    let once = TypeSettings { retry: RetryPolicy::NEVER, ..TypeSettings::default() };
    Runtime::builder()
        .task("whoami", whoami)
        .task("sleep", async |millis: u64| {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok::<_, TaskError>(millis)
        })
        .task_with("fail", once, ergate::function(async |(): ()| Err::<(), _>(TaskError::new("broken", "as it should be"))))
        .pool("default", 1, 64)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The shards with tasks that an engine leads.
fn leads(runtime: &Runtime) -> BTreeSet<ShardId> {
    runtime.engine().unwrap().leads.into_iter().filter(|shard| *shard != CAPACITY).collect()
}

/// Waits until these engines lead all shards between them, each of them some if there are enough.
async fn shared_out(engines: &[&Runtime], shards: usize) {
    until("a leader for each shard", || {
        let led: Vec<_> = engines.iter().map(|engine| leads(engine)).collect();
        let opening = engines.iter().any(|engine| !engine.engine().unwrap().opening.is_empty());
        let fair = engines.len() > shards || led.iter().all(|led| !led.is_empty());
        !opening
            && fair
            && engines.iter().any(|engine| engine.engine().unwrap().leads.contains(&CAPACITY))
            && led.iter().map(BTreeSet::len).sum::<usize>() == shards
    })
    .await;
}

fn keyed(key: &str) -> Extras {
    Extras { key: Some(key.to_owned()), ..Extras::default() }
}

#[test]
fn the_example_does_the_same_with_and_without_kafka() {
    block_on(async {
        let runtime = service::on(None).unwrap().start().await.unwrap();
        service::run(&runtime).await.unwrap();
        runtime.shutdown().await.unwrap();
        let Some(log) = Log::new("example", 2).await else { return };
        let dir = tempfile::tempdir().unwrap();
        let runtime = service::service().data(dir.path()).kafka(log.settings.clone()).start().await.unwrap();
        service::run(&runtime).await.unwrap();
        let progress = runtime.progress();
        assert_eq!((progress.requested, progress.deduplicated), (3, 1), "what was refused is no task");
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn what_is_missing_at_the_start_is_named() {
    block_on(async {
        let Some(kafka) = shared() else { return };
        let dir = tempfile::tempdir().unwrap();
        let start = |address: String| {
            let settings: KafkaSettings = address.parse().unwrap();
            program("a").data(dir.path()).kafka(settings).start()
        };
        let (none, nobody) = tokio::join!(
            start(format!("kafka://{}/nothing.here", kafka.bootstrap())),
            start("kafka://127.0.0.1:1/nothing.here".to_owned())
        );
        let error = none.err().unwrap();
        assert!(matches!(error, StartError::Topic { .. }));
        let command = format!("`ergate kafka init --log kafka://{}/nothing.here`", kafka.bootstrap());
        assert!(error.to_string().contains("nothing.here.requests does not exist"), "{error}");
        assert!(error.to_string().contains(&command), "{error}");
        let error = nobody.err().unwrap();
        assert!(matches!(&error, StartError::Brokers { brokers, .. } if brokers == "127.0.0.1:1"), "{error}");
    });
}

#[test]
fn every_request_of_a_batch_is_answered_and_a_key_meets_the_same_shard_whoever_publishes_it() {
    block_on(async {
        let Some(log) = Log::new("batch", 4).await else { return };
        let (ergate, _dir) = log.engine("a").await;
        let (whoami, fail) = (ergate.task_type("whoami").unwrap(), ergate.task_type("fail").unwrap());
        let mut requests = RequestBatch::new();
        let boxed = |key: &str| Some(Box::new(keyed(key)));
        for value in 0..40_u64 {
            requests.push(whoami, value.to_string().as_bytes(), boxed(&format!("key-{value}")));
        }
        requests.push(whoami, b"7", boxed("key-7"));
        requests.push(whoami, b"8", boxed("key-7"));
        requests.push(ergate::events::id::TypeId(77), b"1", None);
        requests.push(whoami, b"\xff not JSON", None);
        requests.push(fail, b"null", None);
        requests.push(whoami, b"1", Some(Box::new(Extras { priority: Some(10), ..Extras::default() })));
        let batch = ergate.submit_batch(requests).await.unwrap();
        let answers: Vec<_> = batch.answer.iter().collect();
        assert_eq!(answers.len(), 46);
        let taken: Vec<TaskId> = answers[..40].iter().map(|answer| answer.as_ref().unwrap().0).collect();
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 40);
        assert_eq!(taken.iter().map(|task| task.shard).collect::<BTreeSet<_>>().len(), 4, "keys meet all shards");
        assert_eq!(answers[40], Ok((taken[7], true)));
        assert!(
            matches!(&answers[41], Err(SubmitError::Refused { reason }) if reason.contains("another payload")),
            "{answers:?}"
        );
        assert!(matches!(answers[42], Err(SubmitError::Rejected(Rejection::UnknownType(_)))));
        assert!(
            matches!(&answers[45], Err(SubmitError::Refused { reason }) if reason.starts_with("`priority` is 10")),
            "{answers:?}"
        );
        let plain = [answers[43].clone().unwrap().0, answers[44].clone().unwrap().0];
        assert_eq!(plain[0].shard, plain[1].shard, "those without a key stay together");
        let ends: Vec<_> = batch.wait().await.unwrap().into_ends().collect();
        assert_eq!(ends.len(), 42);
        assert!(ends.is_sorted_by_key(|(task, _)| *task));
        let end = |task: TaskId| ends.iter().find(|(ended, _)| *ended == task).unwrap().1.clone();
        assert_eq!(end(taken[7]).result.as_ref(), b"\"a 7\"");
        assert_eq!(end(plain[0]).failure.unwrap().class, "payload");
        let failure = end(plain[1]).failure.unwrap();
        assert_eq!((failure.class.as_str(), failure.message.as_str()), ("broken", "as it should be"));
        // Each batch without keys goes to another shard.
        let mut shards = BTreeSet::new();
        for value in 0..4_u64 {
            shards.insert(ergate.submit("whoami", &value).await.unwrap().id.shard);
        }
        assert_eq!(shards.len(), 4);
        // Another program repeats every key, with Kafka's own choice of the partition.
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", log.kafka.bootstrap()).set("partitioner", "murmur2");
        let foreign: BaseProducer = config.create().unwrap();
        let topic = log.settings.url.namespace().topic(Topic::Requests);
        for value in 0..40 {
            let (key, request) =
                (format!("key-{value}"), format!(r#"{{"type":"whoami","payload":{value},"key":"key-{value}"}}"#));
            foreign.send(BaseRecord::to(&topic).key(&key).payload(&request)).map_err(|(error, _)| error).unwrap();
        }
        foreign.flush(PATIENCE).unwrap();
        until("the duplicates", || ergate.progress().deduplicated == 41).await;
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn one_engine_submits_and_the_other_one_executes() {
    block_on(async {
        let Some(log) = Log::new("two", 4).await else { return };
        let ((a, _left), (b, _right)) = tokio::join!(log.engine("a"), log.engine("b"));
        shared_out(&[&a, &b], 4).await;
        let of_b = leads(&b);
        // Many at once, of which some are led by either.
        let submits: Vec<_> = (0..64_u64)
            .map(|value| (a.clone(), value))
            .map(|(a, value)| {
                tokio::spawn(async move {
                    let task = a.submit("whoami", &value).await.unwrap();
                    (task.id, value, task.result::<String>().await.unwrap())
                })
            })
            .collect();
        let mut by_b = 0;
        for submit in submits {
            let (id, value, result) = submit.await.unwrap();
            let leader = if of_b.contains(&id.shard) { "b" } else { "a" };
            assert_eq!(result, format!("{leader} {value}"), "{id}");
            by_b += usize::from(leader == "b");
        }
        assert!(by_b > 0 && by_b < 64, "{by_b}");
        // Figures follow the log, as ends do, and neither waits for the other.
        until("all are counted where they were done", || {
            a.progress().done() + b.progress().done() == 64 && b.progress().done() == by_b as u64
        })
        .await;
        // Only the leader takes commands, and names itself in the error of the other one.
        let task = loop {
            let task = a.submit("sleep", &600_000_u64).await.unwrap();
            if of_b.contains(&task.id.shard) {
                break task;
            }
            a.cancel(task.id, "a test", "it is led here").await.unwrap();
            assert_eq!(task.end().await.unwrap().outcome, Outcome::Cancelled);
        };
        let (id, shard) = (task.id, task.id.shard);
        assert_eq!(a.cancel(id, "a test", "").await, Err(SubmitError::LedElsewhere { shard }));
        assert!(matches!(a.state_of(shard).await, Err(WaitError::LedElsewhere(led)) if led == shard));
        assert!(b.state_of(shard).await.unwrap().work.tasks.get(id.ordinal).is_some());
        // Whoever follows the topic may hear of a commit before the leader does.
        until("its leader counts it", || b.live() == 1).await;
        let waiting = tokio::spawn({
            let a = a.clone();
            async move { a.wait(id).await }
        });
        b.cancel(id, "a test", "enough").await.unwrap();
        assert_eq!(
            b.cancel(TaskId { ordinal: Ordinal(1 << 40), ..id }, "", "").await,
            Err(SubmitError::Rejected(Rejection::UnknownTask(Ordinal(1 << 40))))
        );
        for end in [task.end().await.unwrap(), waiting.await.unwrap().unwrap(), b.wait(id).await.unwrap()] {
            assert_eq!(end.outcome, Outcome::Cancelled);
        }
        // Sizes of pools are decided by whoever leads the capacity log, for all.
        let (decides, other) = if a.engine().unwrap().leads.contains(&CAPACITY) { (&a, &b) } else { (&b, &a) };
        let refused = other.resize_pool("default", 1, 8, "a test", "").await;
        assert_eq!(refused, Err(SubmitError::LedElsewhere { shard: CAPACITY }));
        decides.resize_pool("default", 1, 8, "a test", "to see that it can be").await.unwrap();
        let started = Instant::now();
        while b.state_of(shard).await.unwrap().control.pools[0].slots != 8 {
            assert!(started.elapsed() < PATIENCE, "the size does not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // And so is whether they start tasks.
        for mode in [PoolMode::Paused, PoolMode::Running] {
            decides.set_pool_mode("default", mode, "a test", "to see that it can be").await.unwrap();
            while b.state_of(shard).await.unwrap().control.mode(PoolId(0)) != mode {
                assert!(started.elapsed() < PATIENCE, "the mode does not come");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
    });
}

#[test]
fn a_shutdown_hands_over_what_is_not_done_and_answers_go_on() {
    block_on(async {
        let Some(log) = Log::new("hand-over", 4).await else { return };
        let ((a, _left), (b, _right)) = tokio::join!(log.engine("a"), log.engine("b"));
        shared_out(&[&a, &b], 4).await;
        let later = || Extras { not_before: Some(b.now().after(Micros::from_secs(3_600))), ..Extras::default() };
        let mut tasks = Vec::new();
        for value in 0..16_u64 {
            tasks.push(b.submit_with("whoami", &value, later()).await.unwrap());
        }
        // Of tasks that `a` leads for now.
        let of_a = leads(&a);
        let ids: BTreeSet<_> = tasks.iter().map(|task| task.id).filter(|id| of_a.contains(&id.shard)).collect();
        assert!(ids.len() == 4 * of_a.len() && !ids.is_empty());
        let waiting = tokio::spawn({
            let (b, ids) = (b.clone(), ids.clone());
            async move { b.wait_all(ids).await }
        });
        let shutdown = tokio::spawn({
            let a = a.clone();
            async move { a.shutdown().await }
        });
        // Requests are taken all the while.
        for value in 100..130_u64 {
            let answer = b.submit("whoami", &value).await.unwrap().result::<String>().await.unwrap();
            assert!(answer.ends_with(&value.to_string()), "{answer}");
        }
        shutdown.await.unwrap().unwrap();
        shared_out(&[&b], 4).await;
        // The tasks of both live on where all shards are now.
        for task in tasks {
            b.cancel(task.id, "a test", "it has lived long enough").await.unwrap();
            assert_eq!(task.end().await.unwrap().outcome, Outcome::Cancelled);
        }
        assert_eq!(waiting.await.unwrap().unwrap().into_keys().collect::<BTreeSet<_>>(), ids);
        for value in 0..4_u64 {
            assert_eq!(b.submit("whoami", &value).await.unwrap().result::<String>().await.unwrap(), format!("b {value}"));
        }
        // Whoever is gone says so.
        assert!(matches!(a.submit("whoami", &1_u64).await.err(), Some(SubmitError::Closed { .. })));
        assert!(matches!(a.wait(TaskId::default()).await, Err(WaitError::Stopped)));
        assert!(a.engine().unwrap().leads.is_empty());
        b.shutdown().await.unwrap();
    });
}

#[test]
fn an_engine_that_leads_nothing_submits_and_waits_as_any_other() {
    block_on(async {
        let Some(log) = Log::new("follower", 1).await else { return };
        let ((a, _left), (b, _right)) = tokio::join!(log.engine("a"), log.engine("b"));
        shared_out(&[&a, &b], 1).await;
        let (leader, other) = if leads(&a).is_empty() { (&b, &a) } else { (&a, &b) };
        let done = leader.submit("whoami", &1_u64).await.unwrap();
        let id = done.id;
        done.end().await.unwrap();
        // It ended before anybody here asked.
        let end = other.wait(id).await.unwrap();
        assert_eq!(end, leader.wait(id).await.unwrap());
        let nobody = TaskId { ordinal: Ordinal(1_000), ..id };
        assert!(matches!(other.wait(nobody).await, Err(WaitError::NoSuchTask(task)) if task == nobody));
        let nowhere = TaskId { shard: ShardId(9), ..id };
        assert!(matches!(other.wait(nowhere).await, Err(WaitError::NoSuchTask(task)) if task == nowhere));
        // It ends while somebody asks.
        let task = other.submit("sleep", &300_u64).await.unwrap();
        let found = other.wait_all([id, nobody, task.id].into()).await.unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [id, task.id]);
        assert_eq!(found[&task.id].result.as_ref(), b"300");
        assert_eq!(other.progress().requested, 0);
        let read = other.reader_of(id.shard).unwrap().span();
        assert!(read.next.0 > 0 && other.reader_of(ShardId(1)).is_none());
        // A failure is told by whoever is asked, in the same words.
        let failed = other.submit("fail", &()).await.unwrap();
        let id = failed.id;
        assert_eq!(failed.end().await.unwrap(), leader.wait(id).await.unwrap());
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
    });
}

#[test]
fn an_end_from_before_the_copy_of_a_new_leader_is_known_to_it() {
    block_on(async {
        let Some(mut log) = Log::new("before", 1).await else { return };
        log.settings.snapshot_every = Duration::from_millis(100);
        let (a, _left) = log.engine("a").await;
        let first = a.submit("whoami", &1_u64).await.unwrap();
        let id = first.id;
        let end = first.end().await.unwrap();
        // Enough that the snapshot of which the next leader begins lies behind the end.
        let whoami = a.task_type("whoami").unwrap();
        for _ in 0..4 {
            let mut requests = RequestBatch::new();
            (0..500_u64).for_each(|value| requests.push(whoami, value.to_string().as_bytes(), None));
            a.submit_batch(requests).await.unwrap().wait().await.unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        a.shutdown().await.unwrap();
        let (b, _right) = log.engine("b").await;
        shared_out(&[&b], 1).await;
        assert_eq!(b.wait(id).await.unwrap(), end);
        let nobody = TaskId { ordinal: Ordinal(1_000_000), ..id };
        assert!(matches!(b.wait(nobody).await, Err(WaitError::NoSuchTask(_))));
        b.shutdown().await.unwrap();
    });
}

#[test]
fn every_request_of_a_flood_is_taken() {
    block_on(async {
        let Some(log) = Log::new("flood", 1).await else { return };
        let (ergate, _dir) = log.engine("a").await;
        let id = ergate.task_type("whoami").unwrap();
        let batches: Vec<_> = (0..6)
            .map(|_| {
                let (ergate, mut requests) = (ergate.clone(), RequestBatch::new());
                (0..3_000_u64).for_each(|value| requests.push(id, value.to_string().as_bytes(), None));
                tokio::spawn(async move {
                    let batch = ergate.submit_batch(requests).await.unwrap();
                    assert_eq!(batch.answer.runs.len(), 1, "a batch is one run of tasks");
                    batch.wait().await.unwrap().into_ends().filter(|(_, end)| end.outcome == Outcome::Succeeded).count()
                })
            })
            .collect();
        for batch in batches {
            assert_eq!(batch.await.unwrap(), 3_000);
        }
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn an_abandoned_submit_harms_nobody() {
    block_on(async {
        let Some(log) = Log::new("abandoned", 2).await else { return };
        let (ergate, _dir) = log.engine("a").await;
        for round in 0..100_u64 {
            let submit = ergate.submit("whoami", &round);
            drop(tokio::time::timeout(Duration::from_micros(round * 300), submit).await);
        }
        assert_eq!(ergate.submit("whoami", &7_u64).await.unwrap().result::<String>().await.unwrap(), "a 7");
        until("the end of everything", || ergate.progress().live() == 0).await;
        ergate.shutdown().await.unwrap();
        assert!(matches!(ergate.try_submit_batch(RequestBatch::new()).await, Err(SubmitError::Closed { .. })));
    });
}

/// What this engine's figures say now.
fn scrape(engine: &Runtime) -> Scrape {
    Scrape::read(&engine.metrics().text())
}

/// How many of these there are, rounded.
fn count(engine: &Runtime, name: &str) -> u64 {
    scrape(engine).sum(name).round() as u64
}

#[test]
fn the_figures_of_all_engines_are_the_whole_and_a_shard_takes_its_gauges_along() {
    block_on(async {
        let Some(log) = Log::new("figures", 4).await else { return };
        let (one, _dir) = log.engine("one").await;
        shared_out(&[&one], 4).await;
        let work = async |name: &str, from: u64, to: u64| {
            for number in from..to {
                drop(one.submit_with(name, &number, keyed(&format!("key-{number}"))).await.unwrap());
            }
        };
        work("whoami", 0, 60).await;
        // They run until the end of the test, on every shard.
        let long = Duration::from_secs(600).as_millis() as u64;
        work("sleep", long, long + 16).await;
        until("all figures of one engine", || {
            (count(&one, "ergate_completions_total"), count(&one, "ergate_tasks"), count(&one, "ergate_kafka_lag")) == (60, 16, 0)
                && scrape(&one).of("ergate_kafka_lag").len() == 4
        })
        .await;
        let told = scrape(&one);
        assert_eq!((told.of("ergate_shard_led").len(), count(&one, "ergate_requests_total")), (4, 76));
        assert!(told.sum("ergate_kafka_rebalances_total") >= 1.0 && told.sum("ergate_replay_seconds_count") >= 5.0);
        assert!((told.value("ergate_build_info", &[("log", "kafka"), ("version", env!("CARGO_PKG_VERSION"))]) - 1.0).abs() < 0.1);

        let rebalances = count(&one, "ergate_kafka_rebalances_total");
        let (two, _dir) = log.engine("two").await;
        shared_out(&[&one, &two], 4).await;
        until("both engines have the live tasks between them", || {
            let (here, there) = (count(&one, "ergate_tasks"), count(&two, "ergate_tasks"));
            here + there == 16 && there > 0
        })
        .await;
        assert_eq!((count(&one, "ergate_completions_total"), count(&two, "ergate_completions_total")), (60, 0), "counts stay");
        assert_eq!(count(&one, "ergate_shard_led") + count(&two, "ergate_shard_led"), 4);
        assert!(count(&one, "ergate_kafka_rebalances_total") > rebalances);
        work("whoami", 100, 140).await;
        let both = |name| count(&one, name) + count(&two, name);
        until("everything is counted, wherever it ran", || both("ergate_completions_total") == 100).await;
        assert_eq!(both("ergate_requests_total"), 116);
        assert!(count(&two, "ergate_completions_total") > 0);
        one.shutdown_within(Duration::ZERO).await.unwrap();
        two.shutdown_within(Duration::ZERO).await.unwrap();
    });
}
