//! The one door to a device: memory, copies, programs, launches, events.
//!
//! A backend belongs to one thread. Copies and launches are queued on one of three [`Stream`]s and may not have happened when the call
//! returns; events order streams among each other and tell the host what is done. Memory is named by handles, so that nothing here can dangle.

mod args;
#[cfg(feature = "cuda")]
mod blas;
mod bounds;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
pub(crate) mod driver;
pub mod fault;
mod host;
#[cfg(test)]
pub(crate) mod lazy;

pub use args::{BoundTwin, Family, Twin, TwinArgs};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use host::Host;

use crate::{DeviceInfo, Dtype, GpuError, Launch};

/// A queue of work on the device: in order within itself, at once with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Copies to the device.
    In,
    /// Kernels.
    Compute,
    /// Copies from the device.
    Out,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::In, Self::Compute, Self::Out];
}

/// Memory on the device, by handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(pub u64);

/// Page-locked memory of the host, by handle: what is copied from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Staging(pub u64);

/// A compiled program on the device, by handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Module(pub u64);

/// An entry of a module, by handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel(pub u64);

/// A mark in a stream, by handle: done when everything queued before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event(pub u64);

/// A part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The buffer.
    pub buffer: Buffer,
    /// Where it begins, in bytes; a multiple of 256 where a kernel may use wide loads.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// A scalar argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Scalar {
    U8(u8),
    I8(i8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F16(half::f16),
    Bf16(half::bf16),
    F32(f32),
    F64(f64),
}

impl Scalar {
    /// Its type.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::I8(_) => Dtype::I8,
            Self::I16(_) => Dtype::I16,
            Self::U16(_) => Dtype::U16,
            Self::I32(_) => Dtype::I32,
            Self::U32(_) => Dtype::U32,
            Self::I64(_) => Dtype::I64,
            Self::U64(_) => Dtype::U64,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
        }
    }
}

/// One argument of a launch, in the order of the kernel's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer to this part of a buffer.
    Slice(Slice),
    /// A value.
    Scalar(Scalar),
}

/// CUDA C++ with what it is compiled with; where it runs on the host, the twins of its entries run in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What errors call it: a file name.
    pub name: String,
    /// CUDA C++.
    pub source: String,
    /// Options of NVRTC, without the architecture: `-DWIDTH=4`, `--use_fast_math`.
    pub options: Vec<String>,
}

/// A matrix product in row-major terms: `c = alpha · op(a) · op(b) + beta · c`; op(a): [m, k], op(b): [k, n], c: [m, n] f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gemm {
    /// Left operand: [m, k], or [k, m] if `transpose_a`.
    pub a: Slice,
    /// Right operand: [k, n], or [n, k] if `transpose_b`.
    pub b: Slice,
    /// Result: [m, n] f32.
    pub c: Slice,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// The dimension summed over.
    pub k: u32,
    /// Whether `a` is stored transposed.
    pub transpose_a: bool,
    /// Whether `b` is stored transposed.
    pub transpose_b: bool,
    /// What is multiplied, and how precisely.
    pub kind: GemmKind,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what `c` held; 0 reads nothing.
    pub beta: f32,
}

/// Element type of a matrix product's operands and the precision of its multiplications; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GemmKind {
    /// f32 operands, f32 products.
    F32,
    /// f32 operands rounded to tf32 (10 bits of mantissa).
    Tf32,
    /// bf16 operands.
    Bf16,
    /// f16 operands.
    F16,
}

/// The memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that nobody has.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

/// A device, or what stands for one.
///
/// Every call may fail with [`GpuError::Sticky`]; from then on every call does.
pub trait Backend: Send {
    /// The device.
    fn device(&self) -> &DeviceInfo;

    /// Memory as the device has it now, everything of other processes included.
    ///
    /// # Errors
    ///
    /// When the driver does not answer.
    fn memory(&self) -> Result<MemoryInfo, GpuError>;

    /// Memory on the device, aligned to 256 bytes, contents undefined.
    ///
    /// # Errors
    ///
    /// [`GpuError::OutOfMemory`]; a size of zero is refused.
    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError>;

    /// Gives memory back once everything queued so far is done.
    ///
    /// # Errors
    ///
    /// When the handle is unknown.
    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError>;

    /// Page-locked memory of the host, zeroed.
    ///
    /// # Errors
    ///
    /// [`GpuError::OutOfMemory`].
    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError>;

    /// Gives staging memory back once its copies are done.
    ///
    /// # Errors
    ///
    /// When the handle is unknown.
    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError>;

    /// What staging memory holds.
    ///
    /// # Errors
    ///
    /// When the handle is unknown or a copy with it is not known to be done.
    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError>;

    /// Queues a copy of staging memory from byte `from` on to all of `to`.
    ///
    /// # Errors
    ///
    /// When a range does not lie within its memory.
    fn copy_in(&mut self, stream: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError>;

    /// Queues a copy of all of `from` to staging memory from byte `to` on.
    ///
    /// # Errors
    ///
    /// When a range does not lie within its memory.
    fn copy_out(&mut self, stream: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError>;

    /// Queues a copy on the device; the parts are equally long and do not overlap.
    ///
    /// # Errors
    ///
    /// When a range does not lie within its memory.
    fn copy(&mut self, stream: Stream, from: Slice, to: Slice) -> Result<(), GpuError>;

    /// Queues the setting of every byte of a part.
    ///
    /// # Errors
    ///
    /// When the range does not lie within its memory.
    fn fill(&mut self, stream: Stream, slice: Slice, byte: u8) -> Result<(), GpuError>;

    /// Compiles a program for the device (or takes it from the cache) and loads it.
    ///
    /// # Errors
    ///
    /// What the compiler said, with file, line and caret.
    fn load(&mut self, program: &Program) -> Result<Module, GpuError>;

    /// Removes a module and its kernels.
    ///
    /// # Errors
    ///
    /// When the handle is unknown.
    fn unload(&mut self, module: Module) -> Result<(), GpuError>;

    /// An entry of a module.
    ///
    /// # Errors
    ///
    /// When the module has none of that name; the message names those it has.
    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError>;

    /// Queues a launch; geometry and slices are checked first.
    ///
    /// # Errors
    ///
    /// When the geometry is over the limits of the device or a slice does not lie within its buffer.
    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError>;

    /// Queues a matrix product.
    ///
    /// # Errors
    ///
    /// When a slice is shorter than its matrix, or cuBLAS is not there.
    fn gemm(&mut self, stream: Stream, gemm: &Gemm) -> Result<(), GpuError>;

    /// Marks a place in a stream.
    ///
    /// # Errors
    ///
    /// Only those of every call.
    fn record(&mut self, stream: Stream) -> Result<Event, GpuError>;

    /// Lets a stream wait for a mark of another.
    ///
    /// # Errors
    ///
    /// When the handle is unknown.
    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), GpuError>;

    /// Whether everything before a mark is done.
    ///
    /// # Errors
    ///
    /// What work before it met.
    fn done(&mut self, event: Event) -> Result<bool, GpuError>;

    /// Microseconds on the device between two marks that are done.
    ///
    /// # Errors
    ///
    /// When one is not done.
    fn elapsed_us(&mut self, from: Event, to: Event) -> Result<f64, GpuError>;

    /// Gives a mark back.
    ///
    /// # Errors
    ///
    /// When the handle is unknown.
    fn forget(&mut self, event: Event) -> Result<(), GpuError>;

    /// Waits until everything queued is done. Without a time limit: not for kernels of others.
    ///
    /// # Errors
    ///
    /// What the work met.
    fn synchronize(&mut self) -> Result<(), GpuError>;
}
