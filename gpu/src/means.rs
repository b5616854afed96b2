//! What the owner's thread has on the device: memory, programs, and what is resident. All of it counts towards one limit.

use crate::filling::Filling;
use crate::memory::{Block, Pool};
use crate::pinned::Stages;
use crate::resident::Residents;
use crate::work::{Modules, Resident, Work};
use crate::{Backend, Digest, GpuError, Slice};

/// The memory and the programs of the owner.
pub(crate) struct Means {
    pub(crate) pool: Pool,
    pub(crate) stages: Stages,
    pub(crate) modules: Modules,
    pub(crate) residents: Residents<Block>,
    /// How often kernels of a batch were queued.
    queued: u64,
}

impl Means {
    pub(crate) fn new(memory_max: u64, staging_max: u64) -> Self {
        Self {
            pool: Pool::new(memory_max),
            stages: Stages::new(staging_max),
            modules: Modules::default(),
            residents: Residents::new(memory_max),
            queued: 0,
        }
    }

    /// A number for kernels that are being queued: those with a lower one run before.
    pub(crate) fn turn(&mut self) -> u64 {
        self.queued += 1;
        self.queued
    }

    /// Reserves memory. Where `evict` says so, what is resident and not in use makes room, least recently used first.
    pub(crate) fn take(&mut self, backend: &mut dyn Backend, what: &str, bytes: u64, evict: bool) -> Result<Block, GpuError> {
        loop {
            match self.pool.take(backend, what, bytes) {
                Err(short @ GpuError::OutOfMemory { .. }) => {
                    let evicted = if evict { self.residents.evict_oldest() } else { None };
                    self.pool.give(evicted.ok_or(short)?);
                }
                answer => return answer,
            }
        }
    }

    /// Keeps what a kind of work has resident from eviction until [`unpin`](Self::unpin), and says where it lies; fills it if need be.
    pub(crate) fn pin(
        &mut self,
        backend: &mut dyn Backend,
        work: &dyn Work,
        evict: bool,
    ) -> Result<Option<(Digest, Slice)>, GpuError> {
        let Some(Resident { digest, bytes }) = work.resident() else { return Ok(None) };
        if self.residents.get(&digest).is_none() {
            let block = self.take(backend, &format!("what {} keeps on the device", work.name()), bytes, evict)?;
            let filled = block.first(bytes).and_then(|memory| self.fill(backend, work, memory, evict));
            if let Err(error) = filled {
                // A dead context says so here, which counts more.
                backend.synchronize()?;
                self.pool.give(block);
                return Err(error);
            }
            let size = block.bytes();
            if let Err(block) = self.residents.insert(digest, size, block) {
                self.pool.give(block);
            }
        }
        self.residents.pin(&digest);
        let memory = self.residents.peek(&digest).map(|block| block.first(bytes)).transpose()?;
        let memory = memory.ok_or_else(|| GpuError::failed(format!("what {} keeps on the device is not there", work.name())))?;
        Ok(Some((digest, memory)))
    }

    /// Takes one pin back.
    pub(crate) fn unpin(&mut self, pinned: Option<(Digest, Slice)>) {
        if let Some((digest, _)) = pinned {
            self.residents.unpin(&digest);
        }
    }

    fn fill(&mut self, backend: &mut dyn Backend, work: &dyn Work, memory: Slice, evict: bool) -> Result<(), GpuError> {
        let chunk = Filling::chunk_bytes(memory.bytes);
        let block = self.take(backend, &format!("filling what {} keeps on the device", work.name()), 2 * chunk, evict)?;
        let mut stages = Vec::with_capacity(2);
        let answer = (|| {
            for _ in 0..2 {
                stages.push(self.stages.take(backend, chunk)?);
            }
            let memories = block.first(2 * chunk)?;
            let mut filling = Filling::new(backend, memory, &self.modules, memories, [stages[0].staging, stages[1].staging]);
            let filled = work.fill(&mut filling);
            filling.finish(filled)
        })();
        self.pool.give(block);
        stages.into_iter().try_for_each(|stage| self.stages.give(backend, stage)).and(answer)
    }
}
