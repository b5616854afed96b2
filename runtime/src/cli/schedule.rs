//! `ergate schedule`: what is done at certain times, and when next.

use ergate::clock::{Clock, SystemClock};
use ergate::events::time::Timestamp;
use ergate::kafka::logs::CAPACITY;
use ergate::look::record::plain;
use ergate::look::schedule::{PREVIEW, find, missing, preview, schedule_json, schedules};
use serde_json::{Value, json};

use super::choice::{self, Side};
use super::exit::Trouble;
use super::logs::LogArgs;
use super::moment::Moment;
use super::remote::{Ask, Path};
use super::table::{self, Table};
use super::{Exit, Format, Globals, output};

/// What to do with schedules.
#[derive(clap::Subcommand)]
pub(crate) enum ScheduleVerb {
    /// List schedules with their times and when each is due next
    List(ListArgs),
    /// Show a schedule
    Show(ShowArgs),
    /// Show when a schedule is due next, in UTC and as its clocks show it
    Preview(PreviewArgs),
    /// Let a schedule of a service fire nothing until it is resumed
    Pause(ActArgs),
    /// Let a paused schedule of a service fire again
    Resume(ActArgs),
    /// Fire a schedule of a service now, beside its times
    Trigger(ActArgs),
}

/// Whose schedules.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
}

/// Which schedule.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Its name
    name: String,
}

/// Which schedule, and how far ahead.
#[derive(clap::Args)]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Its name
    name: String,
    /// At most so many, from 1 to 1000
    #[arg(short = 'n', long, value_name = "N", default_value_t = PREVIEW.0 as u64, value_parser = clap::value_parser!(u64).range(1..=PREVIEW.1 as u64))]
    limit: u64,
    /// Behind this time instead of now, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    after: Option<Timestamp>,
}

/// Which schedule, and why.
#[derive(clap::Args)]
pub(crate) struct ActArgs {
    /// Its name
    name: String,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    match text.parse()? {
        Moment::Time(at) => Ok(at),
        Moment::Position(_) => Err("write a time with its offset such as 2030-01-31T12:00:00Z".to_owned()),
    }
}

pub(crate) fn run(verb: ScheduleVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        ScheduleVerb::List(args) => list(&args, globals),
        ScheduleVerb::Show(args) => show(&args, globals),
        ScheduleVerb::Preview(args) => foresee(&args, globals),
        ScheduleVerb::Pause(args) => act("pause", &args, globals).and_then(|schedule| print(&schedule, globals.output)),
        ScheduleVerb::Resume(args) => act("resume", &args, globals).and_then(|schedule| print(&schedule, globals.output)),
        ScheduleVerb::Trigger(args) => trigger(&args, globals),
    }
}

/// The time by which a directory's schedules are shown.
fn now() -> Timestamp {
    SystemClock::starting(Timestamp(0)).wall()
}

fn list(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let all = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => {
            let told: Value = remote.get(Path::new("/v1/schedules"))?;
            told["schedules"].as_array().cloned().unwrap_or_default()
        }
        Side::Directory => {
            let mut all = Vec::new();
            for place in args.log.open(globals)?.iter().filter(|place| place.shard != CAPACITY) {
                all.extend(schedules(place.shard, &place.fold_all(globals)?, now()));
            }
            all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
            all
        }
    };
    match globals.output {
        Format::Json => all.iter().try_for_each(output::json)?,
        Format::Table => {
            let mut table = Table::new(&["SCHEDULE", "WHEN", "TIME ZONE", "TASK TYPE", "NEXT", "LAST TASK"]);
            all.iter().for_each(|known| table.row(row(known)));
            table.print()?;
        }
    }
    Ok(Exit::Done)
}

fn row(known: &Value) -> [String; 6] {
    let or_dash = |value: &Value| fact(value).unwrap_or_else(|| "-".to_owned());
    let next = if known["paused"].is_null() { or_dash(&known["next"]["local"]) } else { "paused".to_owned() };
    [plain(&known["name"]), when(known), plain(&known["timezone"]), plain(&known["task"]), next, or_dash(&known["last"]["task"])]
}

