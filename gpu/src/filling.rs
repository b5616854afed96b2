//! How what stays on the device gets there: piece by piece through two chunks of staging memory, of which one is written by the host while
//! the other is on its way.

use std::time::Duration;

use crate::work::Modules;
use crate::{Backend, Digest, Event, GpuError, Kernel, Slice, Staging, Stream};

/// Bytes that are sent at once: large enough that copies run at full speed, small enough to be had beside everything else. Few in tests, so
/// that small matrices have many parts.
const CHUNK_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 32 << 20 };
/// How long the host sleeps between looks at a chunk that is in use: a small part of what copying one takes.
const LOOK: Duration = Duration::from_micros(50);

/// One of the two places that bytes go through.
struct Chunk {
    staging: Staging,
    memory: Slice,
    /// Its copy, and the kernels that read it: both must be done before it is written again.
    uses: Vec<Event>,
}

/// Memory of the device that is being filled, and what a kind of work has at hand for that.
pub struct Filling<'a> {
    /// The device.
    pub backend: &'a mut dyn Backend,
    /// What is to be filled; contents undefined.
    pub memory: Slice,
    modules: &'a Modules,
    chunks: [Chunk; 2],
    /// The chunk that was sent last.
    last: usize,
    sent: bool,
}

impl<'a> Filling<'a> {
    /// The size of a chunk for a memory of so many bytes.
    pub(crate) fn chunk_bytes(bytes: u64) -> u64 {
        bytes.clamp(1, CHUNK_BYTES).next_multiple_of(crate::memory::ALIGNMENT)
    }

    /// `chunks` is memory for two of them.
    pub(crate) fn new(
        backend: &'a mut dyn Backend,
        memory: Slice,
        modules: &'a Modules,
        chunks: Slice,
        stagings: [Staging; 2],
    ) -> Self {
        let bytes = chunks.bytes / 2;
        let chunk = |index: u64| Slice { offset: chunks.offset + index * bytes, bytes, ..chunks };
        let chunks = [0, 1].map(|index| Chunk { staging: stagings[index as usize], memory: chunk(index), uses: Vec::new() });
        Self { backend, memory, modules, chunks, last: 1, sent: false }
    }

    /// An entry of one of the kind's programs.
    ///
    /// # Errors
    ///
    /// When it is none of those that the kind named.
    pub fn kernel(&self, program: &Digest, entry: &str) -> Result<Kernel, GpuError> {
        self.modules.kernel(program, entry)
    }

    /// The most bytes that [`send`](Self::send) takes at once.
    pub fn bytes_max(&self) -> u64 {
        self.chunks[0].memory.bytes
    }

    /// Lets `write` write so many bytes and queues their copy to the device; where they come to lie there. Kernels that are queued after it
    /// find them there; the next but one overwrites them, after those kernels.
    ///
    /// # Errors
    ///
    /// When they are more than a chunk has, what `write` answers, and what the device says.
    pub fn send(&mut self, bytes: u64, write: impl FnOnce(&mut [u8]) -> Result<(), GpuError>) -> Result<Slice, GpuError> {
        if bytes > self.bytes_max() {
            return Err(GpuError::failed(format!("{bytes} bytes sent at once, of {} at most", self.bytes_max())));
        }
        self.mark()?;
        self.last = 1 - self.last;
        self.wait(self.last)?;
        let chunk = &mut self.chunks[self.last];
        write(&mut self.backend.staged(chunk.staging)?[..bytes as usize])?;
        let memory = Slice { bytes, ..chunk.memory };
        self.sent = true;
        self.backend.copy_in(Stream::In, chunk.staging, 0, memory)?;
        let copied = self.backend.record(Stream::In)?;
        chunk.uses.push(copied);
        self.backend.wait(Stream::Compute, copied)?;
        Ok(memory)
    }

    /// Waits until everything that was queued is done, whatever came of it.
    pub(crate) fn finish(mut self, filled: Result<(), GpuError>) -> Result<(), GpuError> {
        self.mark()?;
        self.wait(0)?;
        self.wait(1)?;
        filled
    }

    /// Marks the end of the kernels that read the chunk that was sent last.
    fn mark(&mut self) -> Result<(), GpuError> {
        if std::mem::take(&mut self.sent) {
            let used = self.backend.record(Stream::Compute)?;
            self.chunks[self.last].uses.push(used);
        }
        Ok(())
    }

    /// Without a limit of its own: the watchdog sees that the thread shows no life.
    fn wait(&mut self, chunk: usize) -> Result<(), GpuError> {
        for event in std::mem::take(&mut self.chunks[chunk].uses) {
            while !self.backend.done(event)? {
                std::thread::sleep(LOOK);
            }
            self.backend.forget(event)?;
        }
        Ok(())
    }
}
