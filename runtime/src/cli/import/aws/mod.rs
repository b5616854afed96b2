//! Scalable targets and scaling policies of AWS Application Auto Scaling to the policies `target_tracking` and `step`.

mod alarm;
mod collect;
mod step;
mod template;
mod tracking;

use ergate::events::scaling::composite::{Composite, Member};
use ergate::events::scaling::policy::Single;
use ergate::events::scaling::signal::names;
use ergate::events::scaling::step::Step;
use ergate::events::scaling::{AnyPolicy, hpa::Hpa};

use super::fields::Fields;
use super::plan::{self, Note, PassedOver, Pool};
use super::refusal::Refusal;
use super::yaml::Document;
use collect::{Found, Given, Target};

/// The documents of a file, with its name.
pub(super) type File = (String, Vec<Document>);

/// Reads the documents of all files together, for targets, policies and alarms often have files of their own; `outside` is what a pool has whose
/// scalable target is not there.
pub(super) fn read(files: &[File], outside: (Option<u32>, Option<u32>)) -> Result<(Vec<Pool>, Vec<PassedOver>), Refusal> {
    let mut resolved = Vec::new();
    for (file, documents) in files {
        for document in documents {
            let place = |refusal: Refusal| refusal.in_document(document.number).in_file(file);
            resolved.push((file.as_str(), template::resolve(document).map_err(place)?));
        }
    }
    let mut found = Found::default();
    for (file, document) in &resolved {
        found.document(file, document).map_err(|refusal| refusal.in_document(document.number).in_file(file))?;
    }
    let mut pools = Vec::new();
    for (workload, policies) in found.workloads()? {
        pools.push(pool(&workload, &policies, &found, outside)?);
    }
    Ok((pools, found.passed_over))
}

