//! `ergate worker`: asks an engine for work, and does it here.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ergate::events::worker::WorkerId;
use ergate::gpu::kernels::GpuError;
use ergate::gpu::{Gpu, OnDeath};
use ergate::http::client::ServiceUrl;
use ergate::tasks;
use ergate::worker::server::{ModelServer, ServerError, ServerSettings};
use ergate::worker::{Concurrency, Worker, WorkerError};
use ergate_config::Config;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::config::settings;
use super::embedded::parse_span;
use super::executors::{factories, resolve};
use super::exit::Trouble;
use super::gpu;
use super::remote::{Problem, RemoteError, token};
use super::signals::{Signals, block_on};
use super::{Exit, Globals, output};

/// Printed below the help of the verb.
const HELP: &str = "A worker runs the built-in task types and those of the configuration file that have `process` or `http`, as far as they belong to \
its pool. It ends with 0 when it was stopped or drained, with 130 after a second signal, and with the exit code of the problem when the engine refuses it. \
docs/workers.md has more.";

/// What `ergate worker` is asked for.
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct WorkerArgs {
    /// The engine to work for, such as http://127.0.0.1:7420; where the log is on Kafka it names the others. May be given several times, for when one
    /// does not answer
    #[arg(long = "engine", value_name = "URL", required = true)]
    engines: Vec<String>,
    /// Whose work it does
    #[arg(long, value_name = "POOL", default_value = "default")]
    pool: String,
    /// How many attempts it runs at a time
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    slots: u32,
    /// How many of its slots it uses: all of them, or as many as do best, which it finds out; the default is what the configuration says of the pool
    #[arg(long, value_name = "HOW", value_enum)]
    concurrency: Option<Mode>,
    /// A task type to run, of those that it can run; all of them without this
    #[arg(long = "type", value_name = "NAME")]
    types: Vec<String>,
    /// What tells it from others, such as zone=b
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// What people call it; the default is the name of the host with the number of the process
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// How long it may be silent while it has work, before others do that
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_span)]
    lease: Duration,
    /// How long running attempts may finish after a signal
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = parse_span)]
    drain: Duration,
    /// The GPU that its kernels, or the server of the pool, are to use: its index, the beginning of its uuid, or for kernels a part of its name
    #[arg(long, value_name = "GPU")]
    gpu: Option<String>,
    /// Bytes of memory that this process and the server of the pool may each have
    #[arg(long, value_name = "BYTES")]
    memory_max: Option<u64>,
    /// Ends when nobody holds its standard input any more: it is a process of an engine
    #[arg(long, hide = true)]
    child: bool,
    /// The id that it has, of 32 hexadecimal digits
    #[arg(long, hide = true)]
    id: Option<WorkerId>,
}

/// How many slots are used.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// All of them.
    Fixed,
    /// As many as do best.
    Adaptive,
}

