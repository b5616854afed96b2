//! Settings as the core wants them.

use ergate_events::log::file::FileOptions;
use ergate_events::time::Micros;

use crate::keys::{Config, Log};

impl Log {
    /// How the files of a log are kept; whether to create them is the caller's business.
    pub fn file_options(&self) -> FileOptions {
        FileOptions {
            segment_bytes: self.segment_size,
            prealloc_bytes: self.preallocation,
            low_water_bytes: self.low_water,
            ..FileOptions::default()
        }
    }
}

impl Config {
    /// Pools with a section of their own: name, replicas, slots of each.
    pub fn pool_sizes(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool.replicas, pool.slots))
    }

    /// How long running attempts may go on when the process stops.
    pub fn drain(&self) -> Micros {
        self.shutdown.drain.into()
    }
}
