//! Pools and their sizes: decided by the owner of the capacity log, followed by every engine.
//!
//! What the owner knows of the shards when it decides is an event there, with the position of each shard that it had seen; what an engine
//! does about a decision names the decision's position. So work and capacity have one causal order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use ergate_actors::log_writer::{CopyState, LogWriter, Propose};
use ergate_actors::proposal::Proposal;
use ergate_events::event::{PoolMode, ShardReading};
use ergate_events::id::{PoolId, Position, ShardId};
use ergate_events::log::LogReader;
use ergate_events::sharing::even_part;
use ergate_events::state::State;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use tokio::sync::{oneshot, watch};

use super::copy::Place;
use super::logs::CAPACITY;
use super::settings::KafkaSettings;
use crate::wiring::Parts;

/// How long the thread leaves the brokers alone after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the brokers may take to tell where a partition ends.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// The sizes and modes of pools, and the position up to which the capacity log was read for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pools {
    pub(crate) at: Position,
    /// Replicas and slots of each, by name.
    pub(crate) sizes: BTreeMap<String, (u32, u32)>,
    /// Whether each starts tasks, by name.
    pub(crate) modes: BTreeMap<String, PoolMode>,
    /// Those that a policy sizes: all shards together have their replicas, each its part, by number; nothing is there before anything was seen of the
    /// pool. Of the others each shard has as many.
    pub(crate) sized: BTreeMap<String, Vec<u32>>,
}

impl Pools {
    /// How many replicas a shard has of a pool that a policy sizes.
    pub(crate) fn part(&self, pool: &str, shard: ShardId, shards: u16) -> u32 {
        let size = self.sizes.get(pool).map_or(0, |(size, _)| *size);
        let parts = self.sized.get(pool).filter(|parts| parts.len() == usize::from(shards));
        match parts {
            // Nothing is shared out of a pool that sleeps.
            _ if size == 0 => 0,
            Some(parts) => parts.get(usize::from(shard.0)).copied().unwrap_or_default(),
            None => even_part(pool, size, shard, shards),
        }
    }
}

/// Follows the capacity log; ends when nobody looks at what it tells.
pub(crate) fn follow(settings: Arc<KafkaSettings>, place: Place, ended: Arc<AtomicBool>) -> watch::Receiver<Pools> {
    let (tell, pools) = watch::channel(Pools::default());
    let spawned = std::thread::Builder::new().name("ergate-capacity".to_owned()).spawn(move || {
        let mut state = State::default();
        while !ended.load(Ordering::Relaxed) {
            if let Err(error) = read_on(&settings, &place, &mut state, &tell, &ended) {
                tracing::warn!(error = super::describe(&error), "the sizes of pools cannot be followed");
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "nothing follows the sizes of pools");
    }
    pools
}

fn read_on(
    settings: &KafkaSettings,
    place: &Place,
    state: &mut State,
    tell: &watch::Sender<Pools>,
    ended: &AtomicBool,
) -> Result<(), ergate_events::log::LogError> {
    let mut cursor = place.reader(settings).patient().cursor(state.position)?;
    while !ended.load(Ordering::Relaxed) {
        let Some(block) = cursor.next_block()? else { continue };
        for record in block.records() {
            let record = record.map_err(|source| ergate_events::log::LogError::Damaged {
                at: state.position,
                path: place.topic.0.clone().into(),
                offset: 0,
                source,
            })?;
            if record.position >= state.position {
                state.apply(&record);
            }
        }
        let control = &state.control;
        let sizes = control.pools.iter().map(|pool| (pool.name.clone(), (pool.replicas, pool.slots))).collect();
        let modes = (0..).map(PoolId).zip(&control.pools).map(|(id, pool)| (pool.name.clone(), control.mode(id))).collect();
        let known = |id: PoolId, name: &String| Some((name.clone(), control.scaling.get(&id)?.parts.clone()));
        let sized = (0..).map(PoolId).zip(&control.pools).filter_map(|(id, pool)| known(id, &pool.name)).collect();
        tell.send_if_modified(|pools: &mut Pools| {
            let changed = (&pools.sizes, &pools.modes, &pools.sized) != (&sizes, &modes, &sized);
            if changed {
                *pools = Pools { at: state.position, sizes, modes, sized };
            }
            changed
        });
    }
    Ok(())
}

/// How far each shard is, as far as this engine knows: what it leads, and what it keeps warm.
#[derive(Clone, Default)]
pub(crate) struct Readings(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    now: BTreeMap<ShardId, ShardReading>,
    /// Positions when somebody asked whether they had changed.
    asked: BTreeMap<ShardId, Position>,
}

impl Readings {
    /// Notes a state.
    pub(crate) fn note(&self, shard: ShardId, state: &State) {
        let running: usize = state.work.replicas.iter().map(|(_, replica)| replica.used()).sum();
        let live = state.work.tasks.len();
        let waiting = live.saturating_sub(running) as u64;
        let reading =
            ShardReading { shard, position: state.position, waiting, running: running as u64, lag: state.work.source_next };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now.insert(shard, reading);
    }

    /// Whether any shard has gone on since this was last asked.
    fn changed(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = known.now.values().map(|reading| (reading.shard, reading.position)).collect();
        let before = std::mem::replace(&mut known.asked, positions);
        before != known.asked
    }

    /// Everything noted; `ends` are the ends of the partitions of requests, which what was read so far is taken off from.
    pub(crate) fn all(&self, ends: &BTreeMap<ShardId, u64>) -> Vec<ShardReading> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = |reading: &ShardReading| ends.get(&reading.shard).map_or(0, |end| end.saturating_sub(reading.lag));
        known.now.values().map(|reading| ShardReading { lag: lag(reading), ..*reading }).collect()
    }
}

/// Records how far the shards are, unless nothing has changed since the last time.
pub(crate) async fn observe(
    writer: &Addr<LogWriter>,
    led: Vec<Parts>,
    readings: &Readings,
    settings: Arc<KafkaSettings>,
    shards: u16,
) {
    for parts in led.iter().filter(|parts| parts.shard != CAPACITY) {
        if let Ok(state) = parts.writer.send(CopyState).await {
            readings.note(parts.shard, &state);
        }
    }
    if !readings.changed() {
        return;
    }
    let Ok(Ok(ends)) = tokio::task::spawn_blocking(move || ends(&settings, shards)).await else { return };
    let (reply, _) = oneshot::channel();
    // The next time comes soon enough where this is not taken.
    let _ = writer.try_send(Propose { proposal: Proposal::ObserveShards(readings.all(&ends)), reply });
}

/// Where the partitions of the requests end. Blocks.
fn ends(settings: &KafkaSettings, shards: u16) -> Result<BTreeMap<ShardId, u64>, KafkaError> {
    let client: BaseProducer = settings.client("capacity").create()?;
    let topic = settings.topics().requests;
    let end = |shard: u16| {
        let (_, end) = client.client().fetch_watermarks(&topic, i32::from(shard), ASK_WITHIN)?;
        Ok((ShardId(shard), u64::try_from(end).unwrap_or_default()))
    };
    (0..shards).map(end).collect()
}
