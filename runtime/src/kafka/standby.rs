//! Follows the shards that other engines lead: their copies and states are kept warm here, so that taking one over takes a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_events::id::{Position, ShardId};
use ergate_events::log::LogError;
use ergate_events::log::kafka::Received;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::capacity::Readings;
use super::copy::{Place, Warm};
use super::settings::KafkaSettings;
use crate::store::RecoverError;

/// How long the thread waits for a block before it looks for orders.
const POLL: Duration = Duration::from_millis(20);
/// How long what has been written is waited for when a shard is taken; after that, whoever takes it reads the rest.
const TAKE_WITHIN: Duration = Duration::from_millis(60);
/// The same while somebody waits for a shard.
const POLL_SOON: Duration = Duration::from_millis(1);
/// Most blocks taken before the copies show them.
const GATHER_MAX: usize = 500;
/// How long a shard that could not be followed is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The same where it is still in use here: what led it until now has not let go of it yet.
const FREE_AFTER: Duration = Duration::from_millis(200);
/// Events after which a snapshot is kept beside a copy, so that the next start folds no more than that.
const SNAPSHOT_EVERY: u64 = 500_000;

enum Order {
    /// Follow these shards, when there is time.
    Follow(Vec<ShardId>),
    /// Follow this one no more, and hand over what is there.
    Take(Take),
    End,
}

/// Whoever takes a shard.
struct Take {
    shard: ShardId,
    /// The offset where the log ends.
    end: i64,
    /// How long that is waited for.
    until: Instant,
    reply: Sender<Option<Warm>>,
}

/// Takes a shard that is followed, when its log has ended.
pub(crate) struct Taking {
    shard: ShardId,
    orders: Sender<Order>,
}

impl Taking {
    /// What was kept of it, up to this offset if that is there within a moment. Blocks; after it the thread is done with the shard.
    pub(crate) fn take(&self, end: i64) -> Option<Warm> {
        let (reply, answer) = channel();
        let take = Take { shard: self.shard, end, until: Instant::now() + TAKE_WITHIN, reply };
        // A thread that is gone has nothing.
        let _ = self.orders.send(Order::Take(take));
        answer.recv().ok().flatten()
    }
}

/// The engine's end of the thread.
pub(crate) struct Standby {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Standby {
    /// Starts the thread; `place` says where a shard is.
    ///
    /// # Errors
    /// When the client refuses its settings, or there is no thread.
    pub(crate) fn start(
        settings: Arc<KafkaSettings>,
        place: impl Fn(ShardId) -> Place + Send + 'static,
        readings: Readings,
    ) -> Result<Standby, String> {
        let mut config = settings.client("standby");
        config.set("group.id", "ergate-standby").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "500").set("queued.max.messages.kbytes", "16384");
        let consumer: BaseConsumer = config.create().map_err(|error| error.to_string())?;
        let (orders, received) = channel();
        let thread = std::thread::Builder::new()
            .name("ergate-standby".to_owned())
            .spawn(move || {
                let (shards, wanted, takes) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
                Follower { settings, place: Box::new(place), consumer, shards, wanted, takes, readings }.run(&received);
            })
            .map_err(|error| error.to_string())?;
        Ok(Standby { orders, thread: Some(thread) })
    }

    /// Follows these shards from now on.
    pub(crate) fn follow(&self, shards: Vec<ShardId>) {
        // A thread that is gone follows nothing, and its shards are restored from their logs.
        let _ = self.orders.send(Order::Follow(shards));
    }

    /// What takes a shard.
    pub(crate) fn taking(&self, shard: ShardId) -> Taking {
        Taking { shard, orders: self.orders.clone() }
    }

    /// Ends the thread.
    pub(crate) fn end(&mut self) -> Option<JoinHandle<()>> {
        let _ = self.orders.send(Order::End);
        self.thread.take()
    }
}

struct Follower {
    settings: Arc<KafkaSettings>,
    place: Box<dyn Fn(ShardId) -> Place + Send>,
    consumer: BaseConsumer,
    shards: BTreeMap<ShardId, Warm>,
    /// Shards that are to be followed, each from when on.
    wanted: BTreeMap<ShardId, Instant>,
    /// Shards that are handed over when they are as far as is wanted.
    takes: Vec<Take>,
    /// Where it is told how far they are.
    readings: Readings,
}

