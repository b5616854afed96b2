//! The thread that owns the log: seals, writes and syncs block n while the arbiter fills block n + 1.
//!
//! It takes all blocks that wait, makes them durable with one sync and reports the new head; there is no timer that delays a commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_events::block::{Block, Header, OpenBlock};
use ergate_events::id::Position;
use ergate_events::log::{EventLog, Head, LogError, Outgoing, Space};
use ergate_events::planted::{self, Bug};

use crate::recent::Recent;
use crate::timings::Timings;

/// When a reply may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the block's fdatasync: nothing acknowledged is lost in a power cut.
    Fsync,
    /// After the block's write; a sync follows at most this long after: a power cut loses at most so much, a kill nothing.
    Interval(Duration),
    /// After the block's write; a power cut may lose everything since the start, a kill nothing.
    Memory,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Durability::Fsync => f.write_str("fsync"),
            Durability::Interval(span) => write!(f, "interval:{}ms", span.as_millis()),
            Durability::Memory => f.write_str("memory"),
        }
    }
}

/// How long the thread waits for the next block before it does what can wait, such as syncing the head anchor.
const IDLE_AFTER: Duration = Duration::from_millis(2);
/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_millis(500);

/// What the log thread tells the log writer.
#[derive(Debug)]
pub enum LogNews {
    /// Everything before this head is as durable as the mode promises.
    Durable(Head),
    /// The log refuses to go on; nothing after the last durable head may be acknowledged.
    Failed(Arc<LogError>),
}

enum Order {
    Write(OpenBlock, Vec<Outgoing>),
    Commit,
    Retain(Position),
    Close,
}

/// What the log thread has done, for figures.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Syncs of blocks.
    pub syncs: AtomicU64,
    /// Blocks written.
    pub blocks: AtomicU64,
    /// Bytes of blocks written.
    pub bytes: AtomicU64,
    /// Sealing and writing a block, each time.
    pub append: Timings,
    /// Making what was written durable, each time: a sync of files, or a transaction.
    pub sync: Timings,
    /// How often lanes were closed because too much waited for the disk.
    pub holds: AtomicU64,
    /// Whether free space is below the low-water mark.
    pub space_is_low: AtomicBool,
    /// Bytes that were free when the log thread last looked; 0 before it did.
    pub free_bytes: AtomicU64,
    /// The low-water mark.
    pub low_water_bytes: AtomicU64,
}

/// A block that is written and not durable yet.
type Written = (OpenBlock, Header);

/// Sends work to the log thread.
#[derive(Debug)]
pub struct LogThread {
    orders: Sender<Order>,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl LogThread {
    /// Starts the thread; it counts into `counters`, and `news` is called on it.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        log: Box<dyn EventLog>,
        durability: Durability,
        recent: Arc<Recent>,
        counters: Arc<LogCounters>,
        news: impl Fn(LogNews) + Send + 'static,
    ) -> std::io::Result<LogThread> {
        let (orders, received) = channel();
        let mut writer = Writer {
            log,
            durability,
            news,
            recent,
            written: Vec::new(),
            counters,
            unsynced_since: None,
            space_seen: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("ergate-log".to_owned()).spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| writer.run(&received)));
            let outcome = ran.unwrap_or_else(|_| {
                // Everybody would wait for ever for a thread that died without a word.
                let reason = "the log thread panicked".to_owned();
                (writer.news)(LogNews::Failed(Arc::new(LogError::Poisoned { reason: reason.clone() })));
                Err(LogError::Poisoned { reason })
            });
            // What was appended and never synced was never acknowledged, so closing after a failure has nothing to save.
            if outcome.is_ok() { writer.log.close() } else { outcome }
        })?;
        Ok(LogThread { orders, thread: Some(thread) })
    }

    /// Hands over a block and the messages that go out with it; news about it follow.
    pub fn write(&self, block: OpenBlock, messages: Vec<Outgoing>) {
        self.order(Order::Write(block, messages));
    }

    /// Makes what was handed over durable before it goes on with what comes later, so that news name the head right here.
    pub fn commit(&self) {
        self.order(Order::Commit);
    }

    /// Gives up what lies before a position.
    pub fn retain(&self, keep_from: Position) {
        self.order(Order::Retain(keep_from));
    }

    fn order(&self, order: Order) {
        // A thread that is gone has reported why.
        let _ = self.orders.send(order);
    }

    /// Writes everything handed over, closes the log and ends the thread.
    ///
    /// # Errors
    /// What the log answered.
    pub fn close(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.order(Order::Close);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(LogError::Poisoned { reason: "the log thread panicked".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        // After a panic of its owner nobody closes it, and the next to open the log would find it locked.
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            tracing::error!(error = crate::log_writer::chain(&error), "the log was not closed well");
        }
    }
}

struct Writer<F> {
    log: Box<dyn EventLog>,
    durability: Durability,
    news: F,
    recent: Arc<Recent>,
    /// Blocks that are as good as durable once the mode says so.
    written: Vec<Written>,
    counters: Arc<LogCounters>,
    /// When the oldest block was written that is not synced yet.
    unsynced_since: Option<Instant>,
    space_seen: Instant,
}

impl<F: Fn(LogNews)> Writer<F> {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<(), LogError> {
        let outcome = self.serve(orders);
        if let Err(error) = outcome {
            let reason = error.to_string();
            (self.news)(LogNews::Failed(Arc::new(error)));
            return Err(LogError::Poisoned { reason });
        }
        Ok(())
    }

