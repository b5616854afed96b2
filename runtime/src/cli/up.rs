//! `ergate up`: the long-running engine, with the built-in task types.

use std::time::Duration;

use clap::Args;
use ergate::kafka::Standing;
use ergate::{Builder, Runtime, Store, tasks};
use ergate_config::Config;

use super::config::{configure, settings};
use super::embedded::parse_span;
use super::exit::Trouble;
use super::offline::data_dir;
use super::signals::{Signals, block_on, close};
use super::{Exit, Globals, output};

/// Slots for `file.digest`: reads of one disk.
const FILE_SLOTS: u32 = 4;
/// How often it is looked whether shards came or went.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What `ergate up` is asked for.
#[derive(Args)]
pub(crate) struct UpArgs {
    /// Where the log is: `kafka://HOST:PORT,…/NAMESPACE`, `sled:DIR`, `file:DIR` or a directory; on Kafka, `--data` is where copies are kept
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
    let config = settings(globals)?;
    let builder = tasks::register(Runtime::builder()).by("ergate up").pool(tasks::file_digest::POOL, 1, FILE_SLOTS);
    let builder = at(configure(builder, &config).data(data_dir(globals)?), args.log.as_deref(), &config)?;
    let runtime = builder.start().await?;
    output::note("ready; stop with Ctrl-C or SIGTERM");
    let mut told = Told::default();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let failed = loop {
        tokio::select! {
            () = signals.next() => break None,
            _ = tick.tick() => told.tell(&runtime, globals),
            reason = runtime.failed() => break reason,
        }
    };
    let closed = close(&runtime, &mut signals, args.drain).await;
    if let Some(reason) = failed {
        return Err(ergate::events::log::LogError::Poisoned { reason }.into());
    }
    closed?;
    Ok(Exit::Done)
}

/// Puts the log where the flag says.
fn at(builder: Builder, log: Option<&str>, config: &Config) -> anyhow::Result<Builder> {
    match log {
        None => Ok(builder),
        Some(log) if log.starts_with("kafka://") => Ok(builder.kafka(super::kafka::engine_settings(log, config)?)),
        Some(log) => Ok(builder.store(log.parse::<Store>().map_err(Trouble::Usage)?)),
    }
}

/// Which shards were told of last.
#[derive(Default)]
struct Told {
    standing: Standing,
}

impl Told {
    /// Says which shards came and went.
    fn tell(&mut self, runtime: &Runtime, globals: &Globals) {
        let Some(standing) = runtime.engine().filter(|standing| *standing != self.standing) else { return };
        if !globals.quiet {
            output::note(&standing.to_string());
        }
        self.standing = standing;
    }
}
