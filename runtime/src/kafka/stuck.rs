//! Finds out that an engine reads no more although there is more to read.
//!
//! The client library can come to a state in which a member of the group keeps its partitions and is handed nothing of them, for ever: its
//! memory of which broker leads a partition can be wrong in a way that nothing corrects (librdkafka issues 5430 and 5593, open). Nobody else
//! reads those partitions meanwhile. So a partition that has been quiet for a while and ends further on is read by another client, and where
//! that one finds a record that the member was not handed, twice, the engine joins the group anew with a client that has no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Listener;
use super::ends::Ends;
use super::settings::KafkaSettings;

/// How long a partition is quiet before somebody else looks. A broker that comes back is found by the member itself within a second or two.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// How long the brokers may take to answer whoever looks; then nothing is known, and it is looked again later.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A partition of which nothing was read for a while, and the record that would be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) shard: ShardId,
    pub(super) next: u64,
}

impl Quiet {
    fn partition(self) -> i32 {
        i32::from(self.shard.0)
    }
}

/// Looks after quiet partitions.
pub(super) struct Watch {
    settings: Arc<KafkaSettings>,
    ends: Arc<Ends>,
    quiet_for: Duration,
    looked: Instant,
    /// A look that is on its way, on a thread of its own.
    looking: Option<JoinHandle<Found>>,
    /// Where partitions ended when there was no record behind what was read: the ends of transactions have offsets too.
    empty: BTreeMap<ShardId, u64>,
    /// What was found unread when it was looked last.
    suspects: Vec<Quiet>,
}

impl Watch {
    /// A partition is looked at when it was quiet for so long.
    pub(super) fn new(settings: Arc<KafkaSettings>, ends: Arc<Ends>, quiet_for: Duration) -> Watch {
        let (looked, empty, suspects) = (Instant::now(), BTreeMap::new(), Vec::new());
        Watch { settings, ends, quiet_for, looked, looking: None, empty, suspects }
    }

    /// Whether a partition that was last read from at this time is quiet.
    pub(super) fn is_quiet(&self, read_at: Instant) -> bool {
        read_at.elapsed() >= self.quiet_for
    }

    /// What must have been read by now and was not, given what is quiet; `quiet` is asked only when it is time to look. Does not block.
    pub(super) fn look(&mut self, quiet: impl Fn(&Watch) -> Vec<Quiet>) -> Vec<Quiet> {
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            let found = looking.join().unwrap_or_default();
            self.empty.extend(found.empty);
            let quiet = quiet(self);
            return self.judge(found.unread, &quiet);
        }
        if self.looking.is_none() && self.looked.elapsed() >= self.quiet_for / 2 {
            self.looked = Instant::now();
            let behind = self.behind(quiet(self));
            if behind.is_empty() {
                self.suspects.clear();
            } else {
                self.read(behind);
            }
        }
        Vec::new()
    }

    /// Those that end further on, and where.
    fn behind(&self, quiet: Vec<Quiet>) -> Vec<(Quiet, u64)> {
        let ended = |place: Quiet| self.ends.get(place.shard).map(|end| (place, end.requests));
        let is_behind = |(place, end): &(Quiet, u64)| *end > place.next && self.empty.get(&place.shard) != Some(end);
        quiet.into_iter().filter_map(ended).filter(is_behind).collect()
    }

    /// Has them read by a client without any memory.
    fn read(&mut self, behind: Vec<(Quiet, u64)>) {
        let settings = Arc::clone(&self.settings);
        let read = move || {
            read(&settings, &behind).unwrap_or_else(|error| {
                tracing::warn!(%error, ?behind, "partitions that are quiet could not be looked at");
                Found::default()
            })
        };
        let looking = std::thread::Builder::new().name("ergate-stuck".to_owned()).spawn(read);
        self.looking = looking.map_err(|error| tracing::warn!(%error, "no thread to look at quiet partitions")).ok();
    }

    /// What was unread when it was looked before, is so again, and was not read since: one look may come right before the member reads.
    fn judge(&mut self, unread: Vec<Quiet>, quiet: &[Quiet]) -> Vec<Quiet> {
        let still: Vec<Quiet> = unread.into_iter().filter(|place| quiet.contains(place)).collect();
        let stuck = still.iter().filter(|place| self.suspects.contains(place)).copied().collect();
        self.suspects = still;
        stuck
    }
}

/// What was found by reading.
#[derive(Default)]
struct Found {
    /// Places with a record at or behind them.
    unread: Vec<Quiet>,
    /// Where partitions ended that have none.
    empty: Vec<(ShardId, u64)>,
}

/// Reads from these places on, with a client of its own.
fn read(settings: &KafkaSettings, behind: &[(Quiet, u64)]) -> KafkaResult<Found> {
    let topic = settings.topics().requests;
    let mut list = TopicPartitionList::new();
    for (place, _) in behind {
        let offset = Offset::Offset(i64::try_from(place.next).unwrap_or(i64::MAX));
        list.add_partition_offset(&topic, place.partition(), offset)?;
    }
    let mut config = settings.clients.reader(&settings.url);
    // A place that the topic does not have is an error here, not a reason to go on elsewhere.
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
    let client = BaseConsumer::from_config_and_context(&config, Listener::default())?;
    client.assign(&list)?;
    let (until, mut found, mut over) = (Instant::now() + ANSWER_WITHIN, BTreeSet::new(), BTreeSet::new());
    while Instant::now() < until && found.len() + over.len() < behind.len() {
        match client.poll(POLL) {
            Some(Ok(message)) => drop(found.insert(message.partition())),
            // Only who has come to the end knows that there is nothing before it.
            Some(Err(KafkaError::PartitionEOF(partition))) if !found.contains(&partition) => drop(over.insert(partition)),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(error),
        }
    }
    let unread = behind.iter().map(|(place, _)| *place).filter(|place| found.contains(&place.partition())).collect();
    let empty =
        behind.iter().filter(|(place, _)| over.contains(&place.partition())).map(|(place, end)| (place.shard, *end)).collect();
    Ok(Found { unread, empty })
}
