//! Which pods count for a metric, and what they add up to.

use super::settings::{Controller, Metric, Target};
use crate::scaling::decision::PodCounts;
use crate::scaling::signal::{Phase, Pods, Usage};
use crate::time::Timestamp;

/// Pods of one bin: how many, and what they use and ask for together. In 128 bits, so that nothing anybody can write overflows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) usage: i128,
    pub(super) request: i128,
}

/// All pods of a pool, by what they are good for.
#[derive(Debug, Default)]
pub(super) struct Bins {
    /// Their samples count.
    pub(super) counted: Sum,
    /// Not ready yet; their usage is taken for nothing where it matters.
    pub(super) unready: Sum,
    /// Without a sample.
    pub(super) missing: Sum,
    ignored: u64,
    /// What those without a sample would use if each used the whole of its request, or the target where that is more; cut off for each by itself.
    pub(super) missing_full: i128,
    /// Whether a container of any pod asks for nothing.
    pub(super) lacks_request: bool,
}

impl Sum {
    fn add(&mut self, pods: &Pods, request: Option<i64>, usage: i64) {
        let count = i128::from(pods.count);
        self.count += u64::from(pods.count);
        self.usage += count * i128::from(usage);
        self.request += count * i128::from(request.unwrap_or(0));
    }
}

impl Bins {
    /// Puts every pod into the first bin that fits. `is_cpu`: usage of a pod that starts is not taken for load.
    pub(super) fn sort(pods: &[Pods], metric: &Metric, is_cpu: bool, controller: &Controller, at: Timestamp) -> Bins {
        let full_percent = match metric.target {
            Target::Utilization(percent) => percent.max(100),
            Target::AverageValueMilli(_) | Target::ValueMilli(_) => 0,
        };
        let mut bins = Bins::default();
        for pods in pods.iter().filter(|pods| pods.count > 0) {
            let request = pods.request(&metric.name);
            bins.lacks_request |= request.is_none();
            if pods.is_deleted || matches!(pods.phase, Phase::Failed | Phase::Succeeded) {
                bins.ignored += u64::from(pods.count);
                continue;
            }
            if pods.phase == Phase::Pending {
                bins.unready.add(pods, request, 0);
                continue;
            }
            match pods.usage.iter().find(|usage| usage.metric == metric.name) {
                None => {
                    let full = i128::from(request.unwrap_or(0)) * i128::from(full_percent) / 100;
                    bins.missing_full += i128::from(pods.count) * full;
                    bins.missing.add(pods, request, 0);
                }
                Some(usage) if is_cpu && is_starting(pods, usage, controller, at) => bins.unready.add(pods, request, 0),
                Some(usage) => bins.counted.add(pods, request, usage.milli),
            }
        }
        bins
    }

    /// How many are in each.
    pub(super) const fn counts(&self) -> PodCounts {
        PodCounts { counted: self.counted.count, unready: self.unready.count, missing: self.missing.count, ignored: self.ignored }
    }
}

/// Whether what a pod uses may be its start's and not its work's.
fn is_starting(pods: &Pods, usage: &Usage, controller: &Controller, at: Timestamp) -> bool {
    let (Some(started), Some((is_ready, since))) = (pods.started, pods.ready) else { return true };
    if started.after(controller.cpu_initialization) > at {
        return !is_ready || usage.at < since.after(usage.window);
    }
    // It has never been ready: it became "not ready" when it started.
    !is_ready && started.after(controller.initial_readiness) > since
}

/// Pods that run and are ready.
pub(super) fn ready(pods: &[Pods]) -> u64 {
    let is_ready = |pods: &&Pods| pods.phase == Phase::Running && pods.ready.is_some_and(|(is_ready, _)| is_ready);
    pods.iter().filter(is_ready).map(|pods| u64::from(pods.count)).sum()
}
