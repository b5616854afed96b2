//! `HorizontalPodAutoscaler` to the policy `hpa`, which decides as its controller does.

use ergate::events::resources::Asked;
use ergate::events::scaling::AnyPolicy;
use ergate::events::scaling::hpa::{Hpa, Metric, Source, Target};
use ergate::events::scaling::signal::names;
use ergate::events::scaling::usage;

use super::behavior;
use super::fields::Fields;
use super::object::Object;
use super::plan::{self, Note, Pool};
use super::refusal::Refusal;
use super::signal::{self, Meaning};
use super::workload::Workloads;

/// Versions that are read.
const VERSIONS: [&str; 3] = ["autoscaling/v2", "autoscaling/v2beta2", "autoscaling/v1"];
/// What the API server puts in where no CPU target is given.
const CPU_PERCENT: u32 = 80;

/// Reads an object of this kind.
pub(super) fn read(object: &Object<'_>, workloads: &Workloads) -> Result<Pool, Refusal> {
    let fields = &object.fields;
    let version = fields.text("apiVersion")?.unwrap_or_default();
    if !VERSIONS.contains(&version) {
        let reason = format!("is {version:?}, and {} are read; `kubectl convert` makes one of another", VERSIONS.join(", "));
        return Err(fields.refuse("apiVersion", reason));
    }
    let spec = fields.need("spec", fields.object("spec")?)?;
    let mut notes = Vec::new();
    let target = spec.need("scaleTargetRef", spec.object("scaleTargetRef")?)?;
    let workload = target.need("name", target.text("name")?)?;
    target.pass_over(&["apiVersion"]);
    let asked = workloads.asked(target.text("kind")?, &object.namespace, workload);
    notes.extend(Note::unread(&target));
    let min = spec.whole("minReplicas")?.unwrap_or(1);
    let max = spec.need("maxReplicas", spec.whole("maxReplicas")?)?;
    if max == 0 || min > max {
        return Err(
            spec.refuse("maxReplicas", format!("is {max}, and should be at least 1 and at least minReplicas, which is {min}"))
        );
    }
    let max = plan::most(max, (spec.path("maxReplicas"), spec.line), &mut notes);
    let metrics = if version == "autoscaling/v1" { cpu_only(&spec)? } else { metrics(&spec, min, &mut notes)? };
    notes.extend(unasked(&metrics, asked, workload, (spec.path("metrics"), spec.line)));
    let behavior = spec.object("behavior")?.map(|fields| behavior::read(&fields, min, &mut notes)).transpose()?;
    notes.extend(Note::unread(&spec));
    notes.extend(object.unread());
    let policy = AnyPolicy::Hpa(Hpa { metrics, behavior, ..Hpa::default() });
    let (name, made_of) = (plan::pool_name(workload), object.title());
    let (namespace, asked) = (object.namespace.clone(), asked.unwrap_or_default());
    Pool { name, made_of, namespace, min: min.min(max), max, asked, policy, notes }.check(fields)
}

/// `autoscaling/v1` knows no other metric.
fn cpu_only(spec: &Fields<'_>) -> Result<Vec<Metric>, Refusal> {
    let percent = spec.whole("targetCPUUtilizationPercentage")?.unwrap_or(CPU_PERCENT);
    if percent == 0 {
        return Err(spec.refuse("targetCPUUtilizationPercentage", "is 0, and should be above 0"));
    }
    Ok(vec![plan::resource(usage::CPU, Target::Utilization(percent))])
}

