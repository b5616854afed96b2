//! KEDA's `ScaledObject` and `ScaledJob` to the policy `keda`.

use ergate::events::resources::Asked;
use ergate::events::scaling::AnyPolicy;
use ergate::events::scaling::formula::Formula;
use ergate::events::scaling::hpa::{Behavior, Pace, PaceKind, Rules, Target};
use ergate::events::scaling::keda::{Fallback, FallbackBehavior, Keda, Modifiers, Pause, Trigger};
use ergate::events::scaling::real::Real;
use ergate::events::scaling::signal::names;
use ergate::events::time::Micros;

use super::behavior;
use super::fields::Fields;
use super::object::Object;
use super::plan::{self, Note, Pool};
use super::refusal::Refusal;
use super::trigger::{self, Read};

/// The version of KEDA's objects.
const VERSION: &str = "keda.sh/v1alpha1";
/// Most replicas where nothing is said.
const MAX: u32 = 100;
/// What means nothing here.
const SPEC_ONLY: [&str; 4] = ["rollout", "rolloutStrategy", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];

/// How jobs are counted.
const STRATEGY: [&str; 5] = [
    "strategy",
    "customScalingQueueLengthDeduction",
    "customScalingRunningJobPercentage",
    "pendingPodConditions",
    "multipleScalersCalculation",
];

/// Reads a `ScaledObject`.
pub(super) fn object(object: &Object<'_>) -> Result<Pool, Refusal> {
    let (spec, mut notes) = spec(object)?;
    let target = spec.need("scaleTargetRef", spec.object("scaleTargetRef")?)?;
    let workload = plan::pool_name(target.need("name", target.text("name")?)?);
    target.pass_over(&["apiVersion", "kind", "envSourceContainerName"]);
    notes.extend(Note::unread(&target));
    let (mut min, max) = bounds(&spec, &mut notes)?;
    let given = triggers(&spec, &workload, min, &mut notes)?;
    if min == 0 && given.iter().all(|read| read.is_resource) {
        let why = "an object with triggers of CPU and memory alone never sleeps in KEDA either";
        notes.push(Note::new((spec.path("minReplicaCount"), spec.line), "became 1", why, ""));
        min = 1;
    }
    let mut policy = policy(&spec, &given, min, &mut notes)?;
    policy.initial_cooldown = seconds(&spec, "initialCooldownPeriod")?.unwrap_or(policy.initial_cooldown);
    policy.idle_replicas = spec.whole("idleReplicaCount")?;
    if let Some(idle) = policy.idle_replicas.filter(|idle| *idle >= min) {
        return Err(spec.refuse("idleReplicaCount", format!("is {idle}, and should be below minReplicaCount, which is {min}")));
    }
    policy.fallback = spec.object("fallback")?.map(|fields| fallback(&fields, &mut notes)).transpose()?.flatten();
    if let Some(advanced) = spec.object("advanced")? {
        read_advanced(&advanced, &given, min, &mut policy, &mut notes)?;
    }
    (policy.pause, policy.force_activation) = pause(object, max, &mut notes)?;
    notes.extend(Note::unread(&spec));
    finish(object, workload, (min, max), policy, notes)
}

/// Reads a `ScaledJob`: a job for each so many messages, never more than there are, and none is ever ended.
pub(super) fn job(object: &Object<'_>) -> Result<Pool, Refusal> {
    let (spec, mut notes) = spec(object)?;
    spec.need("jobTargetRef", spec.get("jobTargetRef"))?;
    let workload = plan::pool_name(object.name);
    let (min, max) = bounds(&spec, &mut notes)?;
    let given = triggers(&spec, &workload, min, &mut notes)?;
    let mut policy = policy(&spec, &given, min, &mut notes)?;
    // A job that runs is no longer in its queue, and ends by itself: what waits and what runs is counted, and nothing is kept for later.
    for trigger in policy.triggers.iter_mut().filter(|trigger| trigger.signal == names::READY) {
        trigger.signal = names::WORK.to_owned();
    }
    (policy.cooldown, policy.controller.tolerance) = (Micros(0), Real::ZERO);
    let now = |policies| Rules { stabilization: Some(Micros(0)), policies, ..Rules::default() };
    let at_once = Pace { kind: PaceKind::Pods, value: max.max(1), period: Micros::from_secs(15) };
    policy.behavior = Some(Behavior { scale_up: now(Some(vec![at_once])), scale_down: now(None) });
    let why = "Ergate has no jobs: replicas take tasks, those that go end what they have first, and so the count follows the work at once";
    notes.push(Note::new(
        (spec.path.clone(), spec.line),
        "a job for each message became a replica for what waits or runs",
        why,
        "",
    ));
    let strategy = spec.object("scalingStrategy")?;
    if let Some(strategy) = &strategy {
        let why = "these say which jobs are counted, and here the largest trigger counts";
        notes.extend(Note::meaningless(strategy, &STRATEGY, why));
        notes.extend(Note::unread(strategy));
    }
    (policy.pause, policy.force_activation) = pause(object, max, &mut notes)?;
    notes.extend(Note::meaningless(&spec, &SPEC_ONLY, "there are no jobs to keep or to roll out"));
    notes.extend(Note::unread(&spec));
    finish(object, workload, (min, max), policy, notes)
}

