//! `ergate up`: the long-running engine, with the built-in task types.

use std::time::Duration;

use clap::Args;
use ergate::events::id::ShardId;
use ergate::kafka::{KafkaSettings, Standing};
use ergate::{Runtime, Store, tasks};

use super::embedded::parse_span;
use super::offline::data_dir;
use super::signals::{Signals, block_on, close};
use super::{Exit, Globals, output};

/// Slots for `file_digest`: reads of one disk.
const FILE_SLOTS: u32 = 4;

/// What `ergate up` is asked for.
#[derive(Args)]
pub(crate) struct UpArgs {
    /// Where the log is: `kafka://HOST:PORT,…/NAMESPACE`, `sled:DIR`, `file:DIR` or a directory
    #[arg(long, value_name = "LOG")]
    log: Option<String>,
    /// How long running attempts may finish after a signal
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    drain: Duration,
}

/// Runs until a signal comes or the log fails.
pub(crate) fn run(args: &UpArgs, globals: &Globals) -> anyhow::Result<Exit> {
    block_on(up(args, globals))
}

async fn up(args: &UpArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let data = data_dir(globals)?;
    let builder = tasks::register(Runtime::builder()).by("ergate up").pool(tasks::file_digest::POOL, 1, FILE_SLOTS);
    let builder = match args.log.as_deref() {
        Some(log) if log.starts_with("kafka://") => builder.data(data).kafka(log.parse::<KafkaSettings>()?),
        Some(log) => builder.store(log.parse::<Store>().map_err(anyhow::Error::msg)?),
        None => builder.data(data),
    };
    let runtime = builder.start().await?;
    output::note("ready");
    let mut told = Standing::default();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = tick.tick() => tell(&runtime, &mut told),
        }
    }
    close(&runtime, &mut signals, args.drain).await?;
    Ok(Exit::Done)
}

/// Says which shards came and went.
fn tell(runtime: &Runtime, told: &mut Standing) {
    let Some(standing) = runtime.engine().filter(|standing| standing != told) else { return };
    let list = |shards: &[ShardId]| {
        shards
            .iter()
            .map(|shard| if shard.0 == u16::MAX { "capacity".to_owned() } else { shard.to_string() })
            .collect::<Vec<_>>()
            .join(" ")
    };
    output::note(&format!("leads [{}], taking over [{}]", list(&standing.leads), list(&standing.opening)));
    *told = standing;
}