/// A note for each share of what a replica asks for, where nobody says how much that is.
fn unasked(metrics: &[Metric], asked: Option<Asked>, workload: &str, (field, line): (String, usize)) -> Vec<Note> {
    let said = |name: &str| match asked {
        Some(asked) if name == usage::CPU => asked.cpu_milli.is_some(),
        Some(asked) => asked.memory_bytes.is_some(),
        None => false,
    };
    let is_share = |metric: &&Metric| matches!(metric.target, Target::Utilization(_));
    let unsaid = metrics.iter().filter(is_share).filter(|metric| !said(&metric.name));
    let note = |metric: &Metric| {
        let name = &metric.name;
        let why = match asked {
            Some(_) => format!("a container of {workload} does not say how much {name} it asks for"),
            None => format!("{workload} is not among the files"),
        };
        let what = format!("{name} in per cent cannot be read yet");
        Note::new((field.clone(), line), what, why, format!("set `{name}` of the pool to what one replica asks for"))
    };
    unsaid.map(note).collect()
}

fn metrics(spec: &Fields<'_>, min: u32, notes: &mut Vec<Note>) -> Result<Vec<Metric>, Refusal> {
    let given = spec.objects("metrics")?;
    let (mut metrics, mut is_outside) = (Vec::<Metric>::new(), false);
    for fields in &given {
        let kind = fields.need("type", fields.text("type")?)?;
        is_outside |= matches!(kind, "Object" | "External");
        if let Some(metric) = metric(fields, kind, notes)? {
            add(&mut metrics, metric, (fields.path.clone(), fields.line), notes);
        }
        notes.extend(Note::unread(fields));
    }
    if min == 0 && !is_outside {
        return Err(spec.refuse("minReplicas", "is 0, which needs a metric of type Object or External"));
    }
    let place = || (spec.path("metrics"), spec.line);
    if given.is_empty() {
        metrics.push(plan::resource(usage::CPU, Target::Utilization(CPU_PERCENT)));
    } else if metrics.is_empty() {
        notes.push(plan::nothing_left(place()));
        metrics.push(plan::metric(names::WORK, plan::work_target()));
    } else if min == 0 && metrics.iter().all(|metric| metric.name == names::BUSY || metric.source == Source::Resource) {
        let why = "a pool that sleeps has no busy slots and uses nothing, and would not wake up by them";
        notes.push(Note::new(place(), "`work`, a task for each replica, was added", why, ""));
        metrics.push(plan::metric(names::WORK, plan::work_target()));
    }
    Ok(metrics)
}

/// Adds a metric. Of two about the same the one with the lower target always asks for as much.
fn add(metrics: &mut Vec<Metric>, metric: Metric, place: (String, usize), notes: &mut Vec<Note>) {
    let same = |known: &&mut Metric| {
        known.name == metric.name && known.source == metric.source && lower(known.target, metric.target).is_some()
    };
    match metrics.iter_mut().find(same) {
        Some(known) => {
            known.target = lower(known.target, metric.target).unwrap_or(known.target);
            let why = "of two on one signal it always asks for as much as the other or more";
            notes.push(Note::new(place, format!("only the lower target on `{}` was kept", known.name), why, ""));
        }
        None => metrics.push(metric),
    }
}

/// The lower of two targets, if they are of one kind.
fn lower(one: Target, other: Target) -> Option<Target> {
    match (one, other) {
        (Target::ValueMilli(one), Target::ValueMilli(other)) => Some(Target::ValueMilli(one.min(other))),
        (Target::Utilization(one), Target::Utilization(other)) => Some(Target::Utilization(one.min(other))),
        (Target::AverageValueMilli(one), Target::AverageValueMilli(other)) => Some(Target::AverageValueMilli(one.min(other))),
        (Target::ValueMilli(_) | Target::AverageValueMilli(_) | Target::Utilization(_), _) => None,
    }
}

