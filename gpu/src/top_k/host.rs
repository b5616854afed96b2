//! The kernels' twins on the host, a function for each entry: the same entries, lists and places as `gpu/kernels/top_k*.cu` have. Scores are
//! summed in f32 in the order of the columns, which is another order than the kernels'.

use std::sync::Arc;

use super::Variant;
use super::source::made_for;
use crate::backend::{BoundTwin, TwinArgs};
use crate::{Element, GpuError, Launch, Program};

/// The twin of an entry of a search's program.
pub(crate) fn twin(program: &Program, entry: &str) -> Option<BoundTwin> {
    let variant = made_for(program)?;
    Some(match entry {
        "top_k_load" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| match (variant.source_bf16, variant.bf16) {
            (false, false) => load::<f32, f32>(args),
            (false, true) => load::<f32, half::bf16>(args),
            (true, false) => load::<half::bf16, f32>(args),
            (true, true) => load::<half::bf16, half::bf16>(args),
        }),
        "top_k_queries" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| {
            if variant.bf16 { queries::<half::bf16>(args, variant.cosine) } else { queries::<f32>(args, variant.cosine) }
        }),
        "top_k_one" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| one(args, variant)),
        "top_k_select" => Arc::new(move |launch: &Launch, args: &mut TwinArgs<'_>| select(launch, args, variant.cosine)),
        "top_k_merge" => Arc::new(|launch: &Launch, args: &mut TwinArgs<'_>| merge(launch, args)),
        "top_k_rescore" => Arc::new(move |launch: &Launch, args: &mut TwinArgs<'_>| rescore(launch, args, variant)),
        "top_k_results" => Arc::new(|_: &Launch, args: &mut TwinArgs<'_>| results(args)),
        _ => return None,
    })
}

/// f32 or bf16.
trait Number: Element {
    fn of(value: f32) -> Self;
    fn get(self) -> f32;
}

impl Number for f32 {
    fn of(value: f32) -> Self {
        value
    }

    fn get(self) -> f32 {
        self
    }
}

impl Number for half::bf16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn get(self) -> f32 {
        self.to_f32()
    }
}

/// A score and its row as one number, of which the larger is the better; 0 is none.
fn entry_of(score: f32, row: u64) -> u64 {
    if score.is_nan() {
        return 0;
    }
    let bits = (score + 0.0).to_bits();
    let order = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(order) << 32 | u64::from(u32::MAX - row as u32)
}

fn score_of(entry: u64) -> f32 {
    let order = (entry >> 32) as u32;
    f32::from_bits(if order >> 31 == 0 { !order } else { order & !(1 << 31) })
}

fn row_of(entry: u64) -> u64 {
    u64::from(u32::MAX - entry as u32)
}

/// The best of some entries, best first, as many as there are places.
fn best(mut entries: Vec<u64>, places: &mut [u64]) {
    entries.sort_unstable_by(|a, b| b.cmp(a));
    entries.resize(places.len().max(entries.len()), 0);
    places.copy_from_slice(&entries[..places.len()]);
}

fn inverse(square: f64) -> f64 {
    if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() }
}

fn load<S: Number, K: Number>(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (source, dimension, pitch) = (args.input::<S>(0)?, args.u32(2)? as usize, args.u32(3)? as usize);
    let (matrix, norms) = (args.output::<K>(4)?, args.output::<f32>(5)?);
    for row in 0..args.u64(1)? as usize {
        let kept = &mut matrix[row * pitch..(row + 1) * pitch];
        kept.fill(K::of(0.0));
        kept.iter_mut().zip(&source[row * dimension..(row + 1) * dimension]).for_each(|(kept, value)| *kept = K::of(value.get()));
        norms[row] = inverse(kept.iter().map(|value| f64::from(value.get()).powi(2)).sum()) as f32;
    }
    Ok(())
}

fn queries<K: Number>(args: &mut TwinArgs<'_>, cosine: bool) -> Result<(), GpuError> {
    let (queries, dimension, pitch) = (args.input::<f32>(0)?, args.u32(2)? as usize, args.u32(3)? as usize);
    let (ready, operand) = (args.output::<f32>(4)?, args.output::<K>(5)?);
    for query in 0..args.u32(1)? as usize {
        let values = &queries[query * dimension..(query + 1) * dimension];
        let factor = if cosine { inverse(values.iter().map(|&value| f64::from(value).powi(2)).sum()) } else { 1.0 };
        for i in 0..pitch {
            let value = values.get(i).map_or(0.0, |&value| (f64::from(value) * factor) as f32);
            (ready[query * pitch + i], operand[query * pitch + i]) = (value, K::of(value));
        }
    }
    Ok(())
}

