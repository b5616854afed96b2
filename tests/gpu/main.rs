//! GPU tasks through a whole engine: batches, faults of kernels, and processes whose device is lost, all on CPU twins, so without a GPU.
#![allow(clippy::unwrap_used, dead_code, reason = "a test may panic, and uses a part of its helpers")]

#[path = "../support/command.rs"]
mod command;
mod config;
#[path = "../support/process.rs"]
mod process;
#[path = "../http/service.rs"]
mod service;
#[path = "../support/tasks.rs"]
mod tasks;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ergate::events::event::{Departure, Event};
use ergate::events::id::Position;
use ergate::events::time::Micros;
use ergate::gpu::kernels::array::{bytes_of, read};
use ergate::gpu::kernels::backend::Host;
use ergate::gpu::kernels::batch::Settings as Batching;
use ergate::gpu::kernels::kernel_work::KernelWork;
use ergate::gpu::kernels::signature::KernelBuilder;
use ergate::gpu::kernels::work::Work;
use ergate::gpu::kernels::{DeviceInfo, GpuError, Launch, Limits, Sticky, TwinArgs, leave};
use ergate::gpu::{Gpu, GpuSettings, OnDeath};
use ergate::worker::Worker;
use ergate::{Outcome, RequestBatch, Runtime, TaskEnd, TypeSettings, WorkerCommand};
use process::{DIR, ROLE, block_on, role};
use tasks::{LIMIT, attempts};

const MEMORY: u64 = 64 << 20;
/// The code that `ergate worker` ends with where its device is lost.
const LOST: u8 = 20;
/// Kills the context of whoever launches it.
const KILLER: f32 = -1.0;
/// Fails alone.
const WRONG: f32 = -2.0;

fn device() -> DeviceInfo {
    DeviceInfo {
        ordinal: 0,
        uuid: "HOST".to_owned(),
        name: "twins".to_owned(),
        memory_bytes: MEMORY,
        driver: (0, 0),
        compute: (0, 0),
        mig: false,
        multiprocessors: 1,
        l2_bytes: 0,
        limits: Limits::COMMON,
    }
}

/// What stands for the kernel, on the CPU: `y = 2.5 x`.
fn scale(_: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (x, y) = (args.input::<f32>(0)?, args.output::<f32>(1)?);
    if x.contains(&KILLER) {
        return Err(GpuError::Sticky { sticky: Sticky::IllegalAddress, during: "scale".to_owned() });
    }
    if x.contains(&WRONG) {
        return Err(GpuError::failed("the kernel did not like it"));
    }
    y.iter_mut().zip(x).for_each(|(y, x)| *y = 2.5 * x);
    Ok(())
}

/// A device of the CPU with the kernel as a task type.
fn gpu(settings: GpuSettings) -> Gpu {
    Gpu::over(settings, &device(), || Ok(Box::new(Host::new(MEMORY).twin("scale", scale)))).unwrap()
}

fn work() -> Arc<KernelWork> {
    let source = r#"extern "C" __global__ void scale(const float* x, float* y, unsigned n) {}"#;
    let spec = KernelBuilder::new("scale.cu", source, "scale")
        .input::<f32>("x", "n")
        .output::<f32>("y", "n")
        .formula::<u32>("n", "n")
        .threads("n", 256)
        .concat();
    Arc::new(KernelWork::new(spec.build().unwrap()).unwrap())
}

const BATCHING: Batching = Batching { size_max: 8, bytes_max: 1 << 20, delay_us: 20_000, weight: 1 };

/// A process of the pool: a worker with the device, which ends as `ergate worker` does.
#[test]
fn child() {
    let Some((role, dir, _)) = role() else { return };
    let settings = GpuSettings {
        cache: Some(dir.join("cache")),
        kernel_deaths_max: role.strip_prefix("deaths-").unwrap().parse().unwrap(),
        ..GpuSettings::default()
    };
    let gpu = gpu(settings);
    let of = |name: &str| std::env::var(name).unwrap();
    let died = gpu.clone();
    let worker = Worker::builder(&of("ENGINE"))
        .pool(&of("POOL"))
        .slots(of("SLOTS").parse().unwrap())
        .id(of("ID").parse().unwrap())
        .task_function("scale", gpu.task(work(), BATCHING).unwrap())
        .give_back_when(async move { drop(died.died().await) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(worker.run(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let _ = terminated.recv().await;
    }));
    match gpu.death() {
        Some(_) => leave::now(LOST),
        None => ended.unwrap(),
    }
}

/// An engine whose pool has such processes; a kernel is in quarantine after so many deaths.
async fn start(dir: &Path, deaths: u32, tries: u32) -> Runtime {
    let this = std::env::current_exe().unwrap();
    let (this, at) = (this.display(), dir.display());
    let line = format!(
        "ENGINE={{engine}} POOL={{pool}} SLOTS={{slots}} ID={{id}} {ROLE}=deaths-{deaths} {DIR}={at} exec {this} --exact child --nocapture"
    );
    let command = WorkerCommand {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), line.into()],
        gpus: Vec::new(),
        ready_within: LIMIT,
    };
    let settings = TypeSettings { pool: "gpus".to_owned(), ..attempts(tries) };
    let builder = Runtime::builder().data(dir.join("data")).pool("gpus", 1, 8).process_pool("gpus", command);
    builder.worker_task("scale", settings).start().await.unwrap()
}

