//! Waits for tasks, and what operators ask of tasks and pools.

use std::collections::{BTreeMap, BTreeSet};

use ergate_actors::proposal::Proposal;
use ergate_actors::submission::{SubmitError, TaskEnd};
use ergate_events::command::Rejection;
use ergate_events::event::PoolMode;
use ergate_events::id::{Position, ShardId, TaskId};
use ergate_events::scaling::AnyPolicy;
use ergate_events::scaling::signal::Bounds;
use ergate_events::sizing::{HOLD_MAX, HOLD_MIN};
use ergate_events::time::{Micros, Timestamp};

use super::{Front, Runtime, WaitError};

/// Waiting, and what operators ask for.
impl Runtime {
    /// Waits for the end of a task, which may have ended long ago, and on Kafka may be led and executed by another engine.
    ///
    /// # Errors
    /// [`WaitError`] when there is no such task, or its end is no longer in the log.
    pub async fn wait(&self, task: TaskId) -> Result<TaskEnd, WaitError> {
        self.wait_all([task].into()).await?.remove(&task).ok_or(WaitError::NoSuchTask(task))
    }

    /// Waits for the ends of many tasks, which may have ended long ago; one pass over the log finds those. Tasks of which the log has no
    /// end are left out.
    ///
    /// # Errors
    /// [`WaitError::Stopped`], [`WaitError::Log`].
    pub async fn wait_all(&self, tasks: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, TaskEnd>, WaitError> {
        match &self.inner.front {
            Front::Local(parts) => parts.wait_all(tasks).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.wait_all(tasks).await,
        }
    }

    /// Asks a task to stop; its attempt may clean up first.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when there is no such task or it has ended; on Kafka [`SubmitError::LedElsewhere`] when another engine leads its
    /// shard, which has to be asked there.
    pub async fn cancel(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Cancel { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Ends a task now.
    ///
    /// # Errors
    /// As [`Runtime::cancel`].
    pub async fn kill(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Kill { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Tries a dead letter again, as a new task of the same shard.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when it is not a dead letter; otherwise as [`Runtime::cancel`].
    pub async fn redrive(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Redrive { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Sets the size of a pool. On Kafka that is decided in one place for all engines, the capacity log, and every shard follows; the position is
    /// the decision's there.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when the size is out of range; [`SubmitError::LedElsewhere`] when another engine leads the capacity log.
    pub async fn resize_pool(
        &self,
        pool: &str,
        replicas: u32,
        slots: u32,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::DefinePool { pool, replicas, slots, by, reason }).await
    }

    /// Lets a pool start tasks, or none: see [`PoolMode`]. On Kafka that is decided where sizes are.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no pool of this name has a size; otherwise as [`Runtime::resize_pool`].
    pub async fn set_pool_mode(&self, pool: &str, mode: PoolMode, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::SetPoolMode { pool, mode, by, reason }).await
    }

    /// Lets a policy size a pool between two bounds, or takes the policy away that it has. On Kafka that is decided where sizes are: a policy sizes
    /// a pool over all shards, and each shard keeps its part of the size when the policy goes.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no pool of this name has a size, or a setting is out of range; otherwise as [`Runtime::resize_pool`].
    pub async fn set_policy(
        &self,
        pool: &str,
        policy: Option<&AnyPolicy>,
        bounds: Bounds,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        // Numbers and texts can always be written.
        let policy = policy.map(|policy| serde_json::to_string(policy).unwrap_or_default()).unwrap_or_default();
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        #[cfg(feature = "kafka")]
        if let Front::Kafka(engine) = &self.inner.front
            && policy.is_empty()
        {
            let shards = u32::from(engine.shards);
            return engine.decide_for_all(Proposal::EndPolicy { pool, shards, by, reason }).await;
        }
        let Bounds { min: least, max: most } = bounds;
        self.propose_for_all(Proposal::SetPolicy { pool, policy, least, most, by, reason }).await
    }

    /// Lets a policy decide beside the one of a pool, without any effect, or no longer where there is none: a *shadow*. What it wants is recorded when
    /// it wants something else, and `ergate why` and `ergate whatif --shadows` show it. On Kafka that is decided where sizes are.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no policy sizes a pool of this name, the pool has too many shadows, the name is none, or a setting is out of
    /// range; otherwise as [`Runtime::resize_pool`].
    pub async fn set_shadow(
        &self,
        pool: &str,
        shadow: &str,
        policy: Option<&AnyPolicy>,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        // Numbers and texts can always be written.
        let policy = policy.map(|policy| serde_json::to_string(policy).unwrap_or_default()).unwrap_or_default();
        let (pool, shadow, by, reason) = (pool.to_owned(), shadow.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::SetShadow { pool, shadow, policy, by, reason }).await
    }

    /// Holds a pool that a policy sizes at so many replicas, within its bounds, for some time, whatever its policy wants meanwhile; over restarts as
    /// well. Then the policy decides again within a second.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no policy sizes a pool of this name, or the time is shorter than
    /// [`HOLD_MIN`] or longer than [`HOLD_MAX`]; otherwise as
    /// [`Runtime::resize_pool`].
    pub async fn hold_pool(
        &self,
        pool: &str,
        replicas: u32,
        span: Micros,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        if !(HOLD_MIN..=HOLD_MAX).contains(&span) {
            let rule = "from 1 second to 31 days";
            return Err(SubmitError::Rejected(Rejection::OutOfRange { what: "the time of a hold", rule }));
        }
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        let until = self.now().after(span);
        self.propose_for_all(Proposal::HoldSize { pool, replicas: Some(replicas), until, by, reason }).await
    }

    /// Lets a pool go that somebody [holds](Runtime::hold_pool): its policy decides again within a second. A pool that nobody holds stays as it is.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no pool of this name has a size; otherwise as [`Runtime::resize_pool`].
    pub async fn release_pool(&self, pool: &str, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::HoldSize { pool, replicas: None, until: Timestamp(0), by, reason }).await
    }

    /// Records what holds for all shards where that is decided.
    async fn propose_for_all(&self, proposal: Proposal) -> Result<Position, SubmitError> {
        match &self.inner.front {
            Front::Local(parts) => parts.propose(proposal).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.decide_for_all(proposal).await,
        }
    }

    /// Records a proposal on a shard that is led here, and waits until the answer is durable. Without Kafka there is only shard 0.
    ///
    /// # Errors
    /// [`SubmitError::LedElsewhere`]; otherwise as [`Runtime::submit_batch`].
    pub async fn propose(&self, shard: ShardId, proposal: Proposal) -> Result<Position, SubmitError> {
        match &self.inner.front {
            Front::Local(parts) if parts.shard == shard => parts.propose(proposal).await,
            Front::Local(_) => Err(SubmitError::LedElsewhere { shard }),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.propose(shard, proposal).await,
        }
    }
}
