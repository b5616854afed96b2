mod generator;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use self::generator::{Generator, Random, TYPES};
use super::*;
use crate::event::Event;
use crate::log::{Cursor, EventLog};
use crate::time::Timestamp;

const STORE: [u8; 16] = [7; 16];
/// Events in a range that has a sidecar of its own.
const RANGE: u64 = 100;

/// What a walk over the whole log finds, written without any of the code under test.
#[derive(Default)]
struct BruteForce {
    types: Vec<TypeId>,
    history: Vec<Vec<Position>>,
    endings: Vec<Ending>,
    /// How often each task was started.
    starts: Vec<u32>,
    revived: BTreeSet<Ordinal>,
    names: Vec<(TypeId, String)>,
}

impl BruteForce {
    fn of(reader: &dyn LogReader) -> BruteForce {
        let mut all = BruteForce::default();
        let mut cursor = reader.cursor(reader.span().first).unwrap();
        while let Some(block) = cursor.next_block().unwrap() {
            block.records().for_each(|record| all.add(&block, &record.unwrap()));
        }
        all.endings.reverse();
        all
    }

    fn add(&mut self, block: &Block, record: &crate::event::Envelope<'_>) {
        if let Some(task) = record.event.task() {
            self.history[task.0 as usize].push(block.header.first_position);
            self.history[task.0 as usize].dedup();
        }
        if record.event.creates_task() {
            let task_type = match (&record.event, record.event.task()) {
                (Event::Requested { task_type, .. }, _) => *task_type,
                (_, old) => self.types[old.unwrap().0 as usize],
            };
            self.types.push(task_type);
            self.history.push(vec![block.header.first_position]);
            self.starts.push(0);
        }
        if let Event::Started { task, attempt, .. } = record.event {
            self.starts[task.0 as usize] = attempt;
        }
        if let Event::Redriven { task, .. } | Event::DeadLetterDropped { task } = record.event {
            self.revived.insert(task);
        }
        if let Event::TypeDefined { task_type, name, .. } = record.event {
            self.names.push((task_type, name.to_owned()));
        }
        if let Some((task, outcome)) = record.event.ends() {
            let task_type = Some(self.types[task.0 as usize]);
            let dead_letter = matches!(record.event, Event::DeadLettered { .. }).then(|| self.starts[task.0 as usize]);
            let (at, position) = (record.recorded_at, record.position);
            self.endings.push(Ending { task, task_type, outcome, at, position, dead_letter });
        }
    }

    fn endings(&self, query: &EndingQuery<'_>) -> Vec<Ending> {
        let wanted = |ending: &&Ending| {
            query.types.is_none_or(|types| types.contains(&ending.task_type.unwrap()))
                && query.outcome.is_none_or(|outcome| outcome == ending.outcome)
                && query.before.is_none_or(|before| ending.position < before)
        };
        self.endings.iter().filter(wanted).take(query.limit).copied().collect()
    }
}

/// Asks for every task, and for endings in many ways, and compares.
fn compare(index: &TaskIndex, tail: Option<&TailIndex>, truth: &BruteForce, seed: u64) {
    for (task, expected) in truth.history.iter().enumerate() {
        assert_eq!(&index.history(Ordinal(task as u64), tail).unwrap(), expected, "history of task {task}");
    }
    let beyond = Ordinal(truth.history.len() as u64);
    assert!(index.history(beyond, tail).unwrap().is_empty(), "a task that was never created has no history");
    let mut random = Random(seed);
    let tasks: BTreeSet<_> = (0..beyond.0).map(Ordinal).filter(|_| random.below(3) == 0).collect();
    let revived = truth.revived.intersection(&tasks).copied().collect();
    assert_eq!(index.revived(&tasks, Position(0)).unwrap(), revived);
    let names = index.type_names().unwrap();
    assert!(names.is_whole() && names.iter().eq(truth.names.iter().map(|(id, name)| (*id, name.as_str()))), "{names:?}");
    for _ in 0..60 {
        let types: Vec<_> = (0..1 + random.below(3)).map(|_| TypeId(random.below(TYPES + 1) as u16)).collect();
        let query = EndingQuery {
            types: (random.below(2) == 0).then_some(&types),
            outcome: (random.below(2) == 0).then(|| Outcome::ALL[random.below(5) as usize]),
            before: (random.below(2) == 0).then(|| Position(random.below(1 + index.reader.span().next.0))),
            limit: random.below(300) as usize,
        };
        assert_eq!(index.endings(&query, tail).unwrap(), truth.endings(&query), "{query:?}");
    }
}