/// A task for each payload, with how it ended.
async fn run(ergate: &Runtime, payloads: &[Vec<f32>]) -> Vec<TaskEnd> {
    let mut batch = RequestBatch::with_capacity(payloads.len(), 0);
    let scale = ergate.task_type("scale").unwrap();
    payloads.iter().for_each(|payload| batch.push(scale, bytes_of(payload), None));
    let ends = ergate.submit_batch(batch).await.unwrap().wait().await.unwrap();
    ends.into_ends().map(|(_, end)| end).collect()
}

#[track_caller]
fn is_scaled(end: &TaskEnd, payload: &[f32]) {
    assert_eq!(end.outcome, Outcome::Succeeded, "{:?}", end.failure);
    let expected: Vec<f32> = payload.iter().map(|x| 2.5 * x).collect();
    assert_eq!(read::<f32>(&end.result).unwrap(), expected);
}

/// How often each event is in the log, with exit codes of processes, and how many attempts were given back unburned.
fn counts(ergate: &Runtime) -> (BTreeMap<&'static str, usize>, Vec<Option<u8>>, usize) {
    let (mut counts, mut exits, mut returned) = (BTreeMap::new(), Vec::new(), 0);
    let mut cursor = ergate.reader().cursor(Position(0)).unwrap();
    while let Some(block) = cursor.next_block().unwrap() {
        for envelope in block.records() {
            let event: Event<'_> = envelope.unwrap().event;
            if let Event::ProcessExited { code, .. } = event {
                exits.push(code);
            }
            returned += usize::from(matches!(event, Event::Lost { departure: Departure::Drained, .. }));
            *counts.entry(event.name()).or_default() += 1;
        }
    }
    (counts, exits, returned)
}

/// The sizes of batches that attempts ran in, and how many attempts told it; the device and the kernel are the same for all.
fn batches(ergate: &Runtime) -> (Vec<u32>, usize) {
    let mut sizes = Vec::new();
    let mut cursor = ergate.reader().cursor(Position(0)).unwrap();
    while let Some(block) = cursor.next_block().unwrap() {
        for envelope in block.records() {
            if let Event::AttemptRan { ran, .. } = envelope.unwrap().event {
                assert_eq!((ran.device.as_str(), &ran.driver, ran.kernel.0), ("HOST", &None, work().digest().0));
                assert!(ran.memory_bytes > 0, "{ran:?}");
                sizes.push(ran.batch_size);
            }
        }
    }
    let count = sizes.len();
    (sizes, count)
}

/// Payloads of different lengths.
fn payloads(count: usize) -> Vec<Vec<f32>> {
    (0..count).map(|at| (0..=at % 7).map(|x| (x + at) as f32).collect()).collect()
}

