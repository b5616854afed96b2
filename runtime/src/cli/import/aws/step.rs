//! Step scaling: an alarm, and steps by how far its metric is beyond the threshold.

use ergate::events::scaling::hpa::Target;
use ergate::events::scaling::real::Real;
use ergate::events::scaling::step::{Adjustment, Part, Side, Stair};
use ergate::events::time::Micros;

use super::alarm;
use super::collect::{Found, Given};
use crate::cli::import::fields::Fields;
use crate::cli::import::hpa::taken;
use crate::cli::import::plan::Note;
use crate::cli::import::refusal::Refusal;

/// Seconds of a cooldown where none is given.
const COOLDOWN: u32 = 300;

/// Reads a configuration with its alarms: a part for each alarm whose metric a signal stands for.
pub(super) fn read(
    fields: &Fields<'_>,
    given: &Given<'_>,
    found: &Found<'_>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Part>, Refusal> {
    let adjustment = match fields.text("AdjustmentType")? {
        None | Some("ChangeInCapacity") => Adjustment::Change,
        Some("PercentChangeInCapacity") => Adjustment::Percent,
        Some("ExactCapacity") => Adjustment::Exact,
        Some(other) => {
            let allowed = "ChangeInCapacity, PercentChangeInCapacity or ExactCapacity";
            return Err(fields.refuse("AdjustmentType", format!("is {other:?}, and should be {allowed}")));
        }
    };
    let mut steps = fields.objects("StepAdjustments")?.iter().map(|step| stair(step, notes)).collect::<Result<Vec<_>, _>>()?;
    if steps.is_empty() {
        return Err(fields.refuse("StepAdjustments", "has no step"));
    }
    steps.sort_by_key(|stair| stair.lower);
    let min_adjustment = fields.whole("MinAdjustmentMagnitude")?.unwrap_or(0);
    let cooldown = Micros::from_secs(fields.whole("Cooldown")?.unwrap_or(COOLDOWN).into());
    let aggregation = fields.text("MetricAggregationType")?;
    notes.extend(Note::unread(fields));
    let place = (fields.path.clone(), fields.line);
    let statistic = alarm::statistic(aggregation, place.clone(), notes);
    let mut parts = Vec::new();
    for alarm in found.alarms.iter().filter(|alarm| alarm.drives(&given.name, given.logical)) {
        let name = alarm.metric.as_str();
        let (meaning, is_each) = alarm::meaning(name);
        let at = (alarm.fields.path.clone(), alarm.fields.line);
        let Some((signal, _)) = taken(meaning, name, Target::ValueMilli(1), at.clone(), notes) else { continue };
        if is_each {
            let why = "it is a number for each replica, and a step compares one of the whole pool";
            let instead = format!("`hpa` with so much of `{signal}` for each replica");
            notes.push(Note::new(at, format!("the alarm on {name:?} was left out"), why, instead));
            continue;
        }
        if alarm.is_strict {
            let side = if alarm.side == Side::Above { "above" } else { "below" };
            let what = format!("the alarm is on at {} and not only {side}", alarm.threshold);
            notes.push(Note::new(at, what, "a step begins where its alarm does, and contains its own end", ""));
        }
        let threshold = Real::new(alarm.threshold);
        let threshold = threshold.ok_or_else(|| alarm.fields.refuse("Threshold", "is no finite number"))?;
        parts.push(Part {
            signal: signal.to_owned(),
            statistic,
            side: alarm.side,
            threshold,
            period: Micros::from_secs(alarm.period.into()),
            points: alarm.points,
            adjustment,
            steps: steps.clone(),
            min_adjustment,
            cooldown,
        });
    }
    if parts.is_empty() {
        let why = "no alarm here sets it off that a signal stands for";
        let instead =
            format!("add the alarm whose AlarmActions name {:?} (what put-metric-alarm is given) to the files", given.name);
        notes.push(Note::new(place, format!("the step policy {:?} was left out", given.name), why, instead));
    }
    Ok(parts)
}

fn stair(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Stair, Refusal> {
    let end = |key: &str| Ok::<_, Refusal>(fields.number(key)?.and_then(Real::new));
    let (lower, upper) = (end("MetricIntervalLowerBound")?, end("MetricIntervalUpperBound")?);
    let by = fields.need("ScalingAdjustment", fields.number("ScalingAdjustment")?)?;
    if by.fract() != 0.0 || by.abs() > 1e9 {
        return Err(fields.refuse("ScalingAdjustment", format!("is {by}, and should be a whole number")));
    }
    notes.extend(Note::unread(fields));
    Ok(Stair { lower, upper, by: by as i64 })
}
