//! What operators ask of schedules.

use std::sync::Arc;

use ergate_actors::proposal::{Proposal, ScheduleDemand};
use ergate_actors::submission::{RequestBatch, SubmitError};
use ergate_events::id::{Position, ShardId, TaskId};
use ergate_events::schedule::{ScheduleSettings, firing_key};
use ergate_events::state::State;
use ergate_events::state::keys::KeyTable;

use super::{Runtime, WaitError};

/// Schedules.
impl Runtime {
    /// Lets a schedule fire nothing until it is resumed; what falls due meanwhile is passed over.
    ///
    /// # Errors
    /// [`SubmitError::UnknownSchedule`]; otherwise as [`Runtime::cancel`].
    pub async fn pause_schedule(&self, name: &str, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (demand, _) = self.schedule_demand(name, by, reason).await?;
        self.propose(self.home(name), Proposal::PauseSchedule(demand)).await
    }

    /// Lets a paused schedule fire again.
    ///
    /// # Errors
    /// As [`Runtime::pause_schedule`].
    pub async fn resume_schedule(&self, name: &str, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (demand, _) = self.schedule_demand(name, by, reason).await?;
        self.propose(self.home(name), Proposal::ResumeSchedule(demand)).await
    }

    /// Fires a schedule now, beside its slots and even while it is paused; tells its task.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] while the task of its last firing is live and its firings must not overlap; otherwise as
    /// [`Runtime::pause_schedule`] and [`Runtime::submit`].
    pub async fn trigger_schedule(&self, name: &str, by: &str, reason: &str) -> Result<(TaskId, Position), SubmitError> {
        self.admit(&RequestBatch::new())?;
        let (demand, plan) = self.schedule_demand(name, by, reason).await?;
        let slot = self.now();
        let key = firing_key(name, slot);
        let hash = KeyTable::hash(&plan.task, &key);
        let shard = self.home(name);
        let position = self.propose(shard, Proposal::Trigger { demand, plan, slot, key }).await?;
        let state = self.state_at(shard).await?;
        let entry = state.work.keys.get(hash, slot).ok_or_else(|| self.closed())?;
        Ok((TaskId { shard, ordinal: entry.task }, position))
    }

    async fn state_at(&self, shard: ShardId) -> Result<Box<State>, SubmitError> {
        self.state_of(shard).await.map_err(|error| match error {
            WaitError::LedElsewhere(shard) => SubmitError::LedElsewhere { shard },
            WaitError::Stopped
            | WaitError::NoSuchTask(_)
            | WaitError::Unsuccessful { .. }
            | WaitError::Result { .. }
            | WaitError::Log(_) => self.closed(),
        })
    }

    async fn schedule_demand(
        &self,
        name: &str,
        by: &str,
        reason: &str,
    ) -> Result<(ScheduleDemand, Arc<ScheduleSettings>), SubmitError> {
        let state = self.state_at(self.home(name)).await?;
        let active = state.control.schedules.active();
        let found = active.iter().find(|(_, known)| known.name == name);
        let (schedule, known) = found.ok_or_else(|| SubmitError::UnknownSchedule {
            name: name.chars().take(64).collect(),
            known: active.iter().take(8).map(|(_, known)| known.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let demand = ScheduleDemand { schedule: *schedule, by: by.to_owned(), reason: reason.to_owned() };
        Ok((demand, Arc::clone(&known.settings)))
    }
}
