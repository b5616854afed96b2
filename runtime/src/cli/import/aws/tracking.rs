//! Target tracking: a number that is to stay where it is.

use ergate::events::scaling::hpa::{Behavior, Hpa, Rules, Target};
use ergate::events::scaling::policy::Single;
use ergate::events::scaling::real::Real;
use ergate::events::scaling::signal::names;
use ergate::events::scaling::target_tracking::{Alarms, TargetTracking};
use ergate::events::time::Micros;

use super::alarm;
use crate::cli::import::fields::Fields;
use crate::cli::import::hpa::taken;
use crate::cli::import::plan::{self, Note};
use crate::cli::import::refusal::Refusal;
use crate::cli::import::signal::{Meaning, Other};

/// Seconds of a cooldown where none is given, as for ECS services.
const COOLDOWN: u32 = 300;
/// What AWS waits for before it shrinks: 15 points of 60 s.
const LOW_ALARM_SECONDS: u32 = 900;
/// The longest window of an HPA.
const WINDOW_SECONDS_MAX: u32 = 3_600;

/// Reads a configuration; `None` where no signal stands for its metric.
pub(super) fn read(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Option<Single>, Refusal> {
    let target = fields.need("TargetValue", fields.number("TargetValue")?)?;
    let milli = (target * 1_000.0) as i64;
    let real = Real::new(target).filter(|_| milli > 0);
    let real = real.ok_or_else(|| fields.refuse("TargetValue", format!("is {target}, and should be at least 0.001")))?;
    let seconds = |key: &str| Ok::<_, Refusal>(fields.whole(key)?.unwrap_or(COOLDOWN));
    let (out, back) = (seconds("ScaleOutCooldown")?, seconds("ScaleInCooldown")?);
    let disable_scale_in = fields.yes("DisableScaleIn")?.unwrap_or(false);
    let (name, statistic) = metric(fields, notes)?;
    notes.extend(Note::unread(fields));
    let (meaning, is_each) = match name.as_str() {
        "ALBRequestCountPerTarget" => (Meaning::Arrivals, true),
        _ if name.starts_with("ECSServiceAverageCPUUtilization") => (Meaning::Busy, false),
        _ if name.starts_with("ECSServiceAverageMemoryUtilization") => (Meaning::Other(Other::Memory), false),
        _ => alarm::meaning(&name),
    };
    let place = (fields.path.clone(), fields.line);
    let Some((signal, _)) = taken(meaning, &name, Target::ValueMilli(milli), place.clone(), notes) else { return Ok(None) };
    if !is_each || signal == names::BUSY {
        return Ok(Some(Single::TargetTracking(TargetTracking {
            signal: signal.to_owned(),
            target: real,
            statistic,
            scale_out_cooldown: Micros::from_secs(out.into()),
            scale_in_cooldown: Micros::from_secs(back.into()),
            disable_scale_in,
            alarms: Alarms::default(),
        })));
    }
    // CloudWatch counts requests by the minute.
    let milli = if signal == names::ARRIVALS { (target * 1_000.0 / 60.0) as i64 } else { milli };
    let window = back.clamp(LOW_ALARM_SECONDS, WINDOW_SECONDS_MAX);
    let what = format!("a number for each replica became the policy `hpa` over `{signal}`, so much for each replica");
    let why = format!(
        "Ergate's signals are for the whole pool; the cooldowns became a window: it shrinks when {window} s agree, and grows every 15 s"
    );
    notes.push(Note::new(place, what, why, ""));
    let scale_down = Rules {
        stabilization: Some(Micros::from_secs(window.into())),
        select: if disable_scale_in { ergate::events::scaling::hpa::Select::Disabled } else { Default::default() },
        ..Rules::default()
    };
    let behavior = Some(Behavior { scale_down, ..Behavior::default() });
    let metrics = vec![plan::metric(signal, Target::AverageValueMilli(milli.max(1)))];
    Ok(Some(Single::Hpa(Hpa { metrics, behavior, ..Hpa::default() })))
}

/// The name of the metric, or its metric math, and what its points are known by.
fn metric(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<(String, ergate::events::scaling::points::Statistic), Refusal> {
    if let Some(predefined) = fields.object("PredefinedMetricSpecification")? {
        let name = predefined.need("PredefinedMetricType", predefined.text("PredefinedMetricType")?)?;
        predefined.pass_over(&["ResourceLabel"]);
        notes.extend(Note::unread(&predefined));
        return Ok((name.to_owned(), Default::default()));
    }
    let Some(own) = fields.object("CustomizedMetricSpecification")? else {
        return Err(fields.refuse("", "has neither PredefinedMetricSpecification nor CustomizedMetricSpecification"));
    };
    own.pass_over(&["Namespace", "Dimensions", "Unit"]);
    let place = (own.path("Statistic"), own.line);
    let statistic = alarm::statistic(own.text("Statistic")?, place, notes);
    let name = match own.text("MetricName")? {
        Some(name) => name.to_owned(),
        None => {
            let metrics = own.objects("Metrics")?;
            let name = alarm::expression(&metrics)?;
            metrics.iter().for_each(|metric| notes.extend(Note::unread(metric)));
            name
        }
    };
    if name.is_empty() {
        return Err(own.refuse("MetricName", "is missing, and so is `Metrics`"));
    }
    notes.extend(Note::unread(&own));
    Ok((name, statistic))
}
