//! The backend over the CUDA driver. Not one call of it is made by another file, [`super::driver`] and [`super::blas`] excepted.
//!
//! A context that died stays dead: the first such answer is kept and every later call returns it.

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;

use cudarc::driver::sys::{self, CUresult};

use super::blas::Blas;
use super::driver::{check, devices};
use super::{Arg, Backend, Buffer, Event, Gemm, Kernel, MemoryInfo, Module, Program, Scalar, Slice, Staging, Stream, bounds};
use crate::cache::Cache;
use crate::compile::{Compiler, entries};
use crate::{DeviceInfo, GpuError, Launch};

/// Shared memory above which a kernel must ask for it.
const SHARED_BYTES_UNASKED: u32 = 48 * 1024;
/// `CU_STREAM_NON_BLOCKING`: no hidden waiting for the default stream.
const STREAM_NON_BLOCKING: u32 = 1;

/// Staging memory, and the last work queued with it: the stream and how many pieces of work it had by then.
struct Pinned {
    start: *mut u8,
    bytes: usize,
    last: [u64; 3],
}

struct Function {
    module: Module,
    handle: sys::CUfunction,
    entry: String,
    /// The size of each parameter in bytes.
    parameters: Vec<usize>,
    threads_max: u32,
    /// Dynamic shared memory it may use so far.
    shared_bytes: u32,
}

/// A mark, and how much work its stream had been given before it.
struct Mark {
    handle: sys::CUevent,
    stream: Stream,
    queued: u64,
}

/// A device through its driver.
pub struct Cuda {
    device: DeviceInfo,
    handle: sys::CUdevice,
    context: sys::CUcontext,
    streams: [sys::CUstream; 3],
    /// Pieces of work given to each stream, and known to be done.
    queued: [u64; 3],
    finished: [u64; 3],
    compiler: Option<Compiler>,
    cache: Option<Cache>,
    blas: Option<Blas>,
    dead: Option<GpuError>,
    notes: Vec<String>,
    last: u64,
    running: String,
    buffers: BTreeMap<Buffer, (sys::CUdeviceptr, u64)>,
    stagings: BTreeMap<Staging, Pinned>,
    modules: BTreeMap<Module, (sys::CUmodule, String, Vec<String>)>,
    kernels: BTreeMap<Kernel, Function>,
    events: BTreeMap<Event, Mark>,
    /// Marks given back, to be used again.
    spare: Vec<sys::CUevent>,
}

// SAFETY: handles of the driver may be used from any thread with the context current, which every call sees to; staging memory is owned.
unsafe impl Send for Cuda {}

