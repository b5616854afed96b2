//! Memory that a built-in kernel uses, by name: its own, which grows to what is asked and is kept from run to run, or parts of what was
//! reserved for one batch.

use std::collections::BTreeMap;

use crate::memory::aligned;
use crate::{Backend, GpuError, Slice, Staging, Stream};

/// Scratch memory on the device and a staging area beside it.
#[derive(Debug, Default)]
pub struct Workspace {
    parts: BTreeMap<&'static str, Slice>,
    /// What was reserved, and how much of it is in use.
    reserved: Option<(Slice, u64)>,
    staging: Option<(Staging, u64)>,
}

impl Workspace {
    /// One whose parts lie in this memory, which is given back by whoever reserved it.
    pub fn within(reserved: Slice) -> Self {
        Self { reserved: Some((reserved, 0)), ..Self::default() }
    }

    /// At least `bytes` bytes under this name; what they held is lost when they must grow.
    ///
    /// # Errors
    ///
    /// Out of memory, or of what was reserved.
    pub fn part(&mut self, backend: &mut dyn Backend, name: &'static str, bytes: u64) -> Result<Slice, GpuError> {
        let bytes = bytes.max(1);
        if let Some(&part) = self.parts.get(name) {
            if part.bytes >= bytes {
                return Ok(Slice { bytes, ..part });
            }
            // Given back first, so that both are never held at once.
            self.parts.remove(name);
            if self.reserved.is_none() {
                backend.free(part.buffer)?;
            }
        }
        let part = match &mut self.reserved {
            None => Slice { buffer: backend.alloc(bytes)?, offset: 0, bytes },
            Some((reserved, used)) => {
                let (offset, limit) = (*used, reserved.bytes);
                let past = aligned(bytes).and_then(|size| offset.checked_add(size));
                *used = past.filter(|_| offset + bytes <= limit).ok_or_else(|| {
                    GpuError::failed(format!("{bytes} bytes for {name}: {offset} of the {limit} bytes reserved are in use"))
                })?;
                Slice { offset: reserved.offset + offset, bytes, ..*reserved }
            }
        };
        self.parts.insert(name, part);
        Ok(part)
    }

    /// Forgets all parts of what was reserved, so that others may lie there; nothing of its own.
    pub fn restart(&mut self) {
        if let Some((_, used)) = &mut self.reserved {
            *used = 0;
            self.parts.clear();
        }
    }

    /// Copies a part of the device's memory to the host and waits for it, and for everything queued before.
    ///
    /// # Errors
    ///
    /// What the work met.
    pub fn read(&mut self, backend: &mut dyn Backend, from: Slice) -> Result<Vec<u8>, GpuError> {
        let staging = self.stage(backend, from.bytes)?;
        backend.copy_out(Stream::Compute, from, staging, 0)?;
        backend.synchronize()?;
        Ok(backend.staged(staging)?[..from.bytes as usize].to_vec())
    }

    /// Copies bytes of the host to a part of the device's memory, and waits until they are there.
    ///
    /// # Errors
    ///
    /// Out of memory, or what earlier work met.
    pub fn write(&mut self, backend: &mut dyn Backend, to: Slice, bytes: &[u8]) -> Result<(), GpuError> {
        let staging = self.stage(backend, to.bytes)?;
        backend.staged(staging)?[..bytes.len()].copy_from_slice(bytes);
        backend.copy_in(Stream::Compute, staging, 0, to)?;
        backend.synchronize()
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }

    /// Gives all memory back.
    ///
    /// # Errors
    ///
    /// What earlier work met.
    pub fn release(&mut self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        for part in std::mem::take(&mut self.parts).into_values().filter(|_| self.reserved.is_none()) {
            backend.free(part.buffer)?;
        }
        match self.staging.take() {
            Some((staging, _)) => backend.unstage(staging),
            None => Ok(()),
        }
    }

    fn stage(&mut self, backend: &mut dyn Backend, bytes: u64) -> Result<Staging, GpuError> {
        if let Some((staging, have)) = self.staging {
            if have >= bytes {
                return Ok(staging);
            }
            self.staging = None;
            backend.unstage(staging)?;
        }
        let bytes = bytes.next_power_of_two().max(4096);
        let staging = backend.stage(bytes)?;
        self.staging = Some((staging, bytes));
        Ok(staging)
    }
}

/// A part of a slice, in bytes.
///
/// # Panics
///
/// When it does not lie within the slice.
pub(crate) fn within(slice: Slice, offset: u64, bytes: u64) -> Slice {
    assert!(offset.checked_add(bytes).is_some_and(|past| past <= slice.bytes), "a part within its slice");
    Slice { buffer: slice.buffer, offset: slice.offset + offset, bytes }
}
