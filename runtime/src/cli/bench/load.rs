//! Submitters: each keeps one batch in flight, at a rate or as fast as it goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ergate::events::id::TypeId;
use ergate::events::time::Micros;
use ergate::events::view::Histogram;
use ergate::{RequestBatch, Runtime, SubmitError};
use tokio::sync::{Mutex, mpsc};

use super::{BenchArgs, SAY_EVERY};
use crate::cli::exit::Trouble;
use crate::cli::space::{SpaceWatch, describe};
use crate::cli::{Globals, output};

/// How long a submitter that finds the runtime busy waits before it tries again.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How often somebody looks at what is done and at the space.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the submitters share.
struct Shared {
    runtime: Runtime,
    task_type: TypeId,
    payloads: Vec<Vec<u8>>,
    left: Cell<u64>,
    done: Cell<u64>,
    /// When batches are due, at a rate.
    due: Mutex<Option<mpsc::Receiver<Instant>>>,
    waits: RefCell<Histogram>,
}

/// Runs the load and returns the waits.
pub(super) async fn run(runtime: &Runtime, args: &BenchArgs, globals: &Globals) -> anyhow::Result<Histogram> {
    let shared = Rc::new(Shared {
        runtime: runtime.clone(),
        task_type: runtime.task_type("noop")?,
        payloads: payloads(args),
        left: Cell::new(args.tasks),
        done: Cell::new(0),
        due: Mutex::new(args.rate.map(|rate| pace(rate, args.batch))),
        waits: RefCell::default(),
    });
    let local = tokio::task::LocalSet::new();
    let submitters: Vec<_> = (0..args.submitters).map(|_| local.spawn_local(submit(Rc::clone(&shared), args.clone()))).collect();
    let working = async {
        for submitter in submitters {
            submitter.await??;
        }
        Ok::<(), anyhow::Error>(())
    };
    let either = async {
        tokio::select! {
            done = working => done,
            error = watch(&shared, args, globals) => Err(error),
        }
    };
    local.run_until(either).await?;
    Ok(shared.waits.take())
}

/// Says how far the load is, and gives up on a disk that stays nearly full.
async fn watch(shared: &Shared, args: &BenchArgs, globals: &Globals) -> anyhow::Error {
    let mut space = SpaceWatch::default();
    let mut said = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let low_for = space.look(&shared.runtime);
        if low_for >= args.space_wait && low_for > Duration::ZERO {
            return Trouble::NoSpace(describe(shared.runtime.space())).into();
        }
        if !globals.quiet && low_for.is_zero() && said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            output::note(&format!("{} of {} tasks done", shared.done.get(), args.tasks));
        }
    }
}

async fn submit(shared: Rc<Shared>, args: BenchArgs) -> anyhow::Result<()> {
    loop {
        let size = shared.left.get().min(u64::from(args.batch));
        if size == 0 {
            return Ok(());
        }
        shared.left.set(shared.left.get() - size);
        let began = shared.next_due().await;
        send(&shared, size).await?;
        let wait = Micros::from(began.elapsed());
        let mut waits = shared.waits.borrow_mut();
        (0..size).for_each(|_| waits.record(wait));
        shared.done.set(shared.done.get() + size);
    }
}

impl Shared {
    /// Waits until the next batch is due. Its wait counts from then, so that a stall is not hidden by the batches it delays.
    async fn next_due(&self) -> Instant {
        let due = match self.due.lock().await.as_mut() {
            Some(due) => due.recv().await,
            None => None,
        };
        due.unwrap_or_else(Instant::now)
    }
}

/// Names the moments at which batches are due, from a thread of its own: tokio's timers are a millisecond coarse.
fn pace(rate: f64, batch: u32) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel(1_000_000);
    let interval = Duration::from_secs_f64(f64::from(batch) / rate.max(1e-6));
    std::thread::spawn(move || {
        let mut due = Instant::now();
        while sender.blocking_send(due).is_ok() {
            due += interval;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    receiver
}

/// Submits a batch and waits until its tasks have ended.
async fn send(shared: &Shared, size: u64) -> anyhow::Result<()> {
    loop {
        let mut batch = RequestBatch::with_capacity(size as usize, size as usize * shared.payloads[0].len());
        let first = shared.left.get() as usize;
        (0..size as usize)
            .for_each(|index| batch.push(shared.task_type, &shared.payloads[(first + index) % shared.payloads.len()], None));
        match shared.runtime.submit_batch(batch).await {
            Ok(batch) => {
                batch.wait().await?;
                return Ok(());
            }
            Err(SubmitError::Busy { .. }) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// JSON strings of the wanted size; so many different ones that lz4 finds none of them twice in a block.
pub(super) fn payloads(args: &BenchArgs) -> Vec<Vec<u8>> {
    const DIFFERENT: usize = 4_096;
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let text_len = args.payload as usize - 2;
    let random = (text_len as f64 * args.entropy).round() as usize;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut digit = || {
        // xorshift64*: payloads need to differ, not to be unpredictable.
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        DIGITS[(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 58) as usize]
    };
    let one = |_| {
        let mut payload = vec![b'"'];
        payload.extend((0..text_len).map(|index| if index < random { digit() } else { b'x' }));
        payload.push(b'"');
        payload
    };
    (0..DIFFERENT).map(one).collect()
}
