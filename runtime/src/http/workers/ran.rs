//! Where an attempt ran, as a worker tells it.

use ergate_events::id::AttemptId;
use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
use serde::Deserialize;

use super::{invalid, span};
use crate::http::problem::Problem;

/// As `docs/worker-protocol.md` has it; only the driver may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToldRan {
    device: String,
    #[serde(default)]
    driver: Option<CudaVersion>,
    kernel: KernelDigest,
    batch_size: u32,
    queue: String,
    copy: String,
    compute: String,
    memory_bytes: u64,
}

impl ToldRan {
    /// What the log is to have of it.
    ///
    /// # Errors
    /// The field that is wrong, or over a limit of [`Ran`].
    pub(super) fn read(self, attempt: AttemptId) -> Result<Ran, Problem> {
        let ToldRan { device, driver, kernel, batch_size, queue, copy, compute, memory_bytes } = self;
        let (queue, copy, compute) = (span("queue", &queue)?, span("copy", &copy)?, span("compute", &compute)?);
        let ran = Ran { device, driver, kernel, batch_size, queue, copy, compute, memory_bytes };
        match ran.fault() {
            None => Ok(ran),
            Some((what, rule)) => Err(invalid("ran", format!("attempt {attempt}: {what} is out of range: {rule}"))),
        }
    }
}
