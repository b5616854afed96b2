//! A backend that wraps another and fails on purpose, so that every way of failing is tested without a device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Arg, Backend, Buffer, Event, Gemm, Kernel, MemoryInfo, Module, Program, Slice, Staging, Stream};
use crate::{DeviceInfo, GpuError, Launch, Sticky};

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Device memory asked for.
    Alloc,
    /// Staging memory asked for.
    Stage,
    /// A copy to the device.
    CopyIn,
    /// A copy from the device.
    CopyOut,
    /// A program loaded.
    Load,
    /// A kernel launched.
    Launch,
    /// A matrix product.
    Gemm,
}

/// What happens at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The call answers that memory does not suffice.
    OutOfMemory,
    /// The call answers that it failed.
    Failed,
    /// The call succeeds, and the context is dead when anyone looks next, as with real launches.
    Sticky(Sticky),
    /// The call succeeds, and no mark made from then on is ever done.
    Hang,
    /// The call succeeds, and the next mark is done only after this time.
    Slow(Duration),
    /// The call itself does not return before [`Faults::release`].
    Block,
}

#[derive(Default)]
struct Plan {
    planned: BTreeMap<(Call, u64), Fault>,
    calls: BTreeMap<Call, u64>,
    released: bool,
}

/// Faults to come; clones share the plan, so that a test can add to it while the backend is in use.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// Plans a fault for the `nth` call of a kind, counted from 1 since the start.
    pub fn at(self, call: Call, nth: u64, fault: Fault) -> Self {
        self.lock().planned.insert((call, nth), fault);
        self
    }

    /// How many calls of a kind there have been.
    pub fn calls(&self, call: Call) -> u64 {
        self.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Lets blocked calls return.
    pub fn release(&self) {
        self.lock().released = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, call: Call) -> Option<Fault> {
        let mut plan = self.lock();
        let count = plan.calls.entry(call).or_insert(0);
        *count += 1;
        let nth = *count;
        plan.planned.remove(&(call, nth))
    }
}

/// A backend with faults.
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
    dead: Option<GpuError>,
    hung: bool,
    slow: Option<Instant>,
    /// Marks that are done late or never.
    late: BTreeMap<Event, Option<Instant>>,
}

impl<B: Backend> Faulty<B> {
    /// Wraps a backend.
    pub fn new(inner: B, faults: Faults) -> Self {
        Self { inner, faults, dead: None, hung: false, slow: None, late: BTreeMap::new() }
    }

    fn alive(&self) -> Result<(), GpuError> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    /// Counts the call; what is to go wrong with it goes wrong.
    fn call(&mut self, call: Call, during: &str, asked: u64) -> Result<(), GpuError> {
        self.alive()?;
        match self.faults.next(call) {
            None => Ok(()),
            Some(Fault::OutOfMemory) => {
                let limit = self.inner.device().memory_bytes;
                Err(GpuError::OutOfMemory { what: during.to_owned(), asked, free: 0, limit })
            }
            Some(Fault::Failed) => Err(GpuError::failed(format!("{during} failed, as was planned"))),
            Some(Fault::Sticky(sticky)) => {
                self.dead = Some(GpuError::Sticky { sticky, during: during.to_owned() });
                Ok(())
            }
            Some(Fault::Hang) => {
                self.hung = true;
                Ok(())
            }
            Some(Fault::Slow(time)) => {
                self.slow = Some(Instant::now() + time);
                Ok(())
            }
            Some(Fault::Block) => {
                while !self.faults.lock().released {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn device(&self) -> &DeviceInfo {
        self.inner.device()
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.alive()?;
        self.inner.memory()
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, GpuError> {
        self.call(Call::Alloc, "a buffer", bytes)?;
        self.inner.alloc(bytes)
    }

    fn free(&mut self, buffer: Buffer) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.free(buffer)
    }

    fn stage(&mut self, bytes: u64) -> Result<Staging, GpuError> {
        self.call(Call::Stage, "staging memory", bytes)?;
        self.inner.stage(bytes)
    }

    fn unstage(&mut self, staging: Staging) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.unstage(staging)
    }

    fn staged(&mut self, staging: Staging) -> Result<&mut [u8], GpuError> {
        self.alive()?;
        self.inner.staged(staging)
    }

    fn copy_in(&mut self, stream: Stream, staging: Staging, from: u64, to: Slice) -> Result<(), GpuError> {
        self.call(Call::CopyIn, "a copy to the device", to.bytes)?;
        self.inner.copy_in(stream, staging, from, to)
    }

    fn copy_out(&mut self, stream: Stream, from: Slice, staging: Staging, to: u64) -> Result<(), GpuError> {
        self.call(Call::CopyOut, "a copy from the device", from.bytes)?;
        self.inner.copy_out(stream, from, staging, to)
    }

    fn copy(&mut self, stream: Stream, from: Slice, to: Slice) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.copy(stream, from, to)
    }

    fn fill(&mut self, stream: Stream, slice: Slice, byte: u8) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.fill(stream, slice, byte)
    }

    fn load(&mut self, program: &Program) -> Result<Module, GpuError> {
        self.call(Call::Load, &program.name, 0)?;
        self.inner.load(program)
    }

    fn unload(&mut self, module: Module) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.unload(module)
    }

