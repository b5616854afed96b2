//! Device memory with a hard limit: a batch reserves all it needs before anything of it is queued, or waits.
//!
//! Blocks that were given back are kept for the next of their size; what is kept counts towards the limit and goes first when another size is
//! needed. Sizes are rounded up by at most an eighth, so that batches of nearly the same size share blocks.

use std::collections::BTreeMap;

use crate::{Backend, Buffer, GpuError, Slice};

/// What every part begins on: the alignment that wide loads and cuBLAS like best.
pub const ALIGNMENT: u64 = 256;

/// A reservation: one buffer that holds everything of one batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    buffer: Buffer,
    bytes: u64,
    used: u64,
}

impl Block {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first bytes of it, whatever parts were taken.
    ///
    /// # Errors
    ///
    /// When it is shorter.
    pub fn first(&self, bytes: u64) -> Result<Slice, GpuError> {
        if bytes > self.bytes {
            return Err(GpuError::failed(format!("the first {bytes} bytes: {} are reserved", self.bytes)));
        }
        Ok(Slice { buffer: self.buffer, offset: 0, bytes })
    }

    /// The next part of it, aligned.
    ///
    /// # Errors
    ///
    /// When it is used up.
    pub fn part(&mut self, bytes: u64) -> Result<Slice, GpuError> {
        let past = aligned(bytes).and_then(|size| self.used.checked_add(size)).filter(|&past| past <= self.bytes);
        let past = past.ok_or_else(|| {
            GpuError::failed(format!("a part of {bytes} bytes: {} of the {} bytes reserved are in use", self.used, self.bytes))
        })?;
        let slice = Slice { buffer: self.buffer, offset: self.used, bytes };
        self.used = past;
        Ok(slice)
    }
}

/// This many bytes rounded up to whole units of [`ALIGNMENT`]: what a part takes of a block.
pub fn aligned(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}

/// The memory of one device that this process may use.
#[derive(Debug)]
pub struct Pool {
    limit: u64,
    used: u64,
    high: u64,
    kept: u64,
    idle: BTreeMap<u64, Vec<Buffer>>,
}

impl Pool {
    /// A pool of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, high: 0, kept: 0, idle: BTreeMap::new() }
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The most bytes that were reserved at once.
    pub fn high(&self) -> u64 {
        self.high
    }

    /// Bytes kept for reuse.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Reserves a block.
    ///
    /// # Errors
    ///
    /// [`GpuError::OutOfMemory`] with the numbers; nothing is reserved then.
    pub fn take(&mut self, backend: &mut dyn Backend, what: &str, bytes: u64) -> Result<Block, GpuError> {
        let free = self.limit - self.used;
        let short = |asked, free| GpuError::OutOfMemory { what: what.to_owned(), asked, free, limit: self.limit };
        let size = match rounded(bytes.max(1)) {
            Some(size) if size <= free => size,
            // What does not fit rounded up may fit as it is.
            Some(_) => aligned(bytes.max(1)).filter(|&size| size <= free).ok_or_else(|| short(bytes, free))?,
            None => return Err(short(bytes, free)),
        };
        let buffer = match self.reuse(size) {
            Some(buffer) => buffer,
            None => self.alloc(backend, what, size)?,
        };
        self.used += size;
        self.high = self.high.max(self.used);
        Ok(Block { buffer, bytes: size, used: 0 })
    }

    /// Gives a block back, to be kept for reuse; the work that uses it is done.
    pub fn give(&mut self, block: Block) {
        self.used -= block.bytes;
        self.kept += block.bytes;
        self.idle.entry(block.bytes).or_default().push(block.buffer);
    }

    /// Gives everything kept back to the device.
    ///
    /// # Errors
    ///
    /// When the device does not take it.
    pub fn trim(&mut self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        self.trim_to(backend, 0)
    }

    fn reuse(&mut self, size: u64) -> Option<Buffer> {
        let buffer = self.idle.get_mut(&size)?.pop();
        if buffer.is_some() {
            self.kept -= size;
        }
        buffer
    }

    fn alloc(&mut self, backend: &mut dyn Backend, what: &str, size: u64) -> Result<Buffer, GpuError> {
        let room = self.limit - self.used - size;
        self.trim_to(backend, room)?;
        let mut answer = backend.alloc(size);
        if matches!(answer, Err(GpuError::OutOfMemory { .. })) && self.kept > 0 {
            // Others use the device too: what is kept here may be what is missing.
            self.trim(backend)?;
            answer = backend.alloc(size);
        }
        answer.map_err(|error| match error {
            GpuError::OutOfMemory { asked, free, limit, .. } => {
                GpuError::OutOfMemory { what: what.to_owned(), asked, free, limit }
            }
            error @ (GpuError::Refused(_)
            | GpuError::Failed(_)
            | GpuError::Sticky { .. }
            | GpuError::Returned(_)
            | GpuError::Suspect { .. }) => error,
        })
    }