fn spec<'a>(object: &Object<'a>) -> Result<(Fields<'a>, Vec<Note>), Refusal> {
    let fields = &object.fields;
    let version = fields.text("apiVersion")?.unwrap_or_default();
    if version != VERSION {
        return Err(fields.refuse("apiVersion", format!("is {version:?}, and {VERSION} is read")));
    }
    Ok((fields.need("spec", fields.object("spec")?)?, Vec::new()))
}

fn finish(
    object: &Object<'_>,
    name: String,
    (min, max): (u32, u32),
    policy: Keda,
    mut notes: Vec<Note>,
) -> Result<Pool, Refusal> {
    notes.extend(object.unread());
    let (made_of, namespace) = (object.title(), object.namespace.clone());
    let asked = Asked::default();
    Pool { name, made_of, namespace, min, max, asked, policy: AnyPolicy::Keda(policy), notes }.check(&object.fields)
}

fn seconds(fields: &Fields<'_>, key: &str) -> Result<Option<Micros>, Refusal> {
    Ok(fields.whole(key)?.map(|seconds| Micros::from_secs(seconds.into())))
}

fn bounds(spec: &Fields<'_>, notes: &mut Vec<Note>) -> Result<(u32, u32), Refusal> {
    let min = spec.whole("minReplicaCount")?.unwrap_or(0);
    let max = spec.whole("maxReplicaCount")?.unwrap_or(MAX);
    if max == 0 || min > max {
        let reason = format!("is {max}, and should be at least 1 and at least minReplicaCount, which is {min}");
        return Err(spec.refuse("maxReplicaCount", reason));
    }
    let max = plan::most(max, (spec.path("maxReplicaCount"), spec.line), notes);
    Ok((min.min(max), max))
}

fn triggers<'a>(spec: &Fields<'a>, pool: &str, min: u32, notes: &mut Vec<Note>) -> Result<Vec<Read<'a>>, Refusal> {
    let given = spec.objects("triggers")?;
    if given.is_empty() {
        return Err(spec.refuse("triggers", "has no trigger"));
    }
    let mut read = Vec::<Read<'a>>::new();
    for fields in &given {
        let one = trigger::read(fields, pool, min, notes)?;
        if one.name.is_some() && read.iter().any(|other| other.name == one.name) {
            return Err(fields.refuse("name", "is the name of another trigger as well"));
        }
        read.push(one);
    }
    Ok(read)
}

fn policy(spec: &Fields<'_>, given: &[Read<'_>], min: u32, notes: &mut Vec<Note>) -> Result<Keda, Refusal> {
    let mut triggers: Vec<Trigger> = given.iter().filter_map(|read| read.trigger.clone()).collect();
    let place = || (spec.path("triggers"), spec.line);
    let by_work = Trigger { name: None, signal: names::WORK.to_owned(), target: plan::work_target(), activation: Real::ZERO };
    if triggers.is_empty() {
        notes.push(plan::nothing_left(place()));
        triggers.push(by_work);
    } else if min == 0
        && triggers.iter().all(|trigger| trigger.signal == names::BUSY)
        && !given.iter().all(|read| read.is_resource)
    {
        let why = "a pool that sleeps has no busy slots, and would not wake up by them";
        notes.push(Note::new(place(), "`work`, a task for each replica, was added", why, ""));
        triggers.push(by_work);
    }
    let polling = seconds(spec, "pollingInterval")?.unwrap_or(Micros::from_secs(30));
    let cooldown = seconds(spec, "cooldownPeriod")?.unwrap_or(Micros::from_secs(300));
    Ok(Keda {
        triggers,
        polling,
        follows_events: false,
        cooldown,
        initial_cooldown: Micros(0),
        idle_replicas: None,
        scaling_modifiers: None,
        fallback: None,
        pause: Pause::Running,
        force_activation: false,
        behavior: None,
        controller: Default::default(),
        memory: Default::default(),
    })
}

