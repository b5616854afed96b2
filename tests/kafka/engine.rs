//! An engine as a process of its own: the public API with task types that leave a trace of every run.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ergate::clock::{Clock, SystemClock};
use ergate::events::time::{Micros, Timestamp};
use ergate::kafka::{KafkaSettings, Standing};
use ergate::{Context, IntoTask, RetryPolicy, Runtime, TaskError, TypeSettings};
use serde::{Deserialize, Serialize};

use crate::process::tell;

/// The file in an engine's directory with a line for every run of a task function: shard, task, attempt, epoch.
pub(crate) const EFFECTS: &str = "effects";
/// Small enough that rounds have snapshots.
const SNAPSHOT_EVERY_EVENTS: u64 = 1_500;
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);
/// How long attempts may run on when an engine is asked to end.
const DRAIN: Duration = Duration::from_millis(500);

/// What an engine is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) brokers: String,
    pub(crate) namespace: String,
    pub(crate) session_ms: u64,
    pub(crate) transaction_ms: u64,
    /// How far its clock is off, in thousandths of a second; a jump of as much comes when it is told so.
    pub(crate) skew_ms: i64,
}

/// What a request asks of a task function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Tells requests apart.
    pub(crate) n: u64,
    /// How long it takes.
    #[serde(default)]
    pub(crate) millis: u64,
}

/// Runs an engine until it is told to stop, or nobody holds the other end of its input.
pub(crate) fn run(dir: &Path, argument: &str) {
    let orders: Orders = serde_json::from_str(argument).expect("orders can be read");
    log(dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(serve(dir, orders));
    tell("STOPPED");
}

/// What the engine logs goes to a file beside its data.
fn log(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory can be made");
    let file = append(&dir.join("log"));
    let filter = std::env::var("ERGATE_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Arc::new(file)).init();
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a file can be appended to")
}

async fn serve(dir: &Path, orders: Orders) {
    let url = format!("kafka://{}/{}", orders.brokers, orders.namespace);
    let mut settings: KafkaSettings = url.parse().expect("the address is one");
    settings.clients.session_timeout = Duration::from_millis(orders.session_ms);
    settings.clients.transaction_timeout = Duration::from_millis(orders.transaction_ms);
    settings.snapshot_every = SNAPSHOT_EVERY;
    settings.results = true;
    let clock = Arc::new(Skewed::new(orders.skew_ms));
    let builder =
        Runtime::builder().data(dir).kafka(settings).snapshot_every_events(SNAPSHOT_EVERY_EVENTS).pool("default", 1, 16);
    let builder = if orders.skew_ms == 0 { builder } else { builder.clock(Arc::<Skewed>::clone(&clock)) };
    let engine = types(builder, dir).start().await.expect("an engine starts");
    let (stop, mut stopping) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || listen(&stop));
    let (mut told, mut tick) = (Standing::default(), tokio::time::interval(Duration::from_millis(20)));
    loop {
        tokio::select! {
            order = stopping.recv() => match order.as_deref() {
                Some("stop") => break,
                Some("jump") => clock.jump(orders.skew_ms),
                _ => std::process::exit(9),
            },
            _ = tick.tick() => show(&engine, &mut told),
        }
    }
    engine.shutdown_within(DRAIN).await.expect("an engine ends");
}

/// Hands on what the parent says; at the end of the input the parent is gone.
fn listen(stop: &tokio::sync::mpsc::UnboundedSender<String>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let _ = stop.send(line);
    }
    let _ = stop.send("gone".to_owned());
}

fn show(engine: &Runtime, told: &mut Standing) {
    let Some(standing) = engine.engine().filter(|standing| standing != told) else { return };
    let shards: Vec<String> = standing.leads.iter().map(ToString::to_string).collect();
    tell(&format!("LEADS {}", shards.join(" ")));
    if let Some(reason) = &standing.failed {
        tell(&format!("FAILED {reason}"));
    }
    *told = standing;
}

fn types(builder: ergate::Builder, dir: &Path) -> ergate::Builder {
    let retry =
        RetryPolicy { attempts: 4, initial: Micros::from_millis(5), max: Micros::from_millis(80), ..RetryPolicy::default() };
    // Every kill loses what ran; here that says nothing about the task.
    let settings = || TypeSettings { retry, losses_max: u32::MAX, ..TypeSettings::default() };
    let effects = Arc::new(append(&dir.join(EFFECTS)));
    let [first, second, third] = [(); 3].map(|()| Arc::clone(&effects));
    builder
        .task_with("effect", settings(), (move |context, work| effect(Arc::clone(&first), context, work)).into_task())
        .task_with("flaky", settings(), (move |context, work| flaky(Arc::clone(&second), context, work)).into_task())
        .task_with("broken", settings(), (move |context, work| broken(Arc::clone(&third), context, work)).into_task())
}

/// Leaves the trace of a run, in one write, which the system has even when this process is killed.
fn trace(mut effects: &File, context: &Context) {
    let (attempt, fence) = (context.attempt(), context.fence());
    let line = format!("{} {} {} {}\n", attempt.task.shard.0, attempt.task.ordinal.0, attempt.number, fence.epoch.0);
    effects.write_all(line.as_bytes()).expect("the trace can be written");
}

async fn effect(effects: Arc<File>, context: Context, work: Work) -> Result<u64, TaskError> {
    trace(&effects, &context);
    if work.millis > 0 {
        tokio::time::sleep(Duration::from_millis(work.millis)).await;
    }
    Ok(work.n)
}

async fn flaky(effects: Arc<File>, context: Context, work: Work) -> Result<u64, TaskError> {
    trace(&effects, &context);
    match (u64::from(context.attempt().number) + work.n) % 3 {
        0 => Ok(work.n),
        _ => Err(TaskError::new("flaky", "the next attempt may do this")),
    }
}

async fn broken(effects: Arc<File>, context: Context, _: Work) -> Result<u64, TaskError> {
    trace(&effects, &context);
    Err(TaskError::permanent("broken", "no attempt can do this"))
}

/// A clock that is off, and jumps when it is told to.
struct Skewed {
    right: SystemClock,
    /// Added to the right time, with an hour so that it may be negative.
    ahead_us: AtomicU64,
    /// The latest time that was told; the clock never goes back behind it.
    told: AtomicU64,
}

const HOUR_US: u64 = 3_600_000_000;

impl Skewed {
    fn new(skew_ms: i64) -> Skewed {
        let ahead = HOUR_US.saturating_add_signed(skew_ms * 1_000);
        Skewed { right: SystemClock::starting(Timestamp(0)), ahead_us: AtomicU64::new(ahead), told: AtomicU64::new(0) }
    }

    fn jump(&self, by_ms: i64) {
        let ahead = self.ahead_us.load(Ordering::SeqCst).saturating_add_signed(by_ms * 1_000);
        self.ahead_us.store(ahead, Ordering::SeqCst);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let now = (self.right.now().0 + self.ahead_us.load(Ordering::SeqCst)).saturating_sub(HOUR_US);
        Timestamp(now.max(self.told.fetch_max(now, Ordering::SeqCst)))
    }
}
