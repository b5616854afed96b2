//! What a device is asked to do: the seam between the owner of a device and the kinds of work.

use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use crate::{Backend, Digest, GpuError, Kernel, Limits, Module, Program, Slice};

/// Bytes that came with an attempt, wherever they lie.
pub type Payload = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What a kind of work found out about a payload.
#[derive(Clone)]
pub struct Admitted {
    /// Attempts of one class may share a batch.
    pub class: u64,
    /// About what it needs on the device, in bytes.
    pub bytes: u64,
    /// For the kind itself.
    pub state: Arc<dyn Any + Send + Sync>,
}

/// A piece of a payload or result, and its place in the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose: the index in the batch.
    pub member: usize,
    /// Where in the payload or result.
    pub bytes: Range<usize>,
    /// Where in the region.
    pub at: u64,
}

/// How a batch lies on the device: one region, inputs first, then what is input and output, then outputs; staging memory lies alike.
#[derive(Default)]
pub struct Layout {
    /// Where what is copied back begins.
    pub out_from: u64,
    /// Where what is copied to the device ends; from here to the end the region is zeroed.
    pub in_to: u64,
    /// The length of the region in bytes.
    pub region_bytes: u64,
    /// What else is needed on the device, in bytes.
    pub scratch_bytes: u64,
    /// Pieces of payloads.
    pub inputs: Vec<Piece>,
    /// Pieces of results.
    pub outputs: Vec<Piece>,
    /// The length of each member's result, in bytes.
    pub result_bytes: Vec<usize>,
    /// For the kind itself.
    pub state: Option<Box<dyn Any + Send>>,
}

/// A kind of work.
pub trait Work: Send + Sync {
    /// What errors call it.
    fn name(&self) -> &str;

    /// Who it is, for quarantine and provenance: the same for the same code.
    fn digest(&self) -> Digest;

    /// Checks a payload, on the caller's thread.
    ///
    /// # Errors
    ///
    /// What is wrong with it; nothing has run.
    fn admit(&self, payload: &[u8], limits: &Limits) -> Result<Admitted, GpuError>;

    /// What must be compiled and loaded before the first batch, with the entries used.
    fn programs(&self) -> Vec<(Program, String)>;

    /// Lays a batch of one class out.
    ///
    /// # Errors
    ///
    /// When its members do not fit together; they are run singly then.
    fn lay(&self, members: &[&Admitted]) -> Result<Layout, GpuError>;

    /// Queues what is to be done with the region, on the stream for kernels, without waiting.
    ///
    /// # Errors
    ///
    /// When something is refused.
    fn enqueue(&self, run: &mut Run<'_>, layout: &Layout) -> Result<(), GpuError>;
}

/// What a kind of work has at hand while it queues.
pub struct Run<'a> {
    /// The device.
    pub backend: &'a mut dyn Backend,
    /// Where the batch lies.
    pub region: Slice,
    /// Memory beside it, if any was asked for; contents undefined.
    pub scratch: Option<Slice>,
    pub(crate) modules: &'a Modules,
}

impl Run<'_> {
    /// An entry of one of the kind's programs.
    ///
    /// # Errors
    ///
    /// When it is none of those that the kind named.
    pub fn kernel(&self, program: &Digest, entry: &str) -> Result<Kernel, GpuError> {
        let found = self.modules.kernels.get(&(*program, entry.to_owned())).copied();
        found.ok_or_else(|| {
            GpuError::failed(format!("kernel {entry} was not loaded: it is not among the programs of its kind of work"))
        })
    }

    /// A part of the region.
    pub fn part(&self, at: u64, bytes: u64) -> Slice {
        Slice { offset: self.region.offset + at, bytes, ..self.region }
    }
}

/// Programs on the device.
#[derive(Default)]
pub(crate) struct Modules {
    modules: BTreeMap<Digest, Module>,
    kernels: BTreeMap<(Digest, String), Kernel>,
}

impl Modules {
    /// Whether everything of a kind is there.
    pub(crate) fn has(&self, programs: &[(Program, String)]) -> bool {
        programs.iter().all(|(program, entry)| self.kernels.contains_key(&(program.digest(), entry.clone())))
    }

    /// How many modules are on the device.
    pub(crate) fn count(&self) -> usize {
        self.modules.len()
    }

    /// Loads what is missing of a kind; may compile, which takes seconds.
    pub(crate) fn load(&mut self, backend: &mut dyn Backend, programs: &[(Program, String)]) -> Result<(), GpuError> {
        for (program, entry) in programs {
            let digest = program.digest();
            let module = match self.modules.get(&digest) {
                Some(module) => *module,
                None => *self.modules.entry(digest).or_insert(backend.load(program)?),
            };
            if let Entry::Vacant(missing) = self.kernels.entry((digest, entry.clone())) {
                missing.insert(backend.kernel(module, entry)?);
            }
        }
        Ok(())
    }
}

/// What ran where, for the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// The device's uuid.
    pub device: String,
    /// The newest CUDA that its driver knows.
    pub driver: (u32, u32),
    /// The kernel.
    pub digest: Digest,
    /// How many attempts shared the batch; 0 if it never ran.
    pub batch_size: usize,
    /// From its coming to the beginning of its batch, in µs.
    pub queue_us: u64,
    /// Copies to and from the device, of the whole batch, in µs of the device.
    pub copy_us: u64,
    /// Kernels, of the whole batch, in µs of the device.
    pub compute_us: u64,
    /// Device memory reserved for the batch, in bytes.
    pub memory_high_bytes: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The result, or why there is none.
    pub result: Result<Vec<u8>, GpuError>,
    /// What ran where.
    pub provenance: Provenance,
}
