//! The thread that reads the record while somebody waits for what is written there.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ergate_events::log::kafka::{Heading, Received};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Following, Shared};
use crate::kafka::context::Listener;
use crate::kafka::settings::KafkaSettings;

/// How long a poll waits for a block: the end of the engine is seen as late.
const POLL: Duration = Duration::from_millis(50);
/// How often those are forgotten who no longer listen.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
/// How long the record is followed after the last one who waited: beginning again costs a question for each shard.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// How long the brokers may take to answer one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pause before the brokers are asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Reads the blocks of all shards.
pub(super) struct Follower {
    shared: Arc<Shared>,
    config: ClientConfig,
    topic: String,
    shards: u16,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, settings: &KafkaSettings, shards: u16) -> Follower {
        let mut config = settings.clients.reader(&settings.url);
        config
            // A gap would be answers that nobody gets.
            .set("auto.offset.reset", "error")
            // What is fetched ahead waits in memory; a few megabytes keep one thread busy.
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10");
        Follower { shared, config, topic: settings.topics().events, shards }
    }

    pub(super) fn run(self) {
        while self.wait_for_need() {
            if let Err(error) = self.begin().and_then(|consumer| self.follow(&consumer)) {
                tracing::warn!(error, "the record cannot be followed; whoever waits for answers may not get them");
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    }

    /// Waits until somebody waits; says `false` when the engine has ended.
    fn wait_for_need(&self) -> bool {
        let mut inside = self.shared.lock();
        while inside.following != Following::Ended && inside.waiting == 0 {
            inside = self.shared.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        inside.following != Following::Ended
    }

    /// A consumer at the ends of all shards.
    fn begin(&self) -> Result<BaseConsumer<Listener>, String> {
        let consumer: BaseConsumer<Listener> =
            self.config.create_with_context(Listener::default()).map_err(|error| error.to_string())?;
        let mut ends = TopicPartitionList::new();
        for shard in 0..i32::from(self.shards) {
            let marks = consumer.fetch_watermarks(&self.topic, shard, ANSWER_WITHIN).map_err(|error| error.to_string())?;
            let added = ends.add_partition_offset(&self.topic, shard, Offset::Offset(marks.1));
            added.map_err(|error| error.to_string())?;
        }
        consumer.assign(&ends).map_err(|error| error.to_string())?;
        let mut inside = self.shared.lock();
        if inside.following == Following::No {
            inside.following = Following::Yes;
        }
        drop(inside);
        self.shared.changed.notify_all();
        Ok(consumer)
    }

    /// Reads until nobody waits any more, or the engine ends.
    fn follow(&self, consumer: &BaseConsumer<Listener>) -> Result<(), String> {
        let (mut pruned, mut needed) = (Instant::now(), Instant::now());
        loop {
            let outcome = match consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => lasting(&error),
                None => Ok(()),
            };
            if let Err(reason) = outcome {
                self.stop_following(&reason);
                return Err(reason);
            }
            if pruned.elapsed() < PRUNE_EVERY && self.shared.lock().following == Following::Yes {
                continue;
            }
            pruned = Instant::now();
            let mut inside = self.shared.lock();
            inside.book.prune();
            if inside.following == Following::Ended {
                return Ok(());
            }
            if !inside.book.is_idle() || inside.waiting > 0 {
                needed = Instant::now();
            } else if needed.elapsed() >= IDLE_AFTER {
                inside.following = Following::No;
                // What is read next time begins somewhere else.
                inside.book.lose("");
                return Ok(());
            }
        }
    }

    /// Gives up everything that is waited for, for there is a gap from here on.
    fn stop_following(&self, reason: &str) {
        let mut inside = self.shared.lock();
        inside.book.lose(reason);
        if inside.following == Following::Yes {
            inside.following = Following::No;
        }
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Result<(), String> {
        let Ok(shard) = u16::try_from(message.partition()) else { return Ok(()) };
        // Whoever comes to wait after this waits for nothing in this block: it was committed before.
        if let (false, Some(heading)) = (self.shared.book(|book| book.wants(shard)), Heading::of(message)) {
            self.shared.book(|book| book.skip(shard, &heading));
            return Ok(());
        }
        let Some(received) = Received::of(message).map_err(|error| error.to_string())? else { return Ok(()) };
        self.shared.book(|book| book.take(shard, &received)).map_err(|error| error.to_string())
    }
}

/// Which errors the client does not mend by itself.
fn lasting(error: &KafkaError) -> Result<(), String> {
    let lasts = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::Fatal | RDKafkaErrorCode::TopicAuthorizationFailed) => true,
        Some(_) | None => false,
    };
    tracing::debug!(%error, lasts, "following the record");
    if lasts { Err(error.to_string()) } else { Ok(()) }
}
