//! Follows the durable log and feeds the views. A wake-up carries only the tail's position; what it missed is in the log, so a new
//! projector is the old one that catches up from the beginning.

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use ergate_events::block::Block;
use ergate_events::id::Position;
use ergate_events::log::{Cursor, LogError, LogReader};
use ergate_events::view::{Progress, Tally};
use tokio::sync::watch;

use crate::log_writer::Tail;
use crate::observe::SharedWatch;
use crate::recent::Recent;

/// Blocks folded before other messages get their turn.
const BLOCKS_A_TURN: usize = 64;

/// A view that others read.
pub type SharedProgress = Arc<Mutex<Progress>>;
/// What is counted for metrics. A projector that is started again goes on with it, so that nothing is counted twice.
pub type SharedTally = Arc<Mutex<Tally>>;

/// Folds the log into views.
pub struct Projector {
    reader: Arc<dyn LogReader>,
    recent: Arc<Recent>,
    /// Position of the next block, or, before the first one, any position within it.
    next: Position,
    /// Reads what is not recent, from `next` on.
    cursor: Option<Box<dyn Cursor>>,
    tail: watch::Receiver<Tail>,
    progress: SharedProgress,
    tally: SharedTally,
    /// What observers are told by, where there are any.
    watch: Option<SharedWatch>,
    running: bool,
}

impl Projector {
    /// A projector that follows the log from this view on.
    pub fn new(
        reader: Arc<dyn LogReader>,
        recent: Arc<Recent>,
        start: &Progress,
        tail: watch::Receiver<Tail>,
        progress: SharedProgress,
        tally: SharedTally,
    ) -> Projector {
        let next = start.position;
        *progress.lock().unwrap_or_else(PoisonError::into_inner) = start.clone();
        Projector { reader, recent, next, cursor: None, tail, progress, tally, watch: None, running: false }
    }

    /// The same, which tells observers as well.
    #[must_use]
    pub fn watching(self, watch: Option<SharedWatch>) -> Projector {
        Projector { watch, ..self }
    }

    /// Folds what is there, at most [`BLOCKS_A_TURN`] blocks; says whether there may be more.
    fn catch_up(&mut self) -> Result<bool, LogError> {
        for _ in 0..BLOCKS_A_TURN {
            if let Some(block) = self.recent.at(self.next) {
                self.cursor = None;
                self.fold(&block)?;
            } else if let Some(block) = self.read()? {
                self.fold(&block)?;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next block from the log.
    fn read(&mut self) -> Result<Option<Block>, LogError> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => self.cursor.insert(self.reader.cursor(self.next)?),
        };
        cursor.next_block()
    }

    fn fold(&mut self, block: &Block) -> Result<(), LogError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watch = self.watch.as_ref().map(|watch| watch.lock().unwrap_or_else(PoisonError::into_inner));
        for envelope in block.records() {
            let envelope = envelope.map_err(|source| LogError::Damaged {
                at: block.header.first_position,
                path: "the log".into(),
                offset: 0,
                source,
            })?;
            if envelope.position >= self.next {
                progress.apply(&envelope);
            }
            if envelope.position >= tally.position {
                tally.apply(&envelope);
            }
            if let Some(watch) = &mut watch {
                watch.apply(&envelope);
            }
        }
        if let Some(watch) = &mut watch {
            watch.end_block();
        }
        self.next = block.header.next_position();
        Ok(())
    }
}

impl Actor for Projector {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let (address, mut tail) = (context.address().downgrade(), self.tail.clone());
        actix::spawn(async move {
            while tail.changed().await.is_ok() {
                let Some(address) = address.upgrade() else { return };
                // A full mailbox holds a wake-up already.
                let _ = address.try_send(Wake);
            }
        });
        context.notify(Wake);
    }
}

/// From the tail: there is more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

impl Handler<Wake> for Projector {
    type Result = ();

    fn handle(&mut self, Wake: Wake, context: &mut Context<Self>) {
        if self.running {
            return;
        }
        match self.catch_up() {
            Ok(true) => {
                self.running = true;
                let address = context.address();
                actix::spawn(async move {
                    let _ = address.send(Continue).await;
                });
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = crate::log_writer::chain(&error), "the views cannot follow the log");
                self.cursor = None;
                // What was folded is not folded again.
                self.next = self.progress.lock().unwrap_or_else(PoisonError::into_inner).position;
            }
        }
    }
}

/// From itself: go on.
#[derive(Message)]
#[rtype(result = "()")]
struct Continue;

impl Handler<Continue> for Projector {
    type Result = ();

    fn handle(&mut self, Continue: Continue, context: &mut Context<Self>) {
        self.running = false;
        self.handle(Wake, context);
    }
}

/// For tests: panics in the handler, which ends the actor for good.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

impl Handler<Panic> for Projector {
    type Result = ();

    #[expect(clippy::panic, reason = "that is its purpose")]
    fn handle(&mut self, Panic: Panic, _: &mut Context<Self>) {
        panic!("the projector was told to panic");
    }
}
