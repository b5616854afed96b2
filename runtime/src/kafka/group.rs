//! The engine's membership in the group that shares the shards out, on a thread of its own: it polls, hands records to the shards that
//! have started, and tells the engine which shards come and go.
//!
//! One consumer for everything and no queue per partition: queues that are split off are not woken reliably.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_actors::clock::Clock;
use ergate_actors::records::Records;
use ergate_events::id::ShardId;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::feed::Feed;
use super::settings::KafkaSettings;
use super::stuck::{Quiet, Watch};

/// How long a poll waits for a message while nothing is waiting here: the engine's orders are seen as late.
const POLL: Duration = Duration::from_millis(20);
/// The same while records wait for room in a shard's lane, or a shard for its records.
const POLL_SOON: Duration = Duration::from_millis(1);
/// For how long after a change of what is assigned the engine's orders are expected at any moment.
const CHANGING: Duration = Duration::from_secs(1);
/// Most records gathered before they are handed on.
const GATHER_MAX: usize = 2_000;
/// Bytes of records that wait for one shard beyond which its partition is paused.
const WAITING_BYTES_MAX: usize = 2 << 20;
/// How long the engine may take to give shards back before the group goes on without an answer.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(4);
/// How often it is said that a shard is not read from, and after how long: a shard that is only busy takes records again within a second.
const SAY_HELD_UP_EVERY: Duration = Duration::from_secs(30);
/// How long a new place to read from may take to come into force.
const SEEK_WITHIN: Duration = Duration::from_millis(500);
/// How long brokers are waited for that were asked something only to wake the client: it is awake when the question is sent.
const WAKE_WITHIN: Duration = Duration::from_millis(5);

/// What the group tells the engine.
#[derive(Debug)]
pub(crate) enum GroupEvent {
    /// These partitions are this engine's from now on.
    Assigned(Vec<Held>),
    /// These go to others; `lost` when they are gone already. The group waits for `done`, for a while.
    Revoked { held: Vec<Held>, lost: bool, done: Sender<()> },
    /// Something went wrong that the client cannot mend.
    Fatal(String),
}

/// A partition whose owner leads something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// A partition of the requests: the shard of this number.
    Shard(i32),
    /// The one partition of the capacity topic: pools and their sizes.
    Capacity,
}

/// What the engine asks of the group.
enum Order {
    /// Hand the shard records from this offset on.
    Start { partition: i32, offset: u64, lane: mpsc::Sender<Records> },
    /// Hand it no more.
    Stop { partition: i32 },
    /// Leave the group for good.
    Leave,
}

/// The engine's end of its membership.
pub(crate) struct Group {
    orders: Sender<Order>,
    member: Member,
    thread: Option<JoinHandle<()>>,
}

/// The client that is the member now; another one after the engine had to join anew.
#[derive(Clone)]
struct Member(Arc<Mutex<Weak<BaseConsumer<Membership>>>>);

