//! A matrix that stays on the device from search to search.

use super::Shape;
use crate::memory::ALIGNMENT;
use crate::workspace::within;
use crate::{Backend, Buffer, GpuError, Slice, Stream};

/// A matrix on the device, with the lengths of its rows.
#[derive(Debug)]
pub struct Matrix {
    pub(super) shape: Shape,
    buffer: Buffer,
    pub(super) values: Slice,
    pub(super) inverse_norms: Slice,
}

impl Matrix {
    /// Memory for a matrix of this shape, filled by [`TopK::keep`](super::TopK::keep).
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub fn alloc(backend: &mut dyn Backend, shape: Shape) -> Result<Self, GpuError> {
        let buffer = backend.alloc(Self::bytes(&shape).max(1))?;
        let matrix = Self::over(shape, Slice { buffer, offset: 0, bytes: Self::bytes(&shape) })?;
        matrix.fill_up(backend)?;
        Ok(matrix)
    }

    /// Bytes on the device that a matrix of this shape takes.
    pub fn bytes(shape: &Shape) -> u64 {
        let (values, norms) = shape.bytes();
        values.next_multiple_of(ALIGNMENT) + norms
    }

    /// A matrix that lies in this memory, of whoever gives it.
    pub(super) fn over(shape: Shape, memory: Slice) -> Result<Self, GpuError> {
        let (values, norms) = shape.bytes();
        let start = values.next_multiple_of(ALIGNMENT);
        if memory.bytes < start + norms {
            return Err(GpuError::failed(format!("a matrix of {} bytes in {}", start + norms, memory.bytes)));
        }
        let (values, inverse_norms) = (within(memory, 0, values), within(memory, start, norms));
        Ok(Self { shape, buffer: memory.buffer, values, inverse_norms })
    }

    /// Queues the zeroing of the rows that fill up to eight, of which there are at most seven; before the others are kept.
    pub(super) fn fill_up(&self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        let shape = &self.shape;
        if shape.rows > 0 {
            let row = u64::from(shape.pitch()) * shape.kept.size();
            let first = shape.rows_kept().saturating_sub(8);
            backend.fill(Stream::Compute, within(self.values, first * row, 8 * row), 0)?;
            backend.fill(Stream::Compute, within(self.inverse_norms, first * 4, 8 * 4), 0)?;
        }
        Ok(())
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Gives its memory back.
    ///
    /// # Errors
    ///
    /// What earlier work met.
    pub fn release(self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        backend.free(self.buffer)
    }
}
