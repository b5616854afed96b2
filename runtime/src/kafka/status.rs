//! How a namespace is doing, as the brokers tell: who leads which shard, what waits, and how far readers lag behind writers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use ergate_events::log::LogError;
use ergate_events::log::kafka::Patience;
use ergate_events::time::Timestamp;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupMemberInfo;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use super::assignment;
use super::logs::{CAPACITY, Logs};
use super::settings::{KafkaSettings, Topics};

/// How long the brokers may take to answer one question; a coordinator that moves answers with errors meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long one try may take.
const TRY_FOR: Duration = Duration::from_secs(5);
/// Pause between two tries.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How a namespace is doing at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The engines.
    pub group: Group,
    /// Every shard by number, the log of pools last.
    pub shards: Vec<ShardStatus>,
}

/// The group of the engines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// As the brokers call it: `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, `Dead`.
    pub state: String,
    /// The engines that are in it.
    pub members: Vec<Engine>,
}

/// An engine as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// What the group calls it.
    pub id: String,
    /// What it calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// The shards that it was given.
    #[serde(serialize_with = "by_names")]
    pub shards: Vec<ShardId>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Which one.
    #[serde(serialize_with = "by_name")]
    pub shard: ShardId,
    /// The id of the engine that it was given to; `None` while nobody has it.
    pub owner: Option<String>,
    /// Its requests; `None` of the log of pools, which has none.
    pub requests: Option<Requests>,
    /// Its log.
    pub events: Events,
}

/// What is asked of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Requests {
    /// The offset after the last record.
    pub end: i64,
    /// The offset of the first record that is not answered in the log; `None` before the first commit.
    pub committed: Option<i64>,
    /// How many offsets lie between. Markers of producers that write in transactions count too.
    pub lag: i64,
    /// By how much the lag grows in a second; `None` of a single look.
    pub lag_growth: Option<f64>,
}

/// What a shard's log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Events {
    /// The offset after the last message, committed or not.
    pub end: i64,
    /// The offset after the last message that readers see.
    pub stable: i64,
    /// How many offsets an open transaction keeps from readers.
    pub stable_lag: i64,
    /// Position after the last event.
    pub next: u64,
    /// Time of the last event, in µs since 1970.
    pub last_at: Option<Timestamp>,
}

fn by_name<S: serde::Serializer>(shard: &ShardId, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&super::logs::shard_name(*shard))
}

fn by_names<S: serde::Serializer>(shards: &[ShardId], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(shards.iter().map(|shard| super::logs::shard_name(*shard)))
}

/// Asks how a namespace is doing, as often as is wanted; the clients are kept in between.
pub struct Observer {
    settings: KafkaSettings,
    logs: Logs,
    /// Sees what is not committed, too, and knows the group's offsets.
    group: BaseConsumer,
    last: Option<(Instant, BTreeMap<ShardId, i64>)>,
}

impl Observer {
    /// An observer of a namespace. It joins no group and moves no offset.
    ///
    /// # Errors
    /// [`LogError::NoTopic`], [`LogError::Kafka`].
    pub fn new(settings: &KafkaSettings, patience: Patience) -> Result<Observer, LogError> {
        let logs = Logs::find(settings, patience)?;
        let mut config: ClientConfig = settings.client("observer");
        config.set("group.id", settings.group()).set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
        let group = config.create().map_err(|error| failed("look at", &settings.namespace(), &error))?;
        Ok(Observer { settings: settings.clone(), logs, group, last: None })
    }

    /// Looks. From the second look on the growth of lags is known.
    ///
    /// # Errors
    /// [`LogError::Kafka`], and what reading the last block of a shard meets.
    pub fn look(&mut self) -> Result<Status, LogError> {
        let group = self.group()?;
        let owners: BTreeMap<ShardId, &str> =
            group.members.iter().flat_map(|engine| engine.shards.iter().map(|shard| (*shard, engine.id.as_str()))).collect();
        let committed = self.committed()?;
        let now = Instant::now();
        let mut shards = Vec::with_capacity(self.logs.readers.len());
        for reader in &self.logs.readers {
            let (shard, place) = (reader.shard(), reader.place());
            let requests = (shard != CAPACITY).then(|| self.requests(shard, &committed)).transpose()?;
            let extent = reader.extent()?;
            let (_, end) = self.marks(place.0, place.1)?;
            let stable = extent.offsets.stable;
            let events = Events {
                end: end.max(stable),
                stable,
                stable_lag: (end - stable).max(0),
                next: extent.span.next.0,
                last_at: extent.last_time,
            };
            shards.push(ShardStatus { shard, owner: owners.get(&shard).map(|id| (*id).to_owned()), requests, events });
        }
        let lags = shards.iter().filter_map(|shard| Some((shard.shard, shard.requests?.lag))).collect();
        self.last = Some((now, lags));
        Ok(Status { group, shards })
    }

