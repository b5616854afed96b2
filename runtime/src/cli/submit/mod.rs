//! `ergate submit`: submits one task, or one for each line of NDJSON, and runs until they are done.

mod answers;
mod feed;
mod intake;
mod line;
mod lines;
mod online;
mod stream;
mod taken;
mod window;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ergate::events::log::LogError;
use ergate::events::task::PAYLOAD_BYTES_MAX;
use ergate::events::time::{Micros, Timestamp};
use ergate::request::{Request, RetryWish, TimeoutsWish, parse_after};
use ergate::tasks::file_digest;
use ergate::{After, Durability, Extras, OnFailure, Runtime, Store, tasks};
use ergate_config::Config;
use serde_json::value::RawValue;

use self::answers::{Answers, Shape};
pub(crate) use self::line::parse_moment;
use self::line::{Types, now};
use super::choice::{self, Side};
use super::config::{Children, configure, settings};
use super::embedded::{self, parse_durability, parse_span};
use super::exit::Trouble;
use super::offline::data_dir;
use super::progress::{DRAW_EVERY, Display, count};
use super::pump::{self, Stopped};
use super::signals::{Signals, block_on, close};
use super::{Exit, Format, Globals, output};

/// Slots of the pool `files` when nobody sized it: files that are read at once.
const FILE_SLOTS: u32 = 8;

/// How long running tasks may go on after the first signal where nobody says how long.
const DRAIN: Duration = Duration::from_secs(10);

/// Printed below the help of the verb.
const HELP: &str = "In a data directory: submits one task, or one for each line of NDJSON, and runs until they are done. What was left over there \
runs too.\n\n\
To a service (--url, ERGATE_URL): ends as soon as the tasks are durable there, and prints the id of each; the service runs them. Lines are sent \
again after a broken connection where each has a key.\n\n\
Task types: `file.digest` {\"path\"}, `noop` (any payload), `sleep` {\"ms\"}, `fail` {\"class\", \"message\", \
\"retryable\"}; and those that the configuration defines.\n\n\
A line of NDJSON is {\"type\": \"sleep\", \"payload\": {\"ms\": 5}} with any of: key, key_window, priority, not_before, \
delay, retry {attempts, initial, coefficient, max}, timeouts {schedule_to_start, start_to_close, schedule_to_close, \
heartbeat}, labels {}, content_type, traceparent, after [], on_failure; payload_base64 stands for bytes that are not JSON; reply_to and correlation_id \
are read and mean nothing here. Spans are texts such as \"500ms\". A line that is refused is named, \
and the rest goes on; a line has at most 1,463,640 bytes, and a payload 1 MiB. Answers come in the order in \
which tasks end, batch by batch.\n\n\
Exit codes: 0 all tasks succeeded; 3 some did not; 4 some input was refused; 130 interrupted.";

/// What the verb takes.
#[derive(clap::Args)]
#[command(after_help = HELP)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["task_type", "ndjson", "resume"])))]
pub(crate) struct SubmitArgs {
    /// Task type
    #[arg(value_name = "TYPE")]
    task_type: Option<String>,
    /// Payload as JSON, `@FILE`, or `-` for standard input; `null` without it
    #[arg(conflicts_with_all = ["ndjson", "resume"], allow_hyphen_values = true)]
    payload: Option<String>,
    /// One task for each line of this file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
    /// Submit nothing, and run what was left over in the data directory
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    wishes: Wishes,
    /// Where the log is kept: `sled:DIR`, `file:DIR`, or DIR, where the log that is there says what keeps it; sled keeps a new one
    #[arg(long, value_name = "LOG", conflicts_with = "data", value_parser = embedded::parse_log)]
    log: Option<Store>,
    /// When a task counts as accepted: `fsync`, `interval:MS` (a power cut loses at most so much) or `memory`
    #[arg(long, value_name = "MODE", value_parser = parse_durability)]
    durability: Option<Durability>,
    /// How long running tasks may go on after the first signal, 10s by default
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    drain: Option<Duration>,
    /// Of a service: wait for the end of the one task for at most this span, and print its result; the token needs the scope read too
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["ndjson", "resume"], value_parser = parse_span)]
    wait: Option<Duration>,
}

