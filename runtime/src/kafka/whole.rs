//! What all shards have of each pool, for whoever decides about sizes: read from their logs, whichever engines lead them.
//!
//! Nobody tells anybody anything. The logs say what is ready, what runs and which replicas there are, the requests say what nobody has read yet, and
//! the group says who speaks for a shard. A shard for which nobody does is missing, and its numbers are not taken for those of now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ergate_actors::autoscaler::sight::{AllShards, Seen, Sight};
use ergate_actors::log_writer::SizedPool;
use ergate_events::block::Block;
use ergate_events::event::{Event, ShardReading};
use ergate_events::id::{Position, ShardId};
use ergate_events::log::kafka::{Extent, KafkaReader, KafkaTail};
use ergate_events::log::{Cursor, LogError, LogReader};
use ergate_events::slab::Phase;
use ergate_events::state::State;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::view::Tally;
use ergate_events::view::tally::{PHASES, TypeTally};
use rdkafka::producer::{BaseProducer, Producer};
use tokio::sync::watch;

use super::copy::Place;
use super::peers::{self, Leader, Leaders};
use super::settings::KafkaSettings;
use super::snapshots;
use crate::store::RecoverError;

/// How often the brokers are asked who leads what, and where the requests end.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long they may take to tell where a partition ends.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How often a thread that has nothing to do looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the brokers are left alone after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So many session timeouts after it was heard last a shard is silent: one that moves to another engine comes back before that.
const SILENT_TIMEOUTS: u32 = 2;
/// Shards that are folded at one time when this begins.
const BEGIN_AT_ONCE: usize = 8;
/// Silent shards that are named.
const NAMED_MAX: usize = 8;

/// Sees the pools of all shards.
pub(super) struct Whole(Arc<Shared>);

struct Shared {
    settings: Arc<KafkaSettings>,
    place: Box<dyn Fn(ShardId) -> Place + Send + Sync>,
    shards: u16,
    silent_after: Duration,
    is_wanted: AtomicBool,
    has_ended: AtomicBool,
    known: Mutex<Known>,
    moved: watch::Sender<()>,
}

/// What is known of the shards.
#[derive(Default)]
struct Known {
    shards: BTreeMap<ShardId, Shard>,
    /// Since when somebody wants to know.
    since: Option<Instant>,
    leaders: Option<Leaders>,
    /// Where the requests of each shard end.
    ends: Option<BTreeMap<ShardId, u64>>,
    /// Up to where each was when that was recorded last.
    told: BTreeMap<ShardId, Position>,
}

/// What is known of one shard.
struct Shard {
    tally: Tally,
    /// What was counted of each pool before the tally began anew.
    counted: BTreeMap<String, Seen>,
    /// When somebody was last known to speak for it.
    heard: Instant,
    /// Who that was.
    leader: Option<Leader>,
    /// How often the log was taken over, and how often when its leader was found.
    openings: u64,
    found_at: u64,
}

impl Whole {
    /// Begins to read as soon as somebody wants to know, and ends when nobody has this any more; tells when what is known has changed.
    ///
    /// # Errors
    /// When there are no threads.
    pub(super) fn start(
        settings: &Arc<KafkaSettings>,
        place: impl Fn(ShardId) -> Place + Send + Sync + 'static,
        shards: u16,
    ) -> std::io::Result<(Whole, watch::Receiver<()>)> {
        let (moved, moves) = watch::channel(());
        let shared = Arc::new(Shared {
            settings: Arc::clone(settings),
            place: Box::new(place),
            shards,
            silent_after: settings.clients.session_timeout * SILENT_TIMEOUTS,
            is_wanted: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            known: Mutex::default(),
            moved,
        });
        let whole = Whole(Arc::clone(&shared));
        let asking = Arc::clone(&shared);
        std::thread::Builder::new().name("ergate-whole".to_owned()).spawn(move || shared.run())?;
        std::thread::Builder::new().name("ergate-asks".to_owned()).spawn(move || asking.ask_on())?;
        Ok((whole, moves))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }
}

impl Sight for Whole {
    fn look(&self, pool: &SizedPool) -> Option<Seen> {
        self.0.known().look(&pool.name, self.0.shards, self.0.silent_after)
    }

    fn shards(&self) -> Vec<ShardReading> {
        self.0.known().readings()
    }