/// A matrix as it is kept, and the norms of its rows.
struct Rows<'a> {
    f32: &'a [f32],
    bf16: &'a [half::bf16],
    norms: &'a [f32],
    pitch: usize,
    cosine: bool,
}

impl<'a> Rows<'a> {
    fn take(args: &mut TwinArgs<'a>, variant: Variant, pieces: usize) -> Result<Self, GpuError> {
        let (f32, bf16): (&[f32], &[half::bf16]) = if variant.bf16 { (&[], args.input(0)?) } else { (args.input(0)?, &[]) };
        let pitch = pieces * if variant.bf16 { 8 } else { 4 };
        Ok(Self { f32, bf16, norms: args.input(1)?, pitch, cosine: variant.cosine })
    }

    fn score(&self, row: u64, query: &[f32]) -> f32 {
        let (row, pitch) = (row as usize, self.pitch);
        let range = row * pitch..(row + 1) * pitch;
        let dot = match self.bf16.get(range.clone()) {
            Some(values) => values.iter().zip(query).fold(0.0, |sum, (value, query)| value.to_f32().mul_add(*query, sum)),
            None => self.f32[range].iter().zip(query).fold(0.0, |sum, (value, query)| value.mul_add(*query, sum)),
        };
        if self.cosine { dot * self.norms[row] } else { dot }
    }
}

fn one(args: &mut TwinArgs<'_>, variant: Variant) -> Result<(), GpuError> {
    let pieces = args.u32(3)? as usize;
    let rows = Rows::take(args, variant, pieces)?;
    let (query, k, candidates) = (args.input::<f32>(4)?, args.u32(5)? as usize, args.output::<u64>(6)?);
    candidates.fill(0);
    // As if the first block had looked at all of them.
    best((0..args.u64(2)?).map(|row| entry_of(rows.score(row, query), row)).collect(), &mut candidates[..k]);
    Ok(())
}

fn select(launch: &Launch, args: &mut TwinArgs<'_>, cosine: bool) -> Result<(), GpuError> {
    let (scores, tile_rows, first_row, rows) = (args.input::<f32>(0)?, args.u64(1)?, args.u64(2)?, args.u64(3)?);
    let (run_rows, norms, k) = (u64::from(args.u32(4)?), args.input::<f32>(5)?, args.u32(6)? as usize);
    let (first, lists) = (args.u32(7)? != 0, args.output::<u64>(8)?);
    let [runs, queries, _] = launch.grid.map(u64::from);
    for (query, run) in (0..queries).flat_map(|query| (0..runs).map(move |run| (query, run))) {
        let list = &mut lists[(query * runs + run) as usize * k..][..k];
        let mut entries = if first { Vec::new() } else { list.to_vec() };
        for at in run * run_rows..((run + 1) * run_rows).min(tile_rows) {
            let row = first_row + at;
            if row < rows {
                let norm = if cosine { norms[row as usize] } else { 1.0 };
                entries.push(entry_of(scores[(query * tile_rows + at) as usize] * norm, row));
            }
        }
        best(entries, list);
    }
    Ok(())
}

fn merge(launch: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (candidates, count, k) = (args.input::<u64>(0)?, args.u64(1)? as usize, args.u32(2)? as usize);
    let merged = args.output::<u64>(3)?;
    for query in 0..launch.grid[0] as usize {
        best(candidates[query * count..(query + 1) * count].to_vec(), &mut merged[query * k..(query + 1) * k]);
    }
    Ok(())
}

fn rescore(launch: &Launch, args: &mut TwinArgs<'_>, variant: Variant) -> Result<(), GpuError> {
    let pieces = args.u32(2)? as usize;
    let rows = Rows::take(args, variant, pieces)?;
    let (queries, count, entries) = (args.input::<f32>(3)?, args.u32(4)? as usize, args.output::<u64>(5)?);
    for (query, entries) in entries.chunks_exact_mut(count).take(launch.grid[0] as usize).enumerate() {
        let query = &queries[query * rows.pitch..(query + 1) * rows.pitch];
        for entry in entries.iter_mut().filter(|entry| **entry != 0) {
            *entry = entry_of(rows.score(row_of(*entry), query), row_of(*entry));
        }
    }
    Ok(())
}

fn results(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (entries, rows, scores) = (args.input::<u64>(0)?, args.output::<i64>(2)?, args.output::<f32>(3)?);
    for (i, &entry) in entries.iter().enumerate().take(args.u64(1)? as usize) {
        (rows[i], scores[i]) = if entry == 0 { (-1, f32::NAN) } else { (row_of(entry) as i64, score_of(entry)) };
    }
    Ok(())
}