impl Cuda {
    /// Opens the device of this ordinal.
    ///
    /// # Errors
    ///
    /// When there is no such device, or no context can be made on it.
    pub fn open(ordinal: u32, cache: Option<Cache>) -> Result<Self, GpuError> {
        let all = devices()?;
        let device = all.get(ordinal as usize).cloned();
        let device =
            device.ok_or_else(|| GpuError::refused(format!("device {ordinal} is not there: this process sees {}", all.len())))?;
        let (mut handle, mut context) = (0, ptr::null_mut());
        // SAFETY: `devices` has started the driver; all places are valid for writing.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&raw mut handle, ordinal as c_int))?;
            check("the context of the device", sys::cuDevicePrimaryCtxRetain(&raw mut context, handle))?;
            check("cuCtxSetCurrent", sys::cuCtxSetCurrent(context))?;
        }
        let mut streams = [ptr::null_mut(); 3];
        for stream in &mut streams {
            // SAFETY: the context is current.
            check("cuStreamCreate", unsafe { sys::cuStreamCreate(stream, STREAM_NON_BLOCKING) })?;
        }
        Ok(Self {
            device,
            handle,
            context,
            streams,
            queued: [0; 3],
            finished: [0; 3],
            compiler: None,
            cache,
            blas: None,
            dead: None,
            notes: Vec::new(),
            last: 0,
            running: String::new(),
            buffers: BTreeMap::new(),
            stagings: BTreeMap::new(),
            modules: BTreeMap::new(),
            kernels: BTreeMap::new(),
            events: BTreeMap::new(),
            spare: Vec::new(),
        })
    }

    /// What was noticed beside the results, for the log: damaged entries of the cache.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Makes the context current; refuses if it is dead.
    fn enter(&mut self) -> Result<(), GpuError> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        // SAFETY: the context lives as long as `self`.
        let entered = unsafe { sys::cuCtxSetCurrent(self.context) };
        self.latch("cuCtxSetCurrent", entered)
    }

    /// Understands a code, and keeps it if it means death.
    fn latch(&mut self, during: &str, result: CUresult) -> Result<(), GpuError> {
        if result == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let during =
            if self.running.is_empty() { during.to_owned() } else { format!("{during}, last launched {}", self.running) };
        let answer = check(&during, result);
        if let Err(dead @ GpuError::Sticky { .. }) = &answer {
            self.dead = Some(dead.clone());
        }
        answer
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn stream(&self, stream: Stream) -> sys::CUstream {
        self.streams[stream as usize]
    }

    /// The address of a part.
    fn address(&self, slice: Slice) -> Result<sys::CUdeviceptr, GpuError> {
        let &(start, bytes) = self.buffers.get(&slice.buffer).ok_or_else(|| unknown("buffer", slice.buffer.0))?;
        bounds::within("buffer", slice.offset, slice.bytes, bytes)?;
        Ok(start + slice.offset)
    }

    /// The address of a part of staging memory, and that it is in use from now on.
    fn pinned(&mut self, stream: Stream, staging: Staging, from: u64, bytes: u64) -> Result<*mut u8, GpuError> {
        self.queued[stream as usize] += 1;
        let pinned = self.stagings.get_mut(&staging).ok_or_else(|| unknown("staging memory", staging.0))?;
        let (from, _) = bounds::within("staging memory", from, bytes, pinned.bytes as u64)?;
        pinned.last[stream as usize] = self.queued[stream as usize];
        // SAFETY: `within` has shown that the place lies within the memory.
        Ok(unsafe { pinned.start.add(from) })
    }

    fn out_of_memory(&mut self, what: &str, asked: u64, result: CUresult) -> Result<(), GpuError> {
        match self.latch(what, result) {
            Err(GpuError::OutOfMemory { .. }) => {
                let memory = self.memory()?;
                Err(GpuError::OutOfMemory { what: what.to_owned(), asked, free: memory.free, limit: memory.total })
            }
            answer => answer,
        }
    }

    fn compiler(&mut self) -> Result<&Compiler, GpuError> {
        if self.compiler.is_none() {
            self.compiler = Some(Compiler::new(self.cache.take())?);
        }
        Ok(self.compiler.as_ref().expect("made just now"))
    }

    fn parameters(&mut self, handle: sys::CUfunction) -> Vec<usize> {
        let mut sizes = Vec::new();
        loop {
            let (mut offset, mut size) = (0usize, 0usize);
            // SAFETY: the function is loaded; an index past the last parameter is answered with an error.
            if unsafe { sys::cuFuncGetParamInfo(handle, sizes.len(), &raw mut offset, &raw mut size) } != CUresult::CUDA_SUCCESS {
                return sizes;
            }
            sizes.push(size);
        }
    }
}

fn unknown(what: &str, handle: u64) -> GpuError {
    GpuError::refused(format!("{what} {handle} is unknown, or was given back"))
}

/// A scalar's bytes at the beginning of eight, as the driver reads them, and how many there are.
fn word(scalar: Scalar) -> (u64, usize) {
    let bits = match scalar {
        Scalar::U8(value) => u64::from(value),
        Scalar::I8(value) => u64::from(value.cast_unsigned()),
        Scalar::U16(value) => u64::from(value),
        Scalar::I16(value) => u64::from(value.cast_unsigned()),
        Scalar::U32(value) => u64::from(value),
        Scalar::I32(value) => u64::from(value.cast_unsigned()),
        Scalar::U64(value) => value,
        Scalar::I64(value) => value.cast_unsigned(),
        Scalar::F16(value) => u64::from(value.to_bits()),
        Scalar::Bf16(value) => u64::from(value.to_bits()),
        Scalar::F32(value) => u64::from(value.to_bits()),
        Scalar::F64(value) => value.to_bits(),
    };
    (bits, scalar.dtype().size() as usize)
}