#[test]
fn attempts_go_in_batches_to_a_process_with_the_device_and_each_gets_its_own_result() {
    let dir = tempfile::tempdir().unwrap();
    block_on(LIMIT, async {
        let ergate = start(dir.path(), 3, 1).await;
        let all = payloads(100);
        let ends = run(&ergate, &all).await;
        ends.iter().zip(&all).for_each(|(end, payload)| is_scaled(end, payload));
        let (batches, ran) = batches(&ergate);
        assert_eq!(ran, 100, "each says where it ran");
        assert!(batches.iter().any(|size| *size > 1), "{batches:?}");
        // What is no whole number of elements is refused before anything runs, and no attempt changes that.
        for (payload, why) in [(&[1, 2, 3][..], "3 bytes"), (&[], "0 bytes"), (&[0; (1 << 20) + 4], "at most 1048576")] {
            let mut batch = RequestBatch::with_capacity(1, 0);
            batch.push(ergate.task_type("scale").unwrap(), payload, None);
            let Ok(batch) = ergate.submit_batch(batch).await else { panic!("{why}") };
            if batch.answer.iter().all(|answer| answer.is_err()) {
                continue;
            }
            let ends: Vec<_> = batch.wait().await.unwrap().into_ends().collect();
            let failure = ends[0].1.failure.as_ref().unwrap();
            assert_eq!(failure.class, "gpu_refused", "{}", failure.message);
            assert!(failure.message.contains("scale.cu") && failure.message.contains(why), "{}", failure.message);
        }
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn one_that_fails_does_not_fail_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    block_on(LIMIT, async {
        let ergate = start(dir.path(), 3, 1).await;
        let mut all = payloads(16);
        all[5] = vec![1.0, WRONG];
        let ends = run(&ergate, &all).await;
        for (at, (end, payload)) in ends.iter().zip(&all).enumerate() {
            match at {
                5 => assert_eq!(end.failure.as_ref().unwrap().class, "gpu_failed"),
                _ => is_scaled(end, payload),
            }
        }
        assert_eq!(counts(&ergate).1, []);
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn a_lost_device_ends_its_process_and_costs_only_the_guilty_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    block_on(LIMIT, async {
        let ergate = start(dir.path(), 100, 2).await;
        let mut all = payloads(24);
        all[3] = vec![KILLER];
        let ends = run(&ergate, &all).await;
        for (at, (end, payload)) in ends.iter().zip(&all).enumerate() {
            match at {
                3 => {
                    let failure = end.failure.as_ref().unwrap();
                    assert_eq!(failure.class, "gpu_sticky", "{}", failure.message);
                }
                _ => is_scaled(end, payload),
            }
        }
        let (counts, exits, returned) = counts(&ergate);
        // Once in a batch, where nobody knows who it was, then alone, twice: it has two attempts.
        assert_eq!(exits, [Some(LOST); 3]);
        assert_eq!((counts.get("failed"), counts.get("retry_scheduled")), (Some(&2), Some(&1)), "{counts:?}");
        assert!(returned >= 7, "the others of its batch are given back: {returned}");
        assert_eq!(counts["succeeded"], 23);
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn a_kernel_that_kills_again_and_again_is_not_run_any_more() {
    let dir = tempfile::tempdir().unwrap();
    block_on(LIMIT, async {
        let ergate = start(dir.path(), 2, 10).await;
        let ends = run(&ergate, &[vec![KILLER]]).await;
        let failure = ends[0].failure.as_ref().unwrap();
        assert_eq!(failure.class, "gpu_refused", "{}", failure.message);
        assert!(failure.message.contains("in quarantine") && failure.message.contains("2 times"), "{}", failure.message);
        assert_eq!(counts(&ergate).1, [Some(LOST); 2]);
        // The same kernel for others, too; the file with the record says so to every process that comes.
        let ends = run(&ergate, &[vec![1.0]]).await;
        assert_eq!(ends[0].failure.as_ref().unwrap().class, "gpu_refused");
        ergate.shutdown().await.unwrap();
        let record = std::fs::read_to_string(dir.path().join("cache/deaths")).unwrap();
        assert_eq!(record.lines().filter(|line| line.starts_with("HOST ") && line.ends_with(" illegal_address")).count(), 2);
    });
}

/// In the process of an engine nobody ends it: every attempt says what happened.
#[test]
fn in_the_process_of_an_engine_a_lost_device_fails_attempts_by_name() {
    block_on(LIMIT, async {
        let gpu = gpu(GpuSettings { on_death: OnDeath::Fail, ..GpuSettings::default() });
        let function = gpu.task(work(), Batching { delay_us: 0, ..BATCHING }).unwrap();
        let ergate = tasks::start(|builder| builder.task_with("scale", attempts(1), function)).await;
        let ends = run(&ergate, &[vec![1.0, 2.0]]).await;
        is_scaled(&ends[0], &[1.0, 2.0]);
        let ends = run(&ergate, &[vec![KILLER]]).await;
        assert_eq!(ends[0].failure.as_ref().unwrap().class, "gpu_sticky");
        assert!(gpu.death().unwrap().to_string().contains("illegal address"), "{:?}", gpu.death());
        let ends = run(&ergate, &[vec![1.0]]).await;
        let failure = ends[0].failure.as_ref().unwrap();
        assert_eq!(failure.class, "gpu_returned", "{}", failure.message);
        ergate.shutdown().await.unwrap();
    });
}

/// A cancelled attempt that waits for its batch leaves it; the slot is free at once.
#[test]
fn an_attempt_that_has_not_begun_is_taken_back() {
    block_on(LIMIT, async {
        let gpu = gpu(GpuSettings { on_death: OnDeath::Fail, ..GpuSettings::default() });
        let function = gpu.task(work(), Batching { delay_us: 10_000_000, ..BATCHING }).unwrap();
        let mut settings = attempts(1);
        settings.timeouts.start_to_close = Micros::from_millis(300);
        let ergate = tasks::start(|builder| builder.task_with("scale", settings, function)).await;
        let began = std::time::Instant::now();
        let ends = run(&ergate, &[vec![1.0]]).await;
        assert_eq!(ends[0].outcome, Outcome::Failed, "{:?}", ends[0]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        ergate.shutdown().await.unwrap();
    });
}
