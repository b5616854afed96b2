//! Attempts of one task type on a device.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use ergate_actors::executor::function::Runner;
use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
use ergate_events::time::Micros;
use ergate_gpu::batch::Settings as Batching;
use ergate_gpu::owner::Submission;
use ergate_gpu::work::{Answer, Provenance, Work};
use ergate_gpu::{Class, GpuError};
use tokio::sync::oneshot;

use super::{Gpu, OnDeath};
use crate::{Context, TaskError, TaskFunction};

/// A kind of work as a task type.
pub(super) struct GpuTask(Arc<Parts>);

/// What all its attempts share.
struct Parts {
    gpu: Gpu,
    kind: u32,
    batching: Batching,
    work: Arc<dyn Work>,
}

/// Runs them from the thread of an executor.
struct GpuRunner {
    parts: Arc<Parts>,
    places: Vec<Option<Place>>,
}

/// One attempt on the device.
struct Place {
    /// What cancels it.
    id: u64,
    /// Hears what ran where.
    context: Context,
    answer: oneshot::Receiver<Answer>,
}

impl GpuTask {
    pub(super) fn new(gpu: Gpu, kind: u32, batching: Batching, work: Arc<dyn Work>) -> GpuTask {
        GpuTask(Arc::new(Parts { gpu, kind, batching, work }))
    }
}

impl TaskFunction for GpuTask {
    fn runner(&self) -> Box<dyn Runner> {
        Box::new(GpuRunner { parts: Arc::clone(&self.0), places: Vec::new() })
    }
}

impl Parts {
    fn submit(&self, context: Context, payload: &[u8]) -> Result<Place, GpuError> {
        let inner = &self.gpu.inner;
        inner.quarantine.lock().unwrap_or_else(PoisonError::into_inner).check(&self.work.digest(), &inner.owner.device().uuid)?;
        let (tell, answer) = oneshot::channel();
        let id = inner.owner.submit(Submission {
            kind: self.kind,
            batching: self.batching,
            work: Arc::clone(&self.work),
            payload: Arc::new(payload.to_vec()),
            // It may be what killed the context or failed its neighbours the last time; alone it is known.
            alone: context.attempt().number > 1,
            // Whoever asked may have been told to stop.
            answer: Box::new(move |answer| drop(tell.send(answer))),
        })?;
        Ok(Place { id, context, answer })
    }

    /// What an error is to the task; `None` where the attempt is to be given back when the process ends, which is soon.
    fn failure(&self, error: &GpuError) -> Option<TaskError> {
        let is_kept = matches!(error.class(), Class::Suspect | Class::Returned) && self.gpu.inner.on_death == OnDeath::Wait;
        (!is_kept).then(|| failed(error))
    }
}

/// What ran where, as the log has it.
fn ran(from: Provenance) -> Ran {
    let Provenance { device, driver: (major, minor), digest, batch_size, queue_us, copy_us, compute_us, memory_high_bytes } =
        from;
    Ran {
        device,
        // A backend of the CPU has none.
        driver: (major > 0).then_some(CudaVersion { major, minor }),
        kernel: KernelDigest(digest.0),
        batch_size: u32::try_from(batch_size).unwrap_or(u32::MAX),
        queue: Micros(queue_us),
        copy: Micros(copy_us),
        compute: Micros(compute_us),
        memory_bytes: memory_high_bytes,
    }
}

/// What an error is to a task.
pub(super) fn failed(error: &GpuError) -> TaskError {
    let text = error.to_string();
    match error.class() {
        Class::Refused => TaskError::permanent("gpu_refused", text),
        Class::OutOfMemory => {
            // No attempt with such a payload ever fits.
            let never = matches!(error, GpuError::OutOfMemory { asked, limit, .. } if asked > limit);
            let class = "gpu_out_of_memory";
            if never { TaskError::permanent(class, text) } else { TaskError::new(class, text) }
        }
        Class::Failed => TaskError::new("gpu_failed", text),
        Class::Sticky => TaskError::new("gpu_sticky", text),
        Class::Suspect | Class::Returned => TaskError::new("gpu_returned", text),
    }
}

impl Runner for GpuRunner {
    fn begin(&mut self, place: usize, context: Context, payload: &[u8]) -> Result<(), TaskError> {
        while self.places.len() <= place {
            self.places.push(None);
        }
        match self.parts.submit(context, payload) {
            Ok(attempt) => self.places[place] = Some(attempt),
            Err(error) => match self.parts.failure(&error) {
                Some(error) => return Err(error),
                // It waits for the end of the process.
                None => self.places[place] = None,
            },
        }
        Ok(())
    }

    fn poll(&mut self, place: usize, context: &mut std::task::Context<'_>, result: &mut Vec<u8>) -> Poll<Result<(), TaskError>> {
        let Some(attempt) = self.places.get_mut(place) else { return Poll::Pending };
        let Some(Place { answer, context: own, .. }) = attempt else { return Poll::Pending };
        let Poll::Ready(answer) = Pin::new(answer).poll(context) else { return Poll::Pending };
        let own = own.clone();
        *attempt = None;
        let Ok(Answer { result: outcome, provenance }) = answer else {
            return Poll::Ready(Err(TaskError::new("gpu_failed", "the thread of the device ended without an answer")));
        };
        own.ran_on(ran(provenance));
        match outcome {
            Ok(bytes) => {
                result.extend_from_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Err(error) => self.parts.failure(&error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }

    /// What has not begun is taken back; a batch that runs goes on without anybody who waits for it.
    fn abort(&mut self, place: usize) -> bool {
        if let Some(Place { id, .. }) = self.places.get_mut(place).and_then(Option::take) {
            self.parts.gpu.inner.owner.cancel(id);
        }
        true
    }
}
