//! Kernels on NVIDIA GPUs: devices, memory, compilation, batches. Knows no tasks, and runs without a GPU on CPU twins.
//!
//! CUDA is loaded at run time and lies behind [`backend::Backend`]; everything above it is plain Rust and is tested without a device.

pub mod aggregate;
pub mod array;
pub mod backend;
pub mod batch;
#[cfg(test)]
mod bench;
pub mod bind;
pub mod cache;
#[cfg(feature = "cuda")]
pub mod compile;
pub mod desk;
pub mod device;
pub mod digest;
pub mod dtype;
pub mod error;
pub mod figures;
pub mod filling;
mod flight;
pub mod formula;
pub mod geometry;
pub mod kernel;
pub mod kernel_work;
pub mod leave;
mod means;
pub mod memory;
pub mod nvml;
pub mod owner;
pub mod pinned;
pub mod quarantine;
pub mod record;
pub mod resident;
pub mod signature;
pub mod top_k;
mod tower;
pub mod work;
pub mod workspace;

pub use backend::{
    Arg, Backend, Buffer, Event, Gemm, Kernel, MemoryInfo, Module, Program, Scalar, Slice, Staging, Stream, Twin, TwinArgs,
};
pub use device::{DeviceInfo, Limits};
pub use digest::Digest;
pub use dtype::{ArraySpec, Dtype, Element};
pub use error::{Class, GpuError, Sticky};
pub use formula::Formula;
pub use geometry::{Geometry, Launch};
pub use kernel::KernelSpec;
pub use workspace::Workspace;
