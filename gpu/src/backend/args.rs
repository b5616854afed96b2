//! What a CPU twin gets: the arguments of one launch as slices of host memory.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Program, Scalar};
use crate::{Element, GpuError, Launch};

/// A kernel's twin: does on the host what the kernel does with this launch and these arguments.
///
/// The geometry is given so that a twin may mind it; most only need the arguments.
pub type Twin = fn(&Launch, &mut TwinArgs<'_>) -> Result<(), GpuError>;

/// A twin that knows the program which its kernel is of.
pub type BoundTwin = Arc<dyn Fn(&Launch, &mut TwinArgs<'_>) -> Result<(), GpuError> + Send + Sync>;

/// Finds the twin of an entry of a program, for kernels whose text is made for what they do.
pub type Family = fn(&Program, &str) -> Option<BoundTwin>;

/// One argument of a twin.
pub(super) enum TwinArg {
    /// Host memory that lives and is borrowed as long as the [`TwinArgs`] it is in.
    Memory {
        start: *mut u8,
        bytes: usize,
    },
    Scalar(Scalar),
}

/// The arguments of a launch, in the order of the kernel's parameters.
///
/// Memory is taken as [`input`](Self::input) or [`output`](Self::output); what is taken as an output overlaps nothing else that is taken.
pub struct TwinArgs<'a> {
    kernel: &'a str,
    args: Vec<TwinArg>,
    /// What has been handed out: first byte, past the last byte, whether it may be written.
    taken: Vec<(usize, usize, bool)>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> TwinArgs<'a> {
    /// Arguments over memory of the caller.
    ///
    /// # Safety
    ///
    /// For `'a`, all memory named is allocated, initialized, and touched by nobody else.
    pub(super) unsafe fn new(kernel: &'a str, args: Vec<TwinArg>) -> Self {
        Self { kernel, args, taken: Vec::new(), memory: PhantomData }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.args.len()
    }

    /// The elements of the argument at `index`, to be read.
    ///
    /// # Errors
    ///
    /// When it is no memory, is not aligned for its elements, or overlaps what was taken as an output.
    pub fn input<T: Element>(&mut self, index: usize) -> Result<&'a [T], GpuError> {
        let (start, count) = self.take::<T>(index, false)?;
        // SAFETY: `new` was promised that the memory is valid for 'a; `take` checked alignment and that no output overlaps it; every bit
        // pattern is a value of an `Element`.
        Ok(unsafe { std::slice::from_raw_parts(start.cast_const(), count) })
    }

    /// The elements of the argument at `index`, to be read and written.
    ///
    /// # Errors
    ///
    /// When it is no memory, is not aligned for its elements, or overlaps anything taken before.
    pub fn output<T: Element>(&mut self, index: usize) -> Result<&'a mut [T], GpuError> {
        let (start, count) = self.take::<T>(index, true)?;
        // SAFETY: as for `input`, and `take` checked that nothing taken before overlaps it and lets nothing later do so.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, count) })
    }

    /// The value of the argument at `index`.
    ///
    /// # Errors
    ///
    /// When it is no scalar.
    pub fn scalar(&self, index: usize) -> Result<Scalar, GpuError> {
        match self.args.get(index) {
            Some(TwinArg::Scalar(scalar)) => Ok(*scalar),
            Some(TwinArg::Memory { .. }) => Err(self.wrong(index, "is memory where its twin takes a scalar")),
            None => Err(self.wrong(index, "is missing")),
        }
    }

    fn take<T: Element>(&mut self, index: usize, write: bool) -> Result<(*mut T, usize), GpuError> {
        let (start, bytes) = match self.args.get(index) {
            Some(&TwinArg::Memory { start, bytes }) => (start, bytes),
            Some(TwinArg::Scalar(_)) => return Err(self.wrong(index, "is a scalar where its twin takes memory")),
            None => return Err(self.wrong(index, "is missing")),
        };
        let size = size_of::<T>();
        let first = start as usize;
        if !first.is_multiple_of(align_of::<T>()) {
            return Err(self.wrong(index, &format!("is not aligned for {}", T::DTYPE.name())));
        }
        if !bytes.is_multiple_of(size) {
            return Err(self.wrong(index, &format!("has {bytes} bytes, which are no whole number of {}", T::DTYPE.name())));
        }
        let past = first + bytes;
        if self.taken.iter().any(|&(from, to, written)| first < to && from < past && (write || written)) {
            return Err(self.wrong(index, "overlaps another argument that is written or read"));
        }
        self.taken.push((first, past, write));
        Ok((start.cast(), bytes / size))
    }

    fn wrong(&self, index: usize, what: &str) -> GpuError {
        GpuError::refused(format!("kernel {}: argument {index} {what}", self.kernel))
    }
}

macro_rules! scalars {
    ($($method:ident: $rust:ty => $variant:ident),* $(,)?) => {
        impl TwinArgs<'_> {
            $(
                /// The value of the argument at `index`, of this type.
                ///
                /// # Errors
                ///
                /// When it is no scalar of this type.
                pub fn $method(&self, index: usize) -> Result<$rust, GpuError> {
                    match self.scalar(index)? {
                        Scalar::$variant(value) => Ok(value),
                        other => Err(self.wrong(index, &format!("is {} where its twin takes {}", other.dtype().name(), stringify!($method)))),
                    }
                }
            )*
        }
    };
}

scalars!(u8: u8 => U8, i8: i8 => I8, i16: i16 => I16, u16: u16 => U16, i32: i32 => I32, u32: u32 => U32, i64: i64 => I64, u64: u64 => U64,
    f16: half::f16 => F16, bf16: half::bf16 => Bf16, f32: f32 => F32, f64: f64 => F64);