/// What the one task may ask for.
#[derive(clap::Args)]
struct Wishes {
    /// Idempotency key: the same key again is the same task
    #[arg(long, conflicts_with_all = ["ndjson", "resume"])]
    key: Option<String>,
    /// From 0 to 9; a higher one starts sooner
    #[arg(long, value_name = "N", conflicts_with_all = ["ndjson", "resume"], value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Start it after this span
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["ndjson", "resume"], conflicts_with = "not_before", value_parser = parse_span)]
    delay: Option<Duration>,
    /// Start it at this moment or later, for example 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with_all = ["ndjson", "resume"], value_parser = parse_moment)]
    not_before: Option<Timestamp>,
    /// Attempts in all
    #[arg(long, value_name = "N", conflicts_with_all = ["ndjson", "resume"], value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// How long one attempt may take
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["ndjson", "resume"], value_parser = parse_span)]
    timeout: Option<Duration>,
    /// A name and a value to find the task by; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", conflicts_with_all = ["ndjson", "resume"], value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// A task that has to succeed first: its id, or its key as in '{"type": "fetch", "key": "a"}'; may be repeated
    #[arg(long, value_name = "TASK", conflicts_with_all = ["ndjson", "resume"], value_parser = parse_after)]
    after: Vec<After>,
    /// What becomes of the task when one of those ends without success: `cancel`, the default, or `run`
    #[arg(long, value_name = "POLICY", requires = "after", value_parser = parse_on_failure)]
    on_failure: Option<OnFailure>,
}

fn parse_on_failure(text: &str) -> Result<OnFailure, String> {
    OnFailure::from_name(text).ok_or_else(|| "use cancel or run".to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let label = text.split_once('=').filter(|(name, _)| !name.is_empty());
    label.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "use NAME=VALUE".to_owned())
}

pub(crate) fn run(args: SubmitArgs, globals: &Globals) -> anyhow::Result<Exit> {
    // The one task is looked at before anything is opened, so that a slip leaves no trace.
    let payload = match args.task_type.is_some().then(|| read_payload(args.payload.as_deref())).transpose()?.transpose() {
        Ok(payload) => payload,
        Err(reason) => return Ok(refused(&reason)),
    };
    if let Side::Service(remote) = choice::side(globals, args.log.is_some().then_some("--log"))? {
        return online::run(&remote, &args, payload.as_deref(), globals);
    }
    if args.wait.is_some() {
        return Err(Trouble::Usage("--wait is for a service; in a data directory the command waits anyhow".to_owned()).into());
    }
    let config = settings(globals)?;
    if let Some(payload) = &payload
        && let Err(reason) = Types::of(&config).take_extras(&mut one(&args, payload))
    {
        return Ok(refused(&reason));
    }
    block_on(submit(&args, payload.as_deref(), &config, globals))
}

fn refused(reason: &str) -> Exit {
    output::error(&output::escape(reason));
    Exit::InputRefused
}

/// The payload of the one task; the inner error says what is wrong with it.
fn read_payload(text: Option<&str>) -> anyhow::Result<Result<Box<RawValue>, String>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a payload that is too large from one that just fits.
    let limit = PAYLOAD_BYTES_MAX as u64 + 1;
    match text {
        None => bytes.extend_from_slice(b"null"),
        Some("-") => drop(io::stdin().take(limit).read_to_end(&mut bytes).context("failed to read standard input")?),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("failed to open {path}"))?;
                file.take(limit).read_to_end(&mut bytes).with_context(|| format!("failed to read {path}"))?;
            }
            None => bytes.extend_from_slice(text.as_bytes()),
        },
    }
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Ok(Err(format!("the payload is over the limit of {PAYLOAD_BYTES_MAX} bytes; store it elsewhere and say where")));
    }
    let hint = "a text needs its own quotes, as in '\"text\"'";
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii(),
        Err(error) => return Ok(Err(format!("the payload is not UTF-8 from byte {} on", error.valid_up_to() + 1))),
    };
    Ok(serde_json::from_str(text).map_err(|error| format!("the payload is not JSON ({}); {hint}", without_line(&error))))
}

