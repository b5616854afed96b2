//! The backend without a device: memory of the host, and a Rust function, the twin, in the place of each kernel.
//!
//! Everything happens in the call that queues it, so every mark is done at once and the three streams are one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::args::TwinArg;
use super::{
    Arg, Backend, BoundTwin, Buffer, Event, Family, Gemm, GemmKind, Kernel, MemoryInfo, Module, Program, Slice, Staging, Stream,
    Twin, TwinArgs, bounds,
};
use crate::{DeviceInfo, GpuError, Launch, Limits};

/// 256 bytes, aligned as device memory is.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Block(#[expect(dead_code, reason = "read and written as plain bytes")] [u8; Memory::BLOCK]);

/// Memory with the alignment of a device's.
struct Memory {
    blocks: Vec<Block>,
    bytes: u64,
}

impl Memory {
    const BLOCK: usize = 256;
    /// What new memory holds where assertions are on, so that reading what nobody wrote is seen.
    const POISON: u8 = if cfg!(debug_assertions) { 0xA5 } else { 0 };

    fn new(bytes: u64, fill: u8) -> Option<Self> {
        let count = usize::try_from(bytes).ok()?.div_ceil(Self::BLOCK);
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count).ok()?;
        blocks.resize(count, Block([fill; Self::BLOCK]));
        Some(Self { blocks, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: the blocks are contiguous bytes without padding, at least `bytes` of them, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.bytes as usize) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.bytes as usize) }
    }
}

/// A CPU that stands for a device.
pub struct Host {
    device: DeviceInfo,
    twins: BTreeMap<String, Twin>,
    families: Vec<Family>,
    last: u64,
    used: u64,
    buffers: BTreeMap<Buffer, Memory>,
    stagings: BTreeMap<Staging, Memory>,
    modules: BTreeMap<Module, Program>,
    kernels: BTreeMap<Kernel, (Module, String, BoundTwin)>,
    events: BTreeMap<Event, Instant>,
}

