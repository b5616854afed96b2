//! What every backend must do, as one suite that runs against all of them.
//!
//! A backend's tests call [`run`] with a way to make fresh harnesses; each case gets its own log.

use std::time::Duration;

use super::{Cursor, EventLog, Head, LogError, LogReader, Span};
use crate::block::{Block, Hash, OpenBlock, SealedBlock};
use crate::event::Event;
use crate::id::{Epoch, Ordinal, Position, ShardId, TypeId};
use crate::time::Timestamp;

/// One log of a backend, and how to come back to it.
pub trait Harness {
    /// Creates the log, or opens it again after it was closed or dropped.
    fn open(&mut self) -> Box<dyn EventLog>;

    /// Whether the log outlives its writer: closed, or just dropped as by a crash.
    fn is_durable(&self) -> bool;
}

/// Runs every case of the suite, each on a fresh log.
///
/// # Panics
/// When the backend does something else than it should.
pub fn run(make: &mut dyn FnMut() -> Box<dyn Harness>) {
    let cases: [fn(&mut dyn Harness); 15] = [
        an_empty_log_has_nothing_to_read,
        what_was_appended_is_read_back_byte_for_byte,
        a_block_that_does_not_follow_the_head_is_refused,
        a_block_is_seen_only_after_sync_or_publish,
        a_cursor_begins_with_the_block_that_holds_its_position,
        a_cursor_waits_at_the_end_and_continues,
        a_cursor_beyond_the_end_is_refused,
        every_time_and_every_task_is_found,
        the_hash_before_a_position_is_that_of_the_block_that_ends_there,
        retention_keeps_everything_from_a_position_on,
        large_blocks_come_back,
        many_small_blocks_come_back,
        readers_in_other_threads_follow_the_writer,
        a_closed_log_opens_with_the_same_head,
        a_crash_takes_nothing_that_was_synced,
    ];
    for case in cases {
        case(make().as_mut());
    }
}

/// Makes blocks that follow each other, the same ones from the same seed.
#[derive(Clone, Debug)]
pub struct Filler {
    open: OpenBlock,
    hash: Hash,
    at: u64,
    random: u64,
}

impl Filler {
    /// Begins a new chain.
    pub fn new(seed: u64) -> Filler {
        Filler::after(&Head::default(), seed)
    }

    /// Continues behind a head.
    pub fn after(head: &Head, seed: u64) -> Filler {
        let open = OpenBlock::new(ShardId(0), Epoch(1), head.next, head.next_ordinal);
        Filler { open, hash: head.hash, at: head.last_time.0, random: seed }
    }

    /// A pseudo-random number (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
    pub const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next block: `records` records, each carrying `bytes` bytes that do not compress. Two in three create a task, and
    /// time stands still now and then.
    pub fn block(&mut self, records: u32, bytes: usize) -> SealedBlock {
        for _ in 0..records {
            let payload: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| self.random().to_le_bytes()).take(bytes).collect();
            let draw = self.random();
            self.at += draw % 4;
            let event = match draw / 4 % 3 {
                0 => Event::Checkpointed { task: Ordinal(0), attempt: 1, details: &payload },
                _ => Event::Requested { task_type: TypeId(1), payload: &payload, key: None, asks: Vec::new() },
            };
            self.open.push(Timestamp(self.at), &event);
        }
        let sealed = self.open.seal(self.hash);
        self.hash = sealed.hash;
        self.open.restart();
        sealed
    }

    /// Some blocks of all sizes up to a few kilobytes.
    pub fn blocks(&mut self, count: usize) -> Vec<SealedBlock> {
        (0..count)
            .map(|_| {
                let (records, bytes) = (self.random() % 9 + 1, self.random() % 500);
                self.block(records as u32, bytes as usize)
            })
            .collect()
    }
}

/// Appends blocks and makes them durable together.
///
/// # Panics
/// When the log refuses.
pub fn write(log: &mut dyn EventLog, blocks: &[SealedBlock]) {
    for block in blocks {
        log.append(block).expect("the block follows the head");
    }
    log.sync().expect("the log can be synced");
}

