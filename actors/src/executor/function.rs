//! Rust functions as task types: typed payload in, typed result out, both as JSON.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ergate_events::task::MESSAGE_BYTES_MAX;
use ergate_events::time::Micros;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use crate::report::OwnedFailure;

/// Why a task function could not do its work.
#[derive(Clone, Debug)]
pub struct TaskError(OwnedFailure);

impl TaskError {
    /// What went wrong, for a person.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.0.class, self.0.message)
    }

    /// A failure that another attempt may not repeat.
    pub fn new(class: impl Into<String>, message: impl Into<String>) -> TaskError {
        TaskError(OwnedFailure { class: class.into(), message: message.into(), retryable: true, delay: None })
    }

    /// A failure that every attempt would repeat.
    pub fn permanent(class: impl Into<String>, message: impl Into<String>) -> TaskError {
        let TaskError(failure) = TaskError::new(class, message);
        TaskError(OwnedFailure { retryable: false, ..failure })
    }

    /// The same failure with a delay of its own before the next attempt.
    #[must_use]
    pub fn retry_after(mut self, delay: std::time::Duration) -> TaskError {
        self.0.delay = Some(Micros::from(delay));
        self
    }

    /// The short name of the kind of failure.
    pub fn class(&self) -> &str {
        &self.0.class
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub(crate) fn into_failure(self) -> OwnedFailure {
        let OwnedFailure { mut class, mut message, retryable, delay } = self.0;
        shorten(&mut class, ergate_events::task::TEXT_BYTES_MAX);
        shorten(&mut message, MESSAGE_BYTES_MAX);
        OwnedFailure { class, message, retryable, delay }
    }
}

/// Cuts a text at a character boundary.
pub(crate) fn shorten(text: &mut String, max: usize) {
    text.truncate(text.floor_char_boundary(max));
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> TaskError {
        TaskError::new("error", crate::log_writer::chain(&error))
    }
}

/// Makes the runner of a task type on an executor's thread.
pub trait TaskFunction: Send + Sync {
    /// A runner with no attempt in it.
    fn runner(&self) -> Box<dyn Runner>;

    /// The runtime has stopped: ends, within a few seconds, whatever would go on outside this process. Blocks its thread.
    fn close(&self) {}
}

/// Runs the attempts of one task type on one executor. A place is where one attempt's future lives; it is used again and again.
pub trait Runner {
    /// Puts an attempt in a place; its future is polled by [`Runner::poll`].
    ///
    /// # Errors
    /// When the payload is not what the function takes.
    fn begin(&mut self, place: usize, context: Context, payload: &[u8]) -> Result<(), TaskError>;

    /// Polls the attempt in a place. When it ends with a result, that is appended to `result`; the place is free then.
    fn poll(&mut self, place: usize, context: &mut std::task::Context<'_>, result: &mut Vec<u8>) -> Poll<Result<(), TaskError>>;

    /// Drops the attempt in a place; says whether it is gone. A blocking function cannot be stopped and stays until it returns.
    fn abort(&mut self, place: usize) -> bool;
}

/// An async function as a task type. `Args` tells apart functions with and without a [`Context`].
pub trait IntoTask<Args>: Send + Sync + 'static {
    /// What makes its runners.
    fn into_task(self) -> Arc<dyn TaskFunction>;
}

/// A function of the payload alone.
pub struct PayloadOnly<P>(PhantomData<P>);
/// A function of context and payload.
pub struct WithContext<P>(PhantomData<P>);

impl<F, P, R, Fut> IntoTask<PayloadOnly<(P, R, Fut)>> for F
where
    F: Fn(P) -> Fut + Clone + Send + Sync + 'static,
    P: DeserializeOwned + 'static,
    R: Serialize + 'static,
    Fut: Future<Output = Result<R, TaskError>> + 'static,
{
    fn into_task(self) -> Arc<dyn TaskFunction> {
        Arc::new(AsyncFunction {
            make: move |_: Context, payload: P| self(payload),
            stoppable: true,
            types: PhantomData::<fn(P) -> Fut>,
        })
    }
}