impl Backend for Cuda {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: the context lives as long as `self`; both places are valid for writing.
        unsafe {
            check("cuCtxSetCurrent", sys::cuCtxSetCurrent(self.context))?;
            check("cuMemGetInfo", sys::cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        }
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError> {
        self.enter()?;
        if bytes == 0 {
            return Err(GpuError::refused("a buffer of 0 bytes: ask for at least one"));
        }
        let mut start = 0;
        // SAFETY: the context is current.
        let result = unsafe { sys::cuMemAlloc_v2(&raw mut start, bytes as usize) };
        self.out_of_memory("a buffer", bytes, result)?;
        let buffer = Buffer(self.next());
        self.buffers.insert(buffer, (start, bytes));
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError> {
        self.enter()?;
        let (start, _) = self.buffers.remove(&buffer).ok_or_else(|| unknown("buffer", buffer.0))?;
        // SAFETY: it was allocated and its handle is gone; the driver waits for the work that uses it.
        let result = unsafe { sys::cuMemFree_v2(start) };
        self.latch("cuMemFree", result)
    }

    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError> {
        self.enter()?;
        let length = usize::try_from(bytes).ok().filter(|&length| length > 0 && length <= isize::MAX as usize);
        let length = length.ok_or_else(|| GpuError::refused(format!("staging memory of {bytes} bytes: ask for at least one")))?;
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: the context is current.
        let result = unsafe { sys::cuMemHostAlloc(&raw mut start, length, 0) };
        self.out_of_memory("page-locked memory of the host", bytes, result)?;
        // SAFETY: as many bytes were given just now, and nobody else has them.
        unsafe { ptr::write_bytes(start.cast::<u8>(), 0, length) };
        let staging = Staging(self.next());
        self.stagings.insert(staging, Pinned { start: start.cast(), bytes: length, last: [0; 3] });
        Ok(staging)
    }

    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError> {
        self.staged(staging)?;
        let pinned = self.stagings.remove(&staging).ok_or_else(|| unknown("staging memory", staging.0))?;
        // SAFETY: it was allocated so, its handle is gone, and `staged` has shown that no copy uses it.
        let result = unsafe { sys::cuMemFreeHost(pinned.start.cast()) };
        self.latch("cuMemFreeHost", result)
    }

    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError> {
        self.enter()?;
        let pinned = self.stagings.get(&staging).ok_or_else(|| unknown("staging memory", staging.0))?;
        if pinned.last.iter().zip(self.finished).any(|(&last, finished)| last > finished) {
            return Err(GpuError::refused(format!(
                "staging memory {} is being copied: wait for a mark made after the copy",
                staging.0
            )));
        }
        // SAFETY: the memory is initialized, owned by `self`, borrowed with it, and used by no copy that is not done.
        Ok(unsafe { std::slice::from_raw_parts_mut(pinned.start, pinned.bytes) })
    }

    fn copy_in(&mut self, stream: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError> {
        self.enter()?;
        let to_address = self.address(to)?;
        let from = self.pinned(stream, staging, from, to.bytes)?;
        // SAFETY: both ranges lie within their memory, which is kept and untouched until the copy is known to be done.
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to_address, from.cast(), to.bytes as usize, self.stream(stream)) };
        self.latch("a copy to the device", result)
    }

    fn copy_out(&mut self, stream: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError> {
        self.enter()?;
        let from_address = self.address(from)?;
        let to = self.pinned(stream, staging, to, from.bytes)?;
        // SAFETY: as for `copy_in`.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from_address, from.bytes as usize, self.stream(stream)) };
        self.latch("a copy from the device", result)
    }

    fn copy(&mut self, stream: Stream, from: Slice, to: Slice) -> Result<(), GpuError> {
        self.enter()?;
        bounds::copy(from, to)?;
        let (from_address, to_address) = (self.address(from)?, self.address(to)?);
        // SAFETY: both ranges lie within their buffers and do not overlap.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to_address, from_address, to.bytes as usize, self.stream(stream)) };
        self.latch("a copy on the device", result)
    }

    fn fill(&mut self, stream: Stream, slice: Slice, byte: u8) -> Result<(), GpuError> {
        self.enter()?;
        let address = self.address(slice)?;
        // SAFETY: the range lies within its buffer.
        let result = unsafe { sys::cuMemsetD8Async(address, byte, slice.bytes as usize, self.stream(stream)) };
        self.latch("a fill", result)
    }

    fn load(&mut self, program: &Program) -> Result<Module, GpuError> {
        self.enter()?;
        let (compute, driver) = (self.device.compute, self.device.driver);
        let compiled = self.compiler()?.compile(program, compute, driver)?;
        self.notes.extend(compiled.note);
        let mut handle = ptr::null_mut();
        // SAFETY: the image is machine code with its own length in it, or PTX that ends with a zero byte.
        let result = unsafe { sys::cuModuleLoadData(&raw mut handle, compiled.image.as_ptr().cast()) };
        self.latch(&format!("loading kernel {} (compiled by another CUDA than the driver's?)", program.name), result)?;
        let module = Module(self.next());
        self.modules.insert(module, (handle, program.name.clone(), entries(&compiled.image)));
        Ok(module)
    }

    fn unload(&mut self, module: Module) -> Result<(), GpuError> {
        self.enter()?;
        let (handle, ..) = self.modules.remove(&module).ok_or_else(|| unknown("module", module.0))?;
        self.kernels.retain(|_, function| function.module != module);
        // SAFETY: it was loaded, and its handle and those of its kernels are gone; the driver waits for the work that uses it.
        let result = unsafe { sys::cuModuleUnload(handle) };
        self.latch("cuModuleUnload", result)
    }

    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError> {
        self.enter()?;
        let (handle, name, entries) = self.modules.get(&module).ok_or_else(|| unknown("module", module.0))?;
        let symbol = CString::new(entry).map_err(|_| GpuError::refused(format!("entry {entry:?} has a zero byte in it")))?;
        let mut function = ptr::null_mut();
        // SAFETY: the module is loaded and the name a string.
        let result = unsafe { sys::cuModuleGetFunction(&raw mut function, *handle, symbol.as_ptr()) };
        if result as u32 == 500 {
            let has = entries.join(", ");
            return Err(GpuError::refused(format!(
                "kernel {name} has no entry `{entry}`; it has: {has} (is it `extern \"C\" __global__`?)"
            )));
        }
        self.latch("cuModuleGetFunction", result)?;
        let parameters = self.parameters(function);
        let mut threads_max: c_int = 0;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: the function is loaded.
        let result = unsafe { sys::cuFuncGetAttribute(&raw mut threads_max, attribute, function) };
        self.latch("cuFuncGetAttribute", result)?;
        let kernel = Kernel(self.next());
        let (entry, threads_max, shared_bytes) = (entry.to_owned(), threads_max.cast_unsigned(), SHARED_BYTES_UNASKED);
        self.kernels.insert(kernel, Function { module, handle: function, entry, parameters, threads_max, shared_bytes });
        Ok(kernel)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError> {
        self.enter()?;
        launch.check(&self.device.limits)?;
        let mut words = Vec::with_capacity(args.len());
        for arg in args {
            words.push(match *arg {
                Arg::Slice(slice) => (self.address(slice)?, 8),
                Arg::Scalar(scalar) => word(scalar),
            });
        }
        let function = self.kernels.get_mut(&kernel).ok_or_else(|| unknown("kernel", kernel.0))?;
        let sizes: Vec<usize> = words.iter().map(|(_, size)| *size).collect();
        if sizes != function.parameters {
            return Err(GpuError::refused(format!(
                "kernel {}: its parameters have {:?} bytes, and the arguments {sizes:?} (a pointer has 8)",
                function.entry, function.parameters
            )));
        }
        let threads: u32 = launch.block.iter().product();
        if threads > function.threads_max {
            return Err(GpuError::refused(format!(
                "kernel {}: a block of {threads} threads, and its registers allow {}: use smaller blocks, or __launch_bounds__",
                function.entry, function.threads_max
            )));
        }
        let (handle, shared) = (function.handle, launch.shared_bytes);
        let ask = shared > function.shared_bytes;
        self.running.clone_from(&function.entry);
        if ask {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            let result = unsafe { sys::cuFuncSetAttribute(handle, attribute, shared as c_int) };
            self.latch("asking for shared memory", result)?;
            self.kernels.entry(kernel).and_modify(|function| function.shared_bytes = shared);
        }
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|(word, _)| ptr::from_mut(word).cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: there are as many arguments as parameters, of the same sizes, and the driver copies them before it returns. What the kernel
        // does with them is its author's; it can harm this context's memory on the device and nothing else.
        let result = unsafe {
            sys::cuLaunchKernel(
                handle,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shared,
                self.stream(stream),
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.queued[stream as usize] += 1;
        self.latch("a launch", result)
    }

    fn gemm(&mut self, stream: Stream, gemm: &Gemm) -> Result<(), GpuError> {
        self.enter()?;
        bounds::gemm(gemm)?;
        let (a, b, c) = (self.address(gemm.a)?, self.address(gemm.b)?, self.address(gemm.c)?);
        if self.blas.is_none() {
            self.blas = Some(Blas::new()?);
        }
        let queue = self.stream(stream);
        "cuBLAS".clone_into(&mut self.running);
        self.queued[stream as usize] += 1;
        self.blas.as_ref().expect("made just now").multiply(queue, gemm, [a, b, c])
    }

    fn record(&mut self, stream: Stream) -> Result<Event, GpuError> {
        self.enter()?;
        let handle = match self.spare.pop() {
            Some(handle) => handle,
            None => {
                let mut handle = ptr::null_mut();
                // SAFETY: the context is current.
                let result = unsafe { sys::cuEventCreate(&raw mut handle, 0) };
                self.latch("cuEventCreate", result)?;
                handle
            }
        };
        // SAFETY: event and stream are of this context.
        let result = unsafe { sys::cuEventRecord(handle, self.stream(stream)) };
        self.latch("cuEventRecord", result)?;
        let event = Event(self.next());
        self.events.insert(event, Mark { handle, stream, queued: self.queued[stream as usize] });
        Ok(event)
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.enter()?;
        let handle = self.events.get(&event).ok_or_else(|| unknown("event", event.0))?.handle;
        // SAFETY: event and stream are of this context.
        let result = unsafe { sys::cuStreamWaitEvent(self.stream(stream), handle, 0) };
        self.latch("cuStreamWaitEvent", result)
    }

    fn done(&mut self, event: Event) -> Result<bool, GpuError> {
        self.enter()?;
        let mark = self.events.get(&event).ok_or_else(|| unknown("event", event.0))?;
        let (stream, queued) = (mark.stream as usize, mark.queued);
        // SAFETY: the event is of this context.
        let result = unsafe { sys::cuEventQuery(mark.handle) };
        if result == CUresult::CUDA_ERROR_NOT_READY {
            return Ok(false);
        }
        self.latch("waiting for work", result)?;
        self.finished[stream] = self.finished[stream].max(queued);
        Ok(true)
    }

    fn elapsed_us(&mut self, from: Event, to: Event) -> Result<f64, GpuError> {
        self.enter()?;
        let mark = |event: Event| self.events.get(&event).map(|mark| mark.handle).ok_or_else(|| unknown("event", event.0));
        let (from, to) = (mark(from)?, mark(to)?);
        let mut milliseconds = 0f32;
        // SAFETY: loaded by its plain name, which every driver has (`_v2` came with 12.8); the signature is the same.
        let elapsed = unsafe {
            sys::culib().get::<unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult>(b"cuEventElapsedTime\0")
        };
        let elapsed = elapsed.map_err(|error| GpuError::failed(format!("the driver has no cuEventElapsedTime: {error}")))?;
        // SAFETY: both events are of this context, and the place is valid for writing.
        let result = unsafe { elapsed(&raw mut milliseconds, from, to) };
        self.latch("cuEventElapsedTime", result)?;
        Ok(f64::from(milliseconds) * 1000.0)
    }

    fn forget(&mut self, event: Event) -> Result<(), GpuError> {
        let mark = self.events.remove(&event).ok_or_else(|| unknown("event", event.0))?;
        // Recording it anew, while a stream waits for it, does not change what that stream waits for.
        self.spare.push(mark.handle);
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: the context is current.
        let result = unsafe { sys::cuCtxSynchronize() };
        self.latch("waiting for all work", result)?;
        self.finished = self.queued;
        Ok(())
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // A dead context answers nothing and may block; it ends with the process.
        if self.enter().is_err() {
            return;
        }
        self.blas = None;
        // SAFETY: retained once by `open`; with the last of them the driver takes back all memory, streams, events and modules of it.
        unsafe {
            let _ = sys::cuCtxSynchronize();
            for pinned in self.stagings.values() {
                let _ = sys::cuMemFreeHost(pinned.start.cast());
            }
            for &(start, _) in self.buffers.values() {
                let _ = sys::cuMemFree_v2(start);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_begin_with_their_own_bytes() {
        assert_eq!(word(Scalar::I8(-1)), (0xFF, 1));
        assert_eq!(word(Scalar::I32(-2)), (0xFFFF_FFFE, 4));
        assert_eq!(word(Scalar::F32(1.0)), (0x3F80_0000, 4));
        assert_eq!(word(Scalar::F64(1.0)), (0x3FF0_0000_0000_0000, 8));
        assert_eq!(word(Scalar::I64(-1)), (u64::MAX, 8));
    }

    #[test]
    fn without_a_device_opening_says_why() {
        if let Err(why) = Cuda::open(u32::MAX, None) {
            assert_eq!(why.class(), crate::Class::Refused, "{why}");
        } else {
            panic!("there cannot be that many devices");
        }
    }
}