fn fallback(fields: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Option<Fallback>, Refusal> {
    let failures = fields.need("failureThreshold", fields.whole("failureThreshold")?)?;
    let replicas = fields.need("replicas", fields.whole("replicas")?)?;
    let behavior = match fields.text("behavior")? {
        None | Some("static") => FallbackBehavior::Static,
        Some("currentReplicas") => FallbackBehavior::CurrentReplicas,
        Some("currentReplicasIfHigher") => FallbackBehavior::CurrentReplicasIfHigher,
        Some("currentReplicasIfLower") => FallbackBehavior::CurrentReplicasIfLower,
        Some(other) => {
            let allowed = "static, currentReplicas, currentReplicasIfHigher or currentReplicasIfLower";
            return Err(fields.refuse("behavior", format!("is {other:?}, and should be {allowed}")));
        }
    };
    notes.extend(Note::unread(fields));
    Ok(Some(Fallback { failures, replicas, behavior }))
}

fn read_advanced(
    advanced: &Fields<'_>,
    given: &[Read<'_>],
    min: u32,
    policy: &mut Keda,
    notes: &mut Vec<Note>,
) -> Result<(), Refusal> {
    let why = "a pool keeps its size when its policy is taken away";
    notes.extend(Note::meaningless(advanced, &["restoreToOriginalReplicaCount"], why));
    if let Some(hpa) = advanced.object("horizontalPodAutoscalerConfig")? {
        hpa.pass_over(&["name"]);
        // Below its first replica KEDA decides, and not its HPA.
        policy.behavior = hpa.object("behavior")?.map(|fields| behavior::read(&fields, min.max(1), notes)).transpose()?;
        notes.extend(Note::unread(&hpa));
    }
    if let Some(fields) = advanced.object("scalingModifiers")?
        && let Some(text) = fields.text("formula")?
    {
        policy.scaling_modifiers = modifiers(&fields, text, given, policy, notes)?;
    }
    notes.extend(Note::unread(advanced));
    Ok(())
}

/// The formula, if it is understood and all that it names can be measured.
fn modifiers(
    fields: &Fields<'_>,
    text: &str,
    given: &[Read<'_>],
    policy: &Keda,
    notes: &mut Vec<Note>,
) -> Result<Option<Modifiers>, Refusal> {
    let target = fields.need("target", fields.number("target")?)?;
    let milli = (target * 1_000.0) as i64;
    if milli <= 0 {
        return Err(fields.refuse("target", format!("is {target}, and should be at least 0.001")));
    }
    let activation = Real::new(fields.number("activationTarget")?.unwrap_or(0.0)).unwrap_or_default();
    let target = match fields.text("metricType")? {
        None | Some("AverageValue") => Target::AverageValueMilli(milli),
        Some("Value") => Target::ValueMilli(milli),
        Some(other) => return Err(fields.refuse("metricType", format!("is {other:?}, and should be AverageValue or Value"))),
    };
    notes.extend(Note::unread(fields));
    let formula = Formula::new(text);
    let unnamed = formula.names().iter().find(|name| !given.iter().any(|read| read.name == Some(name)));
    if let Some(name) = unnamed {
        return Err(fields.refuse("formula", format!("is about {name:?}, and no trigger has that name")));
    }
    let unmeasured = formula.names().iter().find(|name| !policy.triggers.iter().any(|trigger| trigger.name() == name.as_str()));
    let why = match (formula.error(), unmeasured) {
        (Some(error), _) => format!("{error}"),
        (None, Some(name)) => format!("its trigger {name:?} was left out"),
        (None, None) => return Ok(Some(Modifiers { formula, target, activation })),
    };
    let place = (fields.path("formula"), fields.line);
    let instead = "docs/autoscaling.md lists what formulas may have; without one the largest trigger counts";
    notes.push(Note::new(place, format!("the formula {text:?} was left out"), why, instead));
    Ok(None)
}

/// What annotations hold back.
fn pause(object: &Object<'_>, max: u32, notes: &mut Vec<Note>) -> Result<(Pause, bool), Refusal> {
    let name = |key: &str| format!("autoscaling.keda.sh/{key}");
    // Any text that is no false is a true, as KEDA reads it.
    let is_set = |key: &str| object.annotation(&name(key)).map(|found| found.is_some_and(|(text, _)| !is_false(text)));
    let mut pause = match (is_set("paused-scale-in")?, is_set("paused-scale-out")?) {
        (true, true) => Pause::Paused,
        (true, false) => Pause::ScaleIn,
        (false, true) => Pause::ScaleOut,
        (false, false) => Pause::Running,
    };
    if is_set("paused")? {
        pause = Pause::Paused;
    }
    if let Some((text, line)) = object.annotation(&name("paused-replicas"))? {
        let path = format!("metadata.annotations.{}", name("paused-replicas"));
        let wrong = || Refusal::of(line, path.clone(), format!("is {text:?}, and should be a whole number"));
        let replicas: u32 = text.parse().map_err(|_| wrong())?;
        pause = Pause::At(replicas);
        if replicas > max {
            let why = "the pool's maximum limits the cost, and nothing exceeds it";
            notes.push(Note::new((path, line), format!("the pool stays at {max} instead of {replicas}"), why, ""));
        }
    }
    if pause != Pause::Running {
        let what = "the object is paused, and so is the policy";
        let instead = "take `pause` out of the policy to let it decide";
        notes.push(Note::new(("metadata.annotations", object.fields.line), what, "an annotation says so", instead));
    }
    Ok((pause, is_set("force-activation")?))
}

fn is_false(text: &str) -> bool {
    matches!(text, "false" | "False" | "FALSE" | "f" | "F" | "0")
}
