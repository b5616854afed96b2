//! Waits until everything that was accepted has come to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ergate::events::event::Event;
use ergate::events::json;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::SHARDS;
use crate::topic::{Reader, client};

/// How long brokers and engines may take after the last disturbance, sessions that have to run out included.
const QUIET_WITHIN: Duration = Duration::from_secs(90);

/// How long brokers may take to tell where the requests end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How far the log of a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Far {
    next: u64,
    /// Offset of the next record.
    source: u64,
    live: i64,
}

/// Follows the log until every record is answered and every task has ended.
pub(crate) fn until_quiet(bootstrap: &str, requests: &str, events: &str) -> Result<Duration, String> {
    let started = Instant::now();
    let ends = ends(bootstrap, requests);
    let mut reader = Reader::new(bootstrap, events);
    let mut shards: BTreeMap<i32, Far> = (0..SHARDS).map(|shard| (shard, Far::default())).collect();
    loop {
        if let Some(message) = reader.poll(Duration::from_millis(50)) {
            if message.says_nothing() {
                continue;
            }
            let (block, _) = json::decode(message.value.as_deref().unwrap_or_default())
                .map_err(|error| format!("shard {}, offset {}: {error}", message.partition, message.offset))?;
            let far = shards.entry(message.partition).or_default();
            // A block that is there twice counts once; contradictions are the checker's.
            if block.header.first_position.0 == far.next {
                far.next = block.header.next_position().0;
                block.records().filter_map(Result::ok).for_each(|record| far.note(&record.event));
            }
            continue;
        }
        if shards.iter().all(|(shard, far)| far.live == 0 && far.source >= ends[shard]) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > QUIET_WITHIN {
            return Err(format!("not quiet after {QUIET_WITHIN:?}: records up to {ends:?}, shards {shards:?}"));
        }
    }
}

impl Far {
    fn note(&mut self, event: &Event<'_>) {
        self.source += u64::from(event.answers_record());
        self.live += i64::from(event.creates_task()) - i64::from(event.ends().is_some());
        if let Event::SourceMoved { next } = event {
            self.source = *next;
        }
    }
}

/// The offset after the last record of each partition.
fn ends(bootstrap: &str, topic: &str) -> BTreeMap<i32, u64> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "watch").create().unwrap();
    let end = |partition| {
        let started = Instant::now();
        loop {
            // Brokers that have just come back may not know their leaders yet.
            match consumer.fetch_watermarks(topic, partition, ENDS_WITHIN) {
                Ok((_, high)) => return (partition, u64::try_from(high).unwrap()),
                Err(error) => assert!(started.elapsed() < ENDS_WITHIN, "{topic} {partition}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    (0..SHARDS).map(end).collect()
}
