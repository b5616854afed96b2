//! Says that work waits for space, which from outside looks like work that hangs.

use std::time::{Duration, Instant};

use ergate::Runtime;
use ergate::events::log::Space;

use super::{output, progress};

/// How often it is said.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Watches the space of a runtime's log.
#[derive(Debug, Default)]
pub(crate) struct SpaceWatch {
    low_since: Option<Instant>,
    said: Option<Instant>,
}

impl SpaceWatch {
    /// Looks, says every ten seconds that space is low, and returns for how long it has been. Said to quiet callers too: they ask for no
    /// progress, and there is none.
    pub(crate) fn look(&mut self, runtime: &Runtime) -> Duration {
        let space = runtime.space();
        if !space.is_low() {
            *self = SpaceWatch::default();
            return Duration::ZERO;
        }
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            output::note(&format!("waiting for space: {}; free some and it goes on", describe(space)));
        }
        self.low_since.get_or_insert_with(Instant::now).elapsed()
    }
}

/// The bytes that are free and the bytes that are wanted.
pub(crate) fn describe(space: Space) -> String {
    let Space { free_bytes, low_water_bytes } = space;
    format!(
        "{free_bytes} bytes ({}) are free, and new work is refused below the low-water mark of {low_water_bytes} ({})",
        progress::bytes(free_bytes),
        progress::bytes(low_water_bytes)
    )
}