impl Mode {
    const fn of(self, slots: u32) -> Concurrency {
        match self {
            Mode::Fixed => Concurrency::Fixed,
            Mode::Adaptive => Concurrency::Adaptive { min: 1, max: slots },
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Works until a signal comes, or the engine wants no more of it.
pub(crate) fn run(args: &WorkerArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let config = settings(globals)?;
    let urls: Vec<ServiceUrl> = args.engines.iter().map(|text| parse_url(text)).collect::<Result<_, _>>()?;
    let url = urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(bytes) = args.memory_max {
        limit_memory(bytes)?;
    }
    block_on(async {
        let mut signals = Signals::listen()?;
        let device = device(args, &config);
        let (device, missing) =
            (device.as_ref().and_then(|found| found.as_ref().ok()), device.as_ref().and_then(|found| found.as_ref().err()));
        let Some(server) = with_server(args, &config, &mut signals).await? else { return Ok(Exit::Done) };
        let worker = worker(args, globals, &config, (&urls, &url), (server.as_ref(), device, missing))?;
        let (ended, server) = work(worker, server, signals, args.child, globals.quiet || args.child).await;
        if let Some(server) = server {
            server.stop().await;
        }
        if let Some(death) = device.and_then(Gpu::death) {
            output::note(&output::escape(&format!("{death}; its process ends, for nothing else frees the device")));
            // The driver may never come back from what a process does at its end.
            ergate::gpu::kernels::leave::now(Exit::DEVICE_LOST);
        }
        end(ended?, &url, has_token(globals, &config)?)
    })
}

/// Bounds the private memory of this process and of all that it starts.
fn limit_memory(bytes: u64) -> anyhow::Result<()> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit)
        .map_err(|error| Trouble::Usage(format!("--memory-max {bytes} is refused by the system: {error}")).into())
}

/// The server of the pool, where it has one; `None` where a signal came before it was ready.
async fn with_server(args: &WorkerArgs, config: &Config, signals: &mut Signals) -> anyhow::Result<Option<Option<ModelServer>>> {
    let Some(settings) = server_settings(args, config)? else { return Ok(Some(None)) };
    let orphaned = orphaned(args.child);
    tokio::select! {
        server = ModelServer::start(settings, args.slots) => Ok(Some(Some(server?))),
        () = signals.next() => Ok(None),
        () = orphaned => Ok(None),
    }
}

fn server_settings(args: &WorkerArgs, config: &Config) -> anyhow::Result<Option<ServerSettings>> {
    let Some(server) = config.pool(&args.pool).server else { return Ok(None) };
    // It ends with this process, whatever ends that.
    let launcher =
        vec![std::env::current_exe()?.into(), "launch".into(), format!("--parent={}", std::process::id()).into(), "--".into()];
    Ok(Some(ServerSettings {
        pool: args.pool.clone(),
        program: server.program,
        arguments: server.arguments,
        ready: server.ready,
        ready_within: server.ready_within,
        health_every: server.health_every,
        stop_within: server.stop_within,
        env_allow: server.env,
        env_set: resolve(&server.set)?,
        gpu: args.gpu.clone(),
        launcher,
    }))
}

fn worker(
    args: &WorkerArgs,
    globals: &Globals,
    config: &Config,
    (urls, url): (&[ServiceUrl], &str),
    (server, device, missing): (Option<&ModelServer>, Option<&Gpu>, Option<&GpuError>),
) -> anyhow::Result<Worker> {
    let name = args.name.clone().unwrap_or_else(|| format!("{} {}", host(), std::process::id()));
    let (first, others) = args.engines.split_first().ok_or_else(|| Trouble::Usage("--engine is missing".to_owned()))?;
    let worker = others.iter().fold(Worker::builder(first), |worker, url| worker.engine(url));
    let worker = way(worker, globals, config, urls)?;
    let worker = worker.pool(&args.pool).slots(args.slots).name(&name).lease(args.lease).drain(args.drain);
    let usual = if config.pool(&args.pool).is_adaptive() { Mode::Adaptive } else { Mode::Fixed };
    let worker = worker.concurrency(args.concurrency.unwrap_or(usual).of(args.slots));
    let worker = args.labels.iter().fold(worker, |worker, (name, value)| worker.label(name, value));
    let worker = args.id.into_iter().fold(worker, Worker::id);
    let worker = server.into_iter().fold(worker, |worker, server| worker.room(server.room()));
    let lost = device.cloned().map(|device| async move { drop(device.died().await) });
    let worker = lost.into_iter().fold(worker, Worker::give_back_when);
    let worker = able(worker, args, config, (server.map(ModelServer::port), device, missing))?;
    if let Some(error) = missing {
        gpu::tell_missing(&args.pool, error);
    }
    let ready = format!("ready: worker {name} of pool {} at {url}, {} slots; stop with Ctrl-C or SIGTERM", args.pool, args.slots);
    let quiet = globals.quiet || args.child;
    Ok(worker.on_ready(move || {
        if !quiet {
            output::note(&output::escape(&ready));
        }
    }))
}

/// The device for the kernels of the pool, or why there is none; nothing where there are no kernels.
fn device(args: &WorkerArgs, config: &Config) -> Option<Result<Gpu, GpuError>> {
    let has_kernels = config.pool(&args.pool).has_kernels();
    has_kernels.then(|| gpu::open(config, args.gpu.as_deref(), OnDeath::Wait))
}

/// Works until it is to end, and says how that went; gives the server back.
async fn work(
    worker: Worker,
    mut server: Option<ModelServer>,
    signals: Signals,
    is_child: bool,
    quiet: bool,
) -> (anyhow::Result<Result<(), WorkerError>>, Option<ModelServer>) {
    let signals = tokio::sync::Mutex::new(signals);
    let (failed, failure) = tokio::sync::oneshot::channel();
    let kept = &mut server;
    let first = async {
        let mut signals = signals.lock().await;
        tokio::select! {
            () = signals.next() => {
                if !quiet {
                    output::note("stopping: nothing new is taken; a second signal ends at once");
                }
            }
            () = orphaned(is_child) => {}
            error = given_up(kept) => drop(failed.send(error)),
        }
    };
    // Polled after the first has come only.
    let second = async { signals.lock().await.next().await };
    let ended = worker.run_until(first, second).await;
    // A worker that ended as it should has not done so where its server has failed.
    let ended = match failure.await {
        Ok(error) => Err(error.into()),
        Err(_) => Ok(ended),
    };
    (ended, server)
}

async fn given_up(server: &mut Option<ModelServer>) -> ServerError {
    match server {
        Some(server) => server.failed().await,
        None => std::future::pending().await,
    }
}

/// Waits until nobody holds the standard input of a process of an engine any more.
async fn orphaned(is_child: bool) {
    if !is_child {
        return std::future::pending().await;
    }
    static ENDED: OnceLock<tokio::sync::watch::Receiver<bool>> = OnceLock::new();
    let ended = ENDED.get_or_init(|| {
        let (tell, ended) = tokio::sync::watch::channel(false);
        std::thread::spawn(move || {
            // Nobody writes to it; whatever comes is passed over.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = tell.send(true);
        });
        ended
    });
    let _ = ended.clone().wait_for(|ended| *ended).await;
}

fn end(ended: Result<(), WorkerError>, url: &str, has_token: bool) -> anyhow::Result<Exit> {
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(error @ WorkerError::Interrupted { .. }) => {
            output::note(&error.to_string());
            Ok(Exit::Interrupted)
        }
        Err(WorkerError::Refused(refusal)) => Err(RemoteError::Problem(Box::new(problem(refusal, url, has_token))).into()),
        Err(error) => Err(error.into()),
    }
}

