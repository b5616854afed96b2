//! `ergate kafka init`: creates the topics of a log and names everything about existing ones that is not as it must be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ergate::kafka::Topic;
use ergate::kafka::admin::Admin;
use ergate::kafka::survey::{Difference, Expected, Survey};
use ergate::kafka::topics::Shape;
use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;

use super::{client_settings, parse_url};
use crate::cli::exit::Trouble;
use crate::cli::progress::count;
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, config, output};

/// Replicas where there are enough brokers: one may be away for maintenance while another fails, and nothing acknowledged is lost.
const REPLICATION_DEFAULT: u32 = 3;
/// Most partitions; a broker is content with some thousands in all.
const PARTITIONS_MAX: i64 = 1_024;
/// How long brokers may take until all of them know what is new.
const SETTLING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where, and how large.
#[derive(clap::Args)]
pub(crate) struct InitArgs {
    /// The log: kafka://HOST:PORT,HOST:PORT/NAMESPACE
    #[arg(long, value_name = "URL")]
    log: String,
    /// Shards, and so partitions of each topic; they cannot be changed later, and 16 are enough for 16 engines
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX))]
    partitions: u32,
    /// Replicas of each partition; the default is 3, or as many as there are brokers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    replication: Option<u32>,
    /// Set settings of existing topics that are not as they must be; partitions and replicas are never changed
    #[arg(long)]
    fix: bool,
    /// Only say what would be done; the brokers are asked whether they would do it
    #[arg(long)]
    dry_run: bool,
}

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Created,
    WouldCreate,
    Kept,
    Fixed,
    WouldFix,
}

/// One topic, as it is told.
#[derive(Debug, Serialize)]
struct Report {
    topic: String,
    action: Action,
    partitions: u32,
    replication: u32,
    /// What a new topic is created with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<&'static str, String>,
    /// What is not as it must be, also after a fix.
    differences: Vec<Difference>,
    /// Whether nobody can tell if the settings differ.
    is_unreadable: bool,
}

pub(crate) fn run(args: &InitArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let (url, config) = (parse_url(&args.log)?, config::settings(globals)?);
    let admin = Admin::new(&url, &client_settings(&config)?)?;
    let shape = Shape { partitions: args.partitions, replication: replication(args, admin.metadata()?.brokers().len())? };
    let expected = Expected { partitions: Some(shape.partitions), replication: args.replication };
    let before = admin.survey(expected)?;
    create(&admin, &before, shape, args.dry_run)?;
    let (after, fixed) = if args.dry_run { (before.clone(), Vec::new()) } else { settle(&admin, &before, expected, args.fix)? };
    let reports = before.iter().zip(&after).map(|(before, after)| {
        let action = Action::of(before, fixed.contains(&before.topic), args);
        Report::new(after, action, shape)
    });
    finish(&reports.collect::<Vec<_>>(), args, globals)
}