    fn requests(&self, shard: ShardId, committed: &BTreeMap<ShardId, i64>) -> Result<Requests, LogError> {
        let (low, end) = self.marks(&self.settings.topics().requests, i32::from(shard.0))?;
        let committed = committed.get(&shard).copied();
        let lag = (end - committed.unwrap_or(low).max(low)).max(0);
        let before = self.last.as_ref().and_then(|(at, lags)| Some((at.elapsed().as_secs_f64(), *lags.get(&shard)?)));
        let lag_growth = before.map(|(seconds, before)| growth(before, lag, seconds));
        Ok(Requests { end, committed, lag, lag_growth })
    }

    fn marks(&self, topic: &str, partition: i32) -> Result<(i64, i64), LogError> {
        ask("ask for the ends of", topic, || self.group.fetch_watermarks(topic, partition, TRY_FOR))
    }

    fn committed(&self) -> Result<BTreeMap<ShardId, i64>, LogError> {
        let topic = self.settings.topics().requests;
        let mut list = TopicPartitionList::new();
        let shards = || self.logs.readers.iter().map(|reader| reader.shard()).filter(|shard| *shard != CAPACITY);
        for shard in shards() {
            list.add_partition(&topic, i32::from(shard.0));
        }
        let offsets = ask("ask for the group's offsets in", &topic, || self.group.committed_offsets(list.clone(), TRY_FOR))?;
        let known = |shard: ShardId| match offsets.find_partition(&topic, i32::from(shard.0))?.offset() {
            Offset::Offset(offset) => Some((shard, offset)),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        };
        Ok(shards().filter_map(known).collect())
    }

    fn group(&self) -> Result<Group, LogError> {
        let name = self.settings.group();
        let list =
            ask("describe the group of", &self.settings.namespace(), || self.group.fetch_group_list(Some(&name), TRY_FOR))?;
        let Some(info) = list.groups().first() else { return Ok(Group { name, state: "Dead".to_owned(), members: Vec::new() }) };
        let topics = self.settings.topics();
        let members = info.members().iter().map(|member| Engine::of(member, &topics)).collect();
        Ok(Group { name, state: info.state().to_owned(), members })
    }
}

impl Engine {
    /// Reads what the brokers tell of a member of the group.
    pub(super) fn of(member: &GroupMemberInfo, topics: &Topics) -> Engine {
        let given = assignment::read(member.assignment().unwrap_or_default());
        let shard = |topic: &str, partition: i32| match topic {
            _ if topic == topics.requests => u16::try_from(partition).ok().map(ShardId),
            _ if topic == topics.capacity => Some(CAPACITY),
            _ => None,
        };
        let mut shards: Vec<ShardId> = given
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().filter_map(|partition| shard(topic, *partition)))
            .collect();
        shards.sort_unstable();
        let text = |text: &str| text.to_owned();
        Engine { id: text(member.id()), client: text(member.client_id()), host: text(member.client_host()), shards }
    }
}

/// By how much a lag grows in a second, as two looks tell.
fn growth(before: i64, after: i64, seconds: f64) -> f64 {
    // Offsets of one second are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "a rate is no exact number")]
    let change = (after - before) as f64;
    if seconds > 0.0 { change / seconds } else { 0.0 }
}

/// Asks until there is an answer, or it took too long.
fn ask<T>(step: &'static str, topic: &str, question: impl Fn() -> Result<T, KafkaError>) -> Result<T, LogError> {
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        match question() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= until => return Err(failed(step, topic, &error)),
            Err(_) => std::thread::sleep(AGAIN_AFTER),
        }
    }
}

fn failed(step: &'static str, topic: &str, error: &KafkaError) -> LogError {
    LogError::Kafka { step, topic: topic.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_two_looks_differ_by_in_a_second() {
        assert!((growth(100, 50, 2.0) + 25.0).abs() < 1e-9);
        assert!(growth(1, 9, 0.0).abs() < 1e-9);
    }
}
