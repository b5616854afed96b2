//! What brokers left undecided of a former owner beside its events: dead letters and results whose transaction ended elsewhere.
//!
//! For the brokers all that a producer has open in a partition is one transaction, and a shard's producers have one name. So the next commit of
//! the shard that writes there would commit those messages with its own: letters of a transaction that was given up would be there twice. An
//! owner therefore ends them when it knows its state: they are kept where the log has what they tell of, and given up where it does not.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ergate_events::id::TaskId;
use ergate_events::log::LogError;
use ergate_events::log::kafka::Patience;
use ergate_events::state::State;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::BaseProducer;

use super::feed::headers;
use super::logs::CAPACITY;
use super::messages::{Messages, More};
use super::open::{Opening, ShardProducer};
use super::refused::{Entry, entry};

/// How long it is waited for the end of a transaction that is only late: brokers write it after they have said that it is over.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);
/// How long the brokers may take to tell what is undecided: after one of them went away they elect leaders first.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause before the brokers are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Pause after an error: new clients are made then.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What lies undecided of this shard in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Messages of what is in the log.
    told: u64,
    /// Messages of what is not.
    untold: u64,
}

impl Opening {
    /// Ends what is undecided in the shard's partitions of the dead letters and of the results. Nothing but this shard's own is ended, for the
    /// producer ends only what its name has begun.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(super) fn settle_beside(&self, producer: &BaseProducer<ShardProducer>, state: &State) -> Result<(), LogError> {
        if self.place.shard == CAPACITY {
            return Ok(());
        }
        let topics = self.settings.topics();
        let (letters, results) = self.beside;
        let next = i64::try_from(state.work.source_next).unwrap_or(i64::MAX);
        self.settle(producer, &topics.dead_letters, letters, &|message| {
            let Entry::Letter(letter) = entry(message) else { return None };
            let source =
                letter.source.filter(|source| source.topic == topics.requests && source.partition == self.place.topic.1)?;
            Some(source.offset < next)
        })?;
        self.settle(producer, &topics.results, results, &|message| {
            let task = task_of(message).filter(|task| task.shard == self.place.shard)?;
            Some(task.ordinal < state.next_ordinal() && state.work.tasks.get(task.ordinal).is_none())
        })
    }

    /// Ends what is undecided in a partition; `is_told` says whether the log has what a message tells of, and `None` for those of others.
    fn settle(
        &self,
        producer: &BaseProducer<ShardProducer>,
        topic: &str,
        partition: i32,
        is_told: &dyn Fn(&BorrowedMessage<'_>) -> Option<bool>,
    ) -> Result<(), LogError> {
        let undecided = self.still_undecided(topic, partition)?;
        if undecided.is_empty() {
            return Ok(());
        }
        let mut left = Left::default();
        let messages = Messages::with_undecided(&self.settings, topic, Patience::default())?;
        messages.each(partition, undecided.start, &mut |message| {
            match is_told(message).filter(|_| message.offset() < undecided.end) {
                Some(true) => left.told += 1,
                Some(false) => left.untold += 1,
                None => {}
            }
            Ok::<_, LogError>(if message.offset() + 1 < undecided.end { More::Yes } else { More::No })
        })?;
        let (shard, Left { told, untold }) = (self.place.shard, left);
        if left == Left::default() {
            return Ok(());
        }
        tracing::warn!(%shard, topic, offset = undecided.start, told, untold, "brokers lost the end of a transaction beside the log; what the log tells of is kept, and nothing else");
        self.begin(producer, topic, partition)?;
        // Of both at once: nothing that was promised may be missing, so it is kept, and a message may be there twice.
        self.end_what_lies(producer, told > 0)
    }

    /// The offsets of a partition that stay undecided.
    fn still_undecided(&self, topic: &str, partition: i32) -> Result<Range<i64>, LogError> {
        let (began, mut seen) = (Instant::now(), None::<Instant>);
        loop {
            match self.ends.undecided(&self.settings, topic, partition) {
                Ok(undecided) if undecided.is_empty() => return Ok(undecided),
                Ok(undecided) if seen.get_or_insert_with(Instant::now).elapsed() >= SETTLES_WITHIN => return Ok(undecided),
                Err(error) if began.elapsed() >= ANSWER_WITHIN || self.unwanted.load(Ordering::Relaxed) => {
                    return Err(self.failed("ask what is undecided beside", error.to_string()));
                }
                Ok(_) => std::thread::sleep(ASK_AGAIN_AFTER),
                Err(_) => std::thread::sleep(TRY_AGAIN_AFTER),
            }
        }
    }
}

/// The task that a result tells of.
fn task_of(message: &BorrowedMessage<'_>) -> Option<TaskId> {
    let headers = headers(message)?;
    let (_, value) = headers.into_iter().find(|(name, _)| *name == "ergate-task")?;
    std::str::from_utf8(value?).ok()?.parse().ok()
}