fn open(dir: &Path, generator: &Generator) -> TaskIndex {
    TaskIndex::open(dir, STORE, generator.log.reader()).unwrap()
}

/// A log of 20 ranges with sidecars for all but the last two.
fn indexed(dir: &Path, seed: u64) -> (Generator, TaskIndex, BruteForce) {
    let generator = Generator::log_of(seed, 2_000);
    let index = open(dir, &generator);
    let spans = generator.spans(RANGE);
    index.build_missing(&spans[..spans.len() - 2], &mut |_| {}).unwrap();
    let truth = BruteForce::of(&*generator.log.reader());
    (generator, index, truth)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    plain::list(&dir.join("index"), sidecar::EXTENSION).unwrap().into_iter().map(|(_, path)| path).collect()
}

#[test]
fn sidecars_the_log_and_a_tail_in_memory_give_what_a_walk_gives() {
    for seed in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let (generator, index, truth) = indexed(dir.path(), seed);
        assert!(files(dir.path()).len() > 12 && index.unusable().is_empty());
        compare(&index, None, &truth, seed);

        let mut tail = TailIndex::new(generator.spans(RANGE).iter().rev().nth(1).unwrap().first);
        let mut cursor = generator.log.reader().cursor(tail.span().first).unwrap();
        while let Some(block) = cursor.next_block().unwrap() {
            tail.add_block(&block, &mut |task| index.type_of(task)).unwrap();
        }
        compare(&index, Some(&tail), &truth, seed);
        index.save(&mut tail).unwrap();
        compare(&index, Some(&tail), &truth, seed);
        compare(&open(dir.path(), &generator), None, &truth, seed);
    }
}

#[test]
fn without_any_sidecar_the_log_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let generator = Generator::log_of(8, 1_500);
    compare(&open(dir.path(), &generator), None, &BruteForce::of(&*generator.log.reader()), 8);
}

#[test]
fn ranges_of_many_pages_and_runs_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let generator = Generator::log_of(5, 140_000);
    let index = open(dir.path(), &generator);
    index.build_missing(&[generator.log.reader().span()], &mut |_| {}).unwrap();
    let truth = BruteForce::of(&*generator.log.reader());
    let mut tail = TailIndex::new(Position(0));
    let mut cursor = generator.log.reader().cursor(Position(0)).unwrap();
    while let Some(block) = cursor.next_block().unwrap() {
        tail.add_block(&block, &mut |_| unreachable!("everything is created here")).unwrap();
    }
    let mut random = Random(1);
    for _ in 0..400 {
        let task = random.below(truth.history.len() as u64);
        let expected = &truth.history[task as usize];
        assert_eq!(&index.history(Ordinal(task), None).unwrap(), expected, "task {task} in the sidecar");
        assert_eq!(&tail.history(Ordinal(task)), expected, "task {task} in memory");
        assert_eq!(index.type_of(Ordinal(task)).unwrap(), Some(truth.types[task as usize]));
    }
    let rare = EndingQuery { types: Some(&[TypeId(3)]), outcome: Some(Outcome::Partial), limit: usize::MAX, before: None };
    assert_eq!(index.endings(&rare, None).unwrap(), truth.endings(&rare));
    assert_eq!(tail.endings(&rare), truth.endings(&rare));
    assert_eq!(index.counts()[&(Some(TypeId(3)), Outcome::Partial)], truth.endings(&rare).len() as u64);
}

