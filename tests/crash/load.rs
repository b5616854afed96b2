//! What a child does: work of every kind, told to the parent as it is sent and as it is acknowledged.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ergate::events::id::TaskId;
use ergate::events::time::Micros;
use ergate::{
    Context, Durability, Extras, IntoTask, RequestBatch, RetryPolicy, Runtime, SubmitError, TaskError, TypeSettings, blocking,
};

use crate::SLED;
use crate::process::{self, Chance, tell};

const SUBMITTERS: u64 = 4;

pub(crate) async fn start(dir: &Path) -> Runtime {
    let retry =
        RetryPolicy { attempts: 4, initial: Micros::from_millis(2), max: Micros::from_millis(20), ..RetryPolicy::default() };
    // Every kill loses what ran; here that says nothing about the task.
    let settings = |pool: &str| TypeSettings { retry, losses_max: u32::MAX, pool: pool.to_owned(), ..TypeSettings::default() };
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let builder = if name.starts_with(SLED) { Runtime::builder().sled(dir) } else { Runtime::builder().file(dir) };
    let durability = if name.ends_with("memory") { Durability::Memory } else { Durability::Fsync };
    let started = builder
        .durability(durability)
        .log_options(process::small_files())
        .snapshot_every_events(3_000)
        .pool("default", 2, 32)
        .pool("threads", 1, 4)
        .task_with("quick", settings("default"), IntoTask::into_task(quick))
        .task_with("slow", settings("default"), IntoTask::into_task(slow))
        .task_with("flaky", settings("default"), IntoTask::into_task(flaky))
        .task_with("thread", settings("threads"), blocking(thread))
        .start()
        .await;
    match started {
        Ok(ergate) => ergate,
        Err(error) => {
            tell(&format!("REFUSED {error} {error:?}"));
            std::process::exit(3);
        }
    }
}

async fn quick(payload: String) -> Result<usize, TaskError> {
    Ok(payload.len())
}

async fn slow(context: Context, payload: String) -> Result<usize, TaskError> {
    context.keep(payload.as_bytes());
    tokio::time::sleep(Duration::from_micros(payload.len() as u64 * 97 % 6_000)).await;
    Ok(payload.len())
}

async fn flaky(context: Context, payload: String) -> Result<usize, TaskError> {
    match (context.attempt().number as usize + payload.len()) % 4 {
        0 => Ok(payload.len()),
        1 => Err(TaskError::permanent("broken", "no attempt can do this")),
        _ => Err(TaskError::new("flaky", "the next attempt may do this")),
    }
}

fn thread(context: Context, payload: String) -> Result<usize, TaskError> {
    std::thread::sleep(Duration::from_micros(payload.len() as u64 * 31 % 2_000));
    if context.is_cancelled() { Err(TaskError::new("cancelled", "it was asked to stop")) } else { Ok(payload.len()) }
}

/// Tells the parent the state that this process works with, at a position, once that is durable: what is not may be decided
/// differently after a kill.
pub(crate) async fn show_state(ergate: &Runtime) {
    if let Ok(state) = ergate.state().await {
        while ergate.durable() < state.position && ergate.failure().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tell(&format!("D {} {}", state.position.0, state.digest()));
    }
}

const TYPES: [&str; 4] = ["quick", "slow", "flaky", "thread"];

pub(crate) async fn load(ergate: Runtime, seed: u64) {
    let sent = std::sync::Arc::new(AtomicU64::new(0));
    for submitter in 0..SUBMITTERS {
        let (ergate, sent) = (ergate.clone(), std::sync::Arc::clone(&sent));
        tokio::spawn(async move {
            let mut chance = Chance(seed ^ (submitter << 56));
            let mut accepted = Vec::new();
            loop {
                // The runtime keeps up; a log that only grows would make the checks slow, not the proof better.
                while sent.load(Ordering::Relaxed).saturating_sub(ergate.with_progress(|progress| progress.done())) > 3_000 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let turn = sent.fetch_add(1, Ordering::Relaxed);
                let name = format!("{seed:x}.{submitter}.{turn}");
                match chance.below(8) {
                    0 => batch(&ergate, &mut chance, &name).await,
                    1 => cancel(&ergate, &mut chance, &accepted).await,
                    _ => accepted.extend(single(&ergate, &mut chance, &name).await),
                }
                if chance.below(3) == 0 {
                    tokio::time::sleep(Duration::from_micros(chance.below(900))).await;
                }
            }
        });
    }
    loop {
        tokio::time::sleep(Duration::from_millis(40)).await;
        show_state(&ergate).await;
    }
}

