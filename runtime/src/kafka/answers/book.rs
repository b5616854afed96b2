//! Who waits for what: answers to records, and ends of tasks. Pure bookkeeping; threads and clients are elsewhere.

use std::collections::BTreeMap;

use ergate_actors::submission::{AnswerRun, BatchAnswer, BatchEnd, SubmitError, TaskEnd};
use ergate_events::id::{Ordinal, Position, ShardId, TaskId};
use ergate_events::log::LogError;
use ergate_events::log::kafka::{Heading, Received};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::shard::Shard;

/// A request of a batch that is on its way: which batch, and which of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) batch: u64,
    /// Below [`BATCH_REQUESTS_MAX`](crate::runtime::BATCH_REQUESTS_MAX).
    pub(crate) index: u16,
}

impl Ticket {
    /// As a number that a delivery report brings back; 48 bits count more batches than any process has.
    pub(crate) const fn to_number(self) -> usize {
        (self.batch << 16 | self.index as u64) as usize
    }

    pub(crate) const fn from_number(number: usize) -> Ticket {
        Ticket { batch: number as u64 >> 16, index: number as u16 }
    }
}

/// Who gets the answers and the ends of a batch.
pub(crate) struct Asked {
    pub(crate) reply: oneshot::Sender<Result<BatchAnswer, SubmitError>>,
    pub(crate) done: oneshot::Sender<BatchEnd>,
    /// Given back with the answer.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

struct Batch {
    /// `None` when it was answered.
    reply: Option<oneshot::Sender<Result<BatchAnswer, SubmitError>>>,
    done: oneshot::Sender<BatchEnd>,
    answers: Vec<Option<AnswerRun>>,
    unanswered: usize,
    /// Where the answer to the first request is.
    position: Position,
    /// Accepted tasks that have not ended.
    live: usize,
    ends: Vec<(TaskId, TaskEnd)>,
    room: Option<OwnedSemaphorePermit>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) answer: AnswerRun,
    /// Everything up to here is committed.
    pub(super) position: Position,
}

impl Settled {
    /// The task that the record created.
    pub(super) const fn created(&self) -> Option<Ordinal> {
        match &self.answer {
            AnswerRun::Accepted { first, .. } => Some(first.ordinal),
            AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_) => None,
        }
    }
}

/// What an event means for those who wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The answer to a request of this engine.
    Settled(Ticket, Settled),
    /// The end of a task of a batch.
    Ended(u64, TaskId, TaskEnd),
    /// A request whose answer will not be known.
    Lost(Ticket, String),
}

/// Everybody who waits.
pub(crate) struct Book {
    next: u64,
    batches: BTreeMap<u64, Batch>,
    shards: Vec<Shard>,
}

impl Book {
    /// Nobody waits for anything of so many shards.
    pub(crate) fn new(shards: u16) -> Book {
        Book { next: 0, batches: BTreeMap::new(), shards: (0..shards).map(|shard| Shard::new(ShardId(shard))).collect() }
    }