#[test]
fn damaged_sidecars_are_not_believed_and_are_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let (generator, index, truth) = indexed(dir.path(), 11);
    let mut random = Random(99);
    let query = EndingQuery { limit: 400, ..EndingQuery::default() };
    for round in 0..300 {
        let paths = files(dir.path());
        let path = &paths[random.below(paths.len() as u64) as usize];
        let whole = fs::read(path).unwrap();
        let at = random.below(whole.len() as u64) as usize;
        let mut bytes = whole.clone();
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            _ => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = random.below(256) as u8),
        }
        fs::write(path, &bytes).unwrap();
        // An index that was opened before the damage, and one that was opened after it.
        for index in [&index, &open(dir.path(), &generator)] {
            for task in (0..12).map(|_| random.below(truth.history.len() as u64)) {
                assert_eq!(index.history(Ordinal(task), None).unwrap(), truth.history[task as usize], "round {round}");
            }
            assert_eq!(index.endings(&query, None).unwrap(), truth.endings(&query), "round {round}");
            index.check().unwrap();
            assert_eq!(index.unusable().len(), usize::from(bytes != whole), "round {round}");
        }
        let sealed = generator.spans(RANGE);
        index.build_missing(&sealed[..sealed.len() - 2], &mut |_| {}).unwrap();
        assert_eq!(fs::read(path).unwrap(), whole, "round {round}");
        assert!(index.unusable().is_empty());
    }
}

#[test]
fn sidecars_of_another_store_format_or_history_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (generator, _, truth) = indexed(dir.path(), 21);
    let other = TaskIndex::open(dir.path(), [8; 16], generator.log.reader()).unwrap();
    assert!(other.unusable().iter().all(|aside| matches!(*aside.reason, Unusable::OtherStore)));
    assert_eq!(other.unusable().len(), files(dir.path()).len());
    compare(&other, None, &truth, 21);

    let same_store = Generator::log_of(22, 2_000);
    let stale = open(dir.path(), &same_store);
    assert!(stale.unusable().is_empty(), "the log is only asked when a question needs it");
    compare(&stale, None, &BruteForce::of(&*same_store.log.reader()), 22);
    assert_eq!(stale.unusable().len(), files(dir.path()).len());
    assert!(stale.unusable().iter().all(|aside| matches!(*aside.reason, Unusable::Stale(_))));

    let path = &files(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[4] = 2;
    fs::write(path, bytes).unwrap();
    assert!(matches!(*open(dir.path(), &generator).unusable()[0].reason, Unusable::OtherFormat(2)));
}

#[test]
fn a_sidecar_of_records_that_the_log_has_lost_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut generator = Generator::log_of(31, 900);
    let shorter = BruteForce::of(&*generator.log.reader());
    let before = Generator::log_of(31, 900);
    generator.extend(900);
    let index = open(dir.path(), &generator);
    index.build_missing(&generator.spans(700), &mut |_| {}).unwrap();
    compare(&open(dir.path(), &before), None, &shorter, 31);
}

#[test]
fn a_link_in_the_place_of_a_sidecar_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (generator, _, truth) = indexed(dir.path(), 41);
    let path = &files(dir.path())[3];
    fs::rename(path, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), path).unwrap();
    let index = open(dir.path(), &generator);
    assert!(matches!(*index.unusable()[0].reason, Unusable::Io(_)));
    compare(&index, None, &truth, 41);
    index.build_missing(&generator.spans(RANGE), &mut |_| {}).unwrap();
    assert!(index.unusable().is_empty() && !path.is_symlink());
}