/// The refusal with what can be done about it.
fn problem(refusal: ergate::worker::Refusal, url: &str, has_token: bool) -> Problem {
    let advice = match (refusal.kind.as_str(), has_token) {
        ("unauthorized", false) => "name the file of a token with --token-file or ERGATE_TOKEN_FILE",
        ("unauthorized", true) => "the token may have ended, or be of another service",
        ("forbidden", _) => "`ergate token new --scope work` makes one that may work",
        ("conflict", _) => "start it again",
        _ => "look at its flags and at the configuration of the engine",
    };
    Problem {
        status: refusal.status,
        kind: refusal.kind,
        detail: format!("{url} refused the worker: {}", refusal.detail),
        field: None,
        retry_after: None,
        document: serde_json::Map::new(),
        advice: Some(advice.to_owned()),
    }
}

fn parse_url(text: &str) -> Result<ServiceUrl, Trouble> {
    if text.contains(',') {
        return Err(Trouble::Usage("--engine takes one URL; give it once for each".to_owned()));
    }
    text.parse().map_err(|reason| Trouble::Usage(format!("the URL of --engine cannot be used: {reason}")))
}

fn has_token(globals: &Globals, config: &Config) -> anyhow::Result<bool> {
    Ok(token(globals.token_file.as_deref(), config.client.token_file.as_deref())?.is_some())
}

/// With the token and the certificates of flags, environment and configuration.
fn way(worker: Worker, globals: &Globals, config: &Config, urls: &[ServiceUrl]) -> anyhow::Result<Worker> {
    let variable = std::env::var_os("ERGATE_CA").filter(|value| !value.is_empty()).map(PathBuf::from);
    let worker = match globals.ca.clone().or(variable).or(config.client.ca.clone()) {
        Some(path) if urls.iter().any(|url| url.tls) => worker.ca(&path),
        Some(_) | None => worker,
    };
    let found = token(globals.token_file.as_deref(), config.client.token_file.as_deref())?;
    let open = urls.iter().find(|url| !url.tls && !url.is_local());
    if let Some(url) = open.filter(|_| found.is_some() && !globals.quiet) {
        output::note(&format!("the token goes to {url} unencrypted, for everybody on the way to read; use https"));
    }
    Ok(found.iter().fold(worker, |worker, token| worker.token(token)))
}

/// With everything that it can run of its pool, or what of that it is asked to run.
fn able(
    worker: Worker,
    args: &WorkerArgs,
    config: &Config,
    (port, device, no_device): (Option<u16>, Option<&Gpu>, Option<&GpuError>),
) -> anyhow::Result<Worker> {
    let is_asked = |name: &str| args.types.is_empty() || args.types.iter().any(|known| known == name);
    let built_in = tasks::all().into_iter().filter(|task| task.settings.pool == args.pool);
    let own = factories(config, port, device)?.into_iter().filter(|factory| factory.settings().pool == args.pool);
    let (built_in, own): (Vec<_>, Vec<_>) = (built_in.collect(), own.collect());
    let names = built_in.iter().map(|task| task.name).chain(own.iter().map(|factory| factory.task_type()));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let missing = args.types.iter().find(|name| !names.contains(name));
    if names.is_empty() || missing.is_some() {
        return Err(match no_device {
            Some(error) => Trouble::NoDevice(format!("the kernels of the pool {:?} cannot run here: {error}", args.pool)),
            None => unable(args, missing, &names),
        }
        .into());
    }
    let built_in = built_in.into_iter().filter(|task| is_asked(task.name));
    let worker = built_in.fold(worker, |worker, task| worker.task_function(task.name, Arc::clone(&task.function)));
    Ok(own.iter().filter(|factory| is_asked(factory.task_type())).fold(worker, |worker, factory| worker.executor(&**factory)))
}

fn unable(args: &WorkerArgs, missing: Option<&String>, names: &[String]) -> Trouble {
    let pool = &args.pool;
    Trouble::Usage(match missing {
        Some(name) if !names.is_empty() => {
            format!("there is no task type {name:?} of the pool {pool:?} that runs here; there are: {}", names.join(", "))
        }
        Some(_) | None => format!(
            "nothing of the pool {pool:?} runs here; the configuration file of a worker says how, such as \
             [task.NAME] with pool = {pool:?} and executor = {{ process = [\"./program\"] }}"
        ),
    })
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}
