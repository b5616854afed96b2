//! What a device is asked to do: the seam between the owner of a device and the kinds of work.

use std::any::Any;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::filling::Filling;
use crate::{Backend, DeviceInfo, Digest, GpuError, Kernel, Limits, Module, Program, Slice};

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
    /// For the kind itself, kept from step to step.
    pub state: Option<Box<dyn Any + Send>>,
}

/// What follows what was queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the results lie where the layout says, and are as long as it says.
    Done,
    /// When all of it is done, this part is copied to the host, and the kind of work is asked again, with those bytes.
    Read(Slice),
    /// Nothing: these are the results, one for each member in order; the outputs of the layout count for nothing.
    Results(Vec<Parts>),
}

/// One result of which the length was not known before: bytes of the host, then parts of the device's memory, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// What it begins with.
    pub head: Vec<u8>,
    /// What follows.
    pub parts: Vec<Slice>,
}

/// What a kind of work keeps on the device from batch to batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Who it is: kinds of work that name the same one share it.
    pub digest: Digest,
    /// Its length on the device in bytes; it counts towards the limit of the device's memory.
    pub bytes: u64,
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

    /// What must lie on the device for its batches: it is filled before the first of them, and again after it had to make room.
    fn resident(&self) -> Option<Resident> {
        None
    }

    /// Fills what is resident. Blocks the device's thread, as compiling does, for as long as its `load_timeout` at most.
    ///
    /// # Errors
    ///
    /// When its data cannot be had or are not those that were named.
    fn fill(&self, filling: &mut Filling<'_>) -> Result<(), GpuError> {
        let _ = filling;
        Ok(())
    }

    /// Lays a batch of one class out for this device.
    ///
    /// # Errors
    ///
    /// When its members do not fit together; they are run singly then.
    fn lay(&self, members: &[&Admitted], device: &DeviceInfo) -> Result<Layout, GpuError>;

    /// Queues what is to be done with the region, on the stream for kernels, without waiting. What was asked to be [`Next::Read`] the last
    /// time is in `read`, which is empty at first.
    ///
    /// # Errors
    ///
    /// When something is refused; the batch then counts as not having run, and its members are run singly.
    fn enqueue(&self, run: &mut Run<'_>, layout: &mut Layout, read: &[u8]) -> Result<Next, GpuError>;
}

/// A kind of work that does without a device, too.
pub trait HostTwin: Work {
    /// The result for a payload, computed on the CPU: integers bit by bit those of the device, floats within the bound that the kind states.
    ///
    /// # Errors
    ///
    /// What [`Work::admit`] refuses, and what makes an attempt fail on the device.
    fn twin(&self, payload: &[u8]) -> Result<Vec<u8>, GpuError>;
}

/// What a kind of work has at hand while it queues.
pub struct Run<'a> {
    /// The device.
    pub backend: &'a mut dyn Backend,
    /// Where the batch lies.
    pub region: Slice,
    /// Memory beside it, if any was asked for; contents undefined.
    pub scratch: Option<Slice>,
    /// What is resident, if the kind of work has that.
    pub resident: Option<Slice>,
    pub(crate) modules: &'a Modules,
}

impl Run<'_> {
    /// An entry of one of the kind's programs.
    ///
    /// # Errors
    ///
    /// When it is none of those that the kind named.
    pub fn kernel(&self, program: &Digest, entry: &str) -> Result<Kernel, GpuError> {
        self.modules.kernel(program, entry)
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
    /// Kinds of work of which everything is there.
    ready: BTreeSet<Digest>,
}

impl Modules {
    /// Whether everything of a kind is there.
    pub(crate) fn has(&self, work: &dyn Work) -> bool {
        self.ready.contains(&work.digest())
    }

    /// How many modules are on the device.
    pub(crate) fn count(&self) -> usize {
        self.modules.len()
    }

    /// Loads what is missing of a kind; may compile, which takes seconds.
    pub(crate) fn load(&mut self, backend: &mut dyn Backend, work: &dyn Work) -> Result<(), GpuError> {
        for (program, entry) in &work.programs() {
            let digest = program.digest();
            let module = match self.modules.get(&digest) {
                Some(module) => *module,
                None => *self.modules.entry(digest).or_insert(backend.load(program)?),
            };
            if let Entry::Vacant(missing) = self.kernels.entry((digest, entry.clone())) {
                missing.insert(backend.kernel(module, entry)?);
            }
        }
        self.ready.insert(work.digest());
        Ok(())
    }

    pub(crate) fn kernel(&self, program: &Digest, entry: &str) -> Result<Kernel, GpuError> {
        let found = self.kernels.get(&(*program, entry.to_owned())).copied();
        found.ok_or_else(|| {
            GpuError::failed(format!("kernel {entry} was not loaded: it is not among the programs of its kind of work"))
        })
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
