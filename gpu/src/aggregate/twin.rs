//! The aggregation on the CPU: what is run without a device, and what the kernels are tested against.

use std::collections::BTreeMap;

use super::{Aggregate, AggregateSpec, Column, ROWS_MAX, Table, overflow, refused};
use crate::GpuError;

/// What a group has so far, one a aggregate.
#[derive(Clone)]
enum State {
    Count(u64),
    SumInt(i128),
    SumFloat(Sum),
    MinInt(i64),
    MaxInt(i64),
    MinFloat(f64),
    MaxFloat(f64),
}

/// A sum of floats that keeps what rounding takes from it (Neumaier 1974): nearer to the true sum than any plain order.
#[derive(Clone, Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    fn value(&self) -> f64 {
        // What is lost of an infinity is no number.
        if self.sum.is_finite() && self.lost.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

/// Groups `columns` by `keys`; see the module for what each aggregate gives.
///
/// # Errors
///
/// When columns do not fit the spec or each other, or an integer sum does not fit 64 bits.
pub fn aggregate(spec: &AggregateSpec, keys: &[i64], columns: &[Column]) -> Result<Table, GpuError> {
    check(spec, keys, columns)?;
    let mut groups: BTreeMap<i64, Vec<State>> = BTreeMap::new();
    for (row, &key) in keys.iter().enumerate() {
        let states = groups.entry(key).or_insert_with(|| spec.aggregates().iter().map(|&one| start(spec, one)).collect());
        for (state, aggregate) in states.iter_mut().zip(spec.aggregates()) {
            add(state, aggregate.column().map(|column| (&columns[column], row)));
        }
    }
    let mut results: Vec<Column> = (0..spec.aggregates().len()).map(|index| empty(spec, index)).collect();
    for (&key, states) in &groups {
        for (output, state) in states.iter().enumerate() {
            finish(spec, key, output, state, &mut results[output])?;
        }
    }
    Ok(Table { keys: groups.into_keys().collect(), columns: results })
}

fn check(spec: &AggregateSpec, keys: &[i64], columns: &[Column]) -> Result<(), GpuError> {
    if keys.len() as u64 > ROWS_MAX {
        return Err(refused(format!("{} rows; at most {ROWS_MAX} are taken at once", keys.len())));
    }
    if columns.len() != spec.columns().len() {
        return Err(refused(format!("{} columns where {} were named", columns.len(), spec.columns().len())));
    }
    for (index, (column, &dtype)) in columns.iter().zip(spec.columns()).enumerate() {
        if column.dtype() != dtype {
            return Err(refused(format!("column {index} is {} where {} was named", column.dtype().name(), dtype.name())));
        }
        if column.len() != keys.len() {
            return Err(refused(format!("column {index} has {} rows, the keys have {}", column.len(), keys.len())));
        }
    }
    Ok(())
}

fn start(spec: &AggregateSpec, aggregate: Aggregate) -> State {
    let float = aggregate.column().is_some_and(|column| spec.columns()[column].is_float());
    match aggregate {
        Aggregate::Count => State::Count(0),
        Aggregate::Sum(_) if float => State::SumFloat(Sum::default()),
        Aggregate::Sum(_) => State::SumInt(0),
        Aggregate::Min(_) if float => State::MinFloat(f64::NAN),
        Aggregate::Min(_) => State::MinInt(i64::MAX),
        Aggregate::Max(_) if float => State::MaxFloat(f64::NAN),
        Aggregate::Max(_) => State::MaxInt(i64::MIN),
    }
}

fn add(state: &mut State, cell: Option<(&Column, usize)>) {
    let int = || match cell {
        Some((Column::I32(values), row)) => i64::from(values[row]),
        Some((Column::I64(values), row)) => values[row],
        _ => 0,
    };
    let float = || match cell {
        Some((Column::F32(values), row)) => f64::from(values[row]),
        Some((Column::F64(values), row)) => values[row],
        _ => 0.0,
    };
    match state {
        State::Count(count) => *count += 1,
        State::SumInt(sum) => *sum += i128::from(int()),
        State::SumFloat(sum) => sum.add(float()),
        State::MinInt(least) => *least = int().min(*least),
        State::MaxInt(most) => *most = int().max(*most),
        State::MinFloat(least) => *least = better(*least, float(), |old, new| new.total_cmp(&old).is_lt()),
        State::MaxFloat(most) => *most = better(*most, float(), |old, new| new.total_cmp(&old).is_gt()),
    }
}

/// NaN gives way to numbers and never takes their place.
fn better(old: f64, new: f64, wins: impl Fn(f64, f64) -> bool) -> f64 {
    if new.is_nan() || (!old.is_nan() && !wins(old, new)) { old } else { new }
}

fn empty(spec: &AggregateSpec, index: usize) -> Column {
    Column::from_bytes(spec.output(index), &[]).expect("outputs have types that columns have")
}

fn finish(spec: &AggregateSpec, key: i64, output: usize, state: &State, column: &mut Column) -> Result<(), GpuError> {
    let (int, float) = match *state {
        State::Count(count) => (i128::from(count), 0.0),
        State::SumInt(sum) => (sum, 0.0),
        State::MinInt(value) | State::MaxInt(value) => (i128::from(value), 0.0),
        State::SumFloat(ref sum) => (0, sum.value()),
        State::MinFloat(value) | State::MaxFloat(value) => (0, value),
    };
    match column {
        Column::I32(values) => values.push(i32::try_from(int).map_err(|_| overflow(spec, output, key))?),
        Column::I64(values) => values.push(i64::try_from(int).map_err(|_| overflow(spec, output, key))?),
        Column::U64(values) => values.push(u64::try_from(int).map_err(|_| overflow(spec, output, key))?),
        // An f32 that was made an f64 is one again.
        Column::F32(values) => values.push(float as f32),
        Column::F64(values) => values.push(float),
    }
    Ok(())
}
