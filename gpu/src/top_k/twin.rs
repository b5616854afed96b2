//! The search on the CPU, in float64: what is run without a device, and what the kernels are tested against.

use super::{Found, Metric, Search, Shape, refused};
use crate::{Dtype, GpuError};

/// Finds the rows for every query. matrix: [rows, dimension] f32, row-major, rounded to bf16 here when it is kept so; queries: [queries,
/// dimension] f32. Scores are computed in float64 and rounded to f32 before they are compared.
///
/// # Errors
///
/// When the lengths do not fit the shape.
pub fn top_k(shape: &Shape, search: &Search, matrix: &[f32], queries: &[f32]) -> Result<Found, GpuError> {
    let (dimension, k) = (shape.dimension as usize, search.k as usize);
    if matrix.len() as u64 != shape.rows * u64::from(shape.dimension) {
        return Err(refused(format!("a matrix of {} values; {} rows of {dimension} were named", matrix.len(), shape.rows)));
    }
    if queries.len() != search.queries as usize * dimension {
        return Err(refused(format!("{} query values; {} queries of {dimension} were named", queries.len(), search.queries)));
    }
    let mut found = Found { rows: Vec::new(), scores: Vec::new() };
    for query in queries.chunks_exact(dimension) {
        let mut scored: Vec<(f32, i64)> = matrix.chunks_exact(dimension).map(|row| score(shape, row, query)).zip(0..).collect();
        scored.retain(|(score, _)| !score.is_nan());
        // 0.0 is added so that -0.0 becomes 0.0.
        let order = |a: &(f32, i64), b: &(f32, i64)| (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1));
        if scored.len() > k {
            scored.select_nth_unstable_by(k - 1, order);
            scored.truncate(k);
        }
        scored.sort_unstable_by(order);
        scored.resize(k, (f32::NAN, -1));
        found.rows.extend(scored.iter().map(|&(_, row)| row));
        found.scores.extend(scored.iter().map(|&(score, _)| score));
    }
    Ok(found)
}

/// The score of one row, in float64 until it is rounded.
fn score(shape: &Shape, row: &[f32], query: &[f32]) -> f32 {
    let kept = |value: f32| if shape.kept == Dtype::Bf16 { half::bf16::from_f32(value).to_f64() } else { f64::from(value) };
    let (mut dot, mut row_square, mut query_square) = (0.0f64, 0.0f64, 0.0f64);
    for (&a, &b) in row.iter().zip(query) {
        let (a, b) = (kept(a), f64::from(b));
        dot += a * b;
        row_square += a * a;
        query_square += b * b;
    }
    match shape.metric {
        Metric::Dot => dot as f32,
        // As the kernels have it: a length of 0 makes a factor of 0, an infinite one makes 0 of all but infinities.
        Metric::Cosine => (dot * inverse(row_square) * inverse(query_square)) as f32,
    }
}

fn inverse(square: f64) -> f64 {
    if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() }
}
