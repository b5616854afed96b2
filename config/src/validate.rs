//! Settings as the core wants them.

use ergate_events::log::directory::Options;
use ergate_events::time::Micros;

use crate::keys::{Config, Log};

impl Log {
    /// How a log is kept in its directory; whether to create it is the caller's business.
    pub fn options(&self) -> Options {
        Options {
            engine: self.engine,
            segment_bytes: self.segment_size,
            prealloc_bytes: self.preallocation,
            low_water_bytes: self.low_water,
            ..Options::default()
        }
    }
}

impl Config {
    /// How long running attempts may go on when the process stops.
    pub fn drain(&self) -> Micros {
        self.shutdown.drain.into()
    }
}
