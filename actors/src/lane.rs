//! Bounded lanes for data: a stream of everything that waits, behind a valve that its reader can close.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::mpsc;

/// Most messages taken from a lane at once.
const TAKE_MAX: usize = 1_024;

/// The reading end of a lane.
#[derive(Debug)]
pub struct Lane<T>(mpsc::Receiver<T>);

/// A lane for at most `capacity` messages; senders wait when it is full.
pub fn lane<T>(capacity: usize) -> (mpsc::Sender<T>, Lane<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (sender, Lane(receiver))
}

impl<T> Lane<T> {
    /// The lane as a stream that pauses while the valve is closed.
    pub(crate) fn behind(self, valve: &Valve) -> Valved<T> {
        Valved { lane: self, valve: valve.clone() }
    }
}

/// Opens and closes lanes of the same thread.
#[derive(Clone, Debug)]
pub(crate) struct Valve(Rc<RefCell<Gate>>);

#[derive(Debug)]
struct Gate {
    open: bool,
    waiting: Vec<Waker>,
}

impl Default for Valve {
    fn default() -> Self {
        Valve(Rc::new(RefCell::new(Gate { open: true, waiting: Vec::new() })))
    }
}

impl Valve {
    /// Opens or closes it; says whether it was otherwise before.
    pub(crate) fn set_open(&self, open: bool) -> bool {
        let mut gate = self.0.borrow_mut();
        let has_changed = std::mem::replace(&mut gate.open, open) != open;
        if open {
            gate.waiting.drain(..).for_each(Waker::wake);
        }
        has_changed
    }

    /// Whether the lane may be read; else `waker` is woken when it may.
    fn poll_open(&self, waker: &Waker) -> bool {
        let mut gate = self.0.borrow_mut();
        if !gate.open && !gate.waiting.iter().any(|known| known.will_wake(waker)) {
            gate.waiting.push(waker.clone());
        }
        gate.open
    }
}

/// A lane behind a valve.
pub(crate) struct Valved<T> {
    lane: Lane<T>,
    valve: Valve,
}

impl<T> Stream for Valved<T> {
    type Item = Vec<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        if !self.valve.poll_open(context.waker()) {
            return Poll::Pending;
        }
        let mut taken = Vec::new();
        match self.lane.0.poll_recv_many(context, &mut taken, TAKE_MAX) {
            Poll::Ready(0) => Poll::Ready(None),
            Poll::Ready(_) => Poll::Ready(Some(taken)),
            Poll::Pending => Poll::Pending,
        }
    }
}