    fn serve(&mut self, orders: &Receiver<Order>) -> Result<(), LogError> {
        let mut idle_done = false;
        loop {
            let wait = if idle_done { self.longest_wait() } else { IDLE_AFTER };
            match orders.recv_timeout(wait) {
                Ok(order) => {
                    idle_done = false;
                    if self.commit(order, orders)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.rest(idle_done)?;
                    idle_done = true;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Carries out all orders that wait, or those up to the first that asks for a commit, with one sync at the end; says whether closing was
    /// among them.
    fn commit(&mut self, first: Order, orders: &Receiver<Order>) -> Result<bool, LogError> {
        let (mut close, mut wrote) = (false, false);
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Write(block, messages) => {
                    self.append(block)?;
                    messages.into_iter().for_each(|message| self.log.send(message));
                    wrote = true;
                }
                Order::Retain(position) => {
                    self.log.retain(position)?;
                }
                Order::Commit => break,
                Order::Close => {
                    close = true;
                    break;
                }
            }
        }
        if wrote {
            self.make_durable()?;
        }
        Ok(close)
    }

    fn append(&mut self, block: OpenBlock) -> Result<(), LogError> {
        let began = Instant::now();
        let sealed = block.seal(self.log.head().hash);
        self.log.append(&sealed)?;
        self.counters.append.record(began.elapsed());
        self.written.push((block, sealed.header));
        self.counters.blocks.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(sealed.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), LogError> {
        match self.durability {
            Durability::Fsync if planted::is(Bug::AckBeforeSync) => {
                (self.news)(LogNews::Durable(self.log.head()));
                self.log.publish()?;
                self.written.clear();
                return Ok(());
            }
            Durability::Fsync => self.sync()?,
            Durability::Interval(span) => {
                self.log.publish()?;
                let since = *self.unsynced_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= span {
                    self.sync()?;
                }
            }
            Durability::Memory => self.log.publish()?,
        }
        self.recent.add(self.written.drain(..).map(|(block, header)| Block::sealed(block, header)));
        (self.news)(LogNews::Durable(self.log.head()));
        self.look_at_space();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let began = Instant::now();
        self.log.sync()?;
        self.counters.sync.record(began.elapsed());
        self.unsynced_since = None;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What can wait while nobody waits.
    fn rest(&mut self, idle_done: bool) -> Result<(), LogError> {
        if let (Durability::Interval(span), Some(since)) = (self.durability, self.unsynced_since)
            && since.elapsed() >= span
        {
            self.sync()?;
        }
        if !idle_done {
            self.log.idle()?;
        }
        self.look_at_space();
        Ok(())
    }

    fn longest_wait(&self) -> Duration {
        match (self.durability, self.unsynced_since) {
            (Durability::Interval(span), Some(since)) => span.saturating_sub(since.elapsed()).max(Duration::from_millis(1)),
            (Durability::Interval(_) | Durability::Fsync | Durability::Memory, _) => SPACE_EVERY,
        }
    }

    fn look_at_space(&mut self) {
        if self.space_seen.elapsed() < SPACE_EVERY {
            return;
        }
        self.space_seen = Instant::now();
        match self.log.space() {
            Ok(space) => self.note_space(space),
            Err(error) => tracing::warn!(%error, "free space is unknown"),
        }
    }

    fn note_space(&self, space: Space) {
        let Space { free_bytes, low_water_bytes } = space;
        self.counters.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.counters.low_water_bytes.store(low_water_bytes, Ordering::Relaxed);
        let low = space.is_low();
        let was_low = self.counters.space_is_low.swap(low, Ordering::Relaxed);
        if low && !was_low {
            tracing::warn!(free_bytes, "space is running out, new work is refused until some is freed");
        } else if was_low && !low {
            tracing::info!(free_bytes, "there is space again, new work is taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ergate_events::id::{Epoch, Ordinal, ShardId};
    use ergate_events::log::memory::MemoryLog;
    use ergate_events::time::Timestamp;

    use super::*;

    fn block(position: u64) -> OpenBlock {
        let mut block = OpenBlock::new(ShardId(0), Epoch(1), Position(position), Ordinal(0));
        block.push(Timestamp(position + 1), &ergate_events::event::Event::Ready { task: Ordinal(0) });
        block
    }

    /// Under load every commit took several blocks, so the hash of the one with a snapshot was never known and the copy was in vain.
    #[test]
    fn a_commit_that_is_asked_for_ends_with_the_blocks_before_it() {
        let (go, wait) = channel::<()>();
        let (heads, seen) = channel();
        let news = move |news| {
            if let LogNews::Durable(head) = news {
                heads.send(head.next).unwrap();
                // The first news come while the thread is held here, so that all other orders wait together.
                wait.recv().unwrap();
            }
        };
        let thread =
            LogThread::start(Box::new(MemoryLog::new()), Durability::Fsync, Arc::default(), Arc::default(), news).unwrap();
        thread.write(block(0), Vec::new());
        assert_eq!(seen.recv().unwrap(), Position(1));
        (1..3).for_each(|position| thread.write(block(position), Vec::new()));
        thread.commit();
        (3..6).for_each(|position| thread.write(block(position), Vec::new()));
        (0..3).for_each(|_| go.send(()).unwrap());
        thread.close().unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [Position(3), Position(6)]);
    }
}