impl<F, P, R, Fut> IntoTask<WithContext<(P, R, Fut)>> for F
where
    F: Fn(Context, P) -> Fut + Clone + Send + Sync + 'static,
    P: DeserializeOwned + 'static,
    R: Serialize + 'static,
    Fut: Future<Output = Result<R, TaskError>> + 'static,
{
    fn into_task(self) -> Arc<dyn TaskFunction> {
        Arc::new(AsyncFunction { make: self, stoppable: true, types: PhantomData::<fn(P) -> Fut> })
    }
}

/// An async function as what [`TaskFunction`] users take: for task types with settings of their own.
pub fn function<Args>(function: impl IntoTask<Args>) -> Arc<dyn TaskFunction> {
    function.into_task()
}

/// A function that blocks its thread, on a pool of threads bounded by the replica's slots (at most 512 a replica).
pub fn blocking<F, P, R>(function: F) -> Arc<dyn TaskFunction>
where
    F: Fn(Context, P) -> Result<R, TaskError> + Clone + Send + Sync + 'static,
    P: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    let make = move |context: Context, payload: P| {
        let function = function.clone();
        let running = tokio::task::spawn_blocking(move || function(context, payload));
        async move {
            match running.await {
                Ok(outcome) => outcome,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => Err(panicked(panic.as_ref())),
                    Err(_) => Err(TaskError::new("aborted", "the thread pool shut down before the function ran")),
                },
            }
        }
    };
    Arc::new(AsyncFunction { make, stoppable: false, types: PhantomData::<fn(P) -> _> })
}

/// The failure of an attempt that panicked.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> TaskError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    TaskError::new("panic", text.unwrap_or("the task function panicked with a value that is not a text"))
}

struct AsyncFunction<M, P, Fut> {
    make: M,
    stoppable: bool,
    types: PhantomData<fn(P) -> Fut>,
}

impl<M, P, R, Fut> TaskFunction for AsyncFunction<M, P, Fut>
where
    M: Fn(Context, P) -> Fut + Clone + Send + Sync + 'static,
    P: DeserializeOwned + 'static,
    R: Serialize + 'static,
    Fut: Future<Output = Result<R, TaskError>> + 'static,
{
    fn runner(&self) -> Box<dyn Runner> {
        Box::new(FutureRunner {
            make: self.make.clone(),
            stoppable: self.stoppable,
            places: Vec::new(),
            types: PhantomData::<fn(P)>,
        })
    }
}

struct FutureRunner<M, P, Fut> {
    make: M,
    stoppable: bool,
    /// Allocated once a place; the future in it is replaced in its box.
    places: Vec<Pin<Box<Option<Fut>>>>,
    types: PhantomData<fn(P)>,
}

impl<M, P, R, Fut> Runner for FutureRunner<M, P, Fut>
where
    M: Fn(Context, P) -> Fut,
    P: DeserializeOwned,
    R: Serialize,
    Fut: Future<Output = Result<R, TaskError>>,
{
    fn begin(&mut self, place: usize, context: Context, payload: &[u8]) -> Result<(), TaskError> {
        let payload: P = serde_json::from_slice(payload)
            .map_err(|error| TaskError::permanent("payload", format!("the payload is not what the function takes: {error}")))?;
        while self.places.len() <= place {
            self.places.push(Box::pin(None));
        }
        let future = (self.make)(context, payload);
        self.places[place].as_mut().set(Some(future));
        Ok(())
    }

    fn poll(&mut self, place: usize, context: &mut std::task::Context<'_>, result: &mut Vec<u8>) -> Poll<Result<(), TaskError>> {
        let Some(place) = self.places.get_mut(place) else { return Poll::Pending };
        let Some(future) = place.as_mut().as_pin_mut() else { return Poll::Pending };
        let Poll::Ready(outcome) = future.poll(context) else { return Poll::Pending };
        place.as_mut().set(None);
        Poll::Ready(outcome.and_then(|value| {
            let start = result.len();
            serde_json::to_writer(&mut *result, &value).map_err(|error| {
                result.truncate(start);
                TaskError::permanent("result", format!("the result cannot be written as JSON: {error}"))
            })
        }))
    }

    fn abort(&mut self, place: usize) -> bool {
        if self.stoppable
            && let Some(place) = self.places.get_mut(place)
        {
            place.as_mut().set(None);
        }
        self.stoppable
    }
}
