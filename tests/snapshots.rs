//! What snapshots cost a running shard. A measurement, for people.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::time::{Duration, Instant};

use ergate::events::time::{Micros, Timestamp};
use ergate::{Extras, RequestBatch, Runtime, TaskError};
use ergate_actors::log_writer::SlotsInUse;

const BATCH: u64 = 10_000;

async fn echo(text: String) -> Result<String, TaskError> {
    Ok(text)
}

/// Submits tasks with a payload of 100 bytes; those that wait have a key each and a moment in the far future.
async fn submit(runtime: &Runtime, first: u64, wait: Option<Timestamp>) {
    let echo = runtime.task_type("echo").expect("it is registered");
    let mut requests = RequestBatch::new();
    let payload = format!("{:?}", "x".repeat(98));
    for number in first..first + BATCH {
        let extras = wait.map(|begin| {
            let due = begin.after(Micros(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 3_600_000_000));
            Box::new(Extras { key: Some(format!("order-{number}")), not_before: Some(due), ..Extras::default() })
        });
        requests.push(echo, payload.as_bytes(), extras);
    }
    let batch = runtime.submit_batch(requests).await.expect("it is taken");
    if wait.is_none() {
        batch.wait().await.expect("every task ends");
    }
}

/// How long the shard's thread lets a message wait, again and again until the work is done.
async fn waits(runtime: &Runtime, work: impl Future<Output = ()>) -> String {
    let mut waits = Vec::new();
    let ping = async {
        loop {
            let begun = Instant::now();
            runtime.writer().expect("one shard").send(SlotsInUse).await.expect("it runs");
            waits.push(begun.elapsed());
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::select! { () = ping => {}, () = work => {} }
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() - 1) * part / 1_000];
    format!("{:?}, p99 {:?}, p99.9 {:?}, at most {:?} ({} messages)", at(500), at(990), at(999), at(1_000), waits.len())
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).expect("it is listed");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// `cargo test --release --test snapshots -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement: needs a release build, two gigabytes and a quiet machine"]
async fn the_longest_wait_for_the_shard_while_snapshots_of_a_million_tasks_are_written() {
    for every_events in [u64::MAX, 300_000] {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let dir = scratch.path().join("data");
        let builder = Runtime::builder().file(&dir).snapshot_every_events(every_events).task("echo", echo);
        let runtime = builder.start().await.expect("a new log");
        let begin = runtime.now().after(Micros::from_secs(86_400));
        for first in (0..1_000_000).step_by(BATCH as usize) {
            submit(&runtime, first, Some(begin)).await;
        }
        let work = async {
            for _ in 0..150 {
                submit(&runtime, 0, None).await;
            }
        };
        let begun = Instant::now();
        let waits = waits(&runtime, work).await;
        let rate = 150 * BATCH * 1_000 / u64::try_from(begun.elapsed().as_millis()).expect("minutes at most");
        println!("a snapshot every {every_events} events: {rate} tasks/s, a message waits {waits}; {} live", runtime.live());
        println!("  {} MiB now, {} MiB at most", memory("VmRSS") >> 10, memory("VmHWM") >> 10);
        runtime.shutdown().await.expect("the log closes");
        let taken = std::fs::read_dir(dir.join("snapshots")).map_or(0, Iterator::count);
        println!("  {taken} files of snapshots left");
    }
}