/// Looks how everything is now, and changes settings where that is wanted; also says of which topics.
///
/// Brokers hear of what is new one after another, and any of them may be the one that is asked: so it looks until nothing is missing.
fn settle(admin: &Admin, before: &[Survey], expected: Expected, fix: bool) -> anyhow::Result<(Vec<Survey>, Vec<Topic>)> {
    let started = Instant::now();
    let mut fixed = Vec::new();
    loop {
        let now = admin.survey(expected)?;
        // What is new is not known at once; what was there and cannot be read stays so.
        let is_known = |before: &Survey, now: &Survey| {
            now.found.as_ref().is_some_and(|found| before.found.is_some() || !found.is_unreadable)
        };
        let is_settled = |(before, now): (&Survey, &Survey)| is_known(before, now) && !(fix && now.is_fixable());
        if before.iter().zip(&now).all(is_settled) || started.elapsed() > SETTLING {
            return Ok((now, fixed));
        }
        for survey in now.iter().filter(|survey| fix && survey.is_fixable()) {
            if !fixed.contains(&survey.topic) {
                admin.fix(survey)?;
                fixed.push(survey.topic);
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How many replicas there shall be; more than there are brokers is refused before anything is done.
fn replication(args: &InitArgs, brokers: usize) -> Result<u32, Trouble> {
    let brokers = u32::try_from(brokers).unwrap_or(u32::MAX);
    match args.replication {
        Some(wanted) if wanted > brokers => {
            Err(Trouble::Usage(format!("--replication {wanted} needs as many brokers, and there are {brokers}")))
        }
        Some(wanted) => Ok(wanted),
        None => Ok(REPLICATION_DEFAULT.min(brokers)),
    }
}

/// Creates what is missing, or asks whether that would work.
fn create(admin: &Admin, surveys: &[Survey], shape: Shape, dry_run: bool) -> anyhow::Result<()> {
    let missing: Vec<Topic> = surveys.iter().filter(|survey| survey.found.is_none()).map(|survey| survey.topic).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let answers = admin.create(&missing, shape, dry_run)?;
    // Another one may have been quicker; what it made is compared as everything else.
    let refused = missing.iter().zip(answers).filter_map(|(topic, answer)| Some((topic, answer.err()?)));
    let refused = refused.filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists);
    let refused = refused.map(|(topic, code)| format!("{topic}: {code}"));
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    anyhow::bail!("{} of {} topics were not created: {}", refused.len(), missing.len(), refused.join("; "))
}

impl Action {
    fn of(before: &Survey, is_fixed: bool, args: &InitArgs) -> Action {
        match (&before.found, args.dry_run) {
            (None, true) => Action::WouldCreate,
            (None, false) => Action::Created,
            (Some(_), _) if is_fixed => Action::Fixed,
            (Some(_), true) if args.fix && before.is_fixable() => Action::WouldFix,
            (Some(_), _) => Action::Kept,
        }
    }
}

impl Report {
    fn new(after: &Survey, action: Action, shape: Shape) -> Report {
        let (topic, found) = (after.topic, after.found.as_ref());
        let settings = || topic.wanted(shape.replication).into_iter().map(|wanted| (wanted.name, wanted.value)).collect();
        let is_new = matches!(action, Action::Created | Action::WouldCreate);
        Report {
            topic: after.name.clone(),
            action,
            partitions: found.map_or(topic.partitions(shape), |found| found.partitions),
            replication: found.map_or(shape.replication, |found| found.replication),
            settings: if is_new { settings() } else { BTreeMap::new() },
            differences: after.differences().to_vec(),
            is_unreadable: !is_new && found.is_some_and(|found| found.is_unreadable),
        }
    }
}

fn finish(reports: &[Report], args: &InitArgs, globals: &Globals) -> anyhow::Result<Exit> {
    match globals.output {
        Format::Json => reports.iter().try_for_each(output::json)?,
        Format::Table => print(reports)?,
    }
    let left: Vec<&Difference> = reports.iter().flat_map(|report| &report.differences).collect();
    let unread: Vec<&str> = reports.iter().filter(|report| report.is_unreadable).map(|report| report.topic.as_str()).collect();
    if !unread.is_empty() {
        anyhow::bail!("the settings of {} cannot be read, so they are not checked; grant DescribeConfigs", unread.join(", "));
    }
    if left.is_empty() {
        return Ok(Exit::Done);
    }
    let fixable = left.iter().filter(|difference| difference.fix.is_some()).count();
    let differences = count(left.len() as u64, "difference", "differences");
    anyhow::bail!(match (fixable, args.fix, args.dry_run) {
        (0, ..) => format!("{differences}, which --fix does not change; the table says what to know"),
        (_, true, false) => format!("{differences} left; the brokers did not take every setting"),
        (_, true, true) => format!("{differences}; --fix without --dry-run changes {fixable}"),
        (_, false, _) => format!("{differences}, and nothing was changed; --fix changes {fixable}"),
    })
}

fn print(reports: &[Report]) -> anyhow::Result<()> {
    let mut table = Table::new(&["TOPIC", "", "PARTITIONS", "REPLICAS"]);
    for report in reports {
        let what = match report.action {
            Action::Created => "created",
            Action::WouldCreate => "would be created",
            Action::Kept => "is there",
            Action::Fixed => "settings changed",
            Action::WouldFix => "settings would be changed",
        };
        table.row([report.topic.clone(), what.to_owned(), report.partitions.to_string(), report.replication.to_string()]);
    }
    table.print()?;
    if reports.iter().all(|report| report.differences.is_empty()) {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&["TOPIC", "WHAT", "FOUND", "EXPECTED", "WHY"]);
    for Report { topic, differences, .. } in reports {
        for Difference { what, found, expected, why, .. } in differences {
            table.row([topic.clone(), what.clone(), found.clone(), expected.clone(), why.clone()]);
        }
    }
    table.print()
}
