//! Scenario files of schema `hpa-cases/1`: what an autoscaler was told and saw, step by step, and what it did. Any build can be held against one.
//!
//! All values are in thousandths, all times in seconds on a clock that starts at 0. What a key means where it is absent stands in the file's
//! `defaults`, and where those are absent too it is what Kubernetes does.

mod format;

use serde::Serialize;

use format::{
    ChangeCase, ControllerCase, Defaults, MetricCase, PaceCase, PhaseCase, PodCase, RecommendationCase, RulesCase, Seed,
    SourceCase, Step, ValueCase,
};
pub use format::{File, Scenario, Told};

use super::{
    Behavior, Change, Condition, ConditionReason, Controller, Hpa, Memories, Memory, Metric, Pace, Recommendation, Rules, Source,
};
use crate::scaling::decision::Decision;
use crate::scaling::policy::Policy;
use crate::scaling::real::Real;
use crate::scaling::signal::{Bounds, Observation, Phase, Pods, Reading, Replicas, Requested, Signal, Usage, Value};
use crate::time::{Micros, Timestamp};

/// The schema that this module reads.
pub const SCHEMA: &str = "hpa-cases/1";
/// When the clock of a scenario starts: late enough that everything that happened before has a time.
const START: Timestamp = Timestamp(1_000_000_000_000_000);

/// The first step of a scenario that went otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The scenario.
    pub scenario: String,
    /// Why its expectations are what they are.
    pub note: Option<String>,
    /// The step, counted from 0.
    pub step: usize,
    /// What the file expects.
    pub expected: Told,
    /// What this policy does.
    pub found: Told,
    /// What this policy says about it.
    pub sentence: String,
    /// What it saw.
    pub observation: Observation,
    /// What it decided, with every number.
    pub decision: Decision,
}

impl File {
    /// All scenarios, in the file's order.
    pub fn scenarios(&self) -> impl Iterator<Item = &Scenario> {
        self.cases.iter().chain(&self.fuzz)
    }

    /// The first step of a scenario in which this policy does not do what the file expects.
    pub fn difference(&self, scenario: &Scenario) -> Option<Difference> {
        let policy = scenario.policy(&self.defaults);
        let mut memory = scenario.seed.memory();
        let mut current = scenario.seed.current;
        for (index, step) in scenario.steps.iter().enumerate() {
            let observation = step.observation(scenario, &self.defaults.pod, current);
            let decision = policy.evaluate(&mut memory, &observation);
            let found = told(&policy, &memory, &decision);
            if found != step.expect {
                return Some(Difference {
                    scenario: scenario.id.clone(),
                    note: scenario.note.clone(),
                    step: index,
                    expected: step.expect.clone(),
                    found,
                    sentence: decision.sentence(|index| policy.input(index)),
                    observation,
                    decision,
                });
            }
            current = decision.wanted;
        }
        None
    }
}

fn told(policy: &Hpa, memory: &Memory, decision: &Decision) -> Told {
    let conditions = memory.conditions.named().map(|(name, condition)| {
        let status = if condition.is_true { "True" } else { "False" };
        (name.to_owned(), (status.to_owned(), condition.reason.word().to_owned()))
    });
    Told {
        replicas: decision.wanted,
        event: policy.event(decision),
        error: decision.failures().next().is_some(),
        conditions: conditions.collect(),
    }
}

fn span(seconds: f64) -> Micros {
    // Below zero the cast ends at 0.
    Micros((seconds * 1e6).round() as u64)
}

fn ago(at: Timestamp, seconds: f64) -> Timestamp {
    Timestamp(at.0.saturating_sub(span(seconds).0))
}

impl Scenario {
    fn policy(&self, defaults: &Defaults) -> Hpa {
        let behavior = self.spec.behavior.as_ref().map(|given| Behavior {
            scale_up: given.scale_up.as_ref().map(RulesCase::rules).unwrap_or_default(),
            scale_down: given.scale_down.as_ref().map(RulesCase::rules).unwrap_or_default(),
        });
        Hpa {
            metrics: self.spec.metrics.iter().enumerate().map(|(index, metric)| metric.metric(index)).collect(),
            behavior,
            controller: self.controller.over(defaults.controller.over(Controller::default())),
            memory: Memories::Compatible,
        }
    }
}

impl ControllerCase {
    /// These settings where they are given, and those where not.
    fn over(&self, given: Controller) -> Controller {
        Controller {
            sync_period: given.sync_period,
            tolerance: self.tolerance.and_then(Real::new).unwrap_or(given.tolerance),
            tolerance_form: self.tolerance_mode.unwrap_or(given.tolerance_form),
            downscale_stabilization: self.downscale_stabilization_s.map_or(given.downscale_stabilization, span),
            cpu_initialization: self.cpu_init_s.map_or(given.cpu_initialization, span),
            initial_readiness: self.initial_readiness_s.map_or(given.initial_readiness, span),
            scale_to_zero: self.scale_to_zero.unwrap_or(given.scale_to_zero),
        }
    }
}

impl RulesCase {
    fn rules(&self) -> Rules {
        let pace = |pace: &PaceCase| Pace { kind: pace.kind, value: pace.value, period: span(pace.period_s) };
        Rules {
            stabilization: self.stabilization_s.map(span),
            select: self.select.unwrap_or_default(),
            policies: self.policies.as_ref().map(|policies| policies.iter().map(pace).collect()),
            tolerance_milli: self.tolerance.map(thousandths),
        }
    }
}

