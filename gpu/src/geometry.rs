//! How many threads a kernel is launched with.

use crate::formula::{Formula, Names};
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

/// A geometry by formulas over the dimensions of the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Blocks: x, y, z.
    pub grid: [Formula; 3],
    /// Threads of a block: x, y, z.
    pub block: [Formula; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: Formula,
}

impl Geometry {
    /// One dimension: a thread for each of `threads` (a formula), in blocks of `block`.
    ///
    /// # Errors
    ///
    /// When `threads` is no formula.
    pub fn linear(threads: &str, block: u32) -> Result<Self, GpuError> {
        let one = || Formula::number(1);
        Ok(Self {
            grid: [format!("ceil(({threads}) / {block})").parse()?, one(), one()],
            block: [Formula::number(u64::from(block)), one(), one()],
            shared_bytes: Formula::number(0),
        })
    }

    /// Its formulas with what they are for.
    pub fn formulas(&self) -> [(&'static str, &Formula); 7] {
        let [grid_x, grid_y, grid_z] = &self.grid;
        let [block_x, block_y, block_z] = &self.block;
        let grid = [("grid.x", grid_x), ("grid.y", grid_y), ("grid.z", grid_z)];
        let block = [("block.x", block_x), ("block.y", block_y), ("block.z", block_z)];
        [grid[0], grid[1], grid[2], block[0], block[1], block[2], ("shared_bytes", &self.shared_bytes)]
    }

    /// The launch that it is for these dimensions, checked against the limits of the device.
    ///
    /// # Errors
    ///
    /// When a formula has no value or the launch is over a limit; names each.
    pub fn launch(&self, names: &Names, limits: &Limits) -> Result<Launch, GpuError> {
        let mut values = [0u32; 7];
        let mut wrong = Vec::new();
        for (value, (what, formula)) in values.iter_mut().zip(self.formulas()) {
            match formula.value(names).map(u32::try_from) {
                Ok(Ok(number)) => *value = number,
                Ok(Err(_)) => wrong.push(format!("{what} = `{formula}` does not fit 32 bits")),
                Err(error) => wrong.push(format!("{what}: {error}")),
            }
        }
        if !wrong.is_empty() {
            return Err(GpuError::refused(format!("launch geometry: {}", wrong.join("; "))));
        }
        let [gx, gy, gz, bx, by, bz, shared_bytes] = values;
        let launch = Launch { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes };
        launch.check(limits)?;
        Ok(launch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_over_a_limit_is_refused_with_every_number() {
        let fits = Launch { grid: [2_147_483_647, 65_535, 65_535], block: [16, 1, 64], shared_bytes: 49_152 };
        assert_eq!(fits.check(&Limits::COMMON), Ok(()));
        for (launch, wanted) in [
            (Launch { grid: [2_147_483_648, 1, 1], ..fits }, "grid.x is 2147483648"),
            (Launch { grid: [1, 65_536, 1], ..fits }, "grid.y is 65536"),
            (Launch { grid: [1, 1, 65_536], ..fits }, "grid.z is 65536"),
            (Launch { grid: [0, 1, 1], ..fits }, "grid.x is 0"),
            (Launch { block: [1025, 1, 1], ..fits }, "block.x is 1025"),
            (Launch { block: [32, 33, 1], ..fits }, "1056 threads"),
            (Launch { block: [1, 1, 65], ..fits }, "block.z is 65"),
            (Launch { block: [1, 0, 1], ..fits }, "block.y is 0"),
            (Launch { block: [u32::MAX; 3], ..fits }, "18446744073709551615 threads"),
            (Launch { shared_bytes: 49_153, ..fits }, "49153 bytes"),
        ] {
            let error = launch.check(&Limits::COMMON).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let both = Launch { grid: [0, 1, 1], block: [1, 1, 65], shared_bytes: 0 }.check(&Limits::COMMON).unwrap_err().to_string();
        assert!(both.contains("grid.x") && both.contains("block.z"), "{both}");
    }

    #[test]
    fn formulas_make_a_launch() {
        let geometry = Geometry::linear("n * 2", 256).unwrap();
        let launch = |n| geometry.launch(&Names::from([("n".to_owned(), n)]), &Limits::COMMON);
        assert_eq!(launch(129), Launch::linear(258, 256));
        assert_eq!(launch(129).unwrap().grid, [2, 1, 1]);
        assert!(launch(0).unwrap_err().to_string().contains("grid.x is 0"));
        assert!(launch(u64::MAX).unwrap_err().to_string().contains("grid.x"));
        assert!(launch(1 << 45).unwrap_err().to_string().contains("does not fit 32 bits"));
        assert!(geometry.launch(&Names::new(), &Limits::COMMON).unwrap_err().to_string().contains("nothing binds `n`"));
    }

    #[test]
    fn no_thread_is_no_launch() {
        assert!(Launch::linear(0, 256).is_err());
        assert!(Launch::linear(1, 0).is_err());
        assert!(Launch::linear(u64::MAX, 256).is_err());
        assert_eq!(Launch::linear(1, 256).unwrap().grid, [1, 1, 1]);
    }
}
