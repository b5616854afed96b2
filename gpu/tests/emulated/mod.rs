//! A backend that runs the kernels' own text on the CPU, compiled as C++ after `cuda.h`: every launch of a plan, without a device.
//!
//! Memory ends at a page that nobody may touch, is filled with a pattern, and a strip behind each buffer is looked at after every launch.

pub(crate) mod compile;
mod memory;

use std::collections::BTreeMap;
use std::ffi::c_void;

use ergate_gpu::backend::GemmKind;
use ergate_gpu::{
    Arg, Backend, Buffer, DeviceInfo, Event, Gemm, GpuError, Kernel, Launch, Limits, MemoryInfo, Module, Program, Scalar, Slice,
    Staging, Stream,
};

use compile::{Entry, Library};
use memory::Region;

/// A CPU that runs kernels.
pub(crate) struct Emulated {
    device: DeviceInfo,
    last: u64,
    buffers: BTreeMap<Buffer, Region>,
    stagings: BTreeMap<Staging, Vec<u8>>,
    modules: BTreeMap<Module, Library>,
    kernels: BTreeMap<Kernel, (String, Entry)>,
    /// What the order of threads is drawn from.
    pub(crate) seed: u64,
    /// Kernels launched, for tests that want to know which ran.
    pub(crate) launched: Vec<String>,
}

impl Emulated {
    /// A device of few multiprocessors, so that small inputs need several rounds of its blocks.
    pub(crate) fn new(seed: u64) -> Self {
        let device = DeviceInfo {
            ordinal: 0,
            uuid: "EMULATED".to_owned(),
            name: "emulated CUDA".to_owned(),
            memory_bytes: 1 << 32,
            driver: (0, 0),
            compute: (9, 0),
            mig: false,
            multiprocessors: 1,
            l2_bytes: 0,
            limits: Limits::COMMON,
        };
        Self {
            device,
            last: 0,
            buffers: BTreeMap::new(),
            stagings: BTreeMap::new(),
            modules: BTreeMap::new(),
            kernels: BTreeMap::new(),
            seed,
            launched: Vec::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn part(&mut self, slice: Slice) -> Result<&mut [u8], GpuError> {
        let region = self.buffers.get_mut(&slice.buffer).ok_or_else(|| GpuError::refused("an unknown buffer"))?;
        let past = slice.offset.checked_add(slice.bytes).filter(|&past| past <= region.bytes() as u64);
        let past = past.ok_or_else(|| GpuError::refused(format!("{slice:?} is not within {} bytes", region.bytes())))?;
        Ok(&mut region.as_mut_slice()[slice.offset as usize..past as usize])
    }

    fn matrix(&mut self, slice: Slice, kind: GemmKind) -> Result<Vec<f32>, GpuError> {
        let bytes = self.part(slice)?;
        let words = || bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word));
        let halves = || bytes.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half));
        Ok(match kind {
            GemmKind::F32 => words().collect(),
            // Cut, not rounded: the worse of what hardware does.
            GemmKind::Tf32 => words().map(|value| f32::from_bits(value.to_bits() & !0x1fff)).collect(),
            GemmKind::Bf16 => halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
            GemmKind::F16 => halves().map(|half| half::f16::from_bits(half).to_f32()).collect(),
        })
    }
}

