//! KEDA's triggers: what each of its scalers counts, and which signal of Ergate counts the same.

use ergate::events::scaling::hpa::Target;
use ergate::events::scaling::keda::Trigger;
use ergate::events::scaling::real::Real;
use ergate::events::scaling::signal::names;

use super::fields::Fields;
use super::hpa::taken;
use super::plan::Note;
use super::refusal::Refusal;
use super::signal::{self, Meaning};

/// What a scaler counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// What waits in a queue.
    Waiting,
    /// What waits, and what somebody has and has not acknowledged.
    Work,
    /// Whatever a query or a name says, which stands in one of these fields.
    Asked(&'static [&'static str]),
}

/// A scaler: its names, the fields that have its target, what that is without any, the field of its activation, and what it counts.
struct Scaler {
    names: &'static [&'static str],
    targets: &'static [&'static str],
    default: Option<u32>,
    activation: &'static str,
    counts: Counts,
}

const fn scaler(
    names: &'static [&'static str],
    targets: &'static [&'static str],
    default: Option<u32>,
    activation: &'static str,
    counts: Counts,
) -> Scaler {
    Scaler { names, targets, default, activation, counts }
}

/// Scalers as KEDA 2.20 documents them.
const SCALERS: [Scaler; 29] = [
    scaler(&["kafka", "apache-kafka"], &["lagThreshold"], Some(10), "activationLagThreshold", Counts::Waiting),
    scaler(&["rabbitmq"], &["value", "queueLength"], Some(20), "activationValue", Counts::Waiting),
    scaler(&["redis", "redis-cluster", "redis-sentinel"], &["listLength"], Some(5), "activationListLength", Counts::Waiting),
    scaler(
        &["redis-streams", "redis-cluster-streams", "redis-sentinel-streams"],
        &["lagCount", "streamLength", "pendingEntriesCount"],
        Some(5),
        "activationLagCount",
        Counts::Work,
    ),
    scaler(&["aws-sqs-queue"], &["queueLength"], Some(5), "activationQueueLength", Counts::Work),
    scaler(&["azure-queue"], &["queueLength"], Some(5), "activationQueueLength", Counts::Waiting),
    scaler(&["azure-servicebus"], &["messageCount"], Some(5), "activationMessageCount", Counts::Waiting),
    scaler(&["azure-eventhub"], &["unprocessedEventThreshold"], Some(64), "activationUnprocessedEventThreshold", Counts::Waiting),
    scaler(&["azure-blob"], &["blobCount"], Some(5), "activationBlobCount", Counts::Waiting),
    scaler(&["gcp-pubsub"], &["value", "subscriptionSize"], Some(10), "activationValue", Counts::Asked(&["mode"])),
    scaler(&["activemq"], &["targetQueueSize"], Some(10), "activationTargetQueueSize", Counts::Waiting),
    scaler(&["artemis-queue"], &["queueLength"], Some(10), "activationQueueLength", Counts::Waiting),
    scaler(&["ibmmq"], &["queueDepth"], Some(20), "activationQueueDepth", Counts::Waiting),
    scaler(&["nats-jetstream", "stan", "liiklus"], &["lagThreshold"], Some(10), "activationLagThreshold", Counts::Waiting),
    scaler(&["pulsar"], &["msgBacklogThreshold"], Some(10), "activationMsgBacklogThreshold", Counts::Waiting),
    scaler(&["beanstalkd"], &["value"], None, "activationValue", Counts::Waiting),
    scaler(&["solace-event-queue"], &["messageCountTarget"], None, "activationMessageCountTarget", Counts::Waiting),
    scaler(&["temporal"], &["targetQueueSize"], Some(5), "activationTargetQueueSize", Counts::Waiting),
    scaler(&["github-runner"], &["targetWorkflowQueueLength"], Some(1), "activationTargetWorkflowQueueLength", Counts::Waiting),
    scaler(
        &["azure-pipelines"],
        &["targetPipelinesQueueLength"],
        Some(1),
        "activationTargetPipelinesQueueLength",
        Counts::Waiting,
    ),
    scaler(&["prometheus", "loki"], &["threshold"], None, "activationThreshold", Counts::Asked(&["query"])),
    scaler(&["graphite", "influxdb"], &["threshold", "thresholdValue"], None, "activationThreshold", Counts::Asked(&["query"])),
    scaler(&["new-relic", "dynatrace"], &["threshold"], None, "activationThreshold", Counts::Asked(&["nrql", "metricSelector"])),
    scaler(
        &["datadog"],
        &["queryValue", "targetValue"],
        None,
        "activationQueryValue",
        Counts::Asked(&["query", "datadogMetricName"]),
    ),
    scaler(&["metrics-api"], &["targetValue"], None, "activationTargetValue", Counts::Asked(&["valueLocation", "url"])),
    scaler(&["postgresql"], &["targetQueryValue"], None, "activationTargetQueryValue", Counts::Asked(&["query"])),
    scaler(&["mysql", "mongodb"], &["queryValue"], None, "activationQueryValue", Counts::Asked(&["query", "collection"])),
    scaler(
        &["mssql", "elasticsearch", "gcp-stackdriver", "azure-monitor", "azure-log-analytics", "azure-data-explorer"],
        &["targetValue", "threshold"],
        None,
        "activationTargetValue",
        Counts::Asked(&["query", "filter", "metricName", "searchTemplateName"]),
    ),
    scaler(
        &["aws-cloudwatch"],
        &["targetMetricValue"],
        None,
        "activationTargetMetricValue",
        Counts::Asked(&["metricName", "expression"]),
    ),
];