    fn want(&self, is_wanted: bool) {
        if self.0.is_wanted.swap(is_wanted, Ordering::Relaxed) != is_wanted {
            *self.0.known() = Known { since: is_wanted.then(Instant::now), ..Known::default() };
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        // What is read again after a panic is the same.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed) && !self.has_ended()
    }

    /// Follows the logs of all shards whenever somebody wants to know.
    fn run(&self) {
        while !self.has_ended() {
            if !self.is_wanted() {
                std::thread::sleep(LOOK_EVERY);
            } else if let Err(error) = self.follow() {
                tracing::warn!(
                    error = super::describe(&error),
                    "the logs of the shards cannot be followed; pools are sized by what was seen last"
                );
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    }

    fn follow(&self) -> Result<(), RecoverError> {
        let ends = self.begin()?;
        let mut tail = KafkaTail::new(&ends)?;
        while self.is_wanted() {
            let Some(block) = tail.next_block()? else { continue };
            if self.known().fold(&block)? {
                self.moved.send_replace(());
            }
        }
        Ok(())
    }

    /// Folds every shard to its end, and gives the places where they go on.
    fn begin(&self) -> Result<Vec<(KafkaReader, Extent)>, RecoverError> {
        let began = Instant::now();
        let all: Vec<ShardId> = (0..self.shards).map(ShardId).collect();
        let mut ends = Vec::with_capacity(all.len());
        for some in all.chunks(BEGIN_AT_ONCE) {
            let begun: Vec<_> = std::thread::scope(|scope| {
                let each = |shard: &ShardId| {
                    let place = (self.place)(*shard);
                    scope.spawn(move || begin_at(&self.settings, &place))
                };
                let threads: Vec<_> = some.iter().map(each).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            for begun in begun {
                let (reader, extent, state) = begun?;
                self.known().take(reader.shard(), &state);
                ends.push((reader, extent));
            }
        }
        self.moved.send_replace(());
        tracing::info!(shards = self.shards, all_ms = began.elapsed().as_millis(), "what all shards have is known here");
        Ok(ends)
    }

    /// Asks the brokers again and again who leads what, and where the requests end.
    fn ask_on(&self) {
        let (client, mut asked) = (Mutex::new(None), None::<Instant>);
        while !self.has_ended() {
            if self.is_wanted() && asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
                asked = Some(Instant::now());
                if let Err(error) = self.ask(&client) {
                    tracing::debug!(error, "who leads the shards is not known");
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn ask(&self, client: &Mutex<Option<BaseProducer>>) -> Result<(), String> {
        let before = self.known().leaders.clone();
        let leaders = peers::ask_leaders(&self.settings, client, before.as_ref())?;
        self.known().hear(leaders);
        let topic = self.settings.topics().requests;
        let client = client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = client.as_ref() else { return Ok(()) };
        let end = |shard: u16| {
            let (_, end) = client.client().fetch_watermarks(&topic, i32::from(shard), ASK_WITHIN)?;
            Ok((ShardId(shard), u64::try_from(end).unwrap_or_default()))
        };
        let ends: Result<BTreeMap<ShardId, u64>, rdkafka::error::KafkaError> = (0..self.shards).map(end).collect();
        self.known().ends = ends.as_ref().ok().cloned();
        ends.map(drop).map_err(|error| error.to_string())
    }
}

/// Folds a shard to its end, from the newest snapshot on the topic. Blocks.
fn begin_at(settings: &KafkaSettings, place: &Place) -> Result<(KafkaReader, Extent, State), RecoverError> {
    let reader = place.reader(settings).patient();
    let extent = reader.extent()?;
    let image = snapshots::load(settings, place)?.and_then(|base| {
        let read = State::decode(&base.image);
        read.inspect_err(|error| tracing::warn!(shard = %place.shard, %error, "a snapshot was skipped")).ok()
    });
    let mut state = image.unwrap_or_default();
    let mut cursor = reader.cursor(state.position)?;
    while state.position < extent.span.next {
        let Some(block) = cursor.next_block()? else { break };
        for record in block.records() {
            let record = record.map_err(|source| damaged(place, state.position, source))?;
            if record.position >= state.position {
                state.apply(&record);
            }
        }
    }
    drop(cursor);
    Ok((reader, extent, state))
}

fn damaged(place: &Place, at: Position, source: ergate_events::block::BlockError) -> LogError {
    LogError::Damaged { at, path: place.topic.0.clone().into(), offset: 0, source }
}

impl Known {
    /// Begins with the state of a shard; what was counted before stays counted.
    fn take(&mut self, id: ShardId, state: &State) {
        let (tally, openings) = (Tally::of(state), u64::from(state.epoch.0));
        match self.shards.get_mut(&id) {
            Some(shard) => {
                let pools: std::collections::BTreeSet<&str> = shard.tally.types.iter().map(|known| known.pool.as_str()).collect();
                for pool in pools {
                    let kept = shard.counted.entry(pool.to_owned()).or_default();
                    let mut more = Seen::default();
                    more.add(id, pool, &shard.tally);
                    count(kept, &more);
                }
                (shard.tally, shard.openings) = (tally, openings);
            }
            None => {
                let (counted, heard, leader) = (BTreeMap::new(), Instant::now(), None);
                self.shards.insert(id, Shard { tally, counted, heard, leader, openings, found_at: openings });
            }
        }
    }

    /// Folds a block; says whether it was one of a shard that is known.
    fn fold(&mut self, block: &Block) -> Result<bool, LogError> {
        let Some(shard) = self.shards.get_mut(&block.header.shard) else { return Ok(false) };
        for record in block.records() {
            let record = record.map_err(|source| LogError::Damaged {
                at: block.header.first_position,
                path: "the topic of the events".into(),
                offset: 0,
                source,
            })?;
            if record.position >= shard.tally.position {
                shard.openings += u64::from(matches!(record.event, Event::Opened { .. }));
                shard.tally.apply(&record);
            }
        }
        Ok(true)
    }

    /// Notes who leads the shards. A new leader is heard as soon as it has opened the log: one that cannot speaks for nothing.
    fn hear(&mut self, leaders: Leaders) {
        let now = Instant::now();
        for (id, shard) in &mut self.shards {
            let Some(leader) = leaders.get(id) else { continue };
            if shard.leader.as_ref().is_none_or(|before| before == leader || shard.openings > shard.found_at) {
                if shard.leader.as_ref() != Some(leader) {
                    (shard.leader, shard.found_at) = (Some(leader.clone()), shard.openings);
                }
                shard.heard = now;
            }
        }
        self.leaders = Some(leaders);
    }

    /// What there is of a pool; `None` while shards are being read for the first time.
    fn look(&self, pool: &str, shards: u16, silent_after: Duration) -> Option<Seen> {
        let is_new = self.since.is_none_or(|since| since.elapsed() < silent_after);
        let is_whole = self.shards.len() == usize::from(shards);
        if !is_whole && is_new {
            return None;
        }
        let all = AllShards { work: vec![0; usize::from(shards)], ..AllShards::default() };
        let (mut seen, mut all, mut workers) = (Seen::default(), all, (0, 0));
        let (mut up, mut own_slots) = (0, 0);
        for (id, shard) in &self.shards {
            seen.add(*id, pool, &shard.tally);
            if let Some(kept) = shard.counted.get(pool) {
                count(&mut seen, kept);
            }
            let own = shard.tally.types.iter().filter(|known| known.pool == pool);
            let (ready, running) = own.fold((0, 0), |(ready, at_work), known| (ready + known.depth(), at_work + running(known)));
            (all.ready, all.running) = (all.ready + ready, all.running + running);
            if let Some(work) = all.work.get_mut(usize::from(id.0)) {
                *work = ready + running;
            }
            up += shard.tally.replicas().filter(|(known, phase)| *known == pool && *phase != ReplicaPhase::Requested).count();
            // A worker joins every shard, with all of its slots.
            let joined = shard.tally.workers(pool);
            let slots: u64 = shard.tally.slots().filter(|(known, _)| *known == pool).map(|(_, slots)| slots).sum();
            own_slots += slots - joined.1;
            workers = workers.max(joined);
        }
        all.up = u32::try_from(up + workers.0).unwrap_or(u32::MAX);
        all.slots = own_slots + workers.1;
        all.lag = self.ends.as_ref().map(|ends| self.shards.iter().map(|(id, shard)| lag(ends, *id, &shard.tally)).sum());
        all.silence = self.silence(shards, silent_after);
        seen.all = Some(all);
        Some(seen)
    }

    /// Which shards nobody speaks for. It says no span that grows: the same silence is the same reason.
    fn silence(&self, shards: u16, silent_after: Duration) -> Option<String> {
        let is_silent = |id: &ShardId| self.shards.get(id).is_none_or(|shard| shard.heard.elapsed() >= silent_after);
        let silent: Vec<String> = (0..shards).map(ShardId).filter(is_silent).map(|id| id.to_string()).collect();
        let (first, count) = (silent.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", "), silent.len());
        let more = count.checked_sub(NAMED_MAX).filter(|more| *more > 0).map(|more| format!(" and {more} more"));
        let (what, more) = (if count == 1 { "shard" } else { "shards" }, more.unwrap_or_default());
        (count > 0).then(|| format!("no engine speaks for {what} {first}{more} since {} s or longer", silent_after.as_secs()))
    }

    /// How far the shards are that have gone on since this was asked last.
    fn readings(&mut self) -> Vec<ShardReading> {
        let Known { shards, ends, told, .. } = self;
        let gone_on = shards.iter().filter(|(id, shard)| told.get(id) != Some(&shard.tally.position));
        let readings: Vec<ShardReading> = gone_on.map(|(id, shard)| reading(*id, &shard.tally, ends.as_ref())).collect();
        told.extend(readings.iter().map(|reading| (reading.shard, reading.position)));
        readings
    }
}

fn reading(shard: ShardId, tally: &Tally, ends: Option<&BTreeMap<ShardId, u64>>) -> ShardReading {
    let live: u64 = tally.types.iter().flat_map(|known| known.phases).sum();
    let running: u64 = tally.types.iter().map(running).sum();
    let lag = ends.map_or(0, |ends| lag(ends, shard, tally));
    ShardReading { shard, position: tally.position, waiting: live.saturating_sub(running), running, lag }
}

fn lag(ends: &BTreeMap<ShardId, u64>, shard: ShardId, tally: &Tally) -> u64 {
    ends.get(&shard).map_or(0, |end| end.saturating_sub(tally.source_next))
}

fn running(known: &TypeTally) -> u64 {
    let phases = PHASES.iter().zip(known.phases);
    phases.filter(|((phase, _), _)| matches!(phase, Phase::Running | Phase::Cancelling)).map(|(_, count)| count).sum()
}

/// Adds what was counted, and nothing that is there.
fn count(seen: &mut Seen, more: &Seen) {
    seen.totals.arrivals += more.totals.arrivals;
    seen.totals.runs.merge(&more.totals.runs);
    seen.totals.waits.merge(&more.totals.waits);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SILENT_AFTER: Duration = Duration::from_millis(40);

    fn known(shards: u16) -> Known {
        let mut known = Known { since: Some(Instant::now()), ..Known::default() };
        (0..shards).for_each(|shard| known.take(ShardId(shard), &State::default()));
        known
    }

    fn leaders(engines: &[&str]) -> Leaders {
        (0..).map(ShardId).zip(engines).map(|(shard, engine)| (shard, Leader::At((*engine).to_owned()))).collect()
    }

    fn silence(known: &Known) -> Option<String> {
        known.look("models", 3, SILENT_AFTER).unwrap().all.unwrap().silence
    }

    #[test]
    fn a_shard_that_nobody_leads_or_opens_is_silent_after_a_while_and_then_all_that_is_known_of_it_is_missing() {
        let mut known = known(3);
        known.hear(leaders(&["a", "b", "b"]));
        assert_eq!(silence(&known), None);
        // Nobody has the last one any more, and the second went to an engine that has not opened it.
        std::thread::sleep(SILENT_AFTER);
        known.hear(leaders(&["a", "c"]));
        assert_eq!(silence(&known).as_deref(), Some("no engine speaks for shards 1, 2 since 0 s or longer"));
        known.shards.get_mut(&ShardId(1)).unwrap().openings += 1;
        known.hear(leaders(&["a", "c"]));
        assert_eq!(silence(&known).as_deref(), Some("no engine speaks for shard 2 since 0 s or longer"));
        // Its engine comes back, and had never lost it.
        known.hear(leaders(&["a", "c", "b"]));
        assert_eq!(silence(&known), None);
        // Brokers that tell nothing make all of them silent.
        std::thread::sleep(SILENT_AFTER);
        assert_eq!(silence(&known).as_deref(), Some("no engine speaks for shards 0, 1, 2 since 0 s or longer"));
    }

    #[test]
    fn nothing_is_seen_before_every_shard_is_and_what_is_missing_for_long_is_said() {
        let known = known(2);
        assert!(known.look("models", 3, SILENT_AFTER).is_none());
        std::thread::sleep(SILENT_AFTER);
        let said = known.look("models", 3, SILENT_AFTER).unwrap().all.unwrap().silence;
        assert_eq!(said.as_deref(), Some("no engine speaks for shards 0, 1, 2 since 0 s or longer"));
    }

    #[test]
    fn what_was_counted_stays_when_a_shard_is_read_anew_and_only_what_went_on_is_told() {
        let mut known = known(2);
        let shard = known.shards.get_mut(&ShardId(1)).unwrap();
        let mut job = TypeTally::default();
        job.pool = "models".to_owned();
        (job.counts.requests, job.phases[3], job.phases[4]) = (7, 2, 5);
        shard.tally.types.push(job);
        shard.tally.source_next = 10;
        known.ends = Some([(ShardId(0), 0), (ShardId(1), 14)].into());
        let seen = known.look("models", 2, SILENT_AFTER).unwrap();
        let all = seen.all.unwrap();
        assert_eq!((seen.totals.arrivals, all.running, all.lag, all.work.len()), (7, 5, Some(4), 2));
        let told: BTreeSet<(u16, u64, u64, u64)> =
            known.readings().iter().map(|told| (told.shard.0, told.waiting, told.running, told.lag)).collect();
        assert_eq!(told, [(0, 0, 0, 0), (1, 2, 5, 4)].into());
        assert!(known.readings().is_empty(), "none has gone on");
        known.take(ShardId(1), &State::default());
        let seen = known.look("models", 2, SILENT_AFTER).unwrap();
        assert_eq!((seen.totals.arrivals, seen.all.unwrap().running), (7, 0));
    }
}