impl Member {
    fn get(&self) -> Option<Arc<BaseConsumer<Membership>>> {
        self.lock().upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Weak<BaseConsumer<Membership>>> {
        // Every change is one assignment, so a panic leaves nothing halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Joins the group. A partition that is quiet for `quiet_for` and does not end there is looked at by another client.
    ///
    /// # Errors
    /// When the client refuses its settings, or there is no thread.
    pub(crate) fn join(
        settings: &Arc<KafkaSettings>,
        feed: Feed,
        clock: Arc<dyn Clock>,
        events: mpsc::UnboundedSender<GroupEvent>,
        watch: Watch,
    ) -> Result<Group, String> {
        let settings = Arc::clone(settings);
        let consumer = subscribe(&settings, &events)?;
        let member = Member(Arc::new(Mutex::new(Arc::downgrade(&consumer))));
        let (orders, received) = channel();
        let topic = settings.topics().requests;
        let (shards, assigned, said_at) = (BTreeMap::new(), (0, Instant::now()), Instant::now());
        let poller =
            Poller { consumer, member: member.clone(), settings, topic, feed, clock, events, shards, assigned, watch, said_at };
        let thread = std::thread::Builder::new().name("ergate-group".to_owned()).spawn(move || poller.run(&received));
        Ok(Group { orders, member, thread: Some(thread.map_err(|error| error.to_string())?) })
    }

    /// Hands a shard its records from this offset on.
    pub(crate) fn start(&self, partition: i32, offset: u64, lane: mpsc::Sender<Records>) {
        self.order(Order::Start { partition, offset, lane });
    }

    /// Hands a shard no more records.
    pub(crate) fn stop(&self, partition: i32) {
        self.order(Order::Stop { partition });
    }

    /// Leaves for good; the thread ends after the shards were given back.
    pub(crate) fn leave(&mut self) -> Option<JoinHandle<()>> {
        self.order(Order::Leave);
        self.thread.take()
    }

    fn order(&self, order: Order) {
        // A thread that is gone has told why.
        let _ = self.orders.send(order);
    }

    /// Names this member for a commit, as it is known to the group now.
    pub(crate) fn metadata(&self) -> Arc<dyn Fn() -> Option<ConsumerGroupMetadata> + Send + Sync> {
        let member = self.member.clone();
        Arc::new(move || member.get()?.group_metadata())
    }
}

/// A client that is a member of the group, or will be as soon as it is polled.
fn subscribe(
    settings: &KafkaSettings,
    events: &mpsc::UnboundedSender<GroupEvent>,
) -> Result<Arc<BaseConsumer<Membership>>, String> {
    let topics = settings.topics();
    let context = Membership { events: events.clone(), requests: topics.requests.clone(), rebalances: OnceLock::new() };
    let consumer: BaseConsumer<Membership> = settings.member().create_with_context(context).map_err(|error| error.to_string())?;
    consumer.subscribe(&[&topics.requests, &topics.capacity]).map_err(|error| error.to_string())?;
    Ok(Arc::new(consumer))
}

/// What the client calls while it is polled.
pub(crate) struct Membership {
    events: mpsc::UnboundedSender<GroupEvent>,
    requests: String,
    rebalances: OnceLock<()>,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

/// Passes on what a client says.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "{message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::debug!(facility, "{message}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::trace!(facility, "{message}"),
    }
}

impl Membership {
    fn held(&self, list: &TopicPartitionList) -> Vec<Held> {
        let held = |topic: &str, partition| if topic == self.requests { Held::Shard(partition) } else { Held::Capacity };
        list.elements().iter().map(|element| held(element.topic(), element.partition())).collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) {
        let _ = self.rebalances.set(());
        tracing::debug!(partitions = list.count(), "assigned");
        // Without a place the client first asks where the group had read to, and brokers that lost the end of a transaction never answer that.
        // Each shard's log knows its place, and until it has told, nothing is read. A place by name, such as the end, would be asked for, too,
        // and come into force again half a second after another one was set.
        let mut placed = list.clone();
        let assigned = placed.set_all_offsets(Offset::Offset(0)).and_then(|()| consumer.incremental_assign(&placed));
        let assigned = assigned.and_then(|()| consumer.pause(list));
        match assigned {
            Ok(()) if list.count() == 0 => {}
            Ok(()) => drop(self.events.send(GroupEvent::Assigned(self.held(list)))),
            Err(error) => drop(self.events.send(GroupEvent::Fatal(error.to_string()))),
        }
    }

    /// Holds the group up until the engine has given the shards back: whoever gets them next reads what was committed until now.
    fn revoke(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) {
        tracing::debug!(partitions = list.count(), "revoked");
        let (done, given_back) = channel();
        let event = GroupEvent::Revoked { held: self.held(list), lost: consumer.assignment_lost(), done };
        if list.count() > 0 && self.events.send(event).is_ok() && given_back.recv_timeout(GIVE_BACK_WITHIN).is_err() {
            tracing::warn!("shards were not given back in time; their next owner fences this one");
        }
        tracing::debug!(partitions = list.count(), "given back");
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::warn!(%error, "partitions could not be given back");
        }
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, list);
        } else {
            self.revoke(consumer, list);
        }
    }
}

/// A shard that is handed records.
struct Fed {
    lane: mpsc::Sender<Records>,
    /// The next record that the shard has not been handed.
    next: u64,
    waiting: Records,
    /// When a record was taken last, or reading began.
    read_at: Instant,
    paused: bool,
    /// Whether reading begins at `next` only after the client was told.
    unsought: bool,
}