/// What is made of a trigger.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// What stands for it, if anything does.
    pub(super) trigger: Option<Trigger>,
    /// What a formula calls it.
    pub(super) name: Option<&'a str>,
    /// Whether it is CPU or memory, by which nothing is put to sleep.
    pub(super) is_resource: bool,
}

/// Reads a trigger of a pool with so few replicas.
pub(super) fn read<'a>(fields: &Fields<'a>, pool: &str, min: u32, notes: &mut Vec<Note>) -> Result<Read<'a>, Refusal> {
    let kind = fields.need("type", fields.text("type")?)?;
    let name = fields.text("name")?;
    let by = fields.text("metricType")?;
    fields.pass_over(&["authenticationRef", "useCachedMetrics"]);
    let metadata = fields.need("metadata", fields.object("metadata")?)?;
    let place = (fields.path.clone(), fields.line);
    notes.extend(Note::unread(fields));
    let is_resource = matches!(kind, "cpu" | "memory");
    let found = match kind {
        "cpu" | "memory" => resource(kind, by, &metadata, place, notes)?,
        "cron" => {
            notes.push(cron(&metadata, place, pool, min)?);
            None
        }
        _ => match SCALERS.iter().find(|scaler| scaler.names.contains(&kind)) {
            Some(scaler) => scaled(scaler, kind, by, fields, &metadata, notes)?,
            None => {
                let why = "Ergate asks no such source, and nothing says which of its own signals counts the same";
                let instead = "a trigger on `ready` (what waits), `work` (what waits or runs) or `arrivals_per_s`";
                notes.push(Note::new(place, format!("the trigger {kind:?} was left out"), why, instead));
                None
            }
        },
    };
    let trigger = found.map(|(signal, target, activation)| Trigger {
        name: name.filter(|name| *name != signal).map(str::to_owned),
        signal: signal.to_owned(),
        target,
        activation,
    });
    Ok(Read { trigger, name, is_resource })
}