/// A quantity has no more than thousandths and is rounded up to them. 0.007 is not 7 thousandths in binary; what is as near as that is meant.
fn thousandths(number: f64) -> u32 {
    let (exact, nearest) = (number * 1_000.0, (number * 1_000.0).round());
    (if (exact - nearest).abs() < 1e-6 { nearest } else { exact.ceil() }) as u32
}

impl MetricCase {
    fn metric(&self, index: usize) -> Metric {
        let source = match self.source {
            SourceCase::Resource => Source::Resource,
            SourceCase::ContainerResource => Source::ContainerResource { container: self.container.clone().unwrap_or_default() },
            SourceCase::Pods => Source::Pods,
            SourceCase::Object => Source::Object { kind: "Service".to_owned() },
            SourceCase::External => Source::External { selector: None },
        };
        // Two metrics may have one name and different values.
        Metric { signal: Some(index.to_string()), source, name: self.name.clone(), target: self.target }
    }
}

impl Seed {
    fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        let recommendation =
            |given: &RecommendationCase| Recommendation { at: ago(START, given.age_s), replicas: given.replicas };
        memory.recommendations = self.recommendations.iter().map(recommendation).collect();
        let change = |given: &ChangeCase| Change { at: ago(START, given.age_s), by: given.change, is_outdated: false };
        memory.up = self.up_events.iter().map(change).collect();
        memory.down = self.down_events.iter().map(change).collect();
        memory.conditions.scaled_to_zero = self.scaled_to_zero.and_then(|is_true| {
            if is_true { Condition::yes(ConditionReason::ScaledToZero) } else { Condition::no(ConditionReason::NotScaledToZero) }
        });
        memory
    }
}

impl Step {
    fn observation(&self, scenario: &Scenario, default: &PodCase, current: u32) -> Observation {
        let at = START.after(span(self.at_s));
        let pods: Vec<Pods> = match &self.pods {
            Some(pods) => pods.iter().map(|pod| pod.pods(default, &scenario.spec.metrics, at)).collect(),
            None => vec![PodCase { count: Some(current), ..PodCase::default() }.pods(default, &scenario.spec.metrics, at)],
        };
        let signals = scenario.spec.metrics.iter().enumerate().filter_map(|(index, metric)| {
            let value = self.values.get(index)?.as_ref()?;
            // Values of pods are theirs; what a file says here is that reading them failed.
            let is_outside = matches!(metric.source, SourceCase::Object | SourceCase::External);
            (is_outside || value.error).then(|| Signal { name: index.to_string(), reading: value.reading() })
        });
        let live = self.status_replicas.unwrap_or(current);
        let ready = u32::try_from(crate::scaling::hpa::pods::ready(&pods)).unwrap_or(u32::MAX);
        Observation {
            at,
            bounds: Bounds { min: scenario.spec.min.unwrap_or(1), max: scenario.spec.max },
            replicas: Replicas { wanted: current, live, ready, slots: 1, ..Replicas::default() },
            signals: signals.collect(),
            ceiling: None,
            pods: Some(pods.into_iter().filter(|pods| pods.count > 0).collect()),
        }
    }
}

impl ValueCase {
    fn reading(&self) -> Reading {
        match (self.error, self.value_milli, &self.values_milli) {
            (false, Some(milli), _) => Reading::Value(Value::Milli(milli)),
            // Several series are one number, and none are 0.
            (false, None, Some(series)) => {
                Reading::Value(Value::Milli(series.iter().fold(0, |sum: i64, milli| sum.saturating_add(*milli))))
            }
            (true, ..) | (false, None, None) => Reading::Failed("the metric could not be read".to_owned()),
        }
    }
}

impl PodCase {
    fn pods(&self, default: &PodCase, metrics: &[MetricCase], at: Timestamp) -> Pods {
        let phase = match self.phase.or(default.phase).unwrap_or(PhaseCase::Running) {
            PhaseCase::Pending => Phase::Pending,
            PhaseCase::Running => Phase::Running,
            PhaseCase::Succeeded => Phase::Succeeded,
            PhaseCase::Failed => Phase::Failed,
        };
        let seconds = |own: Option<f64>, default: Option<f64>, otherwise| own.or(default).unwrap_or(otherwise);
        let measured = ago(at, seconds(self.metric_age_s, default.metric_age_s, 0.0));
        let window = span(seconds(self.metric_window_s, default.metric_window_s, 0.0));
        let usage = self.usage_milli.iter();
        let usage = usage.map(|(metric, milli)| Usage { metric: metric.clone(), milli: *milli, at: measured, window });
        let since = ago(at, seconds(self.ready_changed_ago_s, default.ready_changed_ago_s, 3_500.0));
        let request = self.request_milli.or(default.request_milli).unwrap_or(1_000);
        Pods {
            count: self.count.or(default.count).unwrap_or(1),
            phase,
            is_deleted: self.deleted.or(default.deleted).unwrap_or(false),
            started: Some(ago(at, seconds(self.started_ago_s, default.started_ago_s, 3_600.0))),
            ready: Some((self.ready.or(default.ready).unwrap_or(true), since)),
            requests: metrics
                .iter()
                .filter(|_| request >= 0)
                .map(|metric| Requested { metric: metric.name.clone(), milli: request })
                .collect(),
            usage: usage.collect(),
        }
    }
}
