//! Built-in kernels without a device: their twins on the CPU, a thread for each attempt that runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use ergate_actors::executor::function::Runner;
use ergate_gpu::GpuError;
use ergate_gpu::work::HostTwin;
use tokio::task::JoinHandle;

use super::task::failed;
use crate::{Context, TaskError, TaskFunction};

/// The twin of a kind of work as a task type: the same bytes in and out, within the bound that the kind states.
pub fn twin(work: Arc<dyn HostTwin>) -> Arc<dyn TaskFunction> {
    Arc::new(Twin(work))
}

struct Twin(Arc<dyn HostTwin>);

/// An attempt on a thread.
type Running = JoinHandle<Result<Vec<u8>, GpuError>>;

struct TwinRunner {
    work: Arc<dyn HostTwin>,
    places: Vec<Option<Running>>,
}

impl TaskFunction for Twin {
    fn runner(&self) -> Box<dyn Runner> {
        Box::new(TwinRunner { work: Arc::clone(&self.0), places: Vec::new() })
    }
}

impl Runner for TwinRunner {
    fn begin(&mut self, place: usize, _: Context, payload: &[u8]) -> Result<(), TaskError> {
        while self.places.len() <= place {
            self.places.push(None);
        }
        let (work, payload) = (Arc::clone(&self.work), payload.to_vec());
        self.places[place] = Some(tokio::task::spawn_blocking(move || work.twin(&payload)));
        Ok(())
    }

    fn poll(&mut self, place: usize, context: &mut std::task::Context<'_>, result: &mut Vec<u8>) -> Poll<Result<(), TaskError>> {
        let Some(running) = self.places.get_mut(place) else { return Poll::Pending };
        let Some(handle) = running else { return Poll::Pending };
        let Poll::Ready(ended) = Pin::new(handle).poll(context) else { return Poll::Pending };
        *running = None;
        Poll::Ready(match ended {
            Ok(Ok(bytes)) => {
                result.extend_from_slice(&bytes);
                Ok(())
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(TaskError::new("gpu_failed", format!("the twin of the kernel {}: {error}", self.work.name()))),
        })
    }

    /// A thread cannot be stopped: the slot is free when it ends.
    fn abort(&mut self, place: usize) -> bool {
        self.places.get(place).is_none_or(Option::is_none)
    }
}