type Found = Option<(&'static str, Target, Real)>;

fn scaled(
    scaler: &Scaler,
    kind: &str,
    by: Option<&str>,
    fields: &Fields<'_>,
    metadata: &Fields<'_>,
    notes: &mut Vec<Note>,
) -> Result<Found, Refusal> {
    let mut number = None;
    for key in scaler.targets {
        number = number.or(metadata.number(key)?);
    }
    let first = scaler.targets.first().copied().unwrap_or_default();
    let number = metadata.need(first, number.or(scaler.default.map(f64::from)))?;
    // KEDA stores thousandths.
    let milli = (number * 1_000.0) as i64;
    if milli <= 0 {
        return Err(metadata.refuse(first, format!("is {number}, and should be at least 0.001")));
    }
    let target = match by {
        None | Some("AverageValue") => Target::AverageValueMilli(milli),
        Some("Value") => Target::ValueMilli(milli),
        Some(other) => return Err(fields.refuse("metricType", format!("is {other:?}, and should be AverageValue or Value"))),
    };
    let activation = metadata.number(scaler.activation)?.unwrap_or(0.0);
    let activation = Real::new(activation).unwrap_or_default();
    let place = (fields.path.clone(), fields.line);
    let signal = match counts(scaler, kind, metadata)? {
        Counts::Waiting => names::READY,
        Counts::Work => names::WORK,
        Counts::Asked(keys) => {
            let mut asked = None;
            for key in keys {
                asked = asked.or(metadata.text(key)?);
            }
            let asked = asked.unwrap_or(kind);
            // Rates of Pub/Sub are of what is sent; without a mode it is the size.
            let meaning = match (kind, asked) {
                ("gcp-pubsub", "SubscriptionSize" | "gcp-pubsub" | "NumUndeliveredMessages") => Meaning::Waiting,
                _ => signal::guess(asked),
            };
            return Ok(taken(meaning, asked, target, place, notes).map(|(signal, target)| (signal, target, activation)));
        }
    };
    let rate = metadata.text("mode")?.filter(|mode| kind == "rabbitmq" && *mode == "MessageRate");
    let signal = if rate.is_some() { names::ARRIVALS } else { signal };
    let why = if kind.ends_with("kafka") {
        "in Ergate the records are tasks; any replica does any of them, so partitions bound nothing"
    } else {
        "in Ergate the messages are tasks, and it counts them itself"
    };
    notes.push(Note::new(place, format!("the trigger {kind:?} became `{signal}`"), why, ""));
    Ok(Some((signal, target, activation)))
}

/// What it counts, as far as its settings say.
fn counts(scaler: &Scaler, kind: &str, metadata: &Fields<'_>) -> Result<Counts, Refusal> {
    let is_said = |key| metadata.text(key).map(|text| text.is_some());
    Ok(match kind {
        "aws-sqs-queue" if metadata.text("scaleOnInFlight")? == Some("false") => Counts::Waiting,
        _ if kind.ends_with("streams") && (is_said("lagCount")? || is_said("streamLength")?) => Counts::Waiting,
        _ => scaler.counts,
    })
}

fn resource(
    kind: &str,
    by: Option<&str>,
    metadata: &Fields<'_>,
    place: (String, usize),
    notes: &mut Vec<Note>,
) -> Result<Found, Refusal> {
    // The older place of the same.
    let by = by.or(metadata.text("type")?).unwrap_or("Utilization");
    if !matches!(by, "Utilization" | "AverageValue") {
        return Err(metadata.refuse("type", format!("is {by:?}, and should be Utilization or AverageValue")));
    }
    if kind == "memory" || by == "AverageValue" {
        metadata.need("value", metadata.text("value")?)?;
        let other = signal::Other::Memory;
        let (why, instead) = if kind == "memory" {
            (other.why(), other.instead())
        } else {
            (
                "how busy slots are is known of every pool, and what replicas use of the CPU only where they tell it",
                "`busy_percent` with a share that replicas should be busy for, or `cpu_cores_mean`",
            )
        };
        notes.push(Note::new(place, format!("the trigger {kind:?} was left out"), why, instead));
        return Ok(None);
    }
    let percent = metadata.need("value", metadata.whole("value")?)?;
    if percent == 0 {
        return Err(metadata.refuse("value", "is 0, and should be above 0"));
    }
    let what = format!("CPU at {percent} % became `{}` at {percent} %", names::BUSY);
    let why = "how busy slots are is known of every pool, and what replicas use of the CPU only where they tell it";
    notes.push(Note::new(
        place,
        what,
        why,
        "`cpu_percent`, with `cpu` of the pool; for tasks that wait more than they compute, `ready` or `work`",
    ));
    Ok(Some((names::BUSY, Target::ValueMilli(i64::from(percent) * 1_000), Real::ZERO)))
}

/// A pool that is larger at certain hours is a schedule here.
fn cron(metadata: &Fields<'_>, place: (String, usize), pool: &str, min: u32) -> Result<Note, Refusal> {
    let text = |key| metadata.text(key).and_then(|found| metadata.need(key, found));
    let (start, end, zone) = (text("start")?, text("end")?, text("timezone")?);
    let desired = metadata.need("desiredReplicas", metadata.whole("desiredReplicas")?)?;
    let what = format!("at least {desired} replicas from {start:?} to {end:?} ({zone}) was left out");
    let why = "a policy reads no clock";
    let set = |min| format!("`ergate pool set {pool} FILE --min {min}`");
    let instead = format!(
        "two schedules with timezone = {zone:?}: cron = {start:?} for a task that runs {}, and cron = {end:?} for one that runs {}",
        set(desired),
        set(min)
    );
    Ok(Note::new(place, what, why, instead))
}
