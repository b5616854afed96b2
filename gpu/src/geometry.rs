//! How many threads a kernel is launched with.

use crate::{GpuError, Limits};

/// The geometry of one launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block: x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

impl Launch {
    /// One dimension: as many blocks of `block` threads as `threads` need.
    ///
    /// # Errors
    ///
    /// When there would be no thread, or more blocks than 32 bits count.
    pub fn linear(threads: u64, block: u32) -> Result<Self, GpuError> {
        if threads == 0 || block == 0 {
            return Err(GpuError::refused(format!("a launch of {threads} threads in blocks of {block} runs nothing")));
        }
        let blocks = u32::try_from(threads.div_ceil(u64::from(block))).map_err(|_| {
            GpuError::refused(format!("{threads} threads in blocks of {block} are more blocks than 32 bits count"))
        })?;
        Ok(Self { grid: [blocks, 1, 1], block: [block, 1, 1], shared_bytes: 0 })
    }

    /// With this much dynamic shared memory, in bytes.
    pub fn shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// Checks it against the limits of a device.
    ///
    /// # Errors
    ///
    /// Names every number that is zero or over its limit.
    pub fn check(&self, limits: &Limits) -> Result<(), GpuError> {
        let mut wrong = Vec::new();
        for (what, have, most) in [("grid", self.grid, limits.grid), ("block", self.block, limits.block)] {
            for (axis, name) in ["x", "y", "z"].iter().enumerate() {
                if have[axis] == 0 {
                    wrong.push(format!("{what}.{name} is 0"));
                } else if have[axis] > most[axis] {
                    wrong.push(format!("{what}.{name} is {}, the device takes at most {}", have[axis], most[axis]));
                }
            }
        }
        let threads = self.block.iter().fold(1u64, |product, &axis| product.saturating_mul(u64::from(axis)));
        if threads > u64::from(limits.threads_per_block) {
            wrong.push(format!("a block has {threads} threads, the device takes at most {}", limits.threads_per_block));
        }
        if self.shared_bytes > limits.shared_bytes {
            wrong.push(format!("shared memory is {} bytes, the device has {}", self.shared_bytes, limits.shared_bytes));
        }
        if wrong.is_empty() { Ok(()) } else { Err(GpuError::refused(format!("launch geometry: {}", wrong.join("; ")))) }
    }
}
