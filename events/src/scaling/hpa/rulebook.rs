//! The part of an HPA's settings that turns proposals into counts.

use super::settings::{Behavior, Controller, Hpa, Memories, Rules, ToleranceForm};
use crate::scaling::signal::Bounds;

/// The part of the settings that turns proposals into counts; KEDA leaves the same part of its work to an HPA.
#[derive(Clone, Copy, Debug)]
pub(in crate::scaling) struct Rulebook<'a> {
    pub(in crate::scaling) behavior: Option<&'a Behavior>,
    pub(in crate::scaling) controller: &'a Controller,
    pub(in crate::scaling) memory: Memories,
    /// How few and how many replicas it may want.
    pub(in crate::scaling) bounds: Bounds,
    /// Whether a metric is known without any replica.
    pub(in crate::scaling) looks_outside: bool,
}

impl Rulebook<'_> {
    /// Whether a ratio is near enough to 1. Whatever is no number is not.
    pub(in crate::scaling) fn tolerates(&self, ratio: f64) -> bool {
        let cluster = self.controller.tolerance.get();
        // A quantity becomes a number by multiplication: 9 thousandths are 0.009000000000000001.
        let own = |rules: &Rules| rules.tolerance_milli.map_or(cluster, |milli| f64::from(milli) * 0.001);
        match (self.controller.tolerance_form, self.behavior) {
            // Directions have tolerances of their own since 1.33.
            (ToleranceForm::Abs, _) => (1.0 - ratio).abs() <= cluster,
            (ToleranceForm::Band, behavior) => {
                let (up, down) = behavior.map_or((cluster, cluster), |it| (own(&it.scale_up), own(&it.scale_down)));
                (1.0 - down) <= ratio && ratio <= (1.0 + up)
            }
        }
    }
}

impl Hpa {
    /// Its rules for a pool with these bounds.
    pub(super) fn rulebook(&self, bounds: Bounds) -> Rulebook<'_> {
        let looks_outside = self.metrics.iter().any(|metric| metric.source.is_outside());
        let (behavior, controller) = (self.behavior.as_ref(), &self.controller);
        Rulebook { behavior, controller, memory: self.memory, bounds, looks_outside }
    }
}
