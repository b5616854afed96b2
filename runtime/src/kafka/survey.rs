//! How the topics of a namespace are, beside how they must be.

use std::collections::BTreeMap;

use rdkafka::admin::{ConfigResource, ConfigSource};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use serde::Serialize;

use super::topics::{Shape, Topic};
use super::url::Namespace;

/// How a topic is.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Which one.
    pub topic: Topic,
    /// Its full name.
    pub name: String,
    /// `None` where it does not exist, or this user may not see it.
    pub found: Option<Found>,
}

/// A topic that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many partitions it has.
    pub partitions: u32,
    /// The least number of replicas of a partition.
    pub replication: u32,
    /// Partitions of which a replica is behind or away.
    pub under_replicated: Vec<i32>,
    /// Partitions without a leader, which nobody can write or read.
    pub leaderless: Vec<i32>,
    /// Everything that is not as it must be.
    pub differences: Vec<Difference>,
    /// Whether this user may not read the settings, so that nobody can tell whether they differ.
    pub is_unreadable: bool,
    /// Settings of the topic's own, which a change must repeat.
    pub(super) own: BTreeMap<String, String>,
}

/// Something about a topic that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `partitions`, `replication`, or the name of a setting.
    pub what: String,
    /// How it is.
    pub found: String,
    /// How it must be.
    pub expected: String,
    /// What goes wrong otherwise.
    pub why: String,
    /// What it can be set to; `None` for what cannot be changed in place.
    pub fix: Option<String>,
}

/// What the topics are held against; what is `None` is taken from what is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// How many shards there should be.
    pub partitions: Option<u32>,
    /// How many replicas each partition should have.
    pub replication: Option<u32>,
}

impl Survey {
    pub(super) fn new(topic: Topic, namespace: &Namespace, found: &BTreeMap<Topic, Found>) -> Survey {
        Survey { topic, name: namespace.topic(topic), found: found.get(&topic).cloned() }
    }

    /// Everything that is not as it must be; nothing for a topic that does not exist.
    pub fn differences(&self) -> &[Difference] {
        self.found.as_ref().map_or(&[], |found| &found.differences)
    }

    /// Whether [`Admin::fix`](super::admin::Admin::fix) has something to do.
    pub fn is_fixable(&self) -> bool {
        self.differences().iter().any(|difference| difference.fix.is_some())
    }
}

impl Found {
    pub(super) fn new(
        topic: Topic,
        metadata: &MetadataTopic,
        settings: Option<&ConfigResource>,
        shards: Option<u32>,
        replication: Option<u32>,
    ) -> Found {
        let all = metadata.partitions();
        let ids = |which: &dyn Fn(&&MetadataPartition) -> bool| all.iter().filter(which).map(|one| one.id()).collect();
        let mut found = Found {
            partitions: u32::try_from(all.len()).unwrap_or(u32::MAX),
            replication: all.iter().map(|one| u32::try_from(one.replicas().len()).unwrap_or(u32::MAX)).min().unwrap_or(0),
            under_replicated: ids(&|one| one.isr().len() < one.replicas().len()),
            leaderless: ids(&|one| one.leader() < 0),
            differences: Vec::new(),
            is_unreadable: settings.is_none(),
            own: BTreeMap::new(),
        };
        found.compare_shape(topic, shards, replication);
        if let Some(settings) = settings {
            found.compare_settings(topic, settings);
        }
        found
    }

    fn compare_shape(&mut self, topic: Topic, shards: Option<u32>, replication: Option<u32>) {
        let shape = |partitions| Shape { partitions, replication: self.replication };
        let mut differ = |what: &str, found: u32, expected: Option<u32>, why: &str| {
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                let (found, expected) = (found.to_string(), expected.to_string());
                self.differences.push(Difference { what: what.to_owned(), found, expected, why: why.to_owned(), fix: None });
            }
        };
        let partitions = Some(topic.partitions(shape(shards.unwrap_or(self.partitions))));
        differ(
            "partitions",
            self.partitions,
            partitions,
            "never changed in place: keys would move to other shards, whose chains and snapshots do not know them",
        );
        differ("replication", self.replication, replication, "kafka-reassign-partitions changes it while the brokers run");
    }

    fn compare_settings(&mut self, topic: Topic, settings: &ConfigResource) {
        let entries = settings.entry_map();
        let value = |name: &str| entries.get(name).and_then(|entry| entry.value.clone());
        // As many copies as there are, not as there should be: two cannot be demanded where there is one.
        for wanted in topic.wanted(self.replication) {
            // A setting that the broker does not know is of another version, and not to be set there.
            let Some(found) = value(wanted.name).filter(|found| !wanted.is_met_by(found)) else { continue };
            let (what, expected) = (wanted.name.to_owned(), wanted.expected());
            self.differences.push(Difference { what, found, expected, why: wanted.why.to_owned(), fix: Some(wanted.value) });
        }
        let own = settings.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        self.own = own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect();
    }
}

/// How many shards the topics that are there stand for.
pub(super) fn shards(there: &[(Topic, &MetadataTopic)]) -> Option<u32> {
    let sharded = there.iter().filter(|(topic, _)| *topic != Topic::Capacity);
    // The events are the record, so the others follow them.
    let (_, leading) = sharded.clone().find(|(topic, _)| *topic == Topic::Events).or_else(|| sharded.clone().next())?;
    u32::try_from(leading.partitions().len()).ok()
}
