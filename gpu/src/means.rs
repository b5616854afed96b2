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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Host;
    use crate::backend::lazy::Lazy;
    use crate::work::{Admitted, Layout, Next, Run};
    use crate::{DeviceInfo, Limits, Program, Stream};

    /// Keeps this many bytes, sent a few at a time; fails after so many parts, if it is to.
    struct Kept {
        bytes: u64,
        fails_after: u64,
    }

    impl Work for Kept {
        fn name(&self) -> &str {
            "kept"
        }

        fn digest(&self) -> Digest {
            Digest::of(b"kept")
        }

        fn admit(&self, _: &[u8], _: &Limits) -> Result<Admitted, GpuError> {
            Err(GpuError::refused("nothing is taken"))
        }

        fn programs(&self) -> Vec<(Program, String)> {
            Vec::new()
        }

        fn resident(&self) -> Option<Resident> {
            Some(Resident { digest: Digest::of(&self.bytes.to_le_bytes()), bytes: self.bytes })
        }

        fn fill(&self, filling: &mut Filling<'_>) -> Result<(), GpuError> {
            for part in 0..self.bytes / 8 {
                if part == self.fails_after {
                    return Err(GpuError::refused("no more"));
                }
                let write = |to: &mut [u8]| {
                    to.copy_from_slice(&part.to_le_bytes());
                    Ok(())
                };
                let sent = filling.send(8, write)?;
                let to = Slice { offset: filling.memory.offset + part * 8, bytes: 8, ..filling.memory };
                filling.backend.copy(Stream::Compute, sent, to)?;
            }
            assert!(filling.send(filling.bytes_max() + 1, |_| Ok(())).is_err(), "more than a chunk");
            Ok(())
        }

        fn lay(&self, _: &[&Admitted], _: &DeviceInfo) -> Result<Layout, GpuError> {
            Ok(Layout::default())
        }

        fn enqueue(&self, _: &mut Run<'_>, _: &mut Layout, _: &[u8]) -> Result<Next, GpuError> {
            Ok(Next::Done)
        }
    }

    #[test]
    fn what_was_filled_is_all_there_and_nothing_uses_what_it_came_through() {
        for seed in 0..20 {
            let (mut lazy, mut means) = (Lazy::new(Host::new(1 << 30), seed), Means::new(1 << 20, 1 << 20));
            let kept = Kept { bytes: 800, fails_after: u64::MAX };
            let pinned = means.pin(&mut lazy, &kept, true).unwrap();
            assert!(lazy.is_idle(), "seed {seed}");
            let (_, memory) = pinned.unwrap();
            let staging = lazy.stage(800).unwrap();
            lazy.copy_out(Stream::Out, memory, staging, 0).unwrap();
            lazy.synchronize().unwrap();
            let words: Vec<u64> = (0..100).collect();
            assert_eq!(&lazy.staged(staging).unwrap()[..800], crate::array::bytes_of(&words), "seed {seed}");
            // Pinned it stays, unpinned it makes room.
            let wanted = (1 << 20) - 512;
            assert!(means.take(&mut lazy, "x", wanted, true).is_err());
            means.unpin(pinned);
            assert!(means.take(&mut lazy, "x", wanted, false).is_err());
            assert!(means.take(&mut lazy, "x", wanted, true).is_ok());
        }
    }

    #[test]
    fn what_fails_on_the_way_leaves_no_trace() {
        for (seed, fails_after) in [(1, 0), (2, 1), (3, 50)] {
            let (mut lazy, mut means) = (Lazy::new(Host::new(1 << 30), seed), Means::new(1 << 20, 1 << 20));
            let error = means.pin(&mut lazy, &Kept { bytes: 800, fails_after }, true).unwrap_err();
            assert_eq!(error, GpuError::refused("no more"));
            assert!(lazy.is_idle() && means.pool.used() == 0 && means.residents.counters().bytes == 0);
            assert!(means.pin(&mut lazy, &Kept { bytes: 800, fails_after: u64::MAX }, true).is_ok());
        }
    }
}
