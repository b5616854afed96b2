//! What figures are made of.

use std::sync::atomic::Ordering::Relaxed;

#[cfg(feature = "kafka")]
use ergate_events::id::ShardId;

use super::{Front, Runtime};
use crate::plugins::Running;
use crate::wiring::{Figures, Parts};

impl Runtime {
    pub(crate) fn told(&self) -> &crate::metrics::Told {
        &self.inner.metrics
    }

    /// Pools and names of the registered task types.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.settings.iter().map(|(name, settings)| (settings.pool.as_str(), name.as_str()))
    }

    pub(crate) fn figures(&self) -> &Figures {
        match &self.inner.front {
            Front::Local(parts) => &parts.figures,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures,
        }
    }

    /// Reads each shard with tasks that is led here now.
    pub(crate) fn each_led(&self, mut read: impl FnMut(&Parts)) {
        match &self.inner.front {
            Front::Local(parts) => read(parts),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.leading.each(read),
        }
    }

    /// On Kafka, how many replicas each pool should have that others start: all engines tell the same.
    pub(crate) fn wanted_of_others(&self) -> Vec<(String, u32)> {
        match &self.inner.front {
            Front::Local(_) => Vec::new(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.wanted_of_others(),
        }
    }

    /// Where the partitions of a shard end, on Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) fn ends(&self, shard: ShardId) -> Option<crate::kafka::End> {
        match &self.inner.front {
            Front::Local(_) => None,
            Front::Kafka(engine) => engine.ends.get(shard),
        }
    }

    /// The generators and observers that run.
    pub(crate) fn plugins(&self) -> &Running {
        &self.inner.plugins
    }

    /// What this runtime stands in front of.
    #[cfg(feature = "http")]
    pub(crate) fn front(&self) -> &Front {
        &self.inner.front
    }

    pub(crate) fn is_on_kafka(&self) -> bool {
        !matches!(self.inner.front, Front::Local(_))
    }

    /// How often a caller was asked to come again.
    pub(crate) fn busy(&self) -> u64 {
        self.inner.busy.load(Relaxed)
    }

    /// Room for requests that wait to be decided.
    pub(crate) fn room_bytes(&self) -> u64 {
        (self.inner.room.available_permits() as u64) << 10
    }
}