/// One metric; `None` where no signal stands for it.
fn metric(fields: &Fields<'_>, kind: &str, notes: &mut Vec<Note>) -> Result<Option<Metric>, Refusal> {
    match kind {
        "Resource" => resource(&fields.need("resource", fields.object("resource")?)?, notes),
        "ContainerResource" => {
            let source = fields.need("containerResource", fields.object("containerResource")?)?;
            let container = source.need("container", source.text("container")?)?;
            let why = format!("a replica is measured as a whole, and not its container {container:?} alone");
            notes.push(Note::new((source.path("container"), source.line), "left out", why, ""));
            resource(&source, notes)
        }
        "Pods" => named(&fields.need("pods", fields.object("pods")?)?, notes),
        "External" => named(&fields.need("external", fields.object("external")?)?, notes),
        "Object" => {
            let source = fields.need("object", fields.object("object")?)?;
            source.pass_over(&["describedObject"]);
            named(&source, notes)
        }
        other => {
            let reason = format!("is {other:?}, and should be Resource, ContainerResource, Pods, Object or External");
            Err(fields.refuse("type", reason))
        }
    }
}

fn resource(source: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Option<Metric>, Refusal> {
    let name = source.need("name", source.text("name")?)?;
    let (target, place) = (target(source, notes)?, (source.path.clone(), source.line));
    notes.extend(Note::unread(source));
    match (name, target) {
        (usage::CPU | usage::MEMORY, Target::Utilization(_) | Target::AverageValueMilli(_)) => {
            Ok(Some(plan::resource(name, target)))
        }
        (usage::CPU | usage::MEMORY, Target::ValueMilli(_)) => {
            Err(source.refuse("target", "is of type Value, and should be of type Utilization or AverageValue"))
        }
        _ => {
            let instead = "`cpu` and `memory` are the resources that replicas tell";
            notes.push(Note::new(place, format!("{name} was left out"), "Ergate measures no such resource", instead));
            Ok(None)
        }
    }
}

/// A metric that has a name of somebody's own.
fn named(source: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Option<Metric>, Refusal> {
    let metric = source.need("metric", source.object("metric")?)?;
    let name = metric.need("name", metric.text("name")?)?;
    metric.pass_over(&["selector"]);
    notes.extend(Note::unread(&metric));
    let target = target(source, notes)?;
    notes.extend(Note::unread(source));
    let found = taken(signal::guess(name), name, target, (source.path.clone(), source.line), notes);
    Ok(found.map(|(signal, target)| plan::metric(signal, target)))
}

/// The signal that stands for a metric by its name, with a note about either.
pub(super) fn taken(
    meaning: Meaning,
    name: &str,
    target: Target,
    place: (String, usize),
    notes: &mut Vec<Note>,
) -> Option<(&'static str, Target)> {
    match meaning.signal(target) {
        Ok((signal, target)) => {
            let instead = "if it is something else, name another signal";
            notes.push(Note::new(place, format!("{name:?} became `{signal}`"), meaning.why(), instead));
            Some((signal, target))
        }
        Err(other) => {
            notes.push(Note::new(place, format!("{name:?} was left out"), other.why(), other.instead()));
            None
        }
    }
}

/// `target` of a metric.
fn target(source: &Fields<'_>, notes: &mut Vec<Note>) -> Result<Target, Refusal> {
    let fields = source.need("target", source.object("target")?)?;
    let kind = fields.need("type", fields.text("type")?)?;
    let (utilization, average) = (fields.whole("averageUtilization")?, fields.milli("averageValue")?);
    let value = fields.milli("value")?;
    notes.extend(Note::unread(&fields));
    let target = match kind {
        "Utilization" => Target::Utilization(fields.need("averageUtilization", utilization)?),
        "AverageValue" => Target::AverageValueMilli(fields.need("averageValue", average)?),
        "Value" => Target::ValueMilli(fields.need("value", value)?),
        other => {
            let reason = format!("is {other:?}, and should be Utilization, AverageValue or Value");
            return Err(fields.refuse("type", reason));
        }
    };
    match target {
        Target::Utilization(0) => Err(fields.refuse("averageUtilization", "is 0, and should be above 0")),
        Target::AverageValueMilli(..=0) => Err(fields.refuse("averageValue", "is not above 0")),
        Target::ValueMilli(..=0) => Err(fields.refuse("value", "is not above 0")),
        Target::Utilization(_) | Target::AverageValueMilli(_) | Target::ValueMilli(_) => Ok(target),
    }
}