fn extras(chance: &mut Chance, ergate: &Runtime, key: Option<String>) -> Extras {
    let not_before = (chance.below(5) == 0).then(|| ergate.now().after(Micros::from_millis(chance.below(30))));
    let priority = (chance.below(3) == 0).then(|| chance.below(10) as u8);
    Extras { key, not_before, priority, ..Extras::default() }
}

async fn single(ergate: &Runtime, chance: &mut Chance, name: &str) -> Option<TaskId> {
    let task_type = TYPES[chance.below(4) as usize];
    let key = (chance.below(2) == 0).then(|| name.to_owned());
    let payload = format!("{name}.{}", "x".repeat(chance.below(200) as usize));
    let times = if key.is_some() { 1 + chance.below(2) } else { 1 };
    let mut id = None;
    for _ in 0..times {
        tell(&format!("S {} {payload}", key.as_deref().unwrap_or("-")));
        match ergate.submit_with(task_type, &payload, extras(chance, ergate, key.clone())).await {
            Ok(task) => {
                tell(&format!("A {} {} {payload}", task.id.ordinal.0, key.as_deref().unwrap_or("-")));
                id = Some(task.id);
            }
            Err(SubmitError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => tell(&format!("E {error}")),
        }
    }
    id
}

async fn batch(ergate: &Runtime, chance: &mut Chance, name: &str) {
    let mut requests = RequestBatch::new();
    let mut items = Vec::new();
    for index in 0..1 + chance.below(24) {
        let id = ergate.task_type(TYPES[chance.below(4) as usize]).expect("it is registered");
        let key = (chance.below(4) == 0).then(|| format!("{name}.{index}"));
        let payload = format!("{name}.{index}.{}", "y".repeat(chance.below(120) as usize));
        tell(&format!("S {} {payload}", key.as_deref().unwrap_or("-")));
        let extras = extras(chance, ergate, key.clone());
        requests.push(id, format!("{payload:?}").as_bytes(), Some(Box::new(extras)));
        items.push((key, payload));
    }
    match ergate.submit_batch(requests).await {
        Ok(batch) => {
            let mut lines = Vec::new();
            for ((key, payload), answer) in items.iter().zip(batch.answer.iter()) {
                let (task, _) = answer.expect("nothing in this batch is refused");
                lines.push(format!("A {} {} {payload}", task.ordinal.0, key.as_deref().unwrap_or("-")));
            }
            lines.iter().for_each(|line| tell(line));
        }
        Err(error) => tell(&format!("E {error}")),
    }
}

async fn cancel(ergate: &Runtime, chance: &mut Chance, accepted: &[TaskId]) {
    let Some(task) = accepted.len().checked_sub(1).map(|last| accepted[last - chance.below(last as u64 / 4 + 1) as usize]) else {
        return;
    };
    // Most have ended, which is an answer too.
    let _ = match chance.below(2) {
        0 => ergate.cancel(task, "test", "by chance").await,
        _ => ergate.kill(task, "test", "by chance").await,
    };
}

pub(crate) async fn finish(ergate: Runtime) {
    let started = Instant::now();
    loop {
        let state = ergate.state().await.expect("the runtime runs");
        if state.work.tasks.is_empty() {
            break;
        }
        if started.elapsed() > Duration::from_secs(60) {
            tell(&format!("STUCK {} tasks", state.work.tasks.len()));
            std::process::exit(4);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    show_state(&ergate).await;
    ergate.shutdown().await.expect("it closes");
    tell("FINISHED");
}
