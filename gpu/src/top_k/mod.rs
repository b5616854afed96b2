//! `gpu.top_k`: the k rows of a resident matrix that are most similar to each query, by dot product or cosine.
//!
//! Rows come best first, the lower row first among equal scores (0.0 and -0.0 are equal). A row whose score is NaN never wins; where
//! fewer than k rows have a score, the rest is row -1 with score NaN. Under cosine a row or query of zeros has similarity 0 to all.
//!
//! Scores are f32 products of the matrix as it is kept (f32, or rounded to bf16) and the query in f32 (under cosine: made length 1 and
//! rounded to f32): they differ from the true ones by at most [`score_error`]. Many queries are looked for by a matrix product in tf32 or
//! bf16, which keeps [`Search::kept`] candidates, more than k; those are scored again in f32. So a row may be missed only where as many
//! others as there are candidates have true scores that differ from its own by less than twice [`product_error`]. What is equal within
//! these bounds may come in another order than the true scores have.

mod data;
mod host;
mod matrix;
mod plan;
mod search;
mod source;
mod tiles;
mod twin;
pub mod work;

pub use data::MatrixSource;
pub(crate) use host::twin as host_twin;
pub use matrix::Matrix;
pub use plan::{Results, TopK};
pub use search::scratch_bytes_max;
pub use source::{ENTRIES, Variant, program};
pub use tiles::{Tile, Tiles};
pub use twin::top_k;
pub use work::{TopKSettings, TopKWork};

use crate::{Dtype, GpuError};

/// The most rows that can be asked for.
pub const K_MAX: u32 = 128;
/// Values of a row, at most: a query must fit the shared memory of every device.
pub const DIMENSION_MAX: u32 = 8192;
/// Rows of a matrix, at most: an entry has 32 bits for its row.
pub const ROWS_MAX: u64 = (1 << 31) - 8;
/// Queries of one search, at most: blocks of a grid, second dimension.
pub const QUERIES_MAX: u32 = 65_535;

/// What makes a row similar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The sum of products.
    Dot,
    /// The sum of products by both lengths: the cosine of the angle.
    Cosine,
}

/// A matrix to be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Its rows.
    pub rows: u64,
    /// Values of a row.
    pub dimension: u32,
    /// How it is kept: f32 or bf16.
    pub kept: Dtype,
    /// What makes a row similar.
    pub metric: Metric,
}

impl Shape {
    /// A matrix of this shape.
    ///
    /// # Errors
    ///
    /// When the type is neither f32 nor bf16, or the shape is over the limits.
    pub fn new(rows: u64, dimension: u32, kept: Dtype, metric: Metric) -> Result<Self, GpuError> {
        if !matches!(kept, Dtype::F32 | Dtype::Bf16) {
            return Err(refused(format!("a matrix kept in {}; give f32 or bf16", kept.name())));
        }
        if dimension == 0 || dimension > DIMENSION_MAX {
            return Err(refused(format!("rows of {dimension} values; give 1 to {DIMENSION_MAX}")));
        }
        if rows > ROWS_MAX {
            return Err(refused(format!("{rows} rows; at most {ROWS_MAX} are searched at once")));
        }
        Ok(Self { rows, dimension, kept, metric })
    }

    /// Values from one row to the next: whole pieces of 16 bytes.
    pub fn pitch(&self) -> u32 {
        self.dimension.next_multiple_of((16 / self.kept.size()) as u32)
    }

    /// Rows in memory: whole eights, the last ones zeros.
    pub fn rows_kept(&self) -> u64 {
        self.rows.next_multiple_of(8)
    }

    /// Bytes of the matrix and of its norms on the device.
    pub fn bytes(&self) -> (u64, u64) {
        (self.rows_kept() * u64::from(self.pitch()) * self.kept.size(), self.rows_kept() * 4)
    }

    /// Pieces of 16 bytes in a row.
    pub(crate) fn pieces(&self) -> u32 {
        self.pitch() / (16 / self.kept.size()) as u32
    }
}

/// How many queries look for how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Search {
    /// Queries.
    pub queries: u32,
    /// Rows wanted for each.
    pub k: u32,
}

impl Search {
    /// A search for `k` rows for each of `queries` queries.
    ///
    /// # Errors
    ///
    /// When one is zero or over its limit.
    pub fn new(queries: u32, k: u32) -> Result<Self, GpuError> {
        if k == 0 || k > K_MAX {
            return Err(refused(format!("k is {k}; give 1 to {K_MAX}")));
        }
        if queries == 0 || queries > QUERIES_MAX {
            return Err(refused(format!("{queries} queries; give 1 to {QUERIES_MAX} at once")));
        }
        Ok(Self { queries, k })
    }

    /// Entries that are kept of each query until the end: k for one query, which is scored in f32 throughout; for many at least 16 more
    /// where [`K_MAX`] allows, in whole warps.
    pub fn kept(&self) -> u32 {
        if self.queries == 1 { self.k } else { (self.k + 16).next_multiple_of(32).min(K_MAX) }
    }
}

/// How far a score may be from the true one: `(dimension + 8) · 2⁻²⁴ · Σ|query · row|`, the bound of any order of a sum of products (Higham,
/// Accuracy and Stability of Numerical Algorithms, 3.1), with room for the lengths.
///
/// `magnitude` is `Σ|query · row|`, by both lengths under cosine.
pub fn score_error(dimension: u32, magnitude: f64) -> f64 {
    (f64::from(dimension) + 8.0) * 2f64.powi(-24) * magnitude
}

/// How far a score of the matrix product, which chooses the candidates, may be from the true one: operands are rounded to 8 bits (bf16) or
/// 11 bits (tf32, which hardware may cut instead of rounding).
pub fn product_error(kept: Dtype, dimension: u32, magnitude: f64) -> f64 {
    let operands = if kept == Dtype::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-9) };
    score_error(dimension, magnitude) + operands * magnitude
}

/// The rows found for every query, on the host: [queries, k] each.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Rows, best first; -1 for none.
    pub rows: Vec<i64>,
    /// Their scores; NaN for none.
    pub scores: Vec<f32>,
}

pub(crate) fn refused(sentence: String) -> GpuError {
    GpuError::refused(format!("gpu.top_k: {sentence}"))
}
