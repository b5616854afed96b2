//! A task that fails at first, keeps a checkpoint, and uses its fence: `cargo run --example retries`
#![expect(clippy::print_stdout, reason = "it is an example")]

use std::time::Duration;

use ergate::events::time::Micros;
use ergate::{Context, RetryPolicy, Runtime, TaskError, TypeSettings};

/// Copies `total` things, and is interrupted after each hundred.
async fn copy(context: Context, total: u64) -> Result<u64, TaskError> {
    let done: u64 = context.checkpoint().and_then(|kept| std::str::from_utf8(kept).ok()?.parse().ok()).unwrap_or(0);
    println!("attempt {} with fence {} begins at {done}", context.attempt(), context.fence());
    let next = total.min(done + 100);
    tokio::time::sleep(Duration::from_millis(5)).await;
    context.keep(next.to_string().as_bytes());
    if next < total { Err(TaskError::new("interrupted", format!("stopped at {next} of {total}"))) } else { Ok(next) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let retry = RetryPolicy { attempts: 10, initial: Micros::from_millis(20), ..RetryPolicy::default() };
    let settings = TypeSettings { retry, ..TypeSettings::default() };
    let runtime = Runtime::builder().memory().task_with("copy", settings, ergate::function(copy)).start().await?;
    let task = runtime.submit("copy", &350_u64).await?;
    println!("copied {}", task.result::<u64>().await?);
    Ok(runtime.shutdown().await?)
}
