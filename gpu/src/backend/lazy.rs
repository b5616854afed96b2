//! A backend that does what is queued as late as it may, in any order that streams and marks allow: who forgets to wait gets other bytes.

use std::collections::{BTreeSet, VecDeque};

use super::{Arg, Backend, Buffer, Event, Gemm, Kernel, MemoryInfo, Module, Program, Slice, Staging, Stream};
use crate::{DeviceInfo, GpuError, Launch};

/// Work that was queued and is not done.
enum Queued {
    CopyIn(Staging, u64, Slice),
    CopyOut(Slice, Staging, u64),
    Copy(Slice, Slice),
    Fill(Slice, u8),
    Launch(Kernel, Launch, Vec<Arg>),
    Gemm(Box<Gemm>),
    Mark(Event),
    Wait(Event),
}

/// The backend; the order is drawn from its seed.
pub(crate) struct Lazy<B> {
    inner: B,
    streams: [VecDeque<Queued>; 3],
    marked: BTreeSet<Event>,
    last: u64,
    seed: u64,
}

impl<B: Backend> Lazy<B> {
    pub(crate) fn new(inner: B, seed: u64) -> Self {
        Self { inner, streams: Default::default(), marked: BTreeSet::new(), last: 0, seed }
    }

    /// Whether everything that was queued is done.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.iter().all(VecDeque::is_empty)
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn queue(&mut self, stream: Stream, queued: Queued) {
        self.streams[stream as usize].push_back(queued);
    }

    /// Does the next of a stream; whether there was one that waits for nothing.
    fn step(&mut self, stream: usize) -> Result<bool, GpuError> {
        // What was queued goes in order and once.
        let Some(next) = self.streams[stream].pop_front() else { return Ok(false) };
        let on = Stream::ALL[stream];
        match next {
            Queued::Wait(event) if !self.marked.contains(&event) => {
                self.streams[stream].push_front(Queued::Wait(event));
                return Ok(false);
            }
            Queued::Wait(_) => (),
            Queued::Mark(event) => drop(self.marked.insert(event)),
            Queued::CopyIn(staging, from, to) => self.inner.copy_in(on, staging, from, to)?,
            Queued::CopyOut(from, staging, to) => self.inner.copy_out(on, from, staging, to)?,
            Queued::Copy(from, to) => self.inner.copy(on, from, to)?,
            Queued::Fill(slice, byte) => self.inner.fill(on, slice, byte)?,
            Queued::Launch(kernel, launch, args) => self.inner.launch(on, kernel, &launch, &args)?,
            Queued::Gemm(gemm) => self.inner.gemm(on, &gemm)?,
        }
        Ok(true)
    }

    fn uses(&self, staging: Staging) -> bool {
        self.streams.iter().flatten().any(|queued| match queued {
            Queued::CopyIn(used, ..) | Queued::CopyOut(_, used, _) => *used == staging,
            Queued::Copy(..) | Queued::Fill(..) | Queued::Launch(..) | Queued::Gemm(_) | Queued::Mark(_) | Queued::Wait(_) => {
                false
            }
        })
    }
}

impl<B: Backend> Backend for Lazy<B> {
    fn device(&self) -> &DeviceInfo {
        self.inner.device()
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.inner.memory()
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError> {
        self.inner.alloc(bytes)
    }

    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError> {
        self.synchronize()?;
        self.inner.free(buffer)
    }

    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError> {
        self.inner.stage(bytes)
    }

    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError> {
        self.staged(staging)?;
        self.inner.unstage(staging)
    }

    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError> {
        if self.uses(staging) {
            return Err(GpuError::refused(format!("staging memory {} is being copied", staging.0)));
        }
        self.inner.staged(staging)
    }

    fn copy_in(&mut self, stream: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError> {
        self.queue(stream, Queued::CopyIn(staging, from, to));
        Ok(())
    }

    fn copy_out(&mut self, stream: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError> {
        self.queue(stream, Queued::CopyOut(from, staging, to));
        Ok(())
    }

    fn copy(&mut self, stream: Stream, from: Slice, to: Slice) -> Result<(), GpuError> {
        self.queue(stream, Queued::Copy(from, to));
        Ok(())
    }

    fn fill(&mut self, stream: Stream, slice: Slice, byte: u8) -> Result<(), GpuError> {
        self.queue(stream, Queued::Fill(slice, byte));
        Ok(())
    }

    fn load(&mut self, program: &Program) -> Result<Module, GpuError> {
        self.inner.load(program)
    }

    fn unload(&mut self, module: Module) -> Result<(), GpuError> {
        self.synchronize()?;
        self.inner.unload(module)
    }

    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError> {
        self.inner.kernel(module, entry)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError> {
        self.queue(stream, Queued::Launch(kernel, *launch, args.to_vec()));
        Ok(())
    }

    fn gemm(&mut self, stream: Stream, gemm: &Gemm) -> Result<(), GpuError> {
        self.queue(stream, Queued::Gemm(Box::new(*gemm)));
        Ok(())
    }

    fn record(&mut self, stream: Stream) -> Result<Event, GpuError> {
        self.last += 1;
        self.queue(stream, Queued::Mark(Event(self.last)));
        Ok(Event(self.last))
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.queue(stream, Queued::Wait(event));
        Ok(())
    }

    fn done(&mut self, event: Event) -> Result<bool, GpuError> {
        for _ in 0..self.draw(4) {
            let stream = self.draw(3) as usize;
            self.step(stream)?;
        }
        Ok(self.marked.contains(&event))
    }

    fn elapsed_us(&mut self, from: Event, to: Event) -> Result<f64, GpuError> {
        let done = self.marked.contains(&from) && self.marked.contains(&to);
        if done { Ok(1.0) } else { Err(GpuError::refused("time between marks that are not done")) }
    }

    fn forget(&mut self, _: Event) -> Result<(), GpuError> {
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        loop {
            let first = self.draw(3) as usize;
            let mut went = false;
            for stream in 0..3 {
                went |= self.step((first + stream) % 3)?;
            }
            if !went {
                assert!(self.is_idle(), "streams that wait for each other");
                return Ok(());
            }
        }
    }
}
