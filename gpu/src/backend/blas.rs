//! cuBLAS, for matrix products.

use std::ptr;

use cudarc::cublas::sys as blas;
use cudarc::driver::sys;

use super::{Gemm, GemmKind};
use crate::GpuError;

/// A handle of cuBLAS on the context that was current when it was made.
pub(super) struct Blas(blas::cublasHandle_t);

impl Blas {
    pub(super) fn new() -> Result<Self, GpuError> {
        // SAFETY: loads the library and unloads it again.
        if !unsafe { blas::is_culib_present() } {
            return Err(GpuError::refused(
                "cuBLAS, which multiplies matrices, is not there: install CUDA's libcublas (pip: nvidia-cublas) and name its folder by \
                 LD_LIBRARY_PATH",
            ));
        }
        let mut handle = ptr::null_mut();
        // SAFETY: the library is there and a context current.
        check(unsafe { blas::cublasCreate_v2(&raw mut handle) })?;
        Ok(Self(handle))
    }

    /// Queues a product whose slices were checked; `addresses` are those of a, b and c.
    pub(super) fn multiply(&self, stream: sys::CUstream, gemm: &Gemm, [a, b, c]: [u64; 3]) -> Result<(), GpuError> {
        use blas::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        use blas::cudaDataType_t::{CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F};
        let (dtype, compute) = match gemm.kind {
            GemmKind::F32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F),
            GemmKind::Tf32 => (CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32),
            GemmKind::Bf16 => (CUDA_R_16BF, CUBLAS_COMPUTE_32F),
            GemmKind::F16 => (CUDA_R_16F, CUBLAS_COMPUTE_32F),
        };
        let shape = Columns::of(gemm);
        let operation =
            |transposed| if transposed { blas::cublasOperation_t::CUBLAS_OP_T } else { blas::cublasOperation_t::CUBLAS_OP_N };
        // SAFETY: the three matrices lie within their buffers (checked by the caller), both factors live until the call returns, and the
        // stream is of the handle's context.
        unsafe {
            check(blas::cublasSetStream_v2(self.0, stream.cast()))?;
            check(blas::cublasGemmEx(
                self.0,
                operation(shape.transposed[0]),
                operation(shape.transposed[1]),
                shape.m,
                shape.n,
                shape.k,
                (&raw const gemm.alpha).cast(),
                ptr::with_exposed_provenance(b as usize),
                dtype,
                shape.leading[0],
                ptr::with_exposed_provenance(a as usize),
                dtype,
                shape.leading[1],
                (&raw const gemm.beta).cast(),
                ptr::with_exposed_provenance_mut(c as usize),
                CUDA_R_32F,
                shape.leading[2],
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            ))
        }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: it was created, and is used by nobody after this.
        let _ = unsafe { blas::cublasDestroy_v2(self.0) };
    }
}

fn check(status: blas::cublasStatus_t) -> Result<(), GpuError> {
    if status == blas::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(GpuError::failed(format!("matrix product: cuBLAS answered {status:?}")))
}

/// A product of row-major matrices as cuBLAS takes it, which is column-major: cᵀ = bᵀ · aᵀ, so b comes first.
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    m: i32,
    n: i32,
    k: i32,
    /// Of b and a.
    transposed: [bool; 2],
    /// Leading dimensions of b, a and c: the length of a row as it is stored.
    leading: [i32; 3],
}

impl Columns {
    fn of(gemm: &Gemm) -> Self {
        // `bounds::gemm` has shown that each fits.
        let [m, n, k] = [gemm.m, gemm.n, gemm.k].map(u32::cast_signed);
        let leading = [if gemm.transpose_b { k } else { n }, if gemm.transpose_a { m } else { k }, n];
        Self { m: n, n: m, k, transposed: [gemm.transpose_b, gemm.transpose_a], leading }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Slice};

    /// Multiplies as cuBLAS is documented to, and as the row-major definition says: the translation is right if both agree.
    #[test]
    fn the_translation_to_columns_computes_the_product() {
        let (m, n, k) = (2u32, 3, 4);
        let part = Slice { buffer: Buffer(1), offset: 0, bytes: 0 };
        let a: Vec<i32> = (1..=8).collect();
        let b: Vec<i32> = (3..=14).collect();
        for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let kind = GemmKind::F32;
            let gemm = Gemm { a: part, b: part, c: part, m, n, k, transpose_a, transpose_b, kind, alpha: 1.0, beta: 0.0 };
            let columns = Columns::of(&gemm);
            let at = |row: i32, column: i32, leading: i32, transposed: bool| {
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                (row + column * leading) as usize
            };
            let mut c = [0; 6];
            for row in 0..columns.m {
                for column in 0..columns.n {
                    let sum = (0..columns.k).map(|i| {
                        b[at(row, i, columns.leading[0], columns.transposed[0])]
                            * a[at(i, column, columns.leading[1], columns.transposed[1])]
                    });
                    c[at(row, column, columns.leading[2], false)] = sum.sum();
                }
            }
            let (m, n, k) = (m as usize, n as usize, k as usize);
            for row in 0..m {
                for column in 0..n {
                    let left = |i: usize| if transpose_a { a[i * m + row] } else { a[row * k + i] };
                    let right = |i: usize| if transpose_b { b[column * k + i] } else { b[i * n + column] };
                    assert_eq!(c[row * n + column], (0..k).map(|i| left(i) * right(i)).sum::<i32>());
                }
            }
        }
    }
}