impl Host {
    /// A device of this much memory, in bytes, without any twin.
    pub fn new(memory_bytes: u64) -> Self {
        let device = DeviceInfo {
            ordinal: 0,
            uuid: "HOST".to_owned(),
            name: "CPU twins".to_owned(),
            memory_bytes,
            driver: (0, 0),
            compute: (0, 0),
            mig: false,
            multiprocessors: 1,
            l2_bytes: 0,
            limits: Limits::COMMON,
        };
        Self {
            device,
            twins: BTreeMap::new(),
            families: Vec::new(),
            last: 0,
            used: 0,
            buffers: BTreeMap::new(),
            stagings: BTreeMap::new(),
            modules: BTreeMap::new(),
            kernels: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// With a twin for every kernel whose entry has this name.
    pub fn twin(mut self, entry: &str, twin: Twin) -> Self {
        self.twins.insert(entry.to_owned(), twin);
        self
    }

    /// With the twins that a family finds, for entries that have none of their own.
    pub fn family(mut self, family: Family) -> Self {
        self.families.push(family);
        self
    }

    /// With the twins of the built-in kernels, so that these run here through everything that a device would run them through.
    pub fn builtins(self) -> Self {
        self.family(crate::aggregate::host_twin).family(crate::top_k::host_twin)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn buffer(&mut self, buffer: Buffer) -> Result<&mut Memory, GpuError> {
        self.buffers.get_mut(&buffer).ok_or_else(|| unknown("buffer", buffer.0))
    }

    fn part(&mut self, slice: Slice) -> Result<&mut [u8], GpuError> {
        let memory = self.buffer(slice.buffer)?;
        let (from, past) = bounds::within("buffer", slice.offset, slice.bytes, memory.bytes)?;
        Ok(&mut memory.as_mut_slice()[from..past])
    }

    fn matrix(&mut self, slice: Slice, kind: GemmKind) -> Result<Vec<f64>, GpuError> {
        let bytes = self.part(slice)?;
        Ok(match kind {
            GemmKind::F32 | GemmKind::Tf32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            GemmKind::Bf16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f64()).collect(),
            GemmKind::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f64()).collect(),
        })
    }
}

fn unknown(what: &str, handle: u64) -> GpuError {
    GpuError::refused(format!("{what} {handle} is unknown, or was given back"))
}

impl Backend for Host {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        Ok(MemoryInfo { free: self.device.memory_bytes - self.used, total: self.device.memory_bytes })
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError> {
        if bytes == 0 {
            return Err(GpuError::refused("a buffer of 0 bytes: ask for at least one"));
        }
        let free = self.device.memory_bytes - self.used;
        let short = || GpuError::OutOfMemory { what: "a buffer".to_owned(), asked: bytes, free, limit: self.device.memory_bytes };
        if bytes > free {
            return Err(short());
        }
        let memory = Memory::new(bytes, Memory::POISON).ok_or_else(short)?;
        self.used += bytes;
        let buffer = Buffer(self.next());
        self.buffers.insert(buffer, memory);
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError> {
        let memory = self.buffers.remove(&buffer).ok_or_else(|| unknown("buffer", buffer.0))?;
        self.used -= memory.bytes;
        Ok(())
    }

    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError> {
        let memory = Memory::new(bytes, 0).ok_or_else(|| GpuError::OutOfMemory {
            what: "staging memory of the host".to_owned(),
            asked: bytes,
            free: 0,
            limit: bytes,
        })?;
        let staging = Staging(self.next());
        self.stagings.insert(staging, memory);
        Ok(staging)
    }

    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError> {
        self.stagings.remove(&staging).map(|_| ()).ok_or_else(|| unknown("staging memory", staging.0))
    }

    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError> {
        self.stagings.get_mut(&staging).map(Memory::as_mut_slice).ok_or_else(|| unknown("staging memory", staging.0))
    }

    fn copy_in(&mut self, _: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError> {
        let memory = self.stagings.remove(&staging).ok_or_else(|| unknown("staging memory", staging.0))?;
        let copied = bounds::within("staging memory", from, to.bytes, memory.bytes).and_then(|(from, past)| {
            self.part(to)?.copy_from_slice(&memory.as_slice()[from..past]);
            Ok(())
        });
        self.stagings.insert(staging, memory);
        copied
    }

    fn copy_out(&mut self, _: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError> {
        let mut memory = self.stagings.remove(&staging).ok_or_else(|| unknown("staging memory", staging.0))?;
        let copied = bounds::within("staging memory", to, from.bytes, memory.bytes).and_then(|(to, past)| {
            memory.as_mut_slice()[to..past].copy_from_slice(self.part(from)?);
            Ok(())
        });
        self.stagings.insert(staging, memory);
        copied
    }

    fn copy(&mut self, _: Stream, from: Slice, to: Slice) -> Result<(), GpuError> {
        bounds::copy(from, to)?;
        let bytes = self.part(from)?.to_vec();
        self.part(to)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn fill(&mut self, _: Stream, slice: Slice, byte: u8) -> Result<(), GpuError> {
        self.part(slice)?.fill(byte);
        Ok(())
    }

    fn load(&mut self, program: &Program) -> Result<Module, GpuError> {
        let module = Module(self.next());
        self.modules.insert(module, program.clone());
        Ok(module)
    }

    fn unload(&mut self, module: Module) -> Result<(), GpuError> {
        self.modules.remove(&module).ok_or_else(|| unknown("module", module.0))?;
        self.kernels.retain(|_, (of, _, _)| *of != module);
        Ok(())
    }

    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError> {
        let program = self.modules.get(&module).ok_or_else(|| unknown("module", module.0))?;
        let own = self.twins.get(entry).map(|&twin| Arc::new(twin) as BoundTwin);
        let twin = own.or_else(|| self.families.iter().find_map(|family| family(program, entry)));
        let twin = twin.ok_or_else(|| {
            let name = &program.name;
            GpuError::refused(format!("kernel {entry} of {name} has no CPU twin: it runs only where there is a device"))
        })?;
        let kernel = Kernel(self.next());
        self.kernels.insert(kernel, (module, entry.to_owned(), twin));
        Ok(kernel)
    }

    fn launch(&mut self, _: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError> {
        launch.check(&self.device.limits)?;
        let (_, entry, twin) = self.kernels.get(&kernel).cloned().ok_or_else(|| unknown("kernel", kernel.0))?;
        let mut given = Vec::with_capacity(args.len());
        for arg in args {
            given.push(match *arg {
                Arg::Slice(slice) => {
                    let memory = self.buffer(slice.buffer)?;
                    let (from, past) = bounds::within("buffer", slice.offset, slice.bytes, memory.bytes)?;
                    // SAFETY: `within` has shown that `from` lies within the buffer or at its end.
                    let start = unsafe { memory.blocks.as_mut_ptr().cast::<u8>().add(from) };
                    TwinArg::Memory { start, bytes: past - from }
                }
                Arg::Scalar(scalar) => TwinArg::Scalar(scalar),
            });
        }
        // SAFETY: the parts lie within buffers of `self`, which is borrowed mutably until the twin has returned, and are initialized.
        let mut given = unsafe { TwinArgs::new(&entry, given) };
        catch_unwind(AssertUnwindSafe(|| twin(launch, &mut given))).unwrap_or_else(|_| {
            Err(GpuError::failed(format!("the CPU twin of kernel {entry} panicked; what it said is on stderr")))
        })
    }

    fn gemm(&mut self, _: Stream, gemm: &Gemm) -> Result<(), GpuError> {
        bounds::gemm(gemm)?;
        let (m, n, k) = (gemm.m as usize, gemm.n as usize, gemm.k as usize);
        let (a, b) = (self.matrix(gemm.a, gemm.kind)?, self.matrix(gemm.b, gemm.kind)?);
        let c = self.part(gemm.c)?.as_chunks_mut::<4>().0;
        for row in 0..m {
            for column in 0..n {
                let left = |i| if gemm.transpose_a { a[i * m + row] } else { a[row * k + i] };
                let right = |i| if gemm.transpose_b { b[column * k + i] } else { b[i * n + column] };
                let sum: f64 = (0..k).map(|i| left(i) * right(i)).sum();
                let cell = &mut c[row * n + column];
                let kept = if gemm.beta == 0.0 { 0.0 } else { f64::from(gemm.beta) * f64::from(f32::from_le_bytes(*cell)) };
                *cell = ((f64::from(gemm.alpha) * sum + kept) as f32).to_le_bytes();
            }
        }
        Ok(())
    }

    fn record(&mut self, _: Stream) -> Result<Event, GpuError> {
        let event = Event(self.next());
        self.events.insert(event, Instant::now());
        Ok(event)
    }

    fn wait(&mut self, _: Stream, event: Event) -> Result<(), GpuError> {
        self.done(event).map(|_| ())
    }

    fn done(&mut self, event: Event) -> Result<bool, GpuError> {
        self.events.get(&event).map(|_| true).ok_or_else(|| unknown("event", event.0))
    }

    fn elapsed_us(&mut self, from: Event, to: Event) -> Result<f64, GpuError> {
        let at = |event: Event| self.events.get(&event).copied().ok_or_else(|| unknown("event", event.0));
        Ok(at(to)?.saturating_duration_since(at(from)?).as_secs_f64() * 1e6)
    }

    fn forget(&mut self, event: Event) -> Result<(), GpuError> {
        self.events.remove(&event).map(|_| ()).ok_or_else(|| unknown("event", event.0))
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    fn scale(_: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
        let (from, to, factor) = (args.input::<f32>(0)?, args.output::<f32>(1)?, args.f32(2)?);
        for (to, from) in to.iter_mut().zip(from) {
            *to = from * factor;
        }
        Ok(())
    }

    fn whole(buffer: Buffer, bytes: u64) -> Slice {
        Slice { buffer, offset: 0, bytes }
    }

    fn loaded(host: &mut Host) -> Kernel {
        let module = host.load(&Program { name: "k.cu".to_owned(), source: String::new(), options: Vec::new() }).unwrap();
        host.kernel(module, "scale").unwrap()
    }

    #[test]
    fn a_twin_does_what_its_kernel_would() {
        let mut host = Host::new(1 << 20).twin("scale", scale);
        let kernel = loaded(&mut host);
        let staging = host.stage(12).unwrap();
        for (bytes, value) in host.staged(staging).unwrap().chunks_exact_mut(4).zip([1.0f32, 2.0, 3.0]) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        let (x, y) = (host.alloc(12).unwrap(), host.alloc(12).unwrap());
        host.copy_in(Stream::In, staging, 0, whole(x, 12)).unwrap();
        let args = [Arg::Slice(whole(x, 12)), Arg::Slice(whole(y, 12)), Arg::Scalar(Scalar::F32(2.0))];
        host.launch(Stream::Compute, kernel, &Launch::linear(3, 256).unwrap(), &args).unwrap();
        host.copy_out(Stream::Out, whole(y, 12), staging, 0).unwrap();
        let bytes: Vec<u8> = [2.0f32, 4.0, 6.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(host.staged(staging).unwrap(), bytes);
    }

    #[test]
    fn a_twin_gets_no_overlapping_output_and_no_wrong_type() {
        let mut host = Host::new(1 << 20).twin("scale", scale);
        let kernel = loaded(&mut host);
        let x = host.alloc(64).unwrap();
        let launch = Launch::linear(3, 256).unwrap();
        let part = |offset, bytes| Arg::Slice(Slice { buffer: x, offset, bytes });
        let factor = Arg::Scalar(Scalar::F32(2.0));
        assert_eq!(host.launch(Stream::Compute, kernel, &launch, &[part(0, 32), part(32, 32), factor]), Ok(()));
        for args in [
            vec![part(0, 32), part(28, 32), factor],
            vec![part(0, 32), part(32, 32), Arg::Scalar(Scalar::U32(2))],
            vec![part(0, 32), part(32, 32)],
            vec![part(0, 32), part(34, 8), factor],
            vec![part(0, 32), part(32, 7), factor],
            vec![part(0, 32), part(32, 33), factor],
            vec![part(0, 32), factor, factor],
        ] {
            let refused = host.launch(Stream::Compute, kernel, &launch, &args).unwrap_err();
            assert_eq!(refused.class(), crate::Class::Refused, "{refused}");
        }
    }

    #[test]
    fn memory_ends_at_its_limit_and_comes_back() {
        let mut host = Host::new(1000);
        let first = host.alloc(600).unwrap();
        let GpuError::OutOfMemory { asked: 401, free: 400, limit: 1000, .. } = host.alloc(401).unwrap_err() else { panic!() };
        host.free(first).unwrap();
        assert!(host.free(first).is_err());
        assert_eq!(host.memory().unwrap().free, 1000);
    }

    #[test]
    fn a_product_is_that_of_the_definition_in_every_layout() {
        let mut host = Host::new(1 << 20);
        // a = [[1, 2, 3], [4, 5, 6]], b = [[1, 0], [2, 1], [0, 3]]; a·b = [[5, 11], [14, 23]].
        let rows = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        for (transpose_a, a) in [(false, rows(&[1., 2., 3., 4., 5., 6.])), (true, rows(&[1., 4., 2., 5., 3., 6.]))] {
            for (transpose_b, b) in [(false, rows(&[1., 0., 2., 1., 0., 3.])), (true, rows(&[1., 2., 0., 0., 1., 3.]))] {
                let mut put = |bytes: &[u8]| {
                    let buffer = host.alloc(bytes.len() as u64).unwrap();
                    let slice = whole(buffer, bytes.len() as u64);
                    host.part(slice).unwrap().copy_from_slice(bytes);
                    slice
                };
                let (a, b, c) = (put(&a), put(&b), put(&rows(&[1., 1., 1., 1.])));
                let kind = GemmKind::F32;
                let gemm = Gemm { a, b, c, m: 2, n: 2, k: 3, transpose_a, transpose_b, kind, alpha: 2.0, beta: 1.0 };
                host.gemm(Stream::Compute, &gemm).unwrap();
                assert_eq!(host.part(c).unwrap(), rows(&[11., 23., 29., 47.]));
            }
        }
    }

    #[test]
    fn a_panicking_twin_fails_alone() {
        fn panics(_: &Launch, _: &mut TwinArgs<'_>) -> Result<(), GpuError> {
            panic!("on purpose")
        }
        let mut host = Host::new(1000).twin("scale", panics);
        let kernel = loaded(&mut host);
        let failed = host.launch(Stream::Compute, kernel, &Launch::linear(1, 1).unwrap(), &[]).unwrap_err();
        assert_eq!(failed.class(), crate::Class::Failed);
    }
}