impl Fed {
    /// Whether nothing but the client keeps records from the shard.
    fn takes_records(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the client should be handing over records.
    fn is_reading(&self) -> bool {
        !self.unsought && !self.paused && self.takes_records()
    }
}

/// Ends a client. Whoever drops it last waits until it has ended; a shard that asks who commits must not be that one.
fn end(mut consumer: Arc<BaseConsumer<Membership>>) {
    while let Err(shared) = Arc::try_unwrap(consumer) {
        consumer = shared;
        std::thread::sleep(POLL_SOON);
    }
}

/// The thread.
struct Poller {
    consumer: Arc<BaseConsumer<Membership>>,
    member: Member,
    settings: Arc<KafkaSettings>,
    topic: String,
    feed: Feed,
    clock: Arc<dyn Clock>,
    events: mpsc::UnboundedSender<GroupEvent>,
    shards: BTreeMap<i32, Fed>,
    /// How many partitions were assigned when that was last asked, and since when.
    assigned: (usize, Instant),
    watch: Watch,
    /// When it was said last which shards are held up.
    said_at: Instant,
}

impl Poller {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.try_recv() {
                Ok(Order::Leave) | Err(TryRecvError::Disconnected) => return self.leave(),
                Ok(order) => self.carry_out(order),
                Err(TryRecvError::Empty) => {
                    self.nudge();
                    self.seek();
                    self.gather();
                    self.hand_on();
                    self.look_after();
                }
            }
        }
    }

    /// Says which shards have not been read from for long because reading could not begin or go on: a shard that takes no records, or a client
    /// that sets no place to read from.
    fn say_held_up(&mut self) {
        if self.said_at.elapsed() < SAY_HELD_UP_EVERY {
            return;
        }
        self.said_at = Instant::now();
        let is_held_up = |fed: &Fed| !fed.is_reading() && fed.read_at.elapsed() >= SAY_HELD_UP_EVERY;
        for (partition, fed) in self.shards.iter().filter(|(_, fed)| is_held_up(fed)) {
            let (next, paused, unsought, waiting) = (fed.next, fed.paused, fed.unsought, fed.waiting.len());
            tracing::warn!(partition, next, paused, unsought, waiting, "requests of a shard are not read on for long");
        }
    }

    /// Joins anew where there are records that this member is not handed.
    fn look_after(&mut self) {
        self.say_held_up();
        let shards = &self.shards;
        let stuck = self.watch.look(|watch| {
            let quiet = shards.iter().filter(|(_, fed)| fed.takes_records() && watch.is_quiet(fed.read_at));
            quiet
                .filter_map(|(partition, fed)| Some(Quiet { shard: ShardId(u16::try_from(*partition).ok()?), next: fed.next }))
                .collect()
        });
        if !stuck.is_empty() {
            tracing::error!(?stuck, "requests are there that this engine is not handed; it gives its shards back and joins anew");
            self.join_anew();
        }
    }

    /// Gives everything back and goes on as a new member with a new client.
    fn join_anew(&mut self) {
        self.give_back();
        self.shards.clear();
        match subscribe(&self.settings, &self.events) {
            Ok(consumer) => {
                *self.member.lock() = Arc::downgrade(&consumer);
                end(std::mem::replace(&mut self.consumer, consumer));
            }
            Err(error) => drop(self.events.send(GroupEvent::Fatal(error))),
        }
    }

    fn leave(self) {
        self.give_back();
        end(self.consumer);
    }

    /// Gives everything back while shards can still commit as this member, and only then leaves.
    fn give_back(&self) {
        tracing::debug!("leaving the group");
        self.consumer.unsubscribe();
        let until = Instant::now() + GIVE_BACK_WITHIN + POLL;
        while Instant::now() < until && self.consumer.assignment().is_ok_and(|held| held.count() > 0) {
            drop(self.consumer.poll(POLL_SOON));
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Start { partition, offset, lane } => {
                let (waiting, read_at) = (Records::default(), Instant::now());
                let fed = Fed { lane, next: offset, waiting, read_at, paused: true, unsought: true };
                self.shards.insert(partition, fed);
            }
            Order::Stop { partition } => {
                self.shards.remove(&partition);
                // One that is no longer assigned needs no pause.
                let _ = self.consumer.pause(&self.list(partition));
            }
            Order::Leave => {}
        }
    }

    fn list(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }

    /// Asks the client's own thread for something. It looks only when it is woken whether a heartbeat is due, by which a member hears that
    /// others come or go; left alone it sleeps for up to a second, whatever the interval between heartbeats is.
    fn nudge(&mut self) {
        let assigned = self.consumer.assignment().map_or(0, |held| held.count());
        if assigned != self.assigned.0 {
            self.assigned = (assigned, Instant::now());
        }
    }

    /// Sets the reading of shards that have started to where their logs are.
    fn seek(&mut self) {
        let mut new = TopicPartitionList::new();
        for (partition, fed) in self.shards.iter().filter(|(_, fed)| fed.unsought) {
            let offset = Offset::Offset(i64::try_from(fed.next).unwrap_or(i64::MAX));
            let added = new.add_partition_offset(&self.topic, *partition, offset);
            added.unwrap_or_else(|error| tracing::warn!(partition, %error, "no place to read from"));
        }
        if new.count() == 0 {
            return;
        }
        let sought = match self.consumer.seek_partitions(new, SEEK_WITHIN) {
            Ok(sought) => sought,
            Err(error) => return tracing::debug!(%error, "the places to read from are not set yet"),
        };
        let mut resumed = TopicPartitionList::new();
        // The others are only coming or going.
        for there in sought.elements().iter().filter(|element| element.error().is_ok()) {
            resumed.add_partition(&self.topic, there.partition());
        }
        if let Err(error) = self.consumer.resume(&resumed) {
            return tracing::warn!(%error, partitions = resumed.count(), "partitions could not be resumed yet");
        }
        for element in resumed.elements() {
            if let Some(fed) = self.shards.get_mut(&element.partition()) {
                (fed.unsought, fed.paused, fed.read_at) = (false, false, Instant::now());
            }
        }
        self.wake(resumed);
    }

    /// Lets the client read partitions at once that were resumed.
    ///
    /// Its threads, one for each broker, sleep for up to a second while there is nothing to read. They wake when reading begins somewhere and not
    /// when it is resumed (librdkafka 2.12), but also when their brokers are to be asked something: where these partitions end, which nobody
    /// wants to know.
    fn wake(&self, mut resumed: TopicPartitionList) {
        if resumed.count() > 0 && resumed.set_all_offsets(Offset::End).is_ok() {
            drop(self.consumer.offsets_for_times(resumed, WAKE_WITHIN));
        }
    }

    /// Takes what has arrived.
    fn gather(&mut self) {
        let is_waiting = self.shards.values().any(|fed| !fed.waiting.is_empty() || fed.unsought);
        let is_changing = self.assigned.1.elapsed() < CHANGING;
        let consumer = Arc::clone(&self.consumer);
        let mut wait = if is_waiting || is_changing { POLL_SOON } else { POLL };
        for _ in 0..GATHER_MAX {
            // Whatever a poll gives is taken: the client will not give it again.
            match consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.note(&error),
                None => return,
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let offset = u64::try_from(message.offset()).unwrap_or_default();
        let Some(fed) = self.shards.get_mut(&message.partition()).filter(|_| message.topic() == self.topic) else { return };
        if offset < fed.next || fed.unsought {
            return;
        }
        self.feed.read(message, self.clock.now(), &mut fed.waiting);
        fed.next = offset + 1;
    }

    fn note(&self, error: &KafkaError) {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            let _ = self.events.send(GroupEvent::Fatal(error.to_string()));
        } else {
            tracing::warn!(%error, "reading requests");
        }
    }

    /// Hands on what was gathered, and pauses the partitions of shards that cannot keep up.
    fn hand_on(&mut self) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, fed) in &mut self.shards {
            if !fed.waiting.is_empty() {
                match fed.lane.try_send(std::mem::take(&mut fed.waiting)) {
                    Err(mpsc::error::TrySendError::Full(back)) => fed.waiting = back,
                    // A shard that is gone is stopped soon.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => fed.read_at = Instant::now(),
                }
            }
            let is_behind = fed.waiting.bytes() > WAITING_BYTES_MAX;
            if is_behind && !fed.paused {
                fed.paused = true;
                pause.add_partition(&self.topic, *partition);
            } else if fed.paused && !fed.unsought && fed.waiting.is_empty() {
                (fed.paused, fed.read_at) = (false, Instant::now());
                resume.add_partition(&self.topic, *partition);
            }
        }
        for (list, outcome) in [(&pause, self.consumer.pause(&pause)), (&resume, self.consumer.resume(&resume))] {
            if let Err(error) = outcome {
                tracing::warn!(%error, partitions = list.count(), "a partition could not be paused or resumed");
            }
        }
        self.wake(resume);
    }
}

#[cfg(test)]
mod tests;