/// What serde says; the number of the only line is left out.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// The one task that the flags ask for.
fn one<'a>(args: &SubmitArgs, payload: &'a RawValue) -> Request<'a> {
    let wishes = &args.wishes;
    let extras = Extras {
        key: wishes.key.clone(),
        priority: wishes.priority,
        not_before: wishes.not_before.or(wishes.delay.map(|delay| now().after(delay.into()))),
        labels: wishes.labels.clone(),
        after: wishes.after.clone(),
        on_failure: wishes.on_failure,
        ..Extras::default()
    };
    let limit = |limit: Duration| TimeoutsWish { start_to_close: Some(Micros::from(limit)), ..TimeoutsWish::default() };
    Request {
        task_type: args.task_type.clone().unwrap_or_default().into(),
        payload: payload.get().as_bytes().into(),
        extras: Some(Box::new(extras)),
        retry: wishes.attempts.map(|attempts| RetryWish { attempts: Some(attempts), ..RetryWish::default() }),
        timeouts: wishes.timeout.map(limit),
        ..Request::default()
    }
}

async fn submit(args: &SubmitArgs, payload: Option<&RawValue>, config: &Config, globals: &Globals) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let store = args.log.clone().map_or_else(|| data_dir(globals).map(Store::Directory), Ok)?;
    let data = store.dir().map(Path::to_owned).unwrap_or_default();
    embedded::require_dir(&data)?;
    if args.resume && !data.join("store").exists() {
        return Err(LogError::NotFound { path: data }.into());
    }
    let builder = tasks::register(Runtime::builder()).store(store).by("ergate submit").own_tasks_only();
    let builder = configure(builder.pool(file_digest::POOL, 1, FILE_SLOTS), config, &Children::of(globals, config))?;
    let builder = args.durability.into_iter().fold(builder, ergate::Builder::durability);
    let runtime = builder.start().await?;
    if !globals.quiet {
        embedded::say_left_over(&runtime);
    }
    let worked = match payload {
        _ if args.resume => resume(&runtime, &mut signals, globals).await,
        payload => work(args, payload, Types::of(config), &runtime, &mut signals, globals).await,
    };
    let closed = close(&runtime, &mut signals, args.drain.unwrap_or(DRAIN)).await;
    let exit = embedded::settle(&runtime, worked, closed)?;
    if exit == Exit::Interrupted {
        embedded::say_kept(&runtime, &data);
    } else if runtime.live() > 0 && !globals.quiet {
        embedded::say_still(&runtime, &data);
    }
    Ok(exit)
}

/// Submits what was asked for and waits for it.
async fn work(
    args: &SubmitArgs,
    payload: Option<&RawValue>,
    types: Types,
    runtime: &Runtime,
    signals: &mut Signals,
    globals: &Globals,
) -> anyhow::Result<Exit> {
    let numbered = args.ndjson.is_some();
    let (source, ending) = match (&args.ndjson, payload) {
        (Some(path), _) => intake::start(path, types, runtime).map(|(source, ending)| (source, Some(ending)))?,
        (None, Some(payload)) => (intake::one(one(args, payload), types, runtime), None),
        (None, None) => anyhow::bail!("nothing to submit"),
    };
    let shape = match (globals.output, numbered) {
        (Format::Json, _) => Shape::Lines,
        (Format::Table, true) => Shape::Summary,
        (Format::Table, false) => Shape::Result,
    };
    let mut answers = Answers::new(shape, numbered, globals.quiet);
    let mut display = Display::new(globals, "running", "tasks");
    let stopped = pump::run(runtime, signals, &mut display, source, &mut answers).await;
    display.finish();
    if stopped? == Stopped::Interrupted {
        answers.finish()?;
        if numbered {
            output::note(&format!("lines up to {} were taken", answers.last_line()));
        }
        return Ok(Exit::Interrupted);
    }
    answers.finish()?;
    match ending.map(|mut ending| ending.try_recv()) {
        Some(Ok(error)) => Err(error),
        Some(Err(_)) | None => Ok(answers.exit()),
    }
}

/// Waits until nothing is live.
async fn resume(runtime: &Runtime, signals: &mut Signals, globals: &Globals) -> anyhow::Result<Exit> {
    let total = runtime.live() as u64;
    let mut display = Display::new(globals, "running", "tasks");
    let mut tick = tokio::time::interval(DRAW_EVERY);
    while runtime.live() > 0 {
        tokio::select! {
            () = signals.next() => return Ok(Exit::Interrupted),
            Some(reason) = runtime.failed() => return Err(pump::failure(reason)),
            _ = tick.tick() => display.update(total.saturating_sub(runtime.live() as u64), Some(total), ""),
        }
    }
    display.finish();
    output::note(&format!("{} done", count(total, "task that was left over is", "tasks that were left over are")));
    Ok(Exit::Done)
}
