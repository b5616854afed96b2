//! `behavior` of an HPA, which KEDA's objects have as well.

use ergate::events::scaling::hpa::{Behavior, Pace, PaceKind, Rules, Select};
use ergate::events::time::Micros;

use super::fields::Fields;
use super::plan::Note;
use super::refusal::Refusal;

/// Reads a behavior. A pool that sleeps and grows only by per cent would never wake up: it gets a step of one replica besides.
pub(super) fn read(fields: &Fields<'_>, min: u32, notes: &mut Vec<Note>) -> Result<Behavior, Refusal> {
    let mut direction = |key| fields.object(key)?.map_or_else(|| Ok(Rules::default()), |fields| rules(&fields, notes));
    let mut behavior = Behavior { scale_up: direction("scaleUp")?, scale_down: direction("scaleDown")? };
    notes.extend(Note::unread(fields));
    let only_percent = |policies: &Vec<Pace>| !policies.is_empty() && policies.iter().all(|pace| pace.kind == PaceKind::Percent);
    if min == 0
        && let Some(policies) = behavior.scale_up.policies.as_mut().filter(|policies| only_percent(policies))
    {
        let period = policies.iter().map(|pace| pace.period).min().unwrap_or_default();
        policies.push(Pace { kind: PaceKind::Pods, value: 1, period });
        let why = "a share of 0 replicas is 0: a pool that sleeps would never wake up";
        let place = (fields.path("scaleUp.policies"), fields.line);
        notes.push(Note::new(place, "a step of 1 replica was added to the steps in per cent", why, ""));
    }
    Ok(behavior)
}

fn rules(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Rules, Refusal> {
    let select = match fields.text("selectPolicy")? {
        None | Some("Max") => Select::Max,
        Some("Min") => Select::Min,
        Some("Disabled") => Select::Disabled,
        Some(other) => return Err(fields.refuse("selectPolicy", format!("is {other:?}, and should be Max, Min or Disabled"))),
    };
    let policies = fields.objects("policies")?;
    let policies = match policies.is_empty() {
        true => None,
        false => Some(policies.iter().map(|policy| pace(policy, notes)).collect::<Result<_, _>>()?),
    };
    let tolerance = fields.milli("tolerance")?.map(u32::try_from).transpose();
    let rules = Rules {
        stabilization: fields.whole("stabilizationWindowSeconds")?.map(|seconds| Micros::from_secs(seconds.into())),
        select,
        policies,
        tolerance_milli: tolerance.map_err(|_| fields.refuse("tolerance", "is below 0 or too large"))?,
    };
    notes.extend(Note::unread(fields));
    Ok(rules)
}

fn pace(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Pace, Refusal> {
    let kind = match fields.need("type", fields.text("type")?)? {
        "Pods" => PaceKind::Pods,
        "Percent" => PaceKind::Percent,
        other => return Err(fields.refuse("type", format!("is {other:?}, and should be Pods or Percent"))),
    };
    let value = fields.need("value", fields.whole("value")?)?;
    let period = Micros::from_secs(fields.need("periodSeconds", fields.whole("periodSeconds")?)?.into());
    notes.extend(Note::unread(fields));
    Ok(Pace { kind, value, period })
}