impl Backend for Emulated {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        Ok(MemoryInfo { free: self.device.memory_bytes, total: self.device.memory_bytes })
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError> {
        if bytes == 0 || bytes > self.device.memory_bytes {
            return Err(GpuError::refused(format!("a buffer of {bytes} bytes")));
        }
        let buffer = Buffer(self.next());
        self.buffers.insert(buffer, Region::new(bytes as usize));
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError> {
        self.buffers.remove(&buffer).map(|region| region.check()).ok_or_else(|| GpuError::refused("an unknown buffer"))
    }

    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError> {
        let staging = Staging(self.next());
        self.stagings.insert(staging, vec![0; bytes as usize]);
        Ok(staging)
    }

    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError> {
        self.stagings.remove(&staging).map(drop).ok_or_else(|| GpuError::refused("an unknown staging"))
    }

    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError> {
        self.stagings.get_mut(&staging).map(Vec::as_mut_slice).ok_or_else(|| GpuError::refused("an unknown staging"))
    }

    fn copy_in(&mut self, _: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError> {
        let bytes = self.staged(staging)?[from as usize..(from + to.bytes) as usize].to_vec();
        self.part(to)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn copy_out(&mut self, _: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError> {
        let bytes = self.part(from)?.to_vec();
        self.staged(staging)?[to as usize..to as usize + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    fn copy(&mut self, _: Stream, from: Slice, to: Slice) -> Result<(), GpuError> {
        let bytes = self.part(from)?.to_vec();
        self.part(to)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn fill(&mut self, _: Stream, slice: Slice, byte: u8) -> Result<(), GpuError> {
        self.part(slice)?.fill(byte);
        Ok(())
    }

    fn load(&mut self, program: &Program) -> Result<Module, GpuError> {
        let library = Library::of(program).map_err(GpuError::refused)?;
        let module = Module(self.next());
        self.modules.insert(module, library);
        Ok(module)
    }

    fn unload(&mut self, module: Module) -> Result<(), GpuError> {
        // The library stays mapped: kernels may have been taken from it.
        self.modules.remove(&module).map(std::mem::forget).ok_or_else(|| GpuError::refused("an unknown module"))
    }

    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError> {
        let library = self.modules.get(&module).ok_or_else(|| GpuError::refused("an unknown module"))?;
        let found = library.entry(entry).map_err(GpuError::refused)?;
        let kernel = Kernel(self.next());
        self.kernels.insert(kernel, (entry.to_owned(), found));
        Ok(kernel)
    }

    fn launch(&mut self, _: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError> {
        launch.check(&self.device.limits)?;
        let mut values: Vec<u64> = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match *arg {
                Arg::Slice(slice) => self.part(slice)?.as_mut_ptr() as u64,
                Arg::Scalar(scalar) => raw(scalar),
            });
        }
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let (name, entry) = self.kernels.get(&kernel).ok_or_else(|| GpuError::refused("an unknown kernel"))?;
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = pointers.len() as u32;
        // SAFETY: the entry was made by the macro of cuda.h and has this signature; the pointers are as many as it is told and point to 8
        // bytes each, the most that a parameter has; slices were checked to lie in regions that live until they are freed.
        let code = unsafe {
            entry(launch.grid.as_ptr(), launch.block.as_ptr(), launch.shared_bytes, pointers.as_mut_ptr(), count, self.seed)
        };
        self.launched.push(name.clone());
        self.buffers.values().for_each(Region::check);
        match code {
            0 => Ok(()),
            1 => Err(GpuError::refused(format!(
                "kernel {name}: blocks of whole warps, 1024 threads at most, are emulated; not {launch:?}"
            ))),
            _ => Err(GpuError::refused(format!("kernel {name} was given {count} arguments, which it has not"))),
        }
    }

    fn gemm(&mut self, _: Stream, gemm: &Gemm) -> Result<(), GpuError> {
        let (m, n, k) = (gemm.m as usize, gemm.n as usize, gemm.k as usize);
        let (a, b) = (self.matrix(gemm.a, gemm.kind)?, self.matrix(gemm.b, gemm.kind)?);
        assert!(a.len() >= m * k && b.len() >= n * k && gemm.beta == 0.0, "operands as large as their shapes");
        let c = self.part(gemm.c)?;
        assert_eq!(c.len(), m * n * 4, "a result as large as its shape");
        for (index, to) in c.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (row, column) = (index / n, index % n);
            let at_a = |i: usize| a[if gemm.transpose_a { i * m + row } else { row * k + i }];
            let at_b = |i: usize| b[if gemm.transpose_b { column * k + i } else { i * n + column }];
            let sum: f32 = (0..k).map(|i| at_a(i) * at_b(i)).sum();
            *to = (gemm.alpha * sum).to_le_bytes();
        }
        Ok(())
    }

    fn record(&mut self, _: Stream) -> Result<Event, GpuError> {
        Ok(Event(self.next()))
    }

    fn wait(&mut self, _: Stream, _: Event) -> Result<(), GpuError> {
        Ok(())
    }

    fn done(&mut self, _: Event) -> Result<bool, GpuError> {
        Ok(true)
    }

    fn elapsed_us(&mut self, _: Event, _: Event) -> Result<f64, GpuError> {
        Ok(0.0)
    }

    fn forget(&mut self, _: Event) -> Result<(), GpuError> {
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}

/// The bytes of a scalar, the rest zeros.
fn raw(scalar: Scalar) -> u64 {
    match scalar {
        Scalar::U8(value) => u64::from(value),
        Scalar::I8(value) => u64::from(value.cast_unsigned()),
        Scalar::I16(value) => u64::from(value.cast_unsigned()),
        Scalar::U16(value) => u64::from(value),
        Scalar::I32(value) => u64::from(value.cast_unsigned()),
        Scalar::U32(value) => u64::from(value),
        Scalar::I64(value) => value.cast_unsigned(),
        Scalar::U64(value) => value,
        Scalar::F16(value) => u64::from(value.to_bits()),
        Scalar::Bf16(value) => u64::from(value.to_bits()),
        Scalar::F32(value) => u64::from(value.to_bits()),
        Scalar::F64(value) => value.to_bits(),
    }
}
