//! The built-in kernels against their twins: emulated on the CPU, and on a device where there is one. What could not run is said aloud.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says aloud what did not run")]

mod aggregate;
mod aggregate_edges;
mod data;
#[path = "../emulated/mod.rs"]
mod emulated;
mod emulation;
mod large;
mod top_k;
mod top_k_edges;
mod works;

use emulated::Emulated;
use ergate_gpu::{Backend, Slice, Workspace};

/// Random cases of a test, where PROPTEST_CASES does not say another number.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// Whatever can run kernels here, by name; ERGATE_EMULATED=0 leaves the emulation out.
fn backends(seed: u64) -> Vec<(&'static str, Box<dyn Backend>)> {
    let mut backends: Vec<(&'static str, Box<dyn Backend>)> = Vec::new();
    if std::env::var_os("ERGATE_EMULATED").is_some_and(|value| value == "0") {
        eprintln!("note: ERGATE_EMULATED=0: the kernels were not emulated");
    } else if emulated::compile::compiler().is_some() {
        backends.push(("emulated", Box::new(Emulated::new(seed))));
    } else {
        eprintln!("note: there is no C++ compiler (g++, or CXX): the kernels were not emulated");
    }
    #[cfg(feature = "cuda")]
    match ergate_gpu::backend::Cuda::open(0, None) {
        Ok(cuda) => backends.push(("cuda", Box::new(cuda))),
        Err(error) => eprintln!("note: the kernels were not run on a device: {error}"),
    }
    backends
}

/// Bytes of the host on the device, in a buffer that has no byte more.
fn upload(backend: &mut dyn Backend, bytes: &[u8]) -> Slice {
    let buffer = backend.alloc(bytes.len().max(1) as u64).unwrap();
    let slice = Slice { buffer, offset: 0, bytes: bytes.len() as u64 };
    if !bytes.is_empty() {
        let mut workspace = Workspace::default();
        workspace.write(backend, slice, bytes).unwrap();
        workspace.release(backend).unwrap();
    }
    slice
}
