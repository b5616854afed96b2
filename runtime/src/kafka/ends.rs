//! Where the partitions of the shards end that are led here, asked beside everything else, now and then: for the lag among the figures, and to
//! see that this engine is handed what is there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

use super::settings::KafkaSettings;

/// How often the brokers are asked: Prometheus asks every 15 s or so, and a shard costs them six requests.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether the engine is gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the brokers may take to tell where a partition ends.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Where the partitions of each shard ended that was led here when it was asked, and the clients that ask.
#[derive(Default)]
pub(crate) struct Ends {
    found: Mutex<BTreeMap<ShardId, End>>,
    clients: Mutex<Option<Arc<Clients>>>,
}

/// Where the partitions of a shard end.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read all of it"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The offset after the last request record.
    pub(crate) requests: u64,
    /// Offsets at the end of its events that an open transaction keeps from readers, where that could be asked.
    pub(crate) unstable: Option<u64>,
}

/// Who asks: one that sees only what is decided, and one that sees everything.
struct Clients {
    decided: BaseProducer,
    all: BaseConsumer,
}

/// Where a partition is undecided: from the first offset on and before the second; empty where both are the same.
pub(super) type Undecided = Range<i64>;

impl Ends {
    /// Asks about the shards that are led, on a thread of its own, for as long as somebody has the ends.
    pub(super) fn follow<Led>(settings: Arc<KafkaSettings>, led: Led) -> std::io::Result<Arc<Ends>>
    where
        Led: Fn() -> Vec<ShardId> + Send + 'static,
    {
        let ends = Arc::new(Ends::default());
        let told = Arc::downgrade(&ends);
        std::thread::Builder::new().name("ergate-ends".to_owned()).spawn(move || follow(&settings, led, &told))?;
        Ok(ends)
    }

    /// Where the partitions of a shard ended, once that is known.
    pub(crate) fn get(&self, shard: ShardId) -> Option<End> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).copied()
    }

    /// Which offsets at the end of a partition are not decided. Blocks.
    pub(super) fn undecided(&self, settings: &KafkaSettings, topic: &str, partition: i32) -> Result<Undecided, KafkaError> {
        self.ask(settings, |clients| clients.undecided(topic, partition))
    }

    /// Asks. Clients that failed are not kept: after a broker went away one answered for as long as it was there that a partition, which all
    /// others saw, did not exist.
    fn ask<T>(
        &self,
        settings: &KafkaSettings,
        question: impl FnOnce(&Clients) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        let clients = self.clients(settings)?;
        question(&clients).inspect_err(|_| {
            let mut kept = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            drop(kept.take_if(|kept| Arc::ptr_eq(kept, &clients)));
        })
    }

    fn clients(&self, settings: &KafkaSettings) -> Result<Arc<Clients>, KafkaError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        match &*clients {
            Some(clients) => Ok(Arc::clone(clients)),
            None => Ok(Arc::clone(clients.insert(Arc::new(Clients::new(settings)?)))),
        }
    }
}

fn follow(settings: &KafkaSettings, led: impl Fn() -> Vec<ShardId>, told: &Weak<Ends>) {
    let mut asked = None::<Instant>;
    while told.strong_count() > 0 {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            let Some(ends) = told.upgrade() else { return };
            let found = ask(settings, &led(), &ends);
            let found = found.map_err(|error| tracing::debug!(%error, "where requests end is not known")).unwrap_or_default();
            *ends.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks for the ends of these shards.
fn ask(settings: &KafkaSettings, led: &[ShardId], ends: &Ends) -> Result<BTreeMap<ShardId, End>, KafkaError> {
    if led.is_empty() {
        return Ok(BTreeMap::new());
    }
    let topics = settings.topics();
    let end = |clients: &Clients, shard: ShardId| {
        let partition = i32::from(shard.0);
        let (_, requests) = clients.decided.client().fetch_watermarks(&topics.requests, partition, ASK_WITHIN)?;
        let requests = u64::try_from(requests).unwrap_or_default();
        let undecided = clients.undecided(&topics.events, partition).ok();
        let unstable = undecided.map(|undecided| u64::try_from(undecided.end - undecided.start).unwrap_or_default());
        Ok((shard, End { requests, unstable }))
    };
    ends.ask(settings, |clients| led.iter().map(|shard| end(clients, *shard)).collect())
}

impl Clients {
    fn new(settings: &KafkaSettings) -> Result<Clients, KafkaError> {
        let mut all = settings.client("ends");
        all.set("group.id", settings.group()).set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
        Ok(Clients { decided: settings.client("ends").create()?, all: all.create()? })
    }

    fn undecided(&self, topic: &str, partition: i32) -> Result<Undecided, KafkaError> {
        let (_, stable) = self.decided.client().fetch_watermarks(topic, partition, ASK_WITHIN)?;
        let (_, all) = self.all.fetch_watermarks(topic, partition, ASK_WITHIN)?;
        Ok(stable..all)
    }
}
