//! Devices: what there is, or in one line why there is none.

/// A device as it is, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its place among the devices that this process sees, from 0.
    pub ordinal: u32,
    /// Its name for good: `GPU-…`, or `MIG-…` for a part of one.
    pub uuid: String,
    /// What the driver calls it: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// All of its memory in bytes.
    pub memory_bytes: u64,
    /// The newest CUDA that the driver knows: (13, 0).
    pub driver: (u32, u32),
    /// Compute capability: (9, 0).
    pub compute: (u32, u32),
    /// Whether it is a part of a device (MIG).
    pub mig: bool,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the level-2 cache.
    pub l2_bytes: u64,
    /// Limits of a launch.
    pub limits: Limits,
}

/// What a launch must stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads in a block, all three dimensions multiplied.
    pub threads_per_block: u32,
    /// Threads in a block, by dimension.
    pub block: [u32; 3],
    /// Blocks in a grid, by dimension.
    pub grid: [u32; 3],
    /// Shared memory of a block in bytes, the most that a kernel may opt in to.
    pub shared_bytes: u32,
}

impl Limits {
    /// Those of every device of compute capability 5.0 to 12.0, with the shared memory that none goes below without asking.
    pub const COMMON: Self =
        Self { threads_per_block: 1024, block: [1024, 1024, 64], grid: [2_147_483_647, 65_535, 65_535], shared_bytes: 48 * 1024 };
}
