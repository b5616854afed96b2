//! Reads the committed events of a run and measures how long each request took.

use std::collections::{BTreeSet, HashMap};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ergate::events::event::Event;
use ergate::events::id::Ordinal;
use ergate::events::log::kafka::Received;
use ergate::events::time::Micros;
use ergate::events::view::Histogram;
use ergate::kafka::KafkaSettings;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::publish::{INDEX_DIGITS, client, due};
use super::{SHARDS, STUCK_AFTER};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(5);

/// A consumer of all committed events from the beginning.
pub(super) fn reader(settings: &KafkaSettings) -> anyhow::Result<BaseConsumer> {
    let mut config = client(settings);
    config.set("group.id", "ergate-bench").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("fetch.wait.max.ms", "5").set("enable.partition.eof", "true").set("fetch.message.max.bytes", "8388608");
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for shard in 0..i32::try_from(SHARDS)? {
        all.add_partition_offset(&settings.topics().events, shard, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    Ok(consumer)
}

/// A consumer that has read everything until now: how long it takes to find the partitions is no wait of a task.
///
/// # Errors
/// When the brokers let no reader come to the ends.
pub(super) fn reader_at_end(settings: &KafkaSettings) -> anyhow::Result<BaseConsumer> {
    let (consumer, until) = (reader(settings)?, Instant::now() + STUCK_AFTER);
    let mut ended = BTreeSet::new();
    while ended.len() < SHARDS as usize {
        anyhow::ensure!(Instant::now() < until, "only {} of {SHARDS} partitions of events can be read", ended.len());
        if let Some(Err(KafkaError::PartitionEOF(partition))) = consumer.poll(POLL) {
            ended.insert(partition);
        }
    }
    Ok(consumer)
}

/// Starts the thread, which ends with the last task.
pub(super) fn start(consumer: BaseConsumer, tasks: u64, rate: f64, began: Instant) -> JoinHandle<anyhow::Result<Histogram>> {
    std::thread::spawn(move || {
        let mut follower = Follower { began, rate, running: HashMap::new(), waits: Histogram::default(), ended: 0 };
        let mut heard = Instant::now();
        while follower.ended < tasks {
            anyhow::ensure!(heard.elapsed() < STUCK_AFTER, "only {} of {tasks} tasks ended", follower.ended);
            let Some(Ok(message)) = consumer.poll(POLL) else { continue };
            heard = Instant::now();
            if let Some(received) = Received::of(&message)? {
                follower.take(&received, heard)?;
            }
        }
        Ok(follower.waits)
    })
}

struct Follower {
    began: Instant,
    rate: f64,
    /// Which request a task is.
    running: HashMap<(u16, Ordinal), u64>,
    waits: Histogram,
    ended: u64,
}

impl Follower {
    fn take(&mut self, received: &Received, now: Instant) -> anyhow::Result<()> {
        let (shard, mut next) = (received.block.header.shard.0, received.block.header.first_ordinal);
        for record in received.block.records() {
            let event = record?.event;
            let task = next;
            next.0 += u64::from(event.creates_task());
            if let Event::Requested { payload, .. } = &event {
                let digits = std::str::from_utf8(payload).ok().and_then(|text| text.get(1..=INDEX_DIGITS));
                let index =
                    digits.and_then(|digits| digits.parse().ok()).context("a task of somebody else ran in the bench's topics")?;
                self.running.insert((shard, task), index);
            } else if let Some((task, _)) = event.ends()
                && let Some(index) = self.running.remove(&(shard, task))
            {
                let wait = now.saturating_duration_since(self.began + due(index, self.rate));
                self.waits.record(Micros::from(wait));
                self.ended += 1;
            }
        }
        Ok(())
    }
}