    fn trim_to(&mut self, backend: &mut dyn Backend, room: u64) -> Result<(), GpuError> {
        while self.kept > room {
            // The largest first: fewest calls.
            let Some(mut largest) = self.idle.last_entry() else { break };
            let size = *largest.key();
            let buffer = largest.get_mut().pop();
            if largest.get().is_empty() {
                largest.remove();
            }
            if let Some(buffer) = buffer {
                self.kept -= size;
                backend.free(buffer)?;
            }
        }
        Ok(())
    }
}

/// The size class of this many bytes: the next multiple of an eighth of the power of two below.
pub(crate) fn rounded(bytes: u64) -> Option<u64> {
    let step = (1u64 << bytes.max(1).ilog2()) / 8;
    bytes.checked_next_multiple_of(step.max(ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::Host;
    use crate::backend::fault::{Call, Fault, Faults, Faulty};

    #[test]
    fn the_limit_is_hard_and_said_with_its_numbers() {
        let (mut host, mut pool) = (Host::new(1 << 30), Pool::new(1024));
        let first = pool.take(&mut host, "a batch", 700).unwrap();
        assert_eq!(first.bytes(), 768);
        let error = pool.take(&mut host, "a batch of 3", 300).unwrap_err();
        assert_eq!(error, GpuError::OutOfMemory { what: "a batch of 3".to_owned(), asked: 300, free: 256, limit: 1024 });
        pool.give(first);
        // What is kept makes room for another size.
        let second = pool.take(&mut host, "x", 1000).unwrap();
        assert_eq!((pool.used(), pool.kept(), pool.high()), (1024, 0, 1024));
        pool.give(second);
        assert!(pool.take(&mut host, "x", u64::MAX).is_err());
    }

    #[test]
    fn a_block_is_used_again_and_trimmed() {
        let faults = Faults::default();
        let (mut host, mut pool) = (Faulty::new(Host::new(1 << 30), faults.clone()), Pool::new(1 << 20));
        for bytes in [5000, 5100, 4900] {
            let block = pool.take(&mut host, "x", bytes).unwrap();
            pool.give(block);
        }
        assert_eq!(faults.calls(Call::Alloc), 1);
        pool.trim(&mut host).unwrap();
        assert_eq!((pool.kept(), host.memory().unwrap().free), (0, 1 << 30));
    }

    #[test]
    fn a_failed_reservation_leaves_no_trace() {
        let faults = Faults::default().at(Call::Alloc, 2, Fault::OutOfMemory).at(Call::Alloc, 3, Fault::OutOfMemory);
        let (mut host, mut pool) = (Faulty::new(Host::new(1 << 30), faults), Pool::new(1 << 20));
        let kept = pool.take(&mut host, "x", 4096).unwrap();
        pool.give(kept);
        assert_eq!(pool.take(&mut host, "y", 8192).unwrap_err().class(), crate::Class::OutOfMemory);
        // What was kept was given back for it.
        assert_eq!((pool.used(), pool.kept(), host.memory().unwrap().free), (0, 0, 1 << 30));
        assert!(pool.take(&mut host, "y", 8192).is_ok());
    }

    #[test]
    fn parts_are_aligned_and_apart() {
        let (mut host, mut pool) = (Host::new(1 << 30), Pool::new(1 << 20));
        let mut block = pool.take(&mut host, "x", 512).unwrap();
        assert_eq!(block.part(1).unwrap().offset, 0);
        assert_eq!(block.part(256).unwrap().offset, 256);
        assert!(block.part(1).is_err());
    }

    proptest! {
        #[test]
        fn accounts_are_those_of_a_ledger(steps in prop::collection::vec((any::<bool>(), 1u64..40_000), 0..60)) {
            let (mut host, mut pool) = (Host::new(1 << 30), Pool::new(100_000));
            let mut open: Vec<Block> = Vec::new();
            for (take, bytes) in steps {
                if take {
                    open.extend(pool.take(&mut host, "x", bytes).ok());
                } else if !open.is_empty() {
                    pool.give(open.remove(bytes as usize % open.len()));
                }
                prop_assert_eq!(pool.used(), open.iter().map(Block::bytes).sum::<u64>());
                prop_assert!(pool.used() + pool.kept() <= 100_000);
                prop_assert_eq!((1 << 30) - host.memory().unwrap().free, pool.used() + pool.kept());
            }
        }

        #[test]
        fn rounding_costs_at_most_an_eighth(bytes in 2048u64..1 << 50) {
            let size = rounded(bytes).unwrap();
            prop_assert!(size >= bytes && size - bytes <= bytes / 8 && size.is_multiple_of(ALIGNMENT));
        }
    }
}
