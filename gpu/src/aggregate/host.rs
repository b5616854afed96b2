//! The kernels' twins on the host, a function for each entry: the same tables, words and places as `gpu/kernels/aggregate*.cu` have, row by
//! row. What the launches of a plan do to memory is the same; how threads share it is not told here.

use std::sync::Arc;

use super::host_words::{HIGH_BIT, Value, empty, join, lift, output};
use super::{AggregateSpec, source};
use crate::backend::{BoundTwin, TwinArgs};
use crate::{Dtype, GpuError, Launch, Program};

/// The key that marks an empty hashed slot.
const EMPTY_KEY: u64 = 1 << 63;
/// Slots looked at before the table counts as too small.
const PROBES_MAX: u64 = 256;
/// Keys looked at by the sample, and the cells they are counted in.
const SAMPLES: u64 = 4096;
const SAMPLE_CELLS: u64 = 8192;
/// Slots of a run.
const LIST_SLOTS: u64 = 2048;
/// Entries that a block sorts.
const SORT_BLOCK: u64 = 2048;

/// The twin of an entry of an aggregation's program.
pub(crate) fn twin(program: &Program, entry: &str) -> Option<BoundTwin> {
    let spec = source::made_for(program)?;
    let group = Group::of(&spec);
    Some(match entry {
        "aggregate_reset" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| group.reset(args)),
        "aggregate_sample" => Arc::new(|_: &Launch, args: &mut TwinArgs<'_>| sample(args)),
        "aggregate_direct" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| group.add(&spec, args, 8)),
        "aggregate_private" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| group.add(&spec, args, 9)),
        "aggregate_count" => Arc::new(move |launch: &Launch, args: &mut TwinArgs<'_>| group.count(launch, args)),
        "aggregate_places" => Arc::new(|_: &Launch, args: &mut TwinArgs<'_>| places(args)),
        "aggregate_list" => Arc::new(move |launch: &Launch, args: &mut TwinArgs<'_>| group.list(launch, args)),
        "aggregate_sort_block" => Arc::new(|_: &Launch, args: &mut TwinArgs<'_>| sort_block(args)),
        "aggregate_sort_step" => Arc::new(|_: &Launch, args: &mut TwinArgs<'_>| sort_step(args)),
        "aggregate_gather" => Arc::new(move |_: &Launch, args: &mut TwinArgs<'_>| group.gather(&spec, args)),
        _ => return None,
    })
}

/// The words of a group: operation and column.
struct Group {
    words: Vec<(&'static str, Option<usize>)>,
    mark: usize,
}

fn mixed(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The slot of a key, claimed if need be, or none when the table is too small.
fn slot_of(key: u64, lo: u64, span: u64, table: &mut [u64], status: &mut [u64]) -> Option<u64> {
    let (dense, capacity) = (key.wrapping_sub(lo), table.len() as u64);
    if dense < span {
        return Some(dense);
    }
    if key == EMPTY_KEY {
        status[1] = 1;
        return Some(span + capacity);
    }
    for probe in 0..PROBES_MAX {
        let h = mixed(key).wrapping_add(probe) & (capacity - 1);
        let found = &mut table[h as usize];
        if *found == EMPTY_KEY {
            *found = key;
        }
        if *found == key {
            return Some(span + h);
        }
    }
    status[0] = 1;
    None
}

fn sample(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (keys, rows, out) = (args.input::<i64>(0)?, args.u64(1)?, args.output::<i64>(2)?);
    let mut cells = vec![0i64; SAMPLE_CELLS as usize];
    (out[0], out[1]) = (i64::MAX, i64::MIN);
    for s in 0..SAMPLES {
        let row = if rows <= SAMPLES { s % rows } else { ((u128::from(mixed(s + 1)) * u128::from(rows)) >> 64) as u64 };
        let key = keys[row as usize];
        (out[0], out[1]) = (out[0].min(key), out[1].max(key));
        cells[(mixed(key.cast_unsigned()) % SAMPLE_CELLS) as usize] += 1;
    }
    out[2] = cells.iter().filter(|&&count| count > 0).count() as i64;
    out[3] = cells.into_iter().max().unwrap_or(0);
    Ok(())
}

fn places(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (counts, runs, dense_runs, status) = (args.output::<u32>(0)?, args.u32(1)?, args.u32(2)?, args.output::<u64>(3)?);
    let mut place = 0;
    status[2] = 0;
    for run in 0..runs {
        let mine = std::mem::replace(&mut counts[run as usize], place);
        place += mine;
        if run + 1 == dense_runs {
            status[2] = u64::from(place);
        }
    }
    status[3] = u64::from(place);
    Ok(())
}

fn exchange(keys: &mut [u64], slots: &mut [u32], a: usize, b: usize, rising: bool) {
    if ((keys[a], slots[a]) > (keys[b], slots[b])) == rising {
        keys.swap(a, b);
        slots.swap(a, b);
    }
}

fn step_of(keys: &mut [u64], slots: &mut [u32], size: u64, step: u64) {
    for pair in 0..keys.len() as u64 / 2 {
        let a = 2 * pair - (pair & (step - 1));
        exchange(keys, slots, a as usize, (a + step) as usize, a & size == 0);
    }
}

fn sort_block(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (keys, slots, size) = (args.output::<u64>(0)?, args.output::<u32>(1)?, args.u64(2)?);
    let (mut stage, last) = if size == 0 { (2, SORT_BLOCK) } else { (size, size) };
    while stage <= last {
        let mut step = (stage / 2).min(SORT_BLOCK / 2);
        while step > 0 {
            step_of(keys, slots, stage, step);
            step /= 2;
        }
        stage *= 2;
    }
    Ok(())
}

fn sort_step(args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
    let (keys, slots, entries) = (args.output::<u64>(0)?, args.output::<u32>(1)?, args.u64(2)? as usize);
    step_of(&mut keys[..entries], &mut slots[..entries], args.u64(3)?, args.u64(4)?);
    Ok(())
}

/// The slots of a run, as `Run` in the kernel.
fn run_of(index: u64, span: u64, capacity: u64) -> std::ops::Range<u64> {
    let dense_runs = span.div_ceil(LIST_SLOTS);
    let (first, end) = if index < dense_runs {
        (index * LIST_SLOTS, span)
    } else {
        (span + (index - dense_runs) * LIST_SLOTS, span + capacity + 1)
    };
    first..end.min(first + LIST_SLOTS)
}

impl Group {
    fn of(spec: &AggregateSpec) -> Self {
        Self { words: source::steps(spec), mark: source::mark(spec) }
    }

    fn reset(&self, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
        let (accumulators, slots, table) = (args.output::<u64>(0)?, args.u64(1)? as usize, args.output::<u64>(2)?);
        for group in accumulators[..slots * self.words.len()].chunks_exact_mut(self.words.len()) {
            group.iter_mut().zip(&self.words).for_each(|(word, (operation, _))| *word = empty(operation));
        }
        table[..args.u64(3)? as usize].fill(EMPTY_KEY);
        args.output::<u64>(4)?.fill(0);
        Ok(())
    }

    /// Adds rows to the table; `first` is the argument of the first column.
    fn add(&self, spec: &AggregateSpec, args: &mut TwinArgs<'_>, first: usize) -> Result<(), GpuError> {
        let (keys, rows) = (args.input::<u64>(0)?, args.u64(1)? as usize);
        let (accumulators, table) = (args.output::<u64>(2)?, args.output::<u64>(3)?);
        let (lo, span, status) = (args.u64(5)?, args.u64(6)?, args.output::<u64>(7)?);
        let mut columns: Vec<Vec<Value>> = Vec::new();
        for (index, dtype) in spec.columns().iter().enumerate() {
            columns.push(match dtype {
                Dtype::I32 => args.input::<i32>(first + index)?.iter().map(|&value| Value::Int(value.into())).collect(),
                Dtype::F32 => args.input::<f32>(first + index)?.iter().map(|&value| Value::Float(value.into())).collect(),
                Dtype::F64 => args.input::<f64>(first + index)?.iter().map(|&value| Value::Float(value)).collect(),
                Dtype::U8
                | Dtype::I8
                | Dtype::I16
                | Dtype::U16
                | Dtype::U32
                | Dtype::I64
                | Dtype::U64
                | Dtype::F16
                | Dtype::Bf16 => args.input::<i64>(first + index)?.iter().map(|&value| Value::Int(value)).collect(),
            });
        }
        for (row, &key) in keys[..rows].iter().enumerate() {
            let Some(slot) = slot_of(key, lo, span, table, status) else { return Ok(()) };
            let from = slot as usize * self.words.len();
            for ((operation, column), word) in self.words.iter().zip(&mut accumulators[from..]) {
                let value = column.map_or(Value::Int(1), |column| columns[column][row]);
                *word = join(operation, *word, lift(operation, value));
            }
        }
        Ok(())
    }

    fn has(&self, slot: u64, accumulators: &[u64], table: &[u64], span: u64, status: &[u64]) -> bool {
        if slot < span {
            return accumulators[slot as usize * self.words.len() + self.mark] != empty(self.words[self.mark].0);
        }
        table.get((slot - span) as usize).map_or(status[1] != 0, |&key| key != EMPTY_KEY)
    }

    fn count(&self, launch: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
        let (accumulators, table, capacity, span) = (args.input::<u64>(0)?, args.input::<u64>(1)?, args.u64(2)?, args.u64(3)?);
        let (status, counts) = (args.input::<u64>(4)?, args.output::<u32>(5)?);
        for run in 0..launch.grid[0] {
            let slots = run_of(u64::from(run), span, capacity);
            counts[run as usize] = slots.filter(|&slot| self.has(slot, accumulators, table, span, status)).count() as u32;
        }
        Ok(())
    }

    fn list(&self, launch: &Launch, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
        let (accumulators, table, capacity) = (args.input::<u64>(0)?, args.input::<u64>(1)?, args.u64(2)?);
        let (lo, span, status, places) = (args.u64(3)?, args.u64(4)?, args.input::<u64>(5)?, args.input::<u32>(6)?);
        let (keys, slots) = (args.output::<u64>(7)?, args.output::<u32>(8)?);
        for run in 0..launch.grid[0] {
            let mut place = places[run as usize] as usize;
            for slot in run_of(u64::from(run), span, capacity) {
                if !self.has(slot, accumulators, table, span, status) {
                    continue;
                }
                let dense = lo.wrapping_add(slot);
                let key = if slot < span { dense } else { table.get((slot - span) as usize).copied().unwrap_or(EMPTY_KEY) };
                (keys[place], slots[place]) = (key ^ HIGH_BIT, slot as u32);
                place += 1;
            }
        }
        Ok(())
    }

    fn gather(&self, spec: &AggregateSpec, args: &mut TwinArgs<'_>) -> Result<(), GpuError> {
        let (accumulators, keys, slots) = (args.input::<u64>(0)?, args.input::<u64>(1)?, args.input::<u32>(2)?);
        let (lo, status, groups, dense) = (args.u64(3)?, args.output::<u64>(4)?, args.u64(5)?, args.u64(6)?);
        let columns = args.output::<u8>(7)?;
        let below = keys[dense as usize..groups as usize].partition_point(|&key| key < lo ^ HIGH_BIT) as u64;
        for entry in 0..groups {
            let place = match entry.checked_sub(dense) {
                None => entry + below,
                Some(hashed) if hashed < below => hashed,
                Some(_) => entry,
            };
            let key = keys[entry as usize] ^ HIGH_BIT;
            columns[place as usize * 8..][..8].copy_from_slice(&key.to_le_bytes());
            let from = slots[entry as usize] as usize * self.words.len();
            let words = &accumulators[from..from + self.words.len()];
            for index in 0..spec.aggregates().len() {
                let bytes = output(&self.words, spec, index, words, key, status);
                let at = (index as u64 + 1) * groups * 8 + place * bytes.len() as u64;
                columns[at as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
}
