//! Small GPU tasks through the whole runtime: batched against one launch each, and what the runtime itself costs.
//!
//! `cargo run --release --example gpu_tasks` needs a GPU and NVRTC; `-- --host` runs the kernel's twin on the CPU instead, which shows the
//! runtime's own cost on any machine. Prints a line of JSON a figure, as `gpu/bench.py` reads them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it found")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::gpu::kernels::array::bytes_of;
use ergate::gpu::kernels::backend::Host;
use ergate::gpu::kernels::batch::Settings as Batching;
use ergate::gpu::kernels::kernel_work::KernelWork;
use ergate::gpu::kernels::signature::KernelBuilder;
use ergate::gpu::kernels::{DeviceInfo, GpuError, Launch, Limits, TwinArgs};
use ergate::gpu::{Gpu, GpuSettings, OnDeath};
use ergate::{Outcome, RequestBatch, Runtime, TypeSettings};

const SOURCE: &str = r#"extern "C" __global__ void scale(const float* x, float* y, float factor, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = factor * x[i];
}"#;
/// Tasks of a run, and bytes of each; and of those that show the runtime's cost without that of bytes.
const TASKS: usize = 10_000;
const BYTES: usize = 64 << 10;
const FEW_BYTES: usize = 256;
/// Members of the largest batch: 16 MiB a copy.
const BATCH: usize = 256;
/// Runs of which the median is told.
const RUNS: usize = 5;
const MEMORY: u64 = 1 << 30;
const FACTOR: f32 = 2.5;

fn twin(_: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (x, y) = (args.input::<f32>(0)?, args.output::<f32>(1)?);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = FACTOR * x);
    Ok(())
}

fn open(host: bool) -> Result<Gpu, GpuError> {
    let settings = GpuSettings { on_death: OnDeath::Fail, ..GpuSettings::default() };
    if !host {
        return Gpu::open(settings);
    }
    let device = DeviceInfo {
        ordinal: 0,
        uuid: "HOST".to_owned(),
        name: "the twin on the CPU".to_owned(),
        memory_bytes: MEMORY,
        driver: (0, 0),
        compute: (0, 0),
        mig: false,
        multiprocessors: 1,
        l2_bytes: 0,
        limits: Limits::COMMON,
    };
    Gpu::over(settings, &device, || Ok(Box::new(Host::new(MEMORY).twin("scale", twin))))
}

/// One run: from the first start to the last committed outcome, and of that what copies and kernels took.
struct Took {
    wall: Duration,
    device: Duration,
    batches: usize,
}

async fn run(gpu: &Gpu, size_max: usize, payload: &[u8]) -> Result<Took, Box<dyn Error>> {
    let spec = KernelBuilder::new("scale.cu", SOURCE, "scale")
        .input::<f32>("x", "n")
        .output::<f32>("y", "n")
        .value("factor", FACTOR)
        .formula::<u32>("n", "n")
        .threads("n", 256)
        .concat();
    let work = Arc::new(KernelWork::new(spec.build()?)?);
    let batching = Batching { size_max, bytes_max: 64 << 20, delay_us: 1_000, weight: 1 };
    let function = gpu.task(work, batching)?;
    let settings = TypeSettings { pool: "gpus".to_owned(), ..TypeSettings::default() };
    let builder = Runtime::builder().memory().pool("gpus", 1, 4 * u32::try_from(BATCH)?);
    let ergate = builder.task_with("scale", settings, function).start().await?;
    let scale = ergate.task_type("scale")?;
    let began = Instant::now();
    let mut asked = Vec::new();
    for from in (0..TASKS).step_by(BATCH) {
        let count = BATCH.min(TASKS - from);
        let mut requests = RequestBatch::with_capacity(count, count * payload.len());
        (0..count).for_each(|_| requests.push(scale, payload, None));
        asked.push(ergate.submit_batch(requests).await?);
    }
    let mut bad = 0;
    for batch in asked {
        let ends = batch.wait().await?.into_ends();
        bad += ends.filter(|(_, end)| end.outcome != Outcome::Succeeded || end.result.len() != payload.len()).count();
    }
    let waited = began.elapsed();
    if bad > 0 {
        return Err(format!("{bad} tasks did not give what they should").into());
    }
    let took = read(&ergate, waited)?;
    ergate.shutdown().await?;
    Ok(took)
}

/// What the log says of a run. The times of a batch are with each of its members.
fn read(ergate: &Runtime, waited: Duration) -> Result<Took, Box<dyn Error>> {
    let (mut first, mut last, mut device, mut batches) = (None, None, 0.0, 0.0);
    let mut cursor = ergate.reader().cursor(Position(0))?;
    while let Some(block) = cursor.next_block()? {
        for envelope in block.records() {
            let envelope = envelope?;
            if let Event::AttemptRan { ran, .. } = &envelope.event {
                let share = 1.0 / f64::from(ran.batch_size.max(1));
                device += (ran.copy.0 + ran.compute.0) as f64 * share;
                batches += share;
            }
            if matches!(envelope.event, Event::Started { .. }) {
                first.get_or_insert(envelope.recorded_at);
            }
            if matches!(envelope.event, Event::Succeeded { .. }) {
                last = Some(envelope.recorded_at);
            }
        }
    }
    let wall = first.zip(last).map_or(waited, |(first, last)| last.since(first).to_std());
    Ok(Took { wall, device: Duration::from_secs_f64(device / 1e6), batches: batches.round() as usize })
}

/// Numbers that do not compress, as measured ones do not.
fn numbers() -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / f32::from(u16::MAX)
    };
    (0..BYTES / size_of::<f32>()).map(|_| next()).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = std::env::args().any(|argument| argument == "--host");
    let gpu = match open(host) {
        Ok(gpu) => gpu,
        Err(error) => {
            println!("{{\"missing\": \"tasks through the runtime\", \"why\": {:?}}}", error.to_string());
            std::process::exit(1);
        }
    };
    let payload = numbers();
    let payload = bytes_of(&payload);
    let few = &payload[..FEW_BYTES];
    let (mut ratios, mut batched, mut pipeline) = (Vec::new(), Vec::new(), Vec::new());
    let mut own = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        let one = run(&gpu, 1, payload).await?;
        let all = run(&gpu, BATCH, payload).await?;
        ratios.push(one.wall.as_secs_f64() / all.wall.as_secs_f64());
        let small = run(&gpu, BATCH, few).await?;
        for (own, took) in own.iter_mut().zip([&all, &small]) {
            own.push(took.wall.saturating_sub(took.device).as_secs_f64() * 1e6 / TASKS as f64);
        }
        batched.push(all.wall.as_secs_f64() * 1e3);
        pipeline.push(all.device.as_secs_f64() / all.wall.as_secs_f64());
        eprintln!(
            "{} batches: {:?}, of which {:?} on the device; one each: {:?}; of {FEW_BYTES} bytes: {:?}",
            all.batches, all.wall, all.device, one.wall, small.wall
        );
    }
    let figure =
        |name: &str, value: f64| println!("{{\"figure\": {name:?}, \"ms\": {value:.4}, \"device\": {:?}}}", gpu.device().name);
    println!("{{\"tasks\": {TASKS}, \"bytes\": {BYTES}, \"batch\": {BATCH}, \"host\": {host}}}");
    figure("tasks, batched", median(batched));
    figure("tasks, batched against one each", median(ratios));
    let [own, small] = own.map(median);
    figure("tasks, own cost in us", own);
    figure("tasks of 256 bytes, own cost in us", small);
    figure("tasks, part of the time on the device", median(pipeline));
    Ok(())
}
