//! Alarms of CloudWatch, by which step policies are driven, and what metrics of CloudWatch mean.

use ergate::events::scaling::points::Statistic;
use ergate::events::scaling::step::Side;

use super::template;
use crate::cli::import::fields::Fields;
use crate::cli::import::plan::Note;
use crate::cli::import::refusal::Refusal;
use crate::cli::import::signal::{self, Meaning, Other};

/// An alarm.
#[derive(Debug)]
pub(super) struct Alarm<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) side: Side,
    /// Whether the threshold itself is quiet.
    pub(super) is_strict: bool,
    pub(super) threshold: f64,
    /// Seconds.
    pub(super) period: u32,
    pub(super) points: u32,
    pub(super) metric: String,
    /// What it does: addresses or names of policies.
    actions: Vec<String>,
}

/// Reads an alarm.
pub(super) fn read(fields: Fields<'_>) -> Result<Alarm<'_>, Refusal> {
    let comparison = fields.need("ComparisonOperator", fields.text("ComparisonOperator")?)?;
    let (side, is_strict) = match comparison {
        "GreaterThanOrEqualToThreshold" => (Side::Above, false),
        "GreaterThanThreshold" => (Side::Above, true),
        "LessThanOrEqualToThreshold" => (Side::Below, false),
        "LessThanThreshold" => (Side::Below, true),
        other => {
            let reason = format!("is {other:?}, and should compare with a threshold: GreaterThanThreshold and its like");
            return Err(fields.refuse("ComparisonOperator", reason));
        }
    };
    let threshold = fields.need("Threshold", fields.number("Threshold")?)?;
    let points = match fields.whole("DatapointsToAlarm")? {
        Some(points) => points,
        None => fields.need("EvaluationPeriods", fields.whole("EvaluationPeriods")?)?,
    };
    let period = fields.whole("Period")?.unwrap_or(60);
    let metric = match fields.text("MetricName")? {
        Some(name) => name.to_owned(),
        None => expression(&fields.objects("Metrics")?)?,
    };
    let actions = fields.list("AlarmActions")?.into_iter().filter_map(|(_, node)| template::text(node)).collect();
    Ok(Alarm { fields, side, is_strict, threshold, period, points, metric, actions })
}

impl Alarm<'_> {
    /// Whether it sets a policy off: by its place in a template, or by its name at the end of its address.
    pub(super) fn drives(&self, name: &str, logical: Option<&str>) -> bool {
        let is_this = |action: &String| {
            let reference = action.split('.').next().unwrap_or_default();
            Some(reference) == logical || action.rsplit_once("policyName/").is_some_and(|(_, last)| last == name)
        };
        self.actions.iter().any(is_this)
    }
}

/// Metric math as one text: the expressions with the names of their metrics.
pub(super) fn expression(metrics: &[Fields<'_>]) -> Result<String, Refusal> {
    let (mut expressions, mut all) = (Vec::new(), Vec::new());
    for fields in metrics {
        let id = fields.text("Id")?.unwrap_or_default();
        fields.pass_over(&["Label", "ReturnData"]);
        if let Some(expression) = fields.text("Expression")? {
            expressions.push(expression.to_owned());
        }
        if let Some(stat) = fields.object("MetricStat")? {
            let metric = stat.need("Metric", stat.object("Metric")?)?;
            all.push((id, metric.need("MetricName", metric.text("MetricName")?)?));
        }
    }
    let mut text = expressions.join("; ");
    // The longest first, for `m1` is the beginning of `m10`.
    all.sort_by_key(|(id, _)| std::cmp::Reverse(id.len()));
    for (id, name) in &all {
        if !id.is_empty() {
            text = text.replace(id, name);
        }
    }
    Ok(if text.is_empty() { all.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ") } else { text })
}

/// What a metric of CloudWatch means, and whether it is for each replica.
pub(super) fn meaning(metric: &str) -> (Meaning, bool) {
    let lower = metric.to_ascii_lowercase();
    let is_each =
        lower.contains("per") && !lower.contains("percent") && !lower.contains("per_second") && !lower.contains("persecond");
    let divides_by_tasks = lower
        .split_once('/')
        .is_some_and(|(_, by)| ["task", "instance", "capacity", "running", "replica"].iter().any(|word| by.contains(word)));
    if divides_by_tasks && let Some((above, _)) = lower.split_once('/') {
        return (signal::guess(above), true);
    }
    match metric {
        "CPUUtilization" => (Meaning::Busy, false),
        "MemoryUtilization" => (Meaning::Other(Other::Memory), false),
        "RequestCountPerTarget" | "RequestCount" => (Meaning::Arrivals, metric != "RequestCount"),
        _ => (signal::guess(metric), is_each),
    }
}

/// What a point is known by.
pub(super) fn statistic(text: Option<&str>, place: (String, usize), notes: &mut Vec<Note>) -> Statistic {
    match text {
        None | Some("Average") => Statistic::Average,
        Some("Minimum") => Statistic::Minimum,
        Some("Maximum") => Statistic::Maximum,
        Some(other) => {
            let why = "what Ergate counts is a number at a moment, and not a sum of samples";
            notes.push(Note::new(place, format!("the statistic {other} became the average"), why, ""));
            Statistic::Average
        }
    }
}