    /// Whether nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.batches.is_empty() && !self.shards.iter().any(Shard::is_wanted)
    }

    /// Whether anybody waits for something of a shard.
    pub(crate) fn wants(&self, shard: u16) -> bool {
        self.shards.get(usize::from(shard)).is_some_and(Shard::is_wanted)
    }

    /// Waits for the answers to so many requests.
    pub(crate) fn open(&mut self, requests: usize, asked: Asked) -> u64 {
        let number = self.next;
        self.next += 1;
        let mut answers = Vec::new();
        answers.resize_with(requests, || None);
        let Asked { reply, done, room } = asked;
        let (unanswered, position, live, ends) = (requests, Position(0), 0, Vec::new());
        self.batches.insert(number, Batch { reply: Some(reply), done, answers, unanswered, position, live, ends, room });
        self.finish(number);
        number
    }

    /// Notes that a record is on its way to a shard.
    pub(crate) fn sent(&mut self, shard: u16) {
        if let Some(shard) = self.shards.get_mut(usize::from(shard)) {
            shard.sent();
        }
    }

    /// Notes at which offset a record is; `None` when that is not known.
    pub(crate) fn delivered(&mut self, ticket: Ticket, shard: u16, offset: Option<u64>) {
        let Some(shard) = self.shards.get_mut(usize::from(shard)) else { return };
        let mut news = Vec::new();
        shard.delivered(ticket, offset, &mut news);
        self.tell(news);
    }

    /// Answers a request whose record is not on its way.
    pub(crate) fn refuse(&mut self, ticket: Ticket, answer: AnswerRun) {
        self.settle(ticket, Settled { answer, position: Position(0) });
    }

    /// Gives a batch up.
    pub(crate) fn fail(&mut self, batch: u64, error: SubmitError) {
        if let Some(Batch { reply: Some(reply), .. }) = self.batches.remove(&batch) {
            // Whoever no longer listens has no use for the answer.
            let _ = reply.send(Err(error));
        }
    }

    /// Waits for the end of a task.
    pub(crate) fn watch(&mut self, task: TaskId, watch: oneshot::Sender<TaskEnd>) {
        if let Some(shard) = self.shards.get_mut(usize::from(task.shard.0)) {
            shard.watch(task.ordinal, watch);
        }
    }

    /// Passes over a block of a shard that nobody waits for.
    pub(crate) fn skip(&mut self, shard: u16, heading: &Heading) {
        if let Some(shard) = self.shards.get_mut(usize::from(shard)) {
            shard.skip(heading);
        }
    }

    /// Tells everybody what a block says.
    ///
    /// # Errors
    /// When it does not go on from the one before.
    pub(crate) fn take(&mut self, shard: u16, received: &Received) -> Result<(), LogError> {
        let Some(shard) = self.shards.get_mut(usize::from(shard)) else { return Ok(()) };
        let mut news = Vec::new();
        let taken = shard.take(received, &mut news);
        self.tell(news);
        taken
    }

    /// Gives up everything that is waited for: what follows cannot be seen any more.
    pub(crate) fn lose(&mut self, reason: &str) {
        for batch in std::mem::take(&mut self.batches).into_values() {
            if let Some(reply) = batch.reply {
                let _ = reply.send(Err(SubmitError::Unknown { reason: reason.to_owned() }));
            }
        }
        self.shards.iter_mut().for_each(Shard::lose);
    }

    /// Forgets those who no longer listen.
    pub(crate) fn prune(&mut self) {
        let Book { batches, shards, .. } = self;
        batches.retain(|_, batch| batch.reply.is_some() || !batch.done.is_closed());
        shards.iter_mut().for_each(|shard| shard.prune(&|batch| batches.contains_key(&batch)));
    }

    fn tell(&mut self, news: Vec<News>) {
        for item in news {
            match item {
                News::Settled(ticket, settled) => self.settle(ticket, settled),
                News::Ended(batch, task, end) => self.end(batch, task, end),
                News::Lost(ticket, reason) => self.fail(ticket.batch, SubmitError::Unknown { reason }),
            }
        }
    }

    fn settle(&mut self, ticket: Ticket, settled: Settled) {
        let Some(batch) = self.batches.get_mut(&ticket.batch) else { return };
        let Some(slot) = batch.answers.get_mut(usize::from(ticket.index)) else { return };
        batch.live += usize::from(settled.created().is_some());
        batch.unanswered -= usize::from(slot.is_none());
        *slot = Some(settled.answer);
        if ticket.index == 0 {
            batch.position = settled.position;
        }
        self.finish(ticket.batch);
    }

    fn end(&mut self, number: u64, task: TaskId, end: TaskEnd) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        batch.live -= 1;
        batch.ends.push((task, end));
        self.finish(number);
    }

    /// Answers a batch when all its answers are there, and ends it when its tasks have ended.
    fn finish(&mut self, number: u64) {
        let Some(batch) = self.batches.get_mut(&number).filter(|batch| batch.unanswered == 0) else { return };
        if let Some(reply) = batch.reply.take() {
            let answers = std::mem::take(&mut batch.answers).into_iter().flatten();
            let _ = reply.send(Ok(BatchAnswer::of(answers, batch.position)));
            batch.room = None;
        }
        if batch.live == 0
            && let Some(batch) = self.batches.remove(&number)
        {
            let _ = batch.done.send(BatchEnd::of(batch.ends));
        }
    }
}
