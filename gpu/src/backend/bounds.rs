//! Whether parts lie within their memory: asked by every backend before anything is queued.

use super::{Gemm, GemmKind, Slice};
use crate::GpuError;

/// The part's first byte and the one past its last, in memory of `have` bytes.
pub(super) fn within(what: &str, offset: u64, bytes: u64, have: u64) -> Result<(usize, usize), GpuError> {
    let past = offset.checked_add(bytes).filter(|&past| past <= have);
    match (usize::try_from(offset), past.map(usize::try_from)) {
        (Ok(offset), Some(Ok(past))) => Ok((offset, past)),
        _ => Err(GpuError::refused(format!("{what}: {bytes} bytes from byte {offset} on do not lie within its {have} bytes"))),
    }
}

/// Refuses a copy between parts of different lengths, or of one buffer that overlap.
pub(super) fn copy(from: Slice, to: Slice) -> Result<(), GpuError> {
    if from.bytes != to.bytes {
        return Err(GpuError::refused(format!("copy on the device: {} bytes do not fill {}", from.bytes, to.bytes)));
    }
    let apart = from.offset.saturating_add(from.bytes) <= to.offset || to.offset.saturating_add(to.bytes) <= from.offset;
    if from.buffer == to.buffer && from.bytes > 0 && !apart {
        return Err(GpuError::refused("copy on the device: the parts overlap; copy through a third"));
    }
    Ok(())
}

/// Refuses a product whose slices are not exactly as long as their matrices, or that has a dimension of zero.
pub(super) fn gemm(gemm: &Gemm) -> Result<(), GpuError> {
    let (m, n, k) = (u64::from(gemm.m), u64::from(gemm.n), u64::from(gemm.k));
    if m == 0 || n == 0 || k == 0 || [m, n, k].iter().any(|&dimension| dimension > i32::MAX as u64) {
        return Err(GpuError::refused(format!("matrix product of m = {m}, n = {n}, k = {k}: each must be 1 to {}", i32::MAX)));
    }
    let element = gemm.kind.element_bytes();
    for (name, rows, columns, size, slice) in [("a", m, k, element, gemm.a), ("b", k, n, element, gemm.b), ("c", m, n, 4, gemm.c)]
    {
        // Two dimensions of 31 bits and a size of at most 4 fit 64 bits.
        let bytes = rows * columns * size;
        if slice.bytes != bytes || !slice.offset.is_multiple_of(size) {
            return Err(GpuError::refused(format!(
                "matrix product: {name} is [{rows}, {columns}] and needs {bytes} bytes on a multiple of {size}, and has {} at {}",
                slice.bytes, slice.offset
            )));
        }
    }
    Ok(())
}

impl GemmKind {
    /// The size of an operand's element in bytes.
    pub const fn element_bytes(self) -> u64 {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    #[test]
    fn parts_end_where_their_memory_ends() {
        assert_eq!(within("x", 4, 4, 8), Ok((4, 8)));
        assert_eq!(within("x", 8, 0, 8), Ok((8, 8)));
        for (offset, bytes) in [(5, 4), (9, 0), (u64::MAX, 1), (u64::MAX, u64::MAX), (0, 9)] {
            assert!(within("x", offset, bytes, 8).is_err(), "{offset} {bytes}");
        }
    }

    #[test]
    fn copies_are_equally_long_and_apart() {
        let part = |buffer, offset, bytes| Slice { buffer: Buffer(buffer), offset, bytes };
        assert!(copy(part(1, 0, 8), part(1, 8, 8)).is_ok());
        assert!(copy(part(1, 0, 8), part(2, 0, 8)).is_ok());
        assert!(copy(part(1, 0, 8), part(1, 7, 8)).is_err());
        assert!(copy(part(1, 7, 8), part(1, 0, 8)).is_err());
        assert!(copy(part(1, 0, 8), part(2, 0, 7)).is_err());
    }

    #[test]
    fn a_product_needs_all_of_its_matrices() {
        let part = |bytes| Slice { buffer: Buffer(1), offset: 0, bytes };
        let product = Gemm {
            a: part(2 * 3 * 2),
            b: part(3 * 5 * 2),
            c: part(2 * 5 * 4),
            m: 2,
            n: 5,
            k: 3,
            transpose_a: false,
            transpose_b: true,
            kind: GemmKind::Bf16,
            alpha: 1.0,
            beta: 0.0,
        };
        assert_eq!(gemm(&product), Ok(()));
        assert!(gemm(&Gemm { kind: GemmKind::F32, ..product }).is_err());
        assert!(gemm(&Gemm { k: 0, ..product }).is_err());
        assert!(gemm(&Gemm { c: part(2 * 5 * 4 - 1), ..product }).is_err());
        assert!(gemm(&Gemm { n: u32::MAX, ..product }).is_err());
    }
}
