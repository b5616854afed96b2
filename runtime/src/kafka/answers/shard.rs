//! What is waited for of one shard.

use std::collections::BTreeMap;

use ergate_actors::submission::{AnswerRun, EndFailure, TaskEnd};
use ergate_events::event::{Envelope, Event};
use ergate_events::id::{Ordinal, Position, ShardId, TaskId};
use ergate_events::log::LogError;
use ergate_events::log::kafka::{Chained, Heading, Received};
use ergate_events::time::Timestamp;
use tokio::sync::oneshot;

use super::book::{News, Settled, Ticket};
use super::early::Early;
use super::source::Source;

/// One shard.
pub(super) struct Shard {
    id: ShardId,
    chain: Option<Chained>,
    source: Source,
    /// Records on their way whose offsets are not known yet.
    in_flight: usize,
    /// Records by offset whose answers are not known yet.
    expected: BTreeMap<u64, Ticket>,
    early: Early,
    /// Tasks of batches, with the batch of each.
    own: BTreeMap<Ordinal, u64>,
    watches: BTreeMap<Ordinal, Vec<oneshot::Sender<TaskEnd>>>,
    /// The last failure that was seen; the end that may follow it in the same decision tells it on.
    last_failure: Option<(Ordinal, Timestamp, String, String)>,
}

