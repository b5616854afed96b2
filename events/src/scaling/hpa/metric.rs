//! What one metric proposes.

use super::pods::{self, Bins, Sum};
use super::rulebook::Rulebook;
use super::settings::{Metric, Source, Target};
use crate::scaling::decision::{Answer, Failure, Verdict};
use crate::scaling::signal::{Observation, Reading, Value};

/// What a metric proposes, with its number and its ratio to the target.
pub(super) fn verdict(rules: &Rulebook<'_>, metric: &Metric, observation: &Observation) -> Verdict {
    let answer = match metric.source {
        Source::Resource | Source::ContainerResource { .. } | Source::Pods => of_pods(rules, metric, observation),
        Source::Object { .. } | Source::External { .. } => of_signal(rules, metric, observation),
    };
    answer.unwrap_or_else(Verdict::failed)
}

/// A float as a number of replicas: as far as 32 bits with a sign go, and nothing for what is no number.
fn replicas(number: f64) -> u32 {
    (number.ceil() as i32).max(0).cast_unsigned()
}

fn of_signal(rules: &Rulebook<'_>, metric: &Metric, observation: &Observation) -> Result<Verdict, Failure> {
    let milli = observation.read(metric.signal())?.milli();
    outside(rules, metric.target, milli, observation)
}

/// What a number that does not come from pods proposes.
pub(in crate::scaling) fn outside(
    rules: &Rulebook<'_>,
    target: Target,
    milli: i64,
    observation: &Observation,
) -> Result<Verdict, Failure> {
    let current = observation.replicas.wanted;
    let (ratio, proposal) = match target {
        // A share of what pods ask for means nothing outside of them.
        Target::Utilization(_) => return Err(Failure::NoNumber),
        Target::ValueMilli(target) => {
            let ratio = milli as f64 / target as f64;
            let proposal = if current == 0 {
                replicas(ratio)
            } else if rules.tolerates(ratio) {
                current
            } else {
                replicas(ratio * ready(observation)? as f64)
            };
            (ratio, proposal)
        }
        Target::AverageValueMilli(target) => {
            // The replicas that are there, not those that are wanted: what starts does not count yet, so a target that still starts may shrink.
            let status = observation.replicas.live;
            let ratio = milli as f64 / (target as f64 * f64::from(status));
            (ratio, if rules.tolerates(ratio) { status } else { replicas(milli as f64 / target as f64) })
        }
    };
    Ok(Verdict::of(Value::Milli(milli), ratio, Answer::Replicas(proposal)))
}

/// Replicas that run and are ready.
fn ready(observation: &Observation) -> Result<u64, Failure> {
    match observation.pods.as_deref() {
        None => Ok(u64::from(observation.replicas.ready)),
        Some([]) => Err(Failure::NoPods),
        Some(all) => Ok(pods::ready(all)),
    }
}

fn of_pods(rules: &Rulebook<'_>, metric: &Metric, observation: &Observation) -> Result<Verdict, Failure> {
    let failed = observation.signals.iter().find(|signal| signal.name == metric.signal()).map(|signal| &signal.reading);
    if let Some(Reading::Failed(reason)) = failed {
        return Err(Failure::Source(reason.clone()));
    }
    let Some(all) = observation.pods.as_deref().filter(|pods| !pods.is_empty()) else { return Err(Failure::NoPods) };
    let is_cpu = metric.source != Source::Pods && metric.name == "cpu";
    let bins = Bins::sort(all, metric, is_cpu, rules.controller, observation.at);
    if bins.counted.count == 0 {
        return Err(Failure::NoSamples);
    }
    if matches!(metric.target, Target::Utilization(_)) && bins.lacks_request {
        return Err(Failure::NoRequest);
    }
    let (raw, ratio) = compare(&bins.counted, metric.target)?;
    let is_growing_with_unready = bins.unready.count > 0 && ratio > 1.0;
    let current = observation.replicas.wanted;
    let proposal = if bins.missing.count == 0 && !is_growing_with_unready {
        // Only here the count may jump to that of the pods there are, which during a rollout are more than are wanted.
        if rules.tolerates(ratio) { current } else { replicas(ratio * bins.counted.count as f64) }
    } else {
        cautious(rules, metric, &bins, ratio, current)?
    };
    let verdict = Verdict::of(raw, ratio, Answer::Replicas(proposal));
    Ok(Verdict { pods: Some(bins.counts()), ..verdict })
}

/// The number that is compared, and its ratio to the target; both are cut off to whole numbers before they are compared.
fn compare(sum: &Sum, target: Target) -> Result<(Value, f64), Failure> {
    match target {
        Target::Utilization(target) => {
            if sum.request == 0 {
                return Err(Failure::ZeroRequest);
            }
            let percent = clamp(100 * sum.usage / sum.request, i64::from(i32::MIN), i64::from(i32::MAX));
            Ok((Value::Integer(percent), percent as f64 / f64::from(target)))
        }
        Target::AverageValueMilli(target) => {
            let average = clamp(sum.usage / i128::from(sum.count), i64::MIN, i64::MAX);
            Ok((Value::Milli(average), average as f64 / target as f64))
        }
        Target::ValueMilli(_) => Err(Failure::NoNumber),
    }
}

fn clamp(number: i128, least: i64, most: i64) -> i64 {
    i64::try_from(number.clamp(least.into(), most.into())).unwrap_or(most)
}

/// The proposal where samples are missing: those pods are taken to speak against it, and where that changes its direction nothing is proposed.
fn cautious(rules: &Rulebook<'_>, metric: &Metric, bins: &Bins, ratio: f64, current: u32) -> Result<u32, Failure> {
    let mut sum = bins.counted;
    let mut take = |bin: &Sum, usage: i128| {
        sum = Sum { count: sum.count + bin.count, usage: sum.usage + usage, request: sum.request + bin.request };
    };
    if ratio < 1.0 {
        let full = match metric.target {
            Target::Utilization(_) => bins.missing_full,
            Target::AverageValueMilli(milli) | Target::ValueMilli(milli) => i128::from(bins.missing.count) * i128::from(milli),
        };
        take(&bins.missing, full);
    } else if ratio > 1.0 {
        take(&bins.missing, 0);
        take(&bins.unready, 0);
    }
    let (_, cautious) = compare(&sum, metric.target)?;
    let turns = (ratio < 1.0 && cautious > 1.0) || (ratio > 1.0 && cautious < 1.0);
    if rules.tolerates(cautious) || turns {
        return Ok(current);
    }
    let proposal = replicas(cautious * sum.count as f64);
    let turns = (cautious < 1.0 && proposal > current) || (cautious > 1.0 && proposal < current);
    Ok(if turns { current } else { proposal })
}