/// What is there of a value.
fn fact(value: &Value) -> Option<String> {
    Some(value).filter(|value| !value.is_null()).map(plain)
}

/// The times of a schedule in its own words.
fn when(known: &Value) -> String {
    let one = |(key, word): (&str, &str)| known[key].as_str().map(|text| format!("{word}{text}"));
    [("cron", ""), ("every", "every "), ("at", "at ")].into_iter().find_map(one).unwrap_or_default()
}

fn show(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let known = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => remote.get(Path::new("/v1/schedules").below(&args.name))?,
        Side::Directory => {
            let place = args.log.open_home(&args.name, globals)?;
            let state = place.fold_all(globals)?;
            let known = find(&state, &args.name).ok_or_else(|| Trouble::NotFound(missing(&args.name)))?;
            schedule_json(place.shard, &state, known, now())
        }
    };
    print(&known, globals.output)
}

fn foresee(args: &PreviewArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let firings = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => {
            let path = Path::new("/v1/schedules").below(&args.name).below("preview");
            let path = path.with("limit", Some(args.limit)).with("after", args.after.map(Timestamp::rfc3339));
            let told: Value = remote.get(path)?;
            told["firings"].as_array().cloned().unwrap_or_default()
        }
        Side::Directory => {
            let state = args.log.open_home(&args.name, globals)?.fold_all(globals)?;
            let known = find(&state, &args.name).ok_or_else(|| Trouble::NotFound(missing(&args.name)))?;
            preview(known, args.after.unwrap_or_else(now), usize::try_from(args.limit).unwrap_or(PREVIEW.1))
        }
    };
    match globals.output {
        Format::Json => firings.iter().try_for_each(output::json)?,
        Format::Table => {
            let mut table = Table::new(&["SLOT", "LOCAL"]);
            firings.iter().for_each(|firing| table.row(["slot", "local"].map(|name| plain(&firing[name]))));
            table.print()?;
        }
    }
    Ok(Exit::Done)
}

fn act(verb: &str, args: &ActArgs, globals: &Globals) -> anyhow::Result<Value> {
    let remote = choice::service(globals, &format!("schedule {verb}"))?;
    let body = args.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let ask = Ask::post(Path::new("/v1/schedules").below(&args.name).below(verb), &body);
    Ok(remote.parse(&remote.ask_with_patience(&ask)?.body)?)
}

fn trigger(args: &ActArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let fired = act("trigger", args, globals)?;
    match globals.output {
        Format::Json => output::json(&fired)?,
        Format::Table => table::facts(&["schedule", "task", "position"].map(|name| (name, fired.get(name).map(plain))))?,
    }
    Ok(Exit::Done)
}

fn print(known: &Value, format: Format) -> anyhow::Result<Exit> {
    if format == Format::Json {
        output::json(known)?;
        return Ok(Exit::Done);
    }
    let text = |name: &'static str| (name, fact(&known[name]));
    let passed = known["passed"].as_object().into_iter().flatten();
    let passed: Vec<String> = passed.map(|(because, count)| format!("{} {because}", plain(count))).collect();
    table::facts(&[
        text("name"),
        ("when", Some(when(known))),
        text("timezone"),
        text("task"),
        text("payload"),
        text("priority"),
        text("catch_up"),
        text("overlap"),
        ("paused since", fact(&known["paused"]["since"])),
        ("paused by", fact(&known["paused"]["by"])),
        ("because", fact(&known["paused"]["reason"])),
        ("next", fact(&known["next"]["local"])),
        ("last slot", fact(&known["last"]["slot"])),
        ("last task", fact(&known["last"]["task"])),
        text("fired"),
        ("passed over", Some(passed.join(", "))),
    ])?;
    Ok(Exit::Done)
}