impl Follower {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = if self.shards.is_empty() && self.wanted.is_empty() {
                orders.recv_timeout(AGAIN_AFTER)
            } else {
                orders.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match order {
                Ok(Order::Follow(shards)) => {
                    // One that is followed already would be opened a second time, and given up for being in use.
                    let new = shards.into_iter().filter(|shard| !self.shards.contains_key(shard));
                    self.wanted.extend(new.map(|shard| (shard, Instant::now())));
                }
                Ok(Order::Take(take)) => self.takes.push(take),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.begin_one();
                    self.gather();
                }
            }
            self.hand_over();
        }
        for warm in std::mem::take(&mut self.shards).into_values() {
            self.close(warm);
        }
    }

    /// Begins to follow one of the shards whose time has come.
    fn begin_one(&mut self) {
        let now = Instant::now();
        let Some(shard) = self.wanted.iter().find(|(_, from)| **from <= now).map(|(shard, _)| *shard) else { return };
        self.wanted.remove(&shard);
        let place = (self.place)(shard);
        let begun = place.warm(&self.settings).and_then(|warm| {
            let mut list = TopicPartitionList::new();
            let offset = Offset::Offset(warm.offset.unwrap_or_default());
            let added = list.add_partition_offset(&place.topic.0, place.topic.1, offset);
            added.and_then(|()| self.consumer.incremental_assign(&list)).map_err(|error| {
                RecoverError::Log(LogError::Kafka { step: "follow", topic: place.topic.0.clone(), reason: error.to_string() })
            })?;
            Ok(warm)
        });
        match begun {
            Ok(warm) => drop(self.shards.insert(shard, warm)),
            Err(error) => self.give_up(shard, &error),
        }
    }

    fn give_up(&mut self, shard: ShardId, error: &RecoverError) {
        drop(self.forget(shard));
        let again_after = if is_ours(error) {
            FREE_AFTER
        } else {
            tracing::warn!(%shard, error = super::describe(error), "a shard that another engine leads cannot be followed");
            AGAIN_AFTER
        };
        self.wanted.insert(shard, Instant::now() + again_after);
    }

    /// Hands over the shards that are far enough, or were waited for long enough.
    fn hand_over(&mut self) {
        let now = Instant::now();
        let is_due = |take: &Take| now >= take.until || self.shards.get(&take.shard).is_none_or(|warm| warm.reaches(take.end));
        let (due, later) = std::mem::take(&mut self.takes).into_iter().partition(is_due);
        self.takes = later;
        for take in due {
            let warm = self.forget(take.shard);
            // Whoever asked may have gone; then the copy is closed by being dropped.
            let _ = take.reply.send(warm);
        }
    }

    /// Follows a shard no more.
    fn forget(&mut self, shard: ShardId) -> Option<Warm> {
        self.wanted.remove(&shard);
        let warm = self.shards.remove(&shard)?;
        let place = (self.place)(shard);
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.topic.0, place.topic.1);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(%shard, %error, "a shard is read on in vain");
        }
        Some(warm)
    }

    /// Takes the blocks that have arrived.
    fn gather(&mut self) {
        let (mut wait, mut touched) = (if self.takes.is_empty() { POLL } else { POLL_SOON }, BTreeSet::new());
        for _ in 0..GATHER_MAX {
            let Some(message) = self.consumer.poll(wait) else { break };
            wait = Duration::ZERO;
            match message {
                Ok(message) => {
                    let shard = ShardId(u16::try_from(message.partition()).unwrap_or(u16::MAX));
                    let received = Received::of(&message).transpose();
                    drop(message);
                    if let Some(received) = received {
                        self.take(shard, received.map_err(RecoverError::Log), &mut touched);
                    }
                }
                Err(error) => tracing::debug!(%error, "following other shards"),
            }
        }
        for shard in touched {
            self.show(shard);
        }
    }

    fn take(&mut self, shard: ShardId, received: Result<Received, RecoverError>, touched: &mut BTreeSet<ShardId>) {
        let Some(warm) = self.shards.get_mut(&shard) else { return };
        match received.and_then(|received| warm.take(&received)) {
            Ok(()) => drop(touched.insert(shard)),
            Err(error) => self.give_up(shard, &error),
        }
    }

    /// Makes what was taken visible, and keeps a snapshot now and then.
    fn show(&mut self, shard: ShardId) {
        let Some(warm) = self.shards.get_mut(&shard) else { return };
        if let Err(error) = warm.copy.publish() {
            self.give_up(shard, &error.into());
            return;
        }
        self.readings.note(shard, warm.audit.state());
        if warm.copy.head().next.0 >= warm.snapshot_at.0 + SNAPSHOT_EVERY {
            warm.snapshot_at = warm.copy.head().next;
            keep(&(self.place)(shard), warm);
        }
    }

    fn close(&self, warm: Warm) {
        let shard = warm.shard;
        if warm.copy.head().next > Position(warm.snapshot_at.0 + SNAPSHOT_EVERY / 10) {
            keep(&(self.place)(shard), &warm);
        }
        if let Err(error) = warm.copy.close() {
            tracing::warn!(%shard, %error, "a copy was not closed well");
        }
    }
}

/// Whether this very process still has the copy open.
fn is_ours(error: &RecoverError) -> bool {
    matches!(error, RecoverError::Log(LogError::Locked { pid, .. }) if *pid == std::process::id().to_string())
}

/// Keeps the state of a copy beside it.
fn keep(place: &Place, warm: &Warm) {
    let (snapshots, head) = (place.snapshots(), warm.copy.head());
    let saved = snapshots.save(&head, &mut |out| warm.audit.state().encode(out)).and_then(|_| snapshots.prune(1, head.next));
    if let Err(error) = saved {
        tracing::warn!(shard = %place.shard, %error, "a snapshot was not kept");
    }
}
