//! The topics: whether they are there, as they must be, and whole.

use ergate::kafka::Topic;
use ergate::kafka::survey::{Difference, Found, Survey};

use super::Patient;
use crate::cli::doctor::Check;
use crate::cli::progress::count;

/// With fewer replicas the loss of one broker loses acknowledged work, or stops all.
const REPLICATION_SAFE: u32 = 3;
/// Kafka's own topics that a log depends on: positions in the requests, and the state of transactions.
const INTERNAL: [(&str, &str); 2] = [
    ("__consumer_offsets", "offsets.topic.replication.factor"),
    ("__transaction_state", "transaction.state.log.replication.factor"),
];

/// Looks at every topic of the namespace, and then at their replicas.
pub(super) fn checks(surveys: &[Survey]) -> Vec<Check> {
    let mut checks: Vec<Check> = surveys.iter().map(check).collect();
    checks.push(replicas(surveys));
    checks
}

fn check(survey: &Survey) -> Check {
    let check = match survey.topic {
        Topic::Requests => "requests",
        Topic::Events => "events",
        Topic::Snapshots => "snapshots",
        Topic::Capacity => "capacity",
        Topic::Dlq => "dlq",
        Topic::Results => "results",
    };
    let Some(Found { partitions, replication, differences, is_unreadable, .. }) = &survey.found else {
        let advice = "create it with `ergate kafka init`, or grant Describe on it";
        return Check::fail(check, format!("{} is not there, or this user may not see it", survey.name), advice);
    };
    let partitions = count((*partitions).into(), "partition", "partitions");
    let shape = format!("{}, {partitions}, {}", survey.name, count((*replication).into(), "replica", "replicas"));
    if *is_unreadable {
        let advice = "grant DescribeConfigs on it to have its settings checked";
        return Check::warn(check, format!("{shape}; its settings cannot be read"), advice);
    }
    if differences.is_empty() {
        return Check::ok(check, shape);
    }
    let told =
        differences.iter().map(|Difference { what, found, expected, .. }| format!("{what} is {found}, expected {expected}"));
    let advice = "`ergate kafka init` says why, and --fix changes settings";
    Check::fail(check, format!("{shape}; {}", told.collect::<Vec<_>>().join("; ")), advice)
}

fn replicas(surveys: &[Survey]) -> Check {
    let named = |which: &dyn Fn(&Found) -> &[i32]| -> Vec<String> {
        let all = surveys.iter().filter_map(|survey| Some((&survey.name, which(survey.found.as_ref()?))));
        all.filter(|(_, ids)| !ids.is_empty()).map(|(name, ids)| format!("{name} {}", list(ids))).collect()
    };
    let leaderless = named(&|found| &found.leaderless);
    if !leaderless.is_empty() {
        let advice = "nobody can write or read them; start the brokers that hold them";
        return Check::fail("replicas", format!("no leader: {}", leaderless.join(", ")), advice);
    }
    let behind = named(&|found| &found.under_replicated);
    if !behind.is_empty() {
        let advice = "a broker is away or slow; until it is back another failure may stop work";
        return Check::warn("replicas", format!("incomplete: {}", behind.join(", ")), advice);
    }
    match surveys.iter().filter_map(|survey| survey.found.as_ref()).map(|found| found.replication).min() {
        None => Check::warn("replicas", "no topic yet", "create them with `ergate kafka init`"),
        Some(least) if least < REPLICATION_SAFE => Check::warn(
            "replicas",
            format!("all complete, and {least} of each"),
            "use 3: Kafka acknowledges before the disk does, so what only one broker has is lost with its power",
        ),
        Some(least) => Check::ok("replicas", format!("all complete, at least {least} of each")),
    }
}

fn list(ids: &[i32]) -> String {
    let shown = ids.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(",");
    if ids.len() > 8 { format!("{shown} and {} more", ids.len() - 8) } else { shown }
}

/// The topics that Kafka keeps transactions and offsets in; before their first use only the brokers' settings tell how they will be.
pub(super) fn internal(patient: &Patient<'_>) -> Check {
    let of_topic = |name: &str| {
        let topic = patient.metadata.topics().iter().find(|topic| topic.name() == name)?;
        topic.partitions().iter().map(|partition| partition.replicas().len() as i64).min()
    };
    let known = INTERNAL.iter().map(|(name, setting)| (*name, of_topic(name).or_else(|| patient.least(setting))));
    let told = |(name, replicas): (&str, Option<i64>)| match replicas.and_then(|replicas| u64::try_from(replicas).ok()) {
        Some(replicas) => format!("{name} has {}", count(replicas, "replica", "replicas")),
        None => format!("{name} does not tell its replicas"),
    };
    let weak = known.clone().any(|(_, replicas)| replicas.is_some_and(|replicas| replicas < i64::from(REPLICATION_SAFE)));
    let found = known.map(told).collect::<Vec<_>>().join(", ");
    match weak {
        true => Check::warn(
            "Kafka's own",
            found,
            "give them 3: without the state of transactions no shard can commit, without offsets requests are read again",
        ),
        false => Check::ok("Kafka's own", found),
    }
}
