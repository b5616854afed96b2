//! What a runtime tells of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ergate_actors::dispatcher::Restarts;
use ergate_actors::log_thread::{Durability, LogCounters};
use ergate_actors::log_writer::LogWriter;
use ergate_actors::projector::Projector;
use ergate_events::id::{Position, ShardId};
use ergate_events::log::index::TaskIndex;
use ergate_events::log::{LogReader, Space};
use ergate_events::state::State;
use ergate_events::time::Timestamp;
use ergate_events::view::Progress;

use super::{Front, Runtime, WaitError};

/// Looking.
impl Runtime {
    /// A copy of the accepted state of shard 0, which without Kafka is the only one; see [`Runtime::state_of`].
    ///
    /// # Errors
    /// As [`Runtime::state_of`].
    pub async fn state(&self) -> Result<Box<State>, WaitError> {
        self.state_of(ShardId(0)).await
    }

    /// A copy of the accepted state of a shard, which may be ahead of what is durable.
    ///
    /// # Errors
    /// [`WaitError::Stopped`], [`WaitError::LedElsewhere`].
    pub async fn state_of(&self, shard: ShardId) -> Result<Box<State>, WaitError> {
        match &self.inner.front {
            Front::Local(parts) if parts.shard == shard => parts.state().await,
            Front::Local(_) => Err(WaitError::LedElsewhere(shard)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.state_of(shard).await,
        }
    }

    /// Counts and waits of everything durable, as far as the projector is; on Kafka, the sum of the shards that are led here now.
    pub fn progress(&self) -> Progress {
        match &self.inner.front {
            Front::Local(parts) => parts.with_progress(Progress::clone),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.progress(),
        }
    }

    /// Reads the view of [`Runtime::progress`], without copying it where there is one shard.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        match &self.inner.front {
            Front::Local(parts) => parts.with_progress(read),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => read(&engine.progress()),
        }
    }

    /// Everything before this position is durable. On Kafka it is the sum of the positions of the shards that are led here now, which is a number
    /// of events and no position; it falls when a shard goes to another engine.
    pub fn durable(&self) -> Position {
        match &self.inner.front {
            Front::Local(parts) => parts.tail.borrow().head.next,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.durable(),
        }
    }

    /// Tasks that had not ended when the newest durable block was decided; on Kafka, of the shards that are led here now.
    pub fn live(&self) -> usize {
        match &self.inner.front {
            Front::Local(parts) => parts.tail.borrow().live,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.live(),
        }
    }

    /// Why the log refuses to go on, if it does. A shard on Kafka that fails is dropped and led again, here or elsewhere; only an engine that cannot
    /// be a member of its group any more has failed.
    pub fn failure(&self) -> Option<String> {
        match &self.inner.front {
            Front::Local(parts) => parts.failure(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.standing.borrow().failed.clone(),
        }
    }

    /// Waits until the log fails, see [`Runtime::failure`], or the runtime stops.
    pub async fn failed(&self) -> Option<String> {
        match &self.inner.front {
            Front::Local(parts) => parts.failed().await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.failed().await,
        }
    }

    /// Reads the durable log of shard 0, which without Kafka is the only one; see [`Runtime::reader_of`].
    pub fn reader(&self) -> Arc<dyn LogReader> {
        match &self.inner.front {
            Front::Local(parts) => Arc::clone(&parts.reader),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.reader_of(ShardId(0)),
        }
    }

    /// Reads the durable log of a shard; on Kafka from its topic, whoever leads it. `None` for a shard that does not exist.
    pub fn reader_of(&self, shard: ShardId) -> Option<Arc<dyn LogReader>> {
        match &self.inner.front {
            Front::Local(parts) => (parts.shard == shard).then(|| Arc::clone(&parts.reader)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => (shard.0 < engine.shards).then(|| engine.reader_of(shard)),
        }
    }

    /// The indexes of the log of a shard that is led here; `None` for another.
    pub fn index_of(&self, shard: ShardId) -> Option<Arc<TaskIndex>> {
        match &self.inner.front {
            Front::Local(parts) => (parts.shard == shard).then(|| Arc::clone(&parts.index)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.leading.with(shard, |parts| Arc::clone(&parts.index)),
        }
    }

    /// A copy of the state of shard 0 of which everything is durable, so that it may be told.
    ///
    /// # Errors
    /// As [`Runtime::state_of`]; [`WaitError::Stopped`] also when the log failed before.
    pub async fn durable_state(&self) -> Result<Box<State>, WaitError> {
        let state = self.state().await?;
        match &self.inner.front {
            Front::Local(parts) if !parts.durable_at(state.position).await? => Err(WaitError::Stopped),
            Front::Local(_) => Ok(state),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => Ok(state),
        }
    }

    /// What the engine leads, where there is one.
    #[cfg(feature = "kafka")]
    pub fn engine(&self) -> Option<crate::kafka::Standing> {
        match &self.inner.front {
            Front::Local(_) => None,
            Front::Kafka(engine) => Some(engine.standing.borrow().clone()),
        }
    }

    /// What the log threads of all shards here have done.
    pub fn log_counters(&self) -> &LogCounters {
        match &self.inner.front {
            Front::Local(parts) => &parts.counters,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures.counters,
        }
    }

    /// How much space is left for the log, as its thread last saw it; nothing is free and nothing wanted before it looked. On Kafka that is the
    /// space for the copies on this machine.
    pub fn space(&self) -> Space {
        let LogCounters { free_bytes, low_water_bytes, .. } = self.log_counters();
        Space { free_bytes: free_bytes.load(Relaxed), low_water_bytes: low_water_bytes.load(Relaxed) }
    }

    /// How often actors were started again, in all shards here.
    pub fn restarts(&self) -> &Arc<Restarts> {
        match &self.inner.front {
            Front::Local(parts) => &parts.restarts,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures.restarts,
        }
    }

    /// When replies are given; on Kafka always after the commit.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// The time by the runtime's clock.
    pub fn now(&self) -> Timestamp {
        match &self.inner.front {
            Front::Local(parts) => parts.clock.now(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.clock.now(),
        }
    }

    /// The time on the wall by the runtime's clock, by which schedules are due: it may be set, forward and back.
    pub fn wall(&self) -> Timestamp {
        match &self.inner.front {
            Front::Local(parts) => parts.clock.wall(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.clock.wall(),
        }
    }

    /// The actor of the only shard, for tests; there is none on Kafka.
    #[doc(hidden)]
    pub fn writer(&self) -> Option<&actix::Addr<LogWriter>> {
        match &self.inner.front {
            Front::Local(parts) => Some(&parts.writer),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => None,
        }
    }

    /// The projector of the only shard, for tests; there is none on Kafka.
    #[doc(hidden)]
    pub fn projector(&self) -> Option<actix::Addr<Projector>> {
        match &self.inner.front {
            Front::Local(parts) => Some(parts.projector.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => None,
        }
    }
}
