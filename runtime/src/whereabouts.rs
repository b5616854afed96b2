//! Where shards are led: here, or by another engine that can be asked over HTTP.

use std::sync::Arc;
use std::time::Instant;

use ergate_events::id::ShardId;
use ergate_events::log::index::TaskIndex;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{LogError, LogReader};
use ergate_events::state::State;

use crate::runtime::{Front, Runtime};
use crate::task::WaitError;
use crate::wiring::{Parts, no_index};

/// Who can answer for a shard.
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "without Kafka everything is here"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// This process.
    Here,
    /// An engine that is reached at this address.
    At(String),
    /// An engine that serves no HTTP.
    Silent,
    /// No engine, for a moment.
    Nowhere,
}

/// What is kept here of a shard that is led here.
pub(crate) struct Kept {
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) index: Arc<TaskIndex>,
    pub(crate) snapshots: Option<SnapshotStore>,
}

impl Runtime {
    /// How many shards with tasks there are.
    pub(crate) fn shards(&self) -> u16 {
        match self.front() {
            Front::Local(_) => 1,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.shards,
        }
    }

    /// Whether a shard is led here now.
    pub(crate) fn leads(&self, shard: ShardId) -> bool {
        self.led(shard, |_| ()).is_some()
    }

    /// Where other engines reach this one.
    pub(crate) fn address(&self) -> Option<&str> {
        match self.front() {
            Front::Local(_) => None,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.peers.own(),
        }
    }

    /// Where the engines of the group are reached, this one first; none where there is only this one, or nobody can reach it.
    ///
    /// # Errors
    /// Why the brokers do not tell.
    #[cfg(feature = "http")]
    pub(crate) async fn engines(&self) -> Result<Vec<String>, String> {
        match self.front() {
            Front::Local(_) => Ok(Vec::new()),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => {
                let Some(own) = engine.peers.own() else { return Ok(Vec::new()) };
                let all = engine.peers.addresses().await?;
                let others = all.iter().filter(|url| *url != own).cloned();
                Ok(std::iter::once(own.to_owned()).chain(others).collect())
            }
        }
    }

    /// Who can answer for a shard; what is known of the others is a moment old, but not older than `wrong_at`, when it was found to be wrong.
    ///
    /// # Errors
    /// Why the brokers do not tell.
    pub(crate) async fn whereabouts(&self, shard: ShardId, wrong_at: Option<Instant>) -> Result<Whereabouts, String> {
        if self.leads(shard) {
            return Ok(Whereabouts::Here);
        }
        match self.front() {
            Front::Local(_) => {
                let _ = wrong_at;
                Ok(Whereabouts::Nowhere)
            }
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => Ok(match engine.peers.leaders(wrong_at).await?.get(&shard) {
                Some(crate::kafka::Leader::At(address)) => Whereabouts::At(address.clone()),
                Some(crate::kafka::Leader::Silent) => Whereabouts::Silent,
                None => Whereabouts::Nowhere,
            }),
        }
    }

    /// What is kept here of a shard; `None` where another engine leads it.
    pub(crate) fn kept(&self, shard: ShardId) -> Option<Kept> {
        self.led(shard, |parts| Kept {
            reader: Arc::clone(&parts.reader),
            index: Arc::clone(&parts.index),
            snapshots: parts.snapshots.clone(),
        })
    }

    /// The log of a shard from its very beginning, where what is kept here may begin later: read from its topic, without indexes. Blocks.
    ///
    /// # Errors
    /// What the log meets.
    pub(crate) fn whole_log(&self, shard: ShardId) -> Result<Option<Kept>, LogError> {
        let Some(reader) = self.reader_of(shard).filter(|_| self.is_on_kafka()) else { return Ok(None) };
        let index = no_index(&reader)?;
        Ok(Some(Kept { reader, index, snapshots: None }))
    }

    /// A copy of the state of a shard that is led here, of which everything is durable, so that it may be told.
    ///
    /// # Errors
    /// [`WaitError::LedElsewhere`]; [`WaitError::Stopped`] also when the log failed before.
    pub(crate) async fn durable_state_of(&self, shard: ShardId) -> Result<Box<State>, WaitError> {
        let parts = self.led(shard, Parts::clone).ok_or(WaitError::LedElsewhere(shard))?;
        let state = parts.state().await;
        let durable = match &state {
            Ok(state) => parts.durable_at(state.position).await,
            Err(_) => Ok(false),
        };
        match state {
            Ok(state) if matches!(durable, Ok(true)) => Ok(state),
            // It goes on elsewhere.
            Ok(_) | Err(_) if self.is_on_kafka() => Err(WaitError::LedElsewhere(shard)),
            Ok(_) | Err(_) => Err(WaitError::Stopped),
        }
    }

    fn led<T>(&self, shard: ShardId, read: impl FnOnce(&Parts) -> T) -> Option<T> {
        match self.front() {
            Front::Local(parts) => (parts.shard == shard).then(|| read(parts)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.leading.with(shard, read),
        }
    }
}
