//! `ergate up`: the long-running engine, with the built-in task types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ergate::http::{Listening, Server, ServerSettings, Settings, Tokens};
use ergate::kafka::{KafkaSettings, Standing};
use ergate::{Builder, Runtime, Store, tasks};
use ergate_config::{Config, Origin};

use super::config::{Children, configure, settings};
use super::embedded::parse_span;
use super::executors::{follow, schedules};
use super::exit::Trouble;
use super::offline::data_dir;
use super::signals::{Hangup, Signals, block_on, close};
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
    /// Where HTTP is served, such as 127.0.0.1:7420, or port 0 for any that is free; the default is what the configuration says
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_http")]
    listen: Option<SocketAddr>,
    /// Serve no HTTP
    #[arg(long)]
    no_http: bool,
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
    let children = Children { globals, drain: args.drain };
    let builder = configure(builder, &config, &children)?.schedules(schedules(&config)?);
    let builder = follow(builder, &config)?;
    // Taken first: what is wrong with it is said before the log is touched.
    let listening = service(args, &config)?.map(Listening::open).transpose()?;
    let address = listening.as_ref().map(|listening| advertised(&config, listening)).transpose();
    let builder = at(builder.data(data_dir(globals)?), args.log.as_deref(), &config, address)?;
    let mut hangup = Hangup::listen()?;
    let runtime = builder.start().await?;
    let server = listening.map(|listening| listening.serve(runtime.clone())).transpose()?;
    output::note(&ready(server.as_ref()));
    let mut told = Told::default();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let failed = loop {
        tokio::select! {
            () = signals.next() => break None,
            () = hangup.next() => server.iter().for_each(Server::reload),
            _ = tick.tick() => told.tell(&runtime, globals),
            reason = runtime.failed() => break reason,
        }
    };
    if let Some(server) = server {
        // A second signal waits for nobody.
        tokio::select! {
            () = server.stop() => {}
            () = signals.next() => {}
        }
    }
    let closed = close(&runtime, &mut signals, args.drain).await;
    if let Some(reason) = failed {
        return Err(ergate::events::log::LogError::Poisoned { reason }.into());
    }
    closed?;
    Ok(Exit::Done)
}

/// The line that says that work is taken, and where.
fn ready(server: Option<&Server>) -> String {
    match server {
        Some(server) => format!("ready at {}; stop with Ctrl-C or SIGTERM", server.url()),
        None => "ready; stop with Ctrl-C or SIGTERM".to_owned(),
    }
}

/// The service that flags and configuration ask for. On Kafka there is none unless an address is given: it could not answer about other engines' shards.
fn service(args: &UpArgs, config: &Config) -> anyhow::Result<Option<ServerSettings>> {
    let http = &config.http;
    let on_kafka = args.log.as_ref().is_some_and(|log| log.starts_with("kafka://"));
    let listen = args.listen.or(http.listen.filter(|_| !on_kafka || config.origin("http.listen") != Origin::Default));
    let Some(listen) = listen.filter(|_| !args.no_http) else { return Ok(None) };
    let tokens = http.tokens.as_deref().map(Tokens::open).transpose()?.map(Arc::new);
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    // Elsewhere than on this machine's own address every request has a token, and no page knows one.
    let hosts = listen.ip().is_loopback().then(|| http.hosts.clone());
    Ok(Some(ServerSettings {
        listen,
        tls: http.tls_cert.clone().zip(http.tls_key.clone()),
        connections_max: count(http.connections_max),
        head_timeout: http.head_timeout,
        keep_alive: http.keep_alive,
        threads: count(http.threads),
        service: Settings {
            tokens,
            hosts,
            body_bytes_max: count(http.body_max),
            body_timeout: http.body_timeout,
            streams_max: count(http.streams_max),
            peer_ca: http.peer_ca.clone(),
            prices: config.pools.iter().filter_map(|(name, pool)| Some((name.clone(), pool.price()?))).collect(),
        },
    }))
}

/// Where other engines reach this one: where the configuration says, or where it listens.
fn advertised(config: &Config, listening: &Listening) -> Result<String, Trouble> {
    if let Some(address) = &config.http.advertise {
        return Ok(address.clone());
    }
    if listening.address().ip().is_unspecified() {
        let text = format!(
            "{} is no address at which other engines reach this one; say with `http.advertise` or ERGATE_HTTP__ADVERTISE which is, such as \"http://10.0.0.7:{}\"",
            listening.address(),
            listening.address().port()
        );
        return Err(Trouble::Usage(text));
    }
    Ok(listening.url())
}

/// Puts the log where the flag says; `address` is where other engines reach this one, which only those on Kafka need.
fn at(builder: Builder, log: Option<&str>, config: &Config, address: Result<Option<String>, Trouble>) -> anyhow::Result<Builder> {
    match log {
        None => Ok(builder),
        Some(log) if log.starts_with("kafka://") => {
            let settings = super::kafka::engine_settings(log, config)?;
            Ok(builder.kafka(KafkaSettings { advertise: address?, ..settings }))
        }
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