    fn kernel(&mut self, module: Module, entry: &str) -> Result<Kernel, GpuError> {
        self.alive()?;
        self.inner.kernel(module, entry)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, args: &[Arg]) -> Result<(), GpuError> {
        self.call(Call::Launch, "a launch", 0)?;
        self.inner.launch(stream, kernel, launch, args)
    }

    fn gemm(&mut self, stream: Stream, gemm: &Gemm) -> Result<(), GpuError> {
        self.call(Call::Gemm, "a matrix product", 0)?;
        self.inner.gemm(stream, gemm)
    }

    fn record(&mut self, stream: Stream) -> Result<Event, GpuError> {
        self.alive()?;
        let event = self.inner.record(stream)?;
        if self.hung {
            self.late.insert(event, None);
        } else if let Some(until) = self.slow {
            self.late.insert(event, Some(until));
        }
        Ok(event)
    }

    fn wait(&mut self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.wait(stream, event)
    }

    fn done(&mut self, event: Event) -> Result<bool, GpuError> {
        self.alive()?;
        match self.late.get(&event) {
            Some(None) => Ok(false),
            Some(Some(until)) if Instant::now() < *until => Ok(false),
            Some(Some(_)) | None => self.inner.done(event),
        }
    }

    fn elapsed_us(&mut self, from: Event, to: Event) -> Result<f64, GpuError> {
        self.alive()?;
        self.inner.elapsed_us(from, to)
    }

    fn forget(&mut self, event: Event) -> Result<(), GpuError> {
        self.alive()?;
        self.late.remove(&event);
        self.inner.forget(event)
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        self.alive()?;
        self.inner.synchronize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::backend::Host;

    #[test]
    fn the_nth_call_fails_and_the_next_does_not() {
        let faults = Faults::default().at(Call::Alloc, 2, Fault::OutOfMemory);
        let mut faulty = Faulty::new(Host::new(1000), faults.clone());
        assert!(faulty.alloc(1).is_ok());
        assert_eq!(faulty.alloc(1).unwrap_err().class(), Class::OutOfMemory);
        assert!(faulty.alloc(1).is_ok());
        assert_eq!(faults.calls(Call::Alloc), 3);
    }

    #[test]
    fn a_dead_context_stays_dead() {
        let mut faulty =
            Faulty::new(Host::new(1000), Faults::default().at(Call::Alloc, 1, Fault::Sticky(Sticky::IllegalAddress)));
        assert!(faulty.alloc(1).is_ok());
        for _ in 0..3 {
            assert_eq!(faulty.alloc(1).unwrap_err().class(), Class::Sticky);
            assert_eq!(faulty.synchronize().unwrap_err().class(), Class::Sticky);
        }
    }

    #[test]
    fn what_hangs_is_never_done_and_what_is_slow_is_later() {
        let faults = Faults::default().at(Call::Alloc, 1, Fault::Slow(Duration::from_millis(20))).at(Call::Alloc, 2, Fault::Hang);
        let mut faulty = Faulty::new(Host::new(1000), faults);
        faulty.alloc(1).unwrap();
        let slow = faulty.record(Stream::Compute).unwrap();
        assert_eq!(faulty.done(slow), Ok(false));
        std::thread::sleep(Duration::from_millis(21));
        assert_eq!(faulty.done(slow), Ok(true));
        faulty.alloc(1).unwrap();
        let never = faulty.record(Stream::Compute).unwrap();
        assert_eq!(faulty.done(never), Ok(false));
    }
}