/// The pool of a workload, which several policies may size.
fn pool(
    workload: &str,
    given: &[&Given<'_>],
    found: &Found<'_>,
    (least, most): (Option<u32>, Option<u32>),
) -> Result<Pool, Refusal> {
    let Some(first) = given.first() else { return Err(Refusal::at(0, format!("{workload} has no policy"))) };
    let target = found.target_of(first, workload);
    let in_document = |refusal: Refusal| first.place(refusal);
    let mut notes = Vec::new();
    let (min, max) = match target {
        Some(target) => bounds(target, &mut notes).map_err(|refusal| target.place(refusal))?,
        None => match (least, most) {
            (least, Some(most)) => (least.unwrap_or(1), most),
            (_, None) => {
                let reason = format!(
                    "policy {:?} says nothing of how many replicas {workload} may have: add its scalable target (what register-scalable-target is given, with MinCapacity and MaxCapacity), or give --min and --max",
                    first.name
                );
                return Err(in_document(Refusal::of(first.fields.line, "", reason)));
            }
        },
    };
    if max == 0 || min > max {
        let reason = format!(
            "{workload} may have at least {min} and at most {max}, and the most should be at least 1 and at least the fewest"
        );
        let line = target.map_or(first.fields.line, |target| target.fields.line);
        let refusal = Refusal::of(line, "MaxCapacity", reason);
        return Err(target.map_or_else(|| first.place(refusal.clone()), |target| target.place(refusal.clone())));
    }
    let mut made = Made::default();
    for given in given {
        made.read(given, found, &mut notes).map_err(|refusal| given.place(refusal))?;
    }
    let titles: Vec<_> = given.iter().map(|given| given.name.clone()).collect();
    let policy = made.policy(min, (first.fields.path.clone(), first.fields.line), &mut notes);
    let name = plan::pool_name(workload);
    let made_of =
        format!("{} {} of {workload}", if titles.len() == 1 { "scaling policy" } else { "scaling policies" }, titles.join(", "));
    let made_of = format!("{made_of} ({}, line {})", first.file, first.fields.line);
    let max = plan::most(max, ("MaxCapacity".to_owned(), first.fields.line), &mut notes);
    let pool = Pool { name, made_of, namespace: String::new(), min: min.min(max), max, asked: Default::default(), policy, notes };
    pool.check(&first.fields).map_err(in_document)
}

fn bounds(target: &Target<'_>, notes: &mut Vec<Note>) -> Result<(u32, u32), Refusal> {
    let fields = &target.fields;
    if let Some(suspended) = fields.object("SuspendedState")? {
        for key in ["DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"] {
            if suspended.yes(key)? == Some(true) {
                let instead = "`ergate pool set NAME --none` takes the policy of a pool away";
                let place = (suspended.path(key), suspended.line);
                notes.push(Note::new(place, "left out", "a policy of Ergate is in force or is not there", instead));
            }
        }
    }
    if !fields.list("ScheduledActions")?.is_empty() {
        let place = (fields.path("ScheduledActions"), fields.line);
        let instead = "a schedule whose task runs `ergate pool set NAME FILE --min N --max M`";
        notes.push(Note::new(place, "left out", "a policy reads no clock", instead));
    }
    let known = ["ServiceNamespace", "ScalableDimension", "ResourceId", "RoleARN", "Tags", "CreationTime", "ScalableTargetARN"];
    fields.pass_over(&known);
    let min = fields.need("MinCapacity", fields.whole("MinCapacity")?)?;
    let max = fields.need("MaxCapacity", fields.whole("MaxCapacity")?)?;
    notes.extend(Note::unread(fields));
    Ok((min, max))
}

/// What policies of AWS became.
#[derive(Debug, Default)]
struct Made {
    members: Vec<(String, Single)>,
    step: Option<Step>,
}

impl Made {
    fn read(&mut self, given: &Given<'_>, found: &Found<'_>, notes: &mut Vec<Note>) -> Result<(), Refusal> {
        let fields = &given.fields;
        let known = ["PolicyName", "ServiceNamespace", "ScalableDimension", "ResourceId", "ScalingTargetId", "PolicyType"];
        fields.pass_over(&known);
        fields.pass_over(&["PolicyARN", "Alarms", "CreationTime"]);
        let configuration = |key: &str| -> Result<Option<Fields<'_>>, Refusal> { fields.object(key) };
        if given.is_bare {
            self.members.extend(tracking::read(fields, notes)?.map(|single| (given.name.clone(), single)));
        } else if let Some(tracking) = configuration("TargetTrackingScalingPolicyConfiguration")? {
            self.members.extend(tracking::read(&tracking, notes)?.map(|single| (given.name.clone(), single)));
        } else if let Some(steps) = configuration("StepScalingPolicyConfiguration")? {
            let parts = step::read(&steps, given, found, notes)?;
            if !parts.is_empty() {
                self.step.get_or_insert(Step { parts: Vec::new() }).parts.extend(parts);
            }
        } else if configuration("PredictiveScalingPolicyConfiguration")?.is_some() {
            let why = "no policy here makes forecasts";
            let instead = "the policy `rate`, which follows arrivals at once, or a schedule for what comes every day";
            let place = (fields.path("PredictiveScalingPolicyConfiguration"), fields.line);
            notes.push(Note::new(place, "predictive scaling was left out", why, instead));
        } else {
            return Err(
                fields.refuse("", "has no TargetTrackingScalingPolicyConfiguration and no StepScalingPolicyConfiguration")
            );
        }
        if !given.is_bare {
            notes.extend(Note::unread(fields));
        }
        Ok(())
    }

    /// One policy of all: the largest count of any, as AWS grows when any wants to and shrinks when all do.
    fn policy(self, min: u32, place: (String, usize), notes: &mut Vec<Note>) -> AnyPolicy {
        let mut members = self.members;
        members.extend(self.step.map(|step| ("steps".to_owned(), Single::Step(step))));
        if members.is_empty() {
            notes.push(plan::nothing_left(place));
            return plan::by_work();
        }
        let is_stuck = |single: &Single| matches!(single, Single::TargetTracking(policy) if policy.signal == names::BUSY);
        if min == 0 && members.iter().all(|(_, single)| is_stuck(single)) {
            let why = "a pool that sleeps has no busy slots and is never woken by them, as in AWS; a task wakes it here";
            notes.push(Note::new(place, "`work`, a task for each replica, was added", why, ""));
            let hpa = Hpa { metrics: vec![plan::metric(names::WORK, plan::work_target())], ..Hpa::default() };
            members.push(("work".to_owned(), Single::Hpa(hpa)));
        }
        if members.len() > 1 {
            let members =
                members.into_iter().map(|(name, rule)| Member { name: name.chars().take(64).collect(), rule }).collect();
            return AnyPolicy::Composite(Composite { members, formula: None });
        }
        match members.pop().map(|(_, single)| single) {
            Some(Single::TargetTracking(policy)) => AnyPolicy::TargetTracking(policy),
            Some(Single::Step(policy)) => AnyPolicy::Step(policy),
            Some(Single::Hpa(policy)) => AnyPolicy::Hpa(policy),
            Some(Single::Keda(policy)) => AnyPolicy::Keda(policy),
            Some(Single::Kpa(policy)) => AnyPolicy::Kpa(policy),
            Some(Single::Rate(policy)) => AnyPolicy::Rate(policy),
            Some(Single::Threshold(policy)) => AnyPolicy::Threshold(policy),
            None => plan::by_work(),
        }
    }
}