#[test]
fn after_retention_what_is_left_is_found_and_old_sidecars_still_know_types() {
    let dir = tempfile::tempdir().unwrap();
    let (mut generator, index, truth) = indexed(dir.path(), 51);
    let first = generator.log.retain(generator.spans(RANGE)[9].first).unwrap();
    let all = EndingQuery { limit: usize::MAX, ..EndingQuery::default() };
    let kept: Vec<_> = truth.endings.iter().filter(|ending| ending.position >= first).copied().collect();
    assert_eq!(index.endings(&all, None).unwrap(), kept);
    for (task, blocks) in truth.history.iter().enumerate() {
        let expected: Vec<_> = blocks.iter().copied().filter(|block| *block >= first).collect();
        assert_eq!(index.history(Ordinal(task as u64), None).unwrap(), expected);
    }

    index.prune(first).unwrap();
    assert!(files(dir.path()).iter().all(|path| plain::path(&dir.path().join("index"), first, "idx") <= *path));
    assert_eq!(index.endings(&all, None).unwrap().len(), kept.len());
    assert_eq!(index.type_of(Ordinal(0)).unwrap(), None);
}

#[test]
fn a_block_that_does_not_follow_leaves_the_tail_as_it_was() {
    let generator = Generator::log_of(61, 300);
    let mut cursor = generator.log.reader().cursor(Position(0)).unwrap();
    let (first, second) = (cursor.next_block().unwrap().unwrap(), cursor.next_block().unwrap().unwrap());
    let mut tail = TailIndex::new(Position(0));
    assert!(matches!(tail.add_block(&second, &mut |_| Ok(None)), Err(LogError::Gap { .. })));
    tail.add_block(&first, &mut |_| Ok(None)).unwrap();
    let (span, bytes) = (tail.span(), tail.bytes());
    assert!(matches!(tail.add_block(&first, &mut |_| Ok(None)), Err(LogError::Gap { .. })));
    assert_eq!((tail.span(), tail.bytes()), (span, bytes));
    tail.add_block(&second, &mut |_| Ok(None)).unwrap();
}

#[test]
fn bytes_that_are_no_entries_are_refused_and_never_panic() {
    use super::entry::{Creation, End, Posting, TypeOf};
    use super::page::{Entries, SLOT_BYTES, Slot};
    let mut random = Random(81);
    let mut refused = 0;
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..random.below(80)).map(|_| random.below(256) as u8).collect();
        refused += Entries::<Creation>::of(&bytes).filter(Result::is_err).count();
        refused += Entries::<Posting>::of(&bytes).filter(Result::is_err).count();
        refused += Entries::<TypeOf>::of(&bytes).filter(Result::is_err).count();
        refused += Entries::<End>::of(&bytes).filter(|end| end.as_ref().map_or(true, |end| end.ending().is_none())).count();
        let slot = bytes.first_chunk::<SLOT_BYTES>().map(Slot::read);
        assert!(slot.is_none_or(|slot| slot.unpack(&bytes).is_err()));
    }
    assert!(refused > 2_000, "{refused}");
}

#[test]
fn a_step_leads_from_any_number_to_any_other() {
    use super::page::{put, step, take, walk};
    let numbers = [0, 1, 2, 63, 64, 1 << 40, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX];
    for (from, to) in numbers.iter().flat_map(|from| numbers.map(|to| (*from, to))) {
        let mut bytes = Vec::new();
        put(step(from, to), &mut bytes);
        assert_eq!(walk(from, take(&mut &*bytes).unwrap()), to, "{from} to {to}");
    }
}

#[test]
fn pages_of_endings_are_walked_by_their_last_position() {
    let dir = tempfile::tempdir().unwrap();
    let (_, index, truth) = indexed(dir.path(), 71);
    let mut before = None;
    let mut paged = Vec::new();
    loop {
        let page = index.endings(&EndingQuery { before, limit: 37, ..EndingQuery::default() }, None).unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.position);
        paged.extend(page);
    }
    assert_eq!(paged, truth.endings);
}

/// Counts the blocks that are read.
struct Counting {
    log: Arc<dyn LogReader>,
    blocks: Arc<AtomicU64>,
}

struct CountingCursor {
    log: Box<dyn Cursor>,
    blocks: Arc<AtomicU64>,
}