impl Shard {
    pub(super) fn new(id: ShardId) -> Shard {
        Shard {
            id,
            chain: None,
            source: Source::default(),
            in_flight: 0,
            expected: BTreeMap::new(),
            early: Early::default(),
            own: BTreeMap::new(),
            watches: BTreeMap::new(),
            last_failure: None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.in_flight > 0 || !self.expected.is_empty() || !self.own.is_empty() || !self.watches.is_empty()
    }

    pub(super) fn sent(&mut self) {
        self.in_flight += 1;
    }

    /// A report on a record: its answer may have come before it.
    pub(super) fn delivered(&mut self, ticket: Ticket, offset: Option<u64>, news: &mut Vec<News>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(offset) = offset {
            let was_passed = self.source.next().is_some_and(|next| offset < next);
            match self.early.report(offset) {
                Some((settled, end)) => {
                    self.settle(ticket, settled, news);
                    end.into_iter().for_each(|(task, end)| self.end(task, end, news));
                }
                None if was_passed => {
                    news.push(News::Lost(ticket, "its answer came too long before the brokers said where it is".to_owned()));
                }
                None => drop(self.expected.insert(offset, ticket)),
            }
        }
        if self.in_flight == 0 {
            self.early = Early::default();
        }
    }

    pub(super) fn watch(&mut self, task: Ordinal, watch: oneshot::Sender<TaskEnd>) {
        self.watches.entry(task).or_default().push(watch);
    }

    pub(super) fn lose(&mut self) {
        // Reports on what is on its way still come.
        *self = Shard { in_flight: self.in_flight, ..Shard::new(self.id) };
    }

    pub(super) fn prune(&mut self, is_open: &dyn Fn(u64) -> bool) {
        self.own.retain(|_, batch| is_open(*batch));
        self.expected.retain(|_, ticket| is_open(ticket.batch));
        self.watches.retain(|_, watches| {
            watches.retain(|watch| !watch.is_closed());
            !watches.is_empty()
        });
    }

    pub(super) fn skip(&mut self, heading: &Heading) {
        if self.chain.as_ref().is_none_or(|chain| heading.position >= chain.next()) {
            self.chain = Some(Chained::anywhere(self.id, heading.next));
            self.source = Source::at(heading.source_next);
        }
    }

    /// Follows a block.
    pub(super) fn take(&mut self, received: &Received, news: &mut Vec<News>) -> Result<(), LogError> {
        let header = &received.block.header;
        let chain = self.chain.get_or_insert_with(|| Chained::anywhere(self.id, header.first_position));
        if !chain.takes(received)? {
            return Ok(());
        }
        self.source.begin(received);
        let mut next = header.first_ordinal;
        for envelope in received.block.records().filter_map(Result::ok) {
            let created = next;
            next = Ordinal(next.0 + u64::from(envelope.event.creates_task()));
            self.follow(&envelope, created, header.next_position(), news);
        }
        self.pass_over(news);
        Ok(())
    }

    fn follow(&mut self, envelope: &Envelope<'_>, created: Ordinal, position: Position, news: &mut Vec<News>) {
        if let Some(offset) = self.source.follow(&envelope.event)
            && let Some(answer) = self.answer(&envelope.event, created)
        {
            let settled = Settled { answer, position };
            match self.expected.remove(&offset) {
                Some(ticket) => self.settle(ticket, settled, news),
                None if self.in_flight > 0 => self.early.answer(offset, settled),
                None => {}
            }
        }
        self.note_failure(envelope);
        if let Some((task, _)) = envelope.event.ends().filter(|(task, _)| self.wants(*task))
            && let Some(end) = self.end_of(envelope)
        {
            self.end(task, end, news);
        }
    }

    /// What an event answers to its record.
    fn answer(&self, event: &Event<'_>, created: Ordinal) -> Option<AnswerRun> {
        let id = |ordinal| TaskId { shard: self.id, ordinal };
        #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::answers_record` lists the events that answer a record")]
        match event {
            Event::Requested { .. } => Some(AnswerRun::Accepted { first: id(created), count: 1 }),
            Event::Deduplicated { of, .. } => Some(AnswerRun::Duplicate(id(*of))),
            Event::RequestRefused { reason } => Some(AnswerRun::Refused(reason.as_ref().into())),
            _ => None,
        }
    }

    fn settle(&mut self, ticket: Ticket, settled: Settled, news: &mut Vec<News>) {
        if let Some(task) = settled.created() {
            self.own.insert(task, ticket.batch);
        }
        news.push(News::Settled(ticket, settled));
    }

    fn wants(&self, task: Ordinal) -> bool {
        self.own.contains_key(&task) || self.watches.contains_key(&task) || self.early.wants(task)
    }

    fn note_failure(&mut self, envelope: &Envelope<'_>) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "these two say why an attempt came to nothing")]
        let (task, class, message) = match envelope.event {
            Event::Failed { task, ref failure, .. } => (task, failure.class, failure.message),
            Event::TimedOut { task, timeout, .. } => (task, "timeout", timeout.explanation()),
            _ => return,
        };
        if self.wants(task) {
            self.last_failure = Some((task, envelope.recorded_at, class.to_owned(), message.to_owned()));
        }
    }

    /// The end that an event is, with the failure that led to it in the same decision, which has one time.
    fn end_of(&mut self, envelope: &Envelope<'_>) -> Option<TaskEnd> {
        let (task, outcome) = envelope.event.ends()?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::ends` lists the events that end a task")]
        let cause = match envelope.event {
            Event::Succeeded { result, .. } => return Some(TaskEnd { outcome, result: result.into(), failure: None }),
            Event::Ended { cause, .. } | Event::DeadLettered { cause, .. } => cause,
            _ => return None,
        };
        let last = self.last_failure.take().filter(|(failed, at, ..)| (*failed, *at) == (task, envelope.recorded_at));
        let (class, message) = last.map_or_else(Default::default, |(_, _, class, message)| (class, message));
        Some(TaskEnd { outcome, result: Box::default(), failure: Some(Box::new(EndFailure { cause, class, message })) })
    }

    fn end(&mut self, task: Ordinal, end: TaskEnd, news: &mut Vec<News>) {
        for watch in self.watches.remove(&task).into_iter().flatten() {
            // Whoever no longer listens has no use for the end.
            let _ = watch.send(end.clone());
        }
        match self.own.remove(&task) {
            Some(batch) => news.push(News::Ended(batch, TaskId { shard: self.id, ordinal: task }, end)),
            None => self.early.end(task, end),
        }
    }

    /// Records before the next one that were not answered will not be: the topic no longer had them.
    fn pass_over(&mut self, news: &mut Vec<News>) {
        let Some(next) = self.source.next() else { return };
        let rest = self.expected.split_off(&next);
        for (offset, ticket) in std::mem::replace(&mut self.expected, rest) {
            news.push(News::Lost(ticket, format!("shard {} passed over its record at offset {offset}", self.id)));
        }
    }
}
