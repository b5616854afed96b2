//! Takes the figures of the built-in kernels on a device: `figures`, or `figures --emulated` to see that it works without one.
//! `figures --cold FOLDER` takes only the cold start, with FOLDER as the cache of kernels.
//!
//! Prints a line of JSON a figure: what was measured, the medians in milliseconds, and checksums by which `gpu/bench.py` knows that it
//! measured others on the same data. `gpu/bench.sh` runs both and prints the table.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may panic, and says what it found")]

mod aggregate;
mod data;
#[path = "../../tests/emulated/mod.rs"]
mod emulated;
mod top_k;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ergate_gpu::{Backend, GpuError, Slice, Staging, Stream};

/// Bytes that are copied to the device at once.
const CHUNK: u64 = 64 << 20;
/// The cache of kernels, in bytes.
#[cfg(feature = "cuda")]
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// How large the inputs are.
pub(crate) struct Sizes {
    pub(crate) rows: u64,
    pub(crate) groups: u64,
    pub(crate) matrix_rows: u64,
    pub(crate) dimension: u32,
    pub(crate) queries: u32,
    pub(crate) repeats: usize,
}

fn main() {
    let emulated = std::env::args().any(|arg| arg == "--emulated");
    let sizes = if emulated {
        Sizes { rows: 20_000, groups: 3000, matrix_rows: 2000, dimension: 32, queries: 3, repeats: 2 }
    } else {
        Sizes { rows: 100_000_000, groups: 1_000_000, matrix_rows: 4_000_000, dimension: 256, queries: 1024, repeats: 15 }
    };
    let cache = std::env::args().skip_while(|arg| arg != "--cold").nth(1);
    let mut backend = match open(emulated, cache.as_deref()) {
        Ok(backend) => backend,
        Err(error) => {
            let what = if cache.is_some() { "cold start" } else { "all figures of the kernels" };
            println!("{{\"missing\": {what:?}, \"why\": {:?}}}", error.to_string());
            std::process::exit(1);
        }
    };
    let backend = &mut *backend;
    if cache.is_some() {
        return cold(backend);
    }
    let device = backend.device();
    println!(
        "{{\"device\": {:?}, \"multiprocessors\": {}, \"l2_bytes\": {}}}",
        device.name, device.multiprocessors, device.l2_bytes
    );
    for (name, outcome) in [("aggregate", aggregate::figures(backend, &sizes)), ("top_k", top_k::figures(backend, &sizes))] {
        if let Err(error) = outcome {
            println!("{{\"missing\": {name:?}, \"why\": {:?}}}", error.to_string());
        }
    }
}

fn open(emulated: bool, cache: Option<&str>) -> Result<Box<dyn Backend>, GpuError> {
    if emulated {
        return Ok(Box::new(emulated::Emulated::new(1)));
    }
    #[cfg(feature = "cuda")]
    {
        let cache = cache.map(|folder| ergate_gpu::cache::Cache::open(std::path::Path::new(folder), CACHE_BYTES_MAX));
        Ok(Box::new(ergate_gpu::backend::Cuda::open(0, cache.transpose()?)?))
    }
    #[cfg(not(feature = "cuda"))]
    Err(GpuError::refused(format!("this was built without CUDA (cache {cache:?}): build it with the feature `cuda`")))
}

/// The first result of a process: from the moment in ERGATE_STARTED_NS (nanoseconds since 1970, by who started it) to sums on the host.
fn cold(backend: &mut dyn Backend) {
    let outcome = aggregate::first(backend);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let started = std::env::var("ERGATE_STARTED_NS").ok().and_then(|text| text.parse::<u128>().ok());
    match (outcome, started) {
        (Ok(()), Some(started)) => {
            println!("{{\"figure\": \"cold start\", \"ms\": {}}}", now.saturating_sub(started) as f64 / 1e6)
        }
        (Ok(()), None) => println!("{{\"missing\": \"cold start\", \"why\": \"ERGATE_STARTED_NS does not say when it began\"}}"),
        (Err(error), _) => println!("{{\"missing\": \"cold start\", \"why\": {:?}}}", error.to_string()),
    }
}

/// The median of the milliseconds that `work` takes on the host until the device is done, warm.
pub(crate) fn median_ms(
    backend: &mut dyn Backend,
    repeats: usize,
    mut work: impl FnMut(&mut dyn Backend) -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    for _ in 0..2 {
        work(backend)?;
    }
    let mut times = Vec::new();
    for _ in 0..repeats {
        backend.synchronize()?;
        let start = Instant::now();
        work(backend)?;
        backend.synchronize()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Where input is made on the host before it goes to the device.
pub(crate) struct Upload {
    staging: Staging,
}

impl Upload {
    pub(crate) fn new(backend: &mut dyn Backend) -> Result<Self, GpuError> {
        Ok(Self { staging: backend.stage(CHUNK)? })
    }

    /// Fills `to` with elements of 2, 4 or 8 bytes that `element` makes of their index.
    pub(crate) fn fill<const N: usize>(
        &self,
        backend: &mut dyn Backend,
        to: Slice,
        element: impl Fn(u64) -> [u8; N],
    ) -> Result<(), GpuError> {
        let mut at = 0;
        while at < to.bytes {
            let bytes = CHUNK.min(to.bytes - at);
            let staged = &mut backend.staged(self.staging)?[..bytes as usize];
            for (index, chunk) in staged.as_chunks_mut::<N>().0.iter_mut().enumerate() {
                *chunk = element(at / N as u64 + index as u64);
            }
            let part = Slice { buffer: to.buffer, offset: to.offset + at, bytes };
            backend.copy_in(Stream::Compute, self.staging, 0, part)?;
            backend.synchronize()?;
            at += bytes;
        }
        Ok(())
    }

    pub(crate) fn release(self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        backend.unstage(self.staging)
    }
}

/// A buffer of its own.
pub(crate) fn buffer(backend: &mut dyn Backend, bytes: u64) -> Result<Slice, GpuError> {
    Ok(Slice { buffer: backend.alloc(bytes)?, offset: 0, bytes })
}
