//! Which request record each answer in a shard's blocks is for.
//!
//! The events do not say it. But a shard answers its records in order, each with one event, and says when it passes over some; so a block
//! whose last answer is known tells all of them, and every block after it.

use ergate_events::event::Event;
use ergate_events::log::kafka::Received;

/// Follows the offsets of the records that a shard answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Offset of the record that is answered next; `None` while nothing is known.
    next: Option<u64>,
}

impl Source {
    /// All records before this one are answered.
    pub(super) const fn at(next: u64) -> Source {
        Source { next: Some(next) }
    }

    /// Offset of the record that is answered next, where it is known.
    pub(super) const fn next(self) -> Option<u64> {
        self.next
    }

    /// Begins a block. The first one that is seen tells by its header where its last answer is, and so where its first one is, if none was
    /// passed over in between.
    pub(super) fn begin(&mut self, received: &Received) {
        let (None, Some(after)) = (self.next, received.source_next) else { return };
        let mut answers = 0_u64;
        for envelope in received.block.records().filter_map(Result::ok) {
            if matches!(envelope.event, Event::SourceMoved { .. }) {
                return;
            }
            answers += u64::from(envelope.event.answers_record());
        }
        self.next = after.checked_sub(answers);
    }

    /// Follows an event; answers with the offset of the record that it answers, if it answers one and that is known.
    pub(super) fn follow(&mut self, event: &Event<'_>) -> Option<u64> {
        if let Event::SourceMoved { next } = *event {
            self.next = Some(next);
        }
        if !event.answers_record() {
            return None;
        }
        let offset = self.next?;
        self.next = Some(offset + 1);
        Some(offset)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ergate_events::block::{Block, Hash, OpenBlock};
    use ergate_events::id::{Epoch, Ordinal, Position, ShardId, TypeId};
    use ergate_events::time::Timestamp;

    use super::*;

    pub(in super::super) const REQUESTED: Event<'static> =
        Event::Requested { task_type: TypeId(0), payload: b"1", key: None, asks: Vec::new() };

    /// A block as it comes from the topic.
    pub(in super::super) fn block(
        (position, previous): (u64, Hash),
        ordinal: u64,
        source_next: u64,
        events: &[(u64, Event<'_>)],
    ) -> Received {
        let mut open = OpenBlock::new(ShardId(1), Epoch(1), Position(position), Ordinal(ordinal));
        events.iter().for_each(|(at, event)| open.push(Timestamp(*at), event));
        let sealed = open.seal(previous);
        let block = Block::parse(&sealed.bytes).expect("it was sealed");
        Received { offset: 0, block, hash: sealed.hash, bytes: 0, source_next: Some(source_next) }
    }

    fn offsets(source: &mut Source, received: &Received) -> Vec<Option<u64>> {
        source.begin(received);
        let mut found = Vec::new();
        for record in received.block.records().filter_map(Result::ok) {
            let offset = source.follow(&record.event);
            if record.event.answers_record() {
                found.push(offset);
            }
        }
        found
    }

    #[test]
    fn offsets_are_counted_back_from_the_header_and_on_from_there() {
        let refused = || Event::RequestRefused { reason: "no".into() };
        let first = block((0, Hash::ZERO), 0, 42, &[(1, REQUESTED), (1, refused()), (2, REQUESTED)]);
        let mut source = Source::default();
        assert_eq!(offsets(&mut source, &first), [Some(39), Some(40), Some(41)]);
        // The next header is believed no more than the chain of blocks.
        let second = block((3, first.hash), 2, 99, &[(3, REQUESTED), (3, Event::SourceMoved { next: 50 }), (3, REQUESTED)]);
        assert_eq!(offsets(&mut source, &second), [Some(42), Some(50)]);
        assert_eq!(source.next(), Some(51));
    }

    #[test]
    fn answers_before_a_move_in_the_first_block_are_unknown() {
        let first = block((0, Hash::ZERO), 0, 51, &[(1, REQUESTED), (1, Event::SourceMoved { next: 50 }), (1, REQUESTED)]);
        let mut source = Source::default();
        assert_eq!(offsets(&mut source, &first), [None, Some(50)]);
        let mut nameless = block((0, Hash::ZERO), 0, 1, &[(1, REQUESTED)]);
        nameless.source_next = None;
        let mut source = Source::default();
        assert_eq!((offsets(&mut source, &nameless), source.next()), (vec![None], None));
    }
}
