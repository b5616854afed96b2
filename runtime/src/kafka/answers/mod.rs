//! Answers to the requests that this engine publishes, and ends of tasks that other engines lead: read from the record itself, so that an
//! answer is given when it is committed, whoever committed it.
//!
//! ```text
//!   submit ── Book::open ── requests.rs (one thread) ── record ──▶ requests topic ──▶ the engine that leads the shard
//!               │  ▲                    └─ report: partition, offset                            │
//!             answers, ends                                                                 transaction
//!               │  └──── follower.rs (one thread) ◀── blocks of all shards ── events topic ◀────┘
//! ```
//! The follower reads only while somebody waits, and begins at the end: whoever waits for something that may have happened before registers
//! first and looks back after that.

mod book;
mod early;
mod follower;
mod shard;
mod source;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_events::id::{Ordinal, ShardId, TaskId};
use tokio::sync::oneshot;

pub(crate) use self::book::{Asked, Book, Ticket};
use self::follower::Follower;
use super::settings::KafkaSettings;
use ergate_actors::submission::TaskEnd;

/// Whether the record is being followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Following {
    /// Nobody waits for anything, or the brokers are not reached.
    No,
    /// What is committed from now on is seen.
    Yes,
    /// The engine has ended.
    Ended,
}

/// What the threads share.
pub(crate) struct Shared {
    inside: Mutex<Inside>,
    changed: Condvar,
}

struct Inside {
    book: Book,
    following: Following,
    /// How many wait for the follower to begin.
    waiting: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes who waits for what.
    pub(crate) fn book<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.lock().book)
    }

    /// Blocks until the record is followed, so that nothing is missed that is committed later; says `false` when it is not within `limit`.
    pub(crate) fn wait_until_following(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut inside = self.lock();
        inside.waiting += 1;
        self.changed.notify_all();
        while inside.following == Following::No {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inside.waiting -= 1;
        inside.following == Following::Yes
    }
}

/// The end of one task, when it comes.
pub(crate) type Watch = (Ordinal, oneshot::Receiver<TaskEnd>);

/// Follows the record for those who wait.
pub(crate) struct Answers {
    pub(crate) shared: Arc<Shared>,
    settings: Arc<KafkaSettings>,
    shards: u16,
    /// Started by whoever waits first.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Answers {
    /// For the shards of a namespace; nothing is read yet.
    pub(crate) fn new(settings: Arc<KafkaSettings>, shards: u16) -> Answers {
        let inside = Inside { book: Book::new(shards), following: Following::No, waiting: 0 };
        let shared = Arc::new(Shared { inside: Mutex::new(inside), changed: Condvar::new() });
        Answers { shared, settings, shards, thread: Mutex::new(None) }
    }

    /// Starts the follower, if it was not.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() && self.shared.lock().following != Following::Ended {
            let follower = Follower::new(Arc::clone(&self.shared), &self.settings, self.shards);
            *thread = Some(std::thread::Builder::new().name("ergate-answers".to_owned()).spawn(move || follower.run())?);
        }
        Ok(())
    }

    /// Waits for the ends of tasks that have not ended.
    pub(crate) fn watch(&self, shard: ShardId, tasks: impl IntoIterator<Item = Ordinal>) -> Vec<Watch> {
        let mut inside = self.shared.lock();
        let ended = inside.following == Following::Ended;
        let watch = |ordinal| {
            let (watch, end) = oneshot::channel();
            if !ended {
                inside.book.watch(TaskId { shard, ordinal }, watch);
            }
            (ordinal, end)
        };
        tasks.into_iter().map(watch).collect()
    }

    /// Ends the follower; whoever still waits is told that nothing more comes.
    pub(crate) fn end(&self) -> Option<JoinHandle<()>> {
        let mut inside = self.shared.lock();
        inside.following = Following::Ended;
        inside.book.lose("the runtime stopped before the answer was committed");
        drop(inside);
        self.shared.changed.notify_all();
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