impl LogReader for Counting {
    fn span(&self) -> Span {
        self.log.span()
    }

    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError> {
        Ok(Box::new(CountingCursor { log: self.log.cursor(from)?, blocks: Arc::clone(&self.blocks) }))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError> {
        self.log.seek_time(time)
    }

    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError> {
        self.log.seek_task(task)
    }

    fn hash_before(&self, at: Position) -> Result<Option<crate::block::Hash>, LogError> {
        self.log.hash_before(at)
    }
}

impl Cursor for CountingCursor {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.log.next_block()
    }
}

/// What a process pays that asks one question about a log that is indexed but for its last thousand events.
#[test]
fn the_work_for_a_question_does_not_grow_with_the_log() {
    const TAIL: u64 = 1_000;
    for events in [10_000, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let generator = Generator::log_of(91, events);
        let indexed = Position(generator.log.head().next.0 - TAIL);
        let indexed = *generator.blocks.iter().rfind(|first| **first <= indexed).unwrap();
        open(dir.path(), &generator).extend(indexed, 1, &mut |_| Pace::GoOn).unwrap();
        let truth = BruteForce::of(&*generator.log.reader());
        let tail = generator.blocks.iter().filter(|first| **first >= indexed).count() as u64;

        let blocks = Arc::new(AtomicU64::new(0));
        let ask = |question: &dyn Fn(&TaskIndex)| {
            let reader = Counting { log: generator.log.reader(), blocks: Arc::clone(&blocks) };
            blocks.store(0, Ordering::Relaxed);
            question(&TaskIndex::open(dir.path(), STORE, Arc::new(reader)).unwrap());
            blocks.load(Ordering::Relaxed)
        };
        let (mut over, finished) = (0, truth.endings.iter().rev().take(200));
        for task in finished.map(|ending| ending.task) {
            let history = &truth.history[task.0 as usize];
            let read = ask(&|index| assert_eq!(&index.history(task, None).unwrap(), history));
            assert!(read <= history.len() as u64 + tail + 2, "{read} blocks for the {} of task {task}", history.len());
            over += u64::from(read <= history.len() as u64);
        }
        assert!(over > 100, "of 200 finished tasks {over} need nothing of the end of the log");
        for outcome in Outcome::ALL {
            let query = EndingQuery { outcome: Some(outcome), limit: 100, ..EndingQuery::default() };
            let read = ask(&|index| assert_eq!(index.endings(&query, None).unwrap(), truth.endings(&query)));
            assert!(read <= tail + 2, "{read} blocks for the newest endings");
        }
        assert!(ask(&|index| assert!(index.type_names().unwrap().is_whole())) <= tail + 2);
    }
}

#[test]
fn what_is_short_is_built_again_with_what_follows_and_what_is_no_sidecar_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut generator = Generator::log_of(95, 600);
    let all = |generator: &Generator| generator.log.head().next;
    open(dir.path(), &generator).extend(all(&generator), 10_000, &mut |_| Pace::GoOn).unwrap();
    assert_eq!(files(dir.path()).len(), 0, "fewer than the least");
    open(dir.path(), &generator).extend(all(&generator), 1, &mut |_| Pace::Stop).unwrap();
    assert_eq!(files(dir.path()).len(), 0, "stopped at the first block");
    for _ in 0..5 {
        generator.extend(300);
        open(dir.path(), &generator).extend(all(&generator), 1, &mut |_| Pace::GoOn).unwrap();
        assert_eq!(files(dir.path()).len(), 1, "one short one and another make one");
        assert_eq!(open(dir.path(), &generator).reaches().unwrap(), all(&generator));
    }
    let stray = plain::path(&dir.path().join("index"), Position(77), sidecar::EXTENSION);
    fs::write(&stray, b"ERGI and no more").unwrap();
    let index = open(dir.path(), &generator);
    assert_eq!(index.unusable().len(), 1);
    index.extend(all(&generator), 1, &mut |_| Pace::GoOn).unwrap();
    assert!(index.unusable().is_empty() && !stray.exists());
    compare(&index, None, &BruteForce::of(&*generator.log.reader()), 95);
}