/// Reads everything that a cursor has, verifying the chain.
///
/// # Errors
/// What the cursor meets.
///
/// # Panics
/// When a block does not follow the one before it.
pub fn read_all(cursor: &mut dyn Cursor) -> Result<Vec<Block>, LogError> {
    let mut blocks: Vec<Block> = Vec::new();
    while let Some(block) = cursor.next_block()? {
        if let Some(before) = blocks.last() {
            assert_eq!(block.header.previous, before.hash(), "the chain is whole");
            assert_eq!(block.header.first_position, before.header.next_position(), "no position is left out");
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// Asserts that a log holds exactly these blocks from `from` on.
///
/// # Panics
/// When it does not.
pub fn assert_holds(reader: &dyn LogReader, from: Position, blocks: &[SealedBlock]) {
    let mut cursor = reader.cursor(from).expect("the position is there");
    let read = read_all(cursor.as_mut()).expect("every block can be read");
    assert_eq!(read.len(), blocks.len(), "number of blocks");
    for (read, written) in read.iter().zip(blocks) {
        assert!(*read == parsed(written), "the block at {} is another", written.header.first_position);
    }
}

fn parsed(block: &SealedBlock) -> Block {
    Block::parse(&block.bytes).expect("a sealed block is a block")
}

fn an_empty_log_has_nothing_to_read(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let reader = log.reader();
    assert_eq!(log.head(), Head::default());
    assert_eq!(reader.span(), Span::default());
    assert!(reader.cursor(Position(0)).expect("the beginning").next_block().expect("no error").is_none());
    assert_eq!(reader.seek_time(Timestamp(5)).expect("no error"), Position(0));
    assert_eq!(reader.seek_task(Ordinal(0)).expect("no error"), None);
    assert!(!log.space().expect("space").is_low() || log.space().expect("space").free_bytes < u64::MAX);
    log.sync().expect("there is nothing to sync");
    log.idle().expect("there is nothing to do");
    log.close().expect("there is nothing to close");
}

fn what_was_appended_is_read_back_byte_for_byte(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(1).blocks(60);
    for part in blocks.chunks(7) {
        write(log.as_mut(), part);
    }
    let last = &blocks[blocks.len() - 1];
    assert_eq!(log.head(), Head::after(last));
    assert_eq!(log.reader().span(), Span { first: Position(0), next: last.header.next_position() });
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

fn a_block_that_does_not_follow_the_head_is_refused(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(2).blocks(4);
    let other = Filler::new(3).block(blocks[0].header.count, 10);
    write(log.as_mut(), &blocks[..1]);
    assert!(matches!(log.append(&blocks[2]), Err(LogError::Gap { .. })), "a gap");
    assert!(matches!(log.append(&blocks[0]), Err(LogError::Gap { .. })), "a repetition");
    let mut fork = Filler::after(&Head { hash: other.hash, ..log.head() }, 4);
    assert!(matches!(log.append(&fork.block(1, 10)), Err(LogError::Chain { .. })), "another predecessor");
    write(log.as_mut(), &blocks[1..]);
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

fn a_block_is_seen_only_after_sync_or_publish(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(5).blocks(2);
    let reader = log.reader();
    let mut cursor = reader.cursor(Position(0)).expect("the beginning");
    for (index, block) in blocks.iter().enumerate() {
        let before = reader.span();
        log.append(block).expect("the block follows");
        assert_eq!(reader.span(), before, "nothing is seen yet");
        assert!(cursor.next_block().expect("no error").is_none());
        if index == 0 {
            log.publish().expect("published")
        } else {
            log.sync().expect("synced")
        }
        assert_eq!(reader.span().next, block.header.next_position());
        assert!(cursor.next_block().expect("no error") == Some(parsed(block)));
    }
}

fn a_cursor_begins_with_the_block_that_holds_its_position(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(6).blocks(40);
    write(log.as_mut(), &blocks);
    for (index, block) in blocks.iter().enumerate() {
        for position in block.header.first_position.0..block.header.next_position().0 {
            let mut cursor = log.reader().cursor(Position(position)).expect("the position is there");
            let first = cursor.next_block().expect("no error").expect("a block");
            assert_eq!(first.header.first_position, block.header.first_position, "position {position}");
        }
        assert_holds(log.reader().as_ref(), block.header.first_position, &blocks[index..]);
    }
}

fn a_cursor_waits_at_the_end_and_continues(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(7).blocks(30);
    let mut from_start = log.reader().cursor(Position(0)).expect("the beginning");
    for block in &blocks {
        let mut from_end = log.reader().cursor(log.head().next).expect("the end");
        assert!(from_start.next_block().expect("no error").is_none());
        assert!(from_end.next_block().expect("no error").is_none());
        write(log.as_mut(), std::slice::from_ref(block));
        assert!(from_start.next_block().expect("no error") == Some(parsed(block)));
        assert!(from_end.next_block().expect("no error") == Some(parsed(block)));
    }
}

fn a_cursor_beyond_the_end_is_refused(harness: &mut dyn Harness) {
    let mut log = harness.open();
    write(log.as_mut(), &Filler::new(8).blocks(3));
    let next = log.head().next;
    assert!(matches!(log.reader().cursor(next.next()), Err(LogError::Beyond { .. })));
    assert!(log.reader().cursor(next).is_ok());
}

fn every_time_and_every_task_is_found(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(9).blocks(120);
    write(log.as_mut(), &blocks);
    assert_seeks(log.reader().as_ref(), &blocks, log.head());
}

fn the_hash_before_a_position_is_that_of_the_block_that_ends_there(harness: &mut dyn Harness) {
    let mut log = harness.open();
    assert_eq!(log.reader().hash_before(Position(0)).expect("no error").unwrap_or(Hash::ZERO), Hash::ZERO);
    let blocks = Filler::new(15).blocks(60);
    write(log.as_mut(), &blocks);
    let reader = log.reader();
    let dropped = log.retain(blocks[30].header.first_position).expect("retention works");
    for position in 0..log.head().next.0 + 3 {
        let ends = blocks.iter().find(|block| block.header.next_position().0 == position).map(|block| block.hash);
        let begins = (position == 0).then_some(Hash::ZERO);
        let expected = ends.or(begins).filter(|_| position >= dropped.0);
        assert_eq!(reader.hash_before(Position(position)).expect("no error"), expected, "position {position}");
    }
}

/// Compares every answer with a search through the blocks themselves.
fn assert_seeks(reader: &dyn LogReader, blocks: &[SealedBlock], head: Head) {
    for time in 0..head.last_time.0 + 3 {
        let expected =
            blocks.iter().find(|block| block.last_time.0 >= time).map_or(head.next, |block| block.header.first_position);
        assert_eq!(reader.seek_time(Timestamp(time)).expect("no error"), expected, "time {time}");
    }
    for task in 0..head.next_ordinal.0 + 3 {
        let holds = |block: &&SealedBlock| block.header.first_ordinal.0 <= task && task < block.next_ordinal.0;
        let expected = blocks.iter().find(holds).map(|block| block.header.first_position);
        assert_eq!(reader.seek_task(Ordinal(task)).expect("no error"), expected, "task {task}");
    }
}

fn retention_keeps_everything_from_a_position_on(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let mut filler = Filler::new(10);
    let mut blocks = filler.blocks(200);
    write(log.as_mut(), &blocks);
    let reader = log.reader();
    for keep in [0, 50, 120, 110, 199] {
        let keep_from = Position(blocks[keep].header.next_position().0 - 1);
        let before = reader.span();
        let first = log.retain(keep_from).expect("retention works");
        assert!(first <= blocks[keep].header.first_position.max(before.first), "the block of {keep_from} stays");
        assert!(first >= before.first, "what is gone does not come back");
        assert_eq!(reader.span(), Span { first, next: log.head().next });
        let kept = blocks.partition_point(|block| block.header.first_position < first);
        assert_holds(reader.as_ref(), first, &blocks[kept..]);
        assert_seeks(reader.as_ref(), &blocks[kept..], log.head());
        if first > Position(0) {
            assert!(matches!(reader.cursor(Position(first.0 - 1)), Err(LogError::Gone { .. })));
        }
    }
    let more = filler.blocks(20);
    write(log.as_mut(), &more);
    blocks.extend(more);
    let first = reader.span().first;
    let kept = blocks.partition_point(|block| block.header.first_position < first);
    assert_holds(reader.as_ref(), first, &blocks[kept..]);
    if harness.is_durable() {
        log.close().expect("closed");
        let log = harness.open();
        assert_eq!(log.reader().span().first, first);
        assert_holds(log.reader().as_ref(), first, &blocks[kept..]);
    }
}

fn large_blocks_come_back(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let mut filler = Filler::new(11);
    let blocks = [(1, 10), (3, 1 << 20), (1, 7), (12, 1 << 20), (2, 100)].map(|(records, bytes)| filler.block(records, bytes));
    for block in &blocks {
        write(log.as_mut(), std::slice::from_ref(block));
    }
    for (index, block) in blocks.iter().enumerate() {
        assert_holds(log.reader().as_ref(), block.header.first_position, &blocks[index..]);
    }
}

fn many_small_blocks_come_back(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let mut filler = Filler::new(12);
    let blocks: Vec<_> = (0..3_000).map(|_| filler.block(1, 3)).collect();
    write(log.as_mut(), &blocks);
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
    assert_holds(log.reader().as_ref(), Position(2_999), &blocks[2_999..]);
}

fn readers_in_other_threads_follow_the_writer(harness: &mut dyn Harness) {
    let mut log = harness.open();
    let blocks = Filler::new(13).blocks(300);
    let next = blocks[blocks.len() - 1].header.next_position();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = log.reader();
            scope.spawn(move || follow(reader.as_ref(), next));
        }
        for part in blocks.chunks(5) {
            write(log.as_mut(), part);
        }
    });
    assert_holds(log.reader().as_ref(), Position(0), &blocks);
}

/// Reads from the beginning until `next`, waiting for the writer.
fn follow(reader: &dyn LogReader, next: Position) {
    let mut cursor = reader.cursor(Position(0)).expect("the beginning");
    let (mut at, mut hash) = (Position(0), Hash::ZERO);
    while at < next {
        match cursor.next_block().expect("what is visible can be read") {
            Some(block) => {
                assert_eq!((block.header.first_position, block.header.previous), (at, hash));
                (at, hash) = (block.header.next_position(), block.hash());
            }
            None => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

fn a_closed_log_opens_with_the_same_head(harness: &mut dyn Harness) {
    if !harness.is_durable() {
        return;
    }
    let mut filler = Filler::new(14);
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut log = harness.open();
        assert_eq!(log.head(), all.last().map_or_else(Head::default, Head::after));
        assert_holds(log.reader().as_ref(), Position(0), &all);
        let blocks = filler.blocks(25);
        blocks.iter().for_each(|block| log.append(block).expect("the block follows"));
        all.extend(blocks);
        // Closing makes durable what was not.
        log.close().expect("closed");
    }
}

fn a_crash_takes_nothing_that_was_synced(harness: &mut dyn Harness) {
    if !harness.is_durable() {
        return;
    }
    let mut all: Vec<SealedBlock> = Vec::new();
    for seed in 20..24 {
        let mut log = harness.open();
        let kept = all.iter().position(|block| block.header.next_position() == log.head().next).map_or(0, |index| index + 1);
        all.truncate(kept);
        assert_eq!(log.head(), all.last().map_or_else(Head::default, Head::after), "only a suffix is gone");
        assert_holds(log.reader().as_ref(), Position(0), &all);
        let mut filler = Filler::after(&log.head(), seed);
        let synced = filler.blocks(10);
        write(log.as_mut(), &synced);
        let unsynced = filler.blocks(3);
        unsynced.iter().for_each(|block| log.append(block).expect("the block follows"));
        let least = kept + synced.len();
        all.extend(synced);
        all.extend(unsynced);
        drop(log);
        let next = harness.open().head().next;
        assert!(next >= all[least - 1].header.next_position(), "what was synced is there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;

    struct Memory;

    impl Harness for Memory {
        fn open(&mut self) -> Box<dyn EventLog> {
            Box::new(MemoryLog::new())
        }

        fn is_durable(&self) -> bool {
            false
        }
    }

    #[test]
    fn the_memory_log_conforms() {
        run(&mut || Box::new(Memory));
    }
}
