//! What becomes of manifests: pools with their policies, and notes about what has no equivalent.

use ergate::events::resources::Asked;
use ergate::events::scaling::hpa::{Hpa, Metric, Source, Target};
use ergate::events::scaling::signal::{Bounds, names};
use ergate::events::scaling::{AnyPolicy, Policy};
use ergate::events::sizing::POLICY_BYTES_MAX;
use serde::Serialize;

use super::fields::Fields;
use super::refusal::Refusal;

/// Most replicas of a pool with a policy, as the log has it.
pub(super) const REPLICAS_MAX: u32 = 10_000;

/// Most unknown fields of one object that are named one by one.
const UNKNOWN_MAX: usize = 20;
/// Most workloads of one call.
pub(super) const WORKLOADS_MAX: usize = 1_000;

/// What became of all manifests.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// A pool for each workload.
    pub(crate) pools: Vec<Pool>,
    /// What was in the files besides.
    pub(crate) passed_over: Vec<PassedOver>,
}

/// A pool and its policy.
#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    /// Its name, which is that of the workload.
    pub(crate) name: String,
    /// Which object it was made of.
    pub(crate) made_of: String,
    /// The namespace of that, to tell pools of the same name apart.
    #[serde(skip)]
    pub(super) namespace: String,
    /// Fewest replicas.
    pub(crate) min: u32,
    /// Most replicas.
    pub(crate) max: u32,
    /// What one replica asks for, as far as the files say.
    pub(crate) asked: Asked,
    /// What sizes it.
    pub(crate) policy: AnyPolicy,
    /// What has no equivalent.
    pub(crate) notes: Vec<Note>,
}

/// Something that has no equivalent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// Which field, or which object.
    pub(crate) field: String,
    /// Which line of the file.
    pub(crate) line: usize,
    /// What became of it.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
    /// What to do instead; empty where there is nothing to do.
    pub(crate) instead: String,
}

/// An object that was passed over.
#[derive(Debug, Serialize)]
pub(crate) struct PassedOver {
    /// Its kind and name.
    pub(crate) object: String,
    /// Which file.
    pub(crate) file: String,
    /// Which line.
    pub(crate) line: usize,
    /// What else it is good for, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Note {
    pub(super) fn new(
        (field, line): (impl Into<String>, usize),
        what: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) -> Note {
        Note { field: field.into(), line, what: what.into(), why: why.into(), instead: instead.into() }
    }

    /// Of fields that nobody has read.
    pub(super) fn unread(fields: &Fields<'_>) -> Vec<Note> {
        let why = "no version of the object that is known here has such a field";
        let note = |(path, line)| Note::new((path, line), "unknown, and left out", why, "check how it is written");
        let unread = fields.unread();
        let more = unread.len().saturating_sub(UNKNOWN_MAX);
        let mut notes: Vec<Note> = unread.into_iter().take(UNKNOWN_MAX).map(note).collect();
        if more > 0 {
            notes.push(note((format!("{more} more fields"), fields.line)));
        }
        notes
    }

    /// Of fields that mean nothing here, if any is there.
    pub(super) fn meaningless(fields: &Fields<'_>, keys: &[&'static str], why: &str) -> Option<Note> {
        let found = fields.pass_over(keys);
        let place = (found.iter().map(|key| fields.path(key)).collect::<Vec<_>>().join(", "), fields.line);
        (!found.is_empty()).then(|| Note::new(place, "left out", why, ""))
    }
}

/// In what is there when nothing that a manifest names can be measured: a task in work, waiting or running, for each replica.
pub(super) fn work_target() -> Target {
    Target::AverageValueMilli(1_000)
}

/// A metric of an HPA over a signal of Ergate.
pub(super) fn metric(signal: &str, target: Target) -> Metric {
    Metric { source: Source::External { selector: None }, name: signal.to_owned(), signal: None, target }
}

/// A metric of an HPA over what each replica uses.
pub(super) fn resource(name: &str, target: Target) -> Metric {
    Metric { source: Source::Resource, name: name.to_owned(), signal: None, target }
}

/// The policy of a pool of whose manifest nothing can be measured.
pub(super) fn by_work() -> AnyPolicy {
    AnyPolicy::Hpa(Hpa { metrics: vec![metric(names::WORK, work_target())], ..Hpa::default() })
}

/// What is told where nothing is left of a manifest's metrics.
pub(super) fn nothing_left(place: (String, usize)) -> Note {
    let why = "nothing that it names can be measured here";
    let instead = "this is a placeholder: choose a signal and a target of your own, or the policy `rate`, and try them on recorded work with `ergate whatif`";
    Note::new(place, "the pool is sized by `work`, a task waiting or running for each replica", why, instead)
}

impl Pool {
    /// Whether the policy accepts its bounds, as an engine would ask.
    pub(super) fn check(self, fields: &Fields<'_>) -> Result<Pool, Refusal> {
        let wrong = |reason: String| Refusal::of(fields.line, "", format!("{} makes no policy: {reason}", self.made_of));
        if self.min > self.max {
            return Err(wrong(format!("it has at least {} replicas and at most {}", self.min, self.max)));
        }
        self.policy.check(Bounds { min: self.min, max: self.max }).map_err(|error| wrong(error.to_string()))?;
        let bytes = serde_json::to_string(&self.policy).map_or(usize::MAX, |text| text.len());
        if bytes > POLICY_BYTES_MAX {
            return Err(wrong(format!("it would have {bytes} bytes, and at most {POLICY_BYTES_MAX} are allowed")));
        }
        Ok(self)
    }
}

impl Outcome {
    /// Gives pools of the same name the name of their namespace as well, and refuses two of one workload.
    pub(super) fn name_apart(&mut self) -> Result<(), Refusal> {
        if self.pools.len() > WORKLOADS_MAX {
            return Err(Refusal::at(
                0,
                format!("there are {} workloads; at most {WORKLOADS_MAX} are read at once", self.pools.len()),
            ));
        }
        let again = |pools: &[Pool], index: usize| {
            pools
                .iter()
                .enumerate()
                .any(|(other, pool)| other != index && pools.get(index).is_some_and(|it| it.name == pool.name))
        };
        let twice: Vec<usize> = (0..self.pools.len()).filter(|index| again(&self.pools, *index)).collect();
        for index in &twice {
            if let Some(pool) = self.pools.get_mut(*index).filter(|pool| !pool.namespace.is_empty()) {
                pool.name = pool_name(&format!("{}-{}", pool.namespace, pool.name));
            }
        }
        match twice.into_iter().find(|index| again(&self.pools, *index)).and_then(|index| self.pools.get(index)) {
            Some(pool) => {
                let reason = format!("two objects size the workload {}; one of them is {}: keep one", pool.name, pool.made_of);
                Err(Refusal::at(0, reason))
            }
            None => Ok(()),
        }
    }
}

/// Longest name of a pool.
const NAME_BYTES_MAX: usize = 64;

/// A name as pools have it: letters, digits, `-` and `_`.
pub(super) fn pool_name(text: &str) -> String {
    let clean = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' };
    let name: String = text.chars().map(clean).take(NAME_BYTES_MAX).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "pool".to_owned() } else { name.to_owned() }
}

/// The most replicas, cut where no pool has more.
pub(super) fn most(max: u32, place: (String, usize), notes: &mut Vec<Note>) -> u32 {
    if max > REPLICAS_MAX {
        let why = format!("a pool with a policy has at most {REPLICAS_MAX} replicas");
        notes.push(Note::new(place, format!("cut to {REPLICAS_MAX}"), why, ""));
    }
    max.min(REPLICAS_MAX)
}
