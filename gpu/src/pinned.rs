//! Page-locked memory of the host, kept for reuse: making it costs milliseconds a megabyte or so, copying from it is fast.

use std::collections::BTreeMap;

use crate::memory::rounded;
use crate::{Backend, GpuError, Staging};

/// Staging memory taken for one batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its handle.
    pub staging: Staging,
    bytes: u64,
}

/// Staging memory kept for reuse.
#[derive(Debug)]
pub struct Stages {
    kept_max: u64,
    kept: u64,
    idle: BTreeMap<u64, Vec<Staging>>,
}

impl Stages {
    /// Keeps at most `kept_max` bytes while they are not in use.
    pub fn new(kept_max: u64) -> Self {
        Self { kept_max, kept: 0, idle: BTreeMap::new() }
    }

    /// Staging memory of at least this many bytes; what it holds is left over from others.
    ///
    /// # Errors
    ///
    /// When the host has no more.
    pub fn take(&mut self, backend: &mut dyn Backend, bytes: u64) -> Result<Stage, GpuError> {
        let size =
            rounded(bytes.max(1)).ok_or_else(|| GpuError::refused(format!("staging memory of {bytes} bytes is too much")))?;
        if let Some(staging) = self.idle.get_mut(&size).and_then(Vec::pop) {
            self.kept -= size;
            return Ok(Stage { staging, bytes: size });
        }
        backend.stage(size).map(|staging| Stage { staging, bytes: size })
    }

    /// Gives it back; its copies are done.
    ///
    /// # Errors
    ///
    /// When the backend does not take it.
    pub fn give(&mut self, backend: &mut dyn Backend, stage: Stage) -> Result<(), GpuError> {
        if self.kept + stage.bytes > self.kept_max {
            return backend.unstage(stage.staging);
        }
        self.kept += stage.bytes;
        self.idle.entry(stage.bytes).or_default().push(stage.staging);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Host;
    use crate::backend::fault::{Call, Faults, Faulty};

    #[test]
    fn staging_memory_is_used_again_up_to_its_limit() {
        let faults = Faults::default();
        let mut host = Faulty::new(Host::new(1), faults.clone());
        let mut stages = Stages::new(5000);
        for bytes in [4000, 4001, 3900] {
            let stage = stages.take(&mut host, bytes).unwrap();
            assert!(host.staged(stage.staging).unwrap().len() as u64 >= bytes);
            stages.give(&mut host, stage).unwrap();
        }
        assert_eq!(faults.calls(Call::Stage), 1);
        let (one, two) = (stages.take(&mut host, 4000).unwrap(), stages.take(&mut host, 4000).unwrap());
        let second = two.staging;
        stages.give(&mut host, one).unwrap();
        stages.give(&mut host, two).unwrap();
        assert!(host.staged(second).is_err(), "over the limit it is given back");
    }
}
