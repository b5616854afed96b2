//! What a runtime asks of an engine: requests go to their shards by the topic, whoever leads them; what needs the leader is done where it is
//! this engine, and refused by name where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ergate_actors::proposal::Proposal;
use ergate_actors::submission::{RequestBatch, SubmitError, TaskEnd};
use ergate_events::id::{Ordinal, Position, ShardId, TaskId};
use ergate_events::log::kafka::KafkaReader;
use ergate_events::log::{LogError, LogReader};
use ergate_events::state::State;
use ergate_events::view::Progress;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::answers::{Asked, Watch};
use super::engine::Engine;
use super::logs::CAPACITY;
use super::requests::Requests;
use crate::history;
use crate::task::{Awaited, Batch, WaitError};

/// How long the brokers may take to tell the ends of all shards to somebody who waits for the end of a task.
const FOLLOW_WITHIN: Duration = Duration::from_secs(30);
/// Pause before a wait that lost its leader, or its connection, begins again: a change of leader takes about as long.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Whether the engine publishes requests.
pub(crate) enum Publishing {
    /// Nobody has submitted anything.
    NotYet,
    /// It does.
    Yes(Requests),
    /// It has ended.
    Ended,
}

impl Engine {
    /// Publishes a batch, all of it to one shard where that is said, and waits until its answers are committed.
    pub(crate) async fn submit(
        &self,
        requests: RequestBatch,
        shard: Option<ShardId>,
        room: OwnedSemaphorePermit,
    ) -> Result<Batch, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let (done, end) = oneshot::channel();
        self.publish(requests, shard, Asked { reply, done, room: Some(room) })?;
        let lost = || SubmitError::Unknown { reason: "the runtime stopped before the answer was committed".to_owned() };
        Awaited { answer, end }.batch().await.ok_or_else(lost)?
    }

    fn publish(&self, requests: RequestBatch, shard: Option<ShardId>, asked: Asked) -> Result<(), SubmitError> {
        let closed = |reason: String| SubmitError::Closed { reason };
        self.answers.start().map_err(|error| closed(format!("failed to start a thread: {error}")))?;
        let mut publishing = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*publishing, Publishing::NotYet) {
            let names = self.types.iter().map(|(name, id)| (*id, name.clone())).collect();
            let started = Requests::start(&self.settings, names, self.shards, Arc::clone(&self.answers.shared));
            *publishing = Publishing::Yes(started.map_err(closed)?);
        }
        let Publishing::Yes(publisher) = &*publishing else { return Err(closed("it was shut down".to_owned())) };
        let batch = self.answers.shared.book(|book| book.open(requests.len(), asked));
        publisher.publish(batch, requests, shard);
        Ok(())
    }

    /// Publishes nothing more; the thread ends when what is on its way has arrived.
    pub(super) fn stop_publishing(&self) -> Option<JoinHandle<()>> {
        let mut publishing = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *publishing, Publishing::Ended) {
            Publishing::Yes(requests) => Some(requests.end()),
            Publishing::NotYet | Publishing::Ended => None,
        }
    }

    /// The ends of tasks on any shards; those of which the log has none are left out.
    pub(crate) async fn wait_all(&self, tasks: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, TaskEnd>, WaitError> {
        let mut by_shard: BTreeMap<ShardId, BTreeSet<Ordinal>> = BTreeMap::new();
        for task in tasks.into_iter().filter(|task| task.shard.0 < self.shards) {
            by_shard.entry(task.shard).or_default().insert(task.ordinal);
        }
        let mut ends = BTreeMap::new();
        for (shard, tasks) in by_shard {
            self.wait_on(shard, tasks, &mut ends).await?;
        }
        Ok(ends)
    }

    /// Waits for tasks of one shard, whoever leads it, and whoever does after that.
    async fn wait_on(
        &self,
        shard: ShardId,
        mut tasks: BTreeSet<Ordinal>,
        ends: &mut BTreeMap<TaskId, TaskEnd>,
    ) -> Result<(), WaitError> {
        let id = |ordinal| TaskId { shard, ordinal };
        while !tasks.is_empty() {
            if self.has_ended() {
                return Err(WaitError::Stopped);
            }
            if let Some(parts) = self.leading.get(shard) {
                match parts.wait_all(tasks.iter().copied().map(id).collect()).await {
                    Ok(found) => {
                        tasks.retain(|task| !found.contains_key(&id(*task)));
                        ends.extend(found);
                        return self.find_ends(shard, tasks, ends).await;
                    }
                    // The shard went to another engine, or to this one anew.
                    Err(WaitError::Stopped) => tokio::time::sleep(AGAIN_AFTER).await,
                    Err(error) => return Err(error),
                }
            } else {
                tasks = self.wait_from_outside(shard, tasks, ends).await?;
            }
        }
        Ok(())
    }

    /// Finds the ends of tasks that have ended before the copy here begins, which is where the shard's newest snapshot was when it was made.
    async fn find_ends(
        &self,
        shard: ShardId,
        tasks: BTreeSet<Ordinal>,
        ends: &mut BTreeMap<TaskId, TaskEnd>,
    ) -> Result<(), WaitError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let reader = self.reader_of(shard);
        let found = tokio::task::spawn_blocking(move || history::ends_of(reader.as_ref(), tasks)).await;
        let found = found.map_err(|_| WaitError::Stopped)??;
        ends.extend(found.into_iter().map(|(ordinal, end)| (TaskId { shard, ordinal }, end)));
        Ok(())
    }

    /// Waits for tasks of a shard that is led elsewhere. Registers first and then looks back, so that an end in between is not missed.
    /// Answers with those to ask for again.
    async fn wait_from_outside(
        &self,
        shard: ShardId,
        tasks: BTreeSet<Ordinal>,
        ends: &mut BTreeMap<TaskId, TaskEnd>,
    ) -> Result<BTreeSet<Ordinal>, WaitError> {
        let id = |ordinal| TaskId { shard, ordinal };
        let watches: Vec<Watch> = self.answers.watch(shard, tasks.iter().copied());
        let found = self.look_back(shard, tasks).await?;
        let mut again = BTreeSet::new();
        for (ordinal, end) in watches.into_iter().filter(|(ordinal, _)| found.live.contains(ordinal)) {
            match end.await {
                Ok(end) => drop(ends.insert(id(ordinal), end)),
                Err(_) => drop(again.insert(ordinal)),
            }
        }
        ends.extend(found.ends.into_iter().map(|(ordinal, end)| (id(ordinal), end)));
        if !again.is_empty() && !self.has_ended() {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        Ok(again)
    }

    /// What the record says about tasks, read after it is followed.
    async fn look_back(&self, shard: ShardId, tasks: BTreeSet<Ordinal>) -> Result<history::Found, WaitError> {
        let unreachable =
            |reason: String| WaitError::Log(LogError::Kafka { step: "follow", topic: self.settings.topics().events, reason });
        self.answers.start().map_err(|error| unreachable(error.to_string()))?;
        let (shared, reader) = (Arc::clone(&self.answers.shared), self.reader_of(shard));
        let looked = tokio::task::spawn_blocking(move || {
            let follows = shared.wait_until_following(FOLLOW_WITHIN);
            follows.then(|| history::look_back(reader.as_ref(), tasks))
        });
        match looked.await.map_err(|_| WaitError::Stopped)? {
            Some(found) => Ok(found?),
            None if self.has_ended() => Err(WaitError::Stopped),
            None => Err(unreachable("the brokers do not answer".to_owned())),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(*self.requests.lock().unwrap_or_else(PoisonError::into_inner), Publishing::Ended)
    }

    /// Records a proposal on a shard that is led here.
    pub(crate) async fn propose(&self, shard: ShardId, proposal: Proposal) -> Result<Position, SubmitError> {
        let elsewhere = SubmitError::LedElsewhere { shard };
        let Some(parts) = self.leading.get(shard) else { return Err(elsewhere) };
        match parts.propose(proposal).await {
            Err(SubmitError::Closed { .. }) if !self.has_ended() => Err(elsewhere),
            other => other,
        }
    }

    /// Records the size of a pool, or its mode, where these are decided; every engine follows.
    pub(crate) async fn decide_for_all(&self, proposal: Proposal) -> Result<Position, SubmitError> {
        self.propose(CAPACITY, proposal).await
    }

    pub(crate) async fn state_of(&self, shard: ShardId) -> Result<Box<State>, WaitError> {
        let parts = self.leading.get(shard).ok_or(WaitError::LedElsewhere(shard))?;
        parts.state().await.map_err(|_| WaitError::LedElsewhere(shard))
    }

    /// How far the shards are that are led here.
    pub(crate) fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        self.leading.each(|parts| parts.with_progress(|progress| sum.merge(progress)));
        sum
    }

    /// Events of the shards that are led here, all committed.
    pub(crate) fn durable(&self) -> Position {
        let mut sum = 0;
        self.leading.each(|parts| sum += parts.tail.borrow().head.next.0);
        Position(sum)
    }

    pub(crate) fn live(&self) -> usize {
        let mut sum = 0;
        self.leading.each(|parts| sum += parts.tail.borrow().live);
        sum
    }

    /// Waits until the engine cannot go on, or has ended.
    pub(crate) async fn failed(&self) -> Option<String> {
        let mut standing = self.standing.clone();
        let failed = standing.wait_for(|standing| standing.failed.is_some()).await.ok()?;
        failed.failed.clone()
    }

    /// Reads the record of any shard.
    pub(crate) fn reader_of(&self, shard: ShardId) -> Arc<dyn LogReader> {
        let topics = self.settings.topics();
        let (topic, partition) = if shard == CAPACITY { (topics.capacity, 0) } else { (topics.events, i32::from(shard.0)) };
        Arc::new(KafkaReader::new(&self.settings.client("reader"), &topic, partition, shard))
    }
}
