//! One shard on an engine: everything that is started for it, and how it ends.

use std::sync::Arc;
use std::time::Instant;

use ergate_actors::lane::lane;
use ergate_actors::log_writer::{Close, IntakeParts, Propose};
use ergate_actors::proposal::Proposal;
use ergate_actors::records::{Records, Source};
use ergate_actors::results::Results;
use ergate_events::log::Head;
use ergate_events::shard::BLOCK_BYTES_TARGET;
use ergate_events::state::State;
use tokio::sync::{mpsc, oneshot};

use super::logs::CAPACITY;
use super::open::Opening;
use super::settings::KafkaSettings;
use super::snapshots;
use crate::builder::Builder;
use crate::history;
use crate::runtime::StartError;
use crate::snapshots::Also;
use crate::wiring::{self, Figures, Parts, ShardSpec};

/// Batches of records that may wait for a shard.
const RECORDS_MAX: usize = 8;
/// Most blocks of a shard on their way to the brokers.
const BLOCKS_MAX: usize = 64;
/// Newest blocks that a shard keeps decoded; there are many shards.
const RECENT_BYTES: usize = 1 << 20;
/// Events between two snapshots of a shard: an engine without a copy folds at most so many from the topic, in about half a second.
const SNAPSHOT_EVERY_EVENTS: u64 = 500_000;

/// What opening a shard came to: the shard, where its records go, and from which offset on it needs them.
pub(super) type Outcome = Result<(Box<Parts>, mpsc::Sender<Records>, u64), StartError>;

/// Opens a shard and starts everything on it; answers with where its records go and from which offset on it needs them.
pub(super) async fn start(
    builder: Builder,
    settings: Arc<KafkaSettings>,
    opening: Opening,
    projectors: actix::ArbiterHandle,
    figures: Figures,
) -> Outcome {
    let (shard, place) = (opening.place.shard, opening.place.clone());
    let (dead_letters_partition, results_partition) = opening.beside;
    let began = Instant::now();
    let opened = tokio::task::spawn_blocking(move || opening.open()).await.map_err(|_| StartError::Panicked)??;
    figures.replays.record(began.elapsed());
    let offset = opened.state.work.source_next;
    let (topics, reader) = (settings.topics(), place.reader(&settings));
    let results = Some((topics.results.clone(), results_partition));
    let (records, record_lane) = lane(RECORDS_MAX);
    let intake = (shard != CAPACITY).then(|| IntakeParts {
        records: record_lane,
        place: Source {
            requests: topics.requests,
            partition: i32::from(shard.0),
            dead_letters: topics.dead_letters,
            dead_letters_partition,
        },
        results: Results::new(settings.results.then_some(topics.results), results, settings.reply_topics(), &opened.state),
        tasks_live_max: builder.tasks_live_max,
        // From the topic, for the copy here may begin behind them.
        ends: Arc::new(move |tasks| history::outcomes_of(&reader, tasks)),
    });
    let (pace, recent_bytes) = (settings.batch_time, RECENT_BYTES);
    let uploads = Arc::clone(&settings);
    let snapshots_also: Also = Arc::new(move |state: &State, head: &Head| snapshots::save(&uploads, &place, head, state));
    let spec = ShardSpec {
        id: shard,
        opened,
        intake,
        pace,
        in_flight_max: (settings.batch_bytes / BLOCK_BYTES_TARGET).clamp(1, BLOCKS_MAX),
        snapshot_every: Some(settings.snapshot_every),
        recent_bytes,
        projectors: Some(projectors),
        snapshots_also: Some(snapshots_also),
        executes: shard != CAPACITY,
        figures,
    };
    let mut builder = builder;
    builder.snapshot_every_events = builder.snapshot_every_events.min(SNAPSHOT_EVERY_EVENTS);
    let parts = wiring::shard(&builder, spec).await?;
    Ok((Box::new(parts), records, offset))
}

/// Ends a shard here; first returns what runs to the queue where that can still be committed. `quiet` is told, or dropped, as soon as nothing
/// more will be committed.
pub(super) async fn close(parts: &Parts, give_back: bool, quiet: oneshot::Sender<()>) {
    // The log of pools has no replicas of its own to give back.
    if give_back && parts.shard != CAPACITY {
        let (reply, answer) = oneshot::channel();
        if parts.writer.send(Propose { proposal: Proposal::GiveBack, reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
    let (reply, closed) = oneshot::channel();
    if parts.writer.send(Close { quiet, reply }).await.is_ok() {
        match closed.await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!(shard = %parts.shard, %error, "a shard's log was not closed well"),
        }
    }
    // Whoever has the place next writes indexes of its own; what is missing in these is built there.
    if let Some(indexer) = parts.indexer.clone()
        && tokio::task::spawn_blocking(move || indexer.end()).await.is_err()
    {
        tracing::error!(shard = %parts.shard, "building the indexes panicked");
    }
}
