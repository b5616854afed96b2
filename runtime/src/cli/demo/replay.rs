//! Replays a log from disk with every decision computed again, and compares the state with the one that was live.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ergate::Runtime;
use ergate::events::audit::{Audit, Depth};
use ergate::events::block::{Block, Hash};
use ergate::events::id::Position;
use ergate::events::log::LogReader;
use ergate::events::log::directory;
use ergate::events::state::State;
use ergate::store::RecoverError;
use serde::Serialize;

use crate::cli::Globals;
use crate::cli::progress::{DRAW_EVERY, Display};
use crate::cli::signals::Signals;

/// How long the log and the projector may take to catch up with a runtime that has nothing to do.
const CATCH_UP: Duration = Duration::from_secs(10);

/// The digest of a live state and where it was taken.
#[derive(Clone, Copy)]
pub(super) struct Live {
    position: Position,
    digest: Hash,
}

/// What the replay found.
#[derive(Serialize)]
pub(super) struct Replayed {
    pub(super) events: u64,
    pub(super) head_position: u64,
    pub(super) head_hash: Hash,
    pub(super) live_state_digest: Hash,
    /// None when the log ends before the live state's position.
    pub(super) replayed_state_digest: Option<Hash>,
    pub(super) equal: bool,
    pub(super) elapsed_ms: u64,
}

/// Waits until everything decided is durable and in the views, and takes the digest of the state.
pub(super) async fn live(runtime: &Runtime) -> anyhow::Result<Live> {
    let state = runtime.state().await?;
    let position = state.position;
    let behind = || runtime.durable() < position || runtime.with_progress(|progress| progress.position < position);
    let started = Instant::now();
    while behind() && runtime.failure().is_none() && started.elapsed() < CATCH_UP {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(Live { position, digest: state.digest() })
}

/// Replays the log in `dir` from its beginning, on a thread of its own; `None` when a signal came first.
pub(super) async fn replay(dir: &Path, live: Live, globals: &Globals, signals: &mut Signals) -> anyhow::Result<Option<Replayed>> {
    let reader = directory::read(dir)?;
    let events = reader.span().next.0;
    let done = Arc::new(AtomicU64::new(0));
    let mut display = Display::new(globals, "replaying", "events");
    let shared = Arc::clone(&done);
    let mut replaying = tokio::task::spawn_blocking(move || follow(reader.as_ref(), live, &shared));
    let mut tick = tokio::time::interval(DRAW_EVERY);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(None),
            replayed = &mut replaying => {
                display.finish();
                return Ok(Some(replayed??));
            }
            _ = tick.tick() => display.update(done.load(Ordering::Relaxed), Some(events), ""),
        }
    }
}

fn follow(reader: &dyn LogReader, live: Live, done: &AtomicU64) -> Result<Replayed, RecoverError> {
    let started = Instant::now();
    let mut audit = Audit::new(Depth::Decisions, State::default(), None);
    let mut cursor = reader.cursor(Position(0))?;
    let mut replayed_state_digest = None;
    while let Some(block) = cursor.next_block()? {
        let before =
            (live.position < block.header.next_position() && replayed_state_digest.is_none()).then(|| audit.state().clone());
        audit.follow(&block)?;
        if let Some(before) = before {
            replayed_state_digest = Some(until(before, &block, live.position).digest());
        } else if audit.state().position == live.position {
            replayed_state_digest = Some(audit.state().digest());
        }
        done.store(audit.events(), Ordering::Relaxed);
    }
    Ok(Replayed {
        events: audit.events(),
        head_position: audit.state().position.0,
        head_hash: audit.head(),
        live_state_digest: live.digest,
        replayed_state_digest,
        equal: replayed_state_digest == Some(live.digest),
        elapsed_ms: started.elapsed().as_millis() as u64,
    })
}

/// The state with the events of a block before a position in it; the block has been checked.
fn until(mut state: State, block: &Block, position: Position) -> State {
    block.records().flatten().filter(|envelope| envelope.position < position).for_each(|envelope| state.apply(&envelope));
    state
}
