//! Task functions from bytes to bytes: what the executors `process` and `http` are to the slots.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::Notify;

use super::context::Context;
use super::function::{Runner, TaskError};

/// Told when an attempt that was asked to stop must end now.
pub(super) type Hurry = Rc<Notify>;

/// Runs futures that take and give bytes.
pub(super) struct BytesRunner<M, Fut> {
    make: M,
    /// Whether dropping the future ends the work. Otherwise the future ends itself once it is asked to, and holds its slot until then.
    droppable: bool,
    /// Allocated once a place; the future in it is replaced in its box.
    places: Vec<Place<Fut>>,
}

struct Place<Fut> {
    future: Pin<Box<Option<Fut>>>,
    hurry: Hurry,
}

impl<M, Fut> BytesRunner<M, Fut>
where
    M: FnMut(Context, Vec<u8>, Hurry) -> Fut,
    Fut: Future<Output = Result<Vec<u8>, TaskError>>,
{
    pub(super) fn new(make: M, droppable: bool) -> BytesRunner<M, Fut> {
        BytesRunner { make, droppable, places: Vec::new() }
    }
}

impl<M, Fut> Runner for BytesRunner<M, Fut>
where
    M: FnMut(Context, Vec<u8>, Hurry) -> Fut,
    Fut: Future<Output = Result<Vec<u8>, TaskError>>,
{
    fn begin(&mut self, place: usize, context: Context, payload: &[u8]) -> Result<(), TaskError> {
        while self.places.len() <= place {
            self.places.push(Place { future: Box::pin(None), hurry: Hurry::default() });
        }
        let hurry = Hurry::default();
        let future = (self.make)(context, payload.to_vec(), Rc::clone(&hurry));
        let place = &mut self.places[place];
        place.hurry = hurry;
        place.future.as_mut().set(Some(future));
        Ok(())
    }

    fn poll(&mut self, place: usize, context: &mut std::task::Context<'_>, result: &mut Vec<u8>) -> Poll<Result<(), TaskError>> {
        let Some(place) = self.places.get_mut(place) else { return Poll::Pending };
        let Some(future) = place.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let Poll::Ready(outcome) = future.poll(context) else { return Poll::Pending };
        place.future.as_mut().set(None);
        Poll::Ready(outcome.map(|bytes| result.extend_from_slice(&bytes)))
    }

    fn abort(&mut self, place: usize) -> bool {
        let Some(place) = self.places.get_mut(place) else { return true };
        if self.droppable {
            place.future.as_mut().set(None);
            return true;
        }
        // Its context says "cancelled" by now: an attempt that knew that before is in a hurry.
        place.hurry.notify_one();
        place.future.is_none()
    }
}
