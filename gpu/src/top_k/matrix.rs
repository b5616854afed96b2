//! A matrix that stays on the device from search to search.

use super::Shape;
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
        let (values, norms) = shape.bytes();
        let start = values.next_multiple_of(256);
        let buffer = backend.alloc((start + norms).max(1))?;
        let matrix = Self {
            shape,
            buffer,
            values: Slice { buffer, offset: 0, bytes: values },
            inverse_norms: Slice { buffer, offset: start, bytes: norms },
        };
        if shape.rows > 0 {
            // The rows that fill up to eight, of which there are at most seven.
            let row = u64::from(shape.pitch()) * shape.kept.size();
            let first = shape.rows_kept().saturating_sub(8);
            backend.fill(Stream::Compute, within(matrix.values, first * row, 8 * row), 0)?;
            backend.fill(Stream::Compute, within(matrix.inverse_norms, first * 4, 8 * 4), 0)?;
        }
        Ok(matrix)
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
