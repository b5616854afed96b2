//! The words of a group on the host, as `gpu/kernels/aggregate_words.cu` has them.

use super::{Aggregate, AggregateSpec};
use crate::Dtype;

pub(super) const HIGH_BIT: u64 = 1 << 63;

/// A value of a column.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Int(i64),
    Float(f64),
}

/// What changes nothing.
pub(super) fn empty(operation: &str) -> u64 {
    match operation {
        "SumFloat" => HIGH_BIT,
        "MinInt" | "MinFloat" => u64::MAX,
        _ => 0,
    }
}

fn ordered_float(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits & HIGH_BIT == 0 { bits | HIGH_BIT } else { !bits }
}

fn float_of(word: u64) -> f64 {
    f64::from_bits(if word & HIGH_BIT == 0 { !word } else { word & !HIGH_BIT })
}

/// The word that a value makes.
pub(super) fn lift(operation: &str, value: Value) -> u64 {
    match (operation, value) {
        ("SumFloat", Value::Float(value)) => (value + 0.0).to_bits(),
        ("SumLow", Value::Int(value)) => i64::from(value as i32).cast_unsigned(),
        ("SumHigh", Value::Int(value)) => ((value >> 32) + (value >> 31 & 1)).cast_unsigned(),
        ("MinInt" | "MaxInt", Value::Int(value)) => value.cast_unsigned() ^ HIGH_BIT,
        ("MinFloat", Value::Float(value)) => {
            if value.is_nan() {
                u64::MAX - 1
            } else {
                ordered_float(value)
            }
        }
        ("MaxFloat", Value::Float(value)) => {
            if value.is_nan() {
                1
            } else {
                ordered_float(value)
            }
        }
        _ => 1,
    }
}

/// Two words made one.
pub(super) fn join(operation: &str, a: u64, b: u64) -> u64 {
    match operation {
        "SumFloat" => (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        "MinInt" | "MinFloat" => a.min(b),
        "MaxInt" | "MaxFloat" => a.max(b),
        _ => a.wrapping_add(b),
    }
}

fn nan_or(word: u64, nan: u64) -> f64 {
    if word == nan { f64::NAN } else { float_of(word) }
}

fn wide_sum(low: u64, high: u64, key: u64, output: usize, status: &mut [u64]) -> u64 {
    let upper = high.cast_signed().wrapping_add(low.cast_signed() >> 32);
    if i32::try_from(upper).is_err() && status[4] == 0 {
        (status[4], status[5], status[6]) = (1, key, output as u64);
    }
    upper.cast_unsigned() << 32 | low & 0xffff_ffff
}

/// What an aggregate makes of a group's words.
pub(super) fn output(
    steps: &[(&'static str, Option<usize>)],
    spec: &AggregateSpec,
    output: usize,
    words: &[u64],
    key: u64,
    status: &mut [u64],
) -> Vec<u8> {
    let aggregate = spec.aggregates()[output];
    let of = |operation: &str| {
        let word = steps.iter().position(|word| *word == (operation, aggregate.column()));
        word.map_or(0, |word| words[word])
    };
    let float = aggregate.column().is_some_and(|column| spec.columns()[column].is_float());
    let (int, real) = match aggregate {
        Aggregate::Count => (of("Count"), 0.0),
        Aggregate::Sum(_) if float => (0, f64::from_bits(of("SumFloat"))),
        Aggregate::Sum(column) if spec.columns()[column] == Dtype::I32 => (of("SumLow"), 0.0),
        Aggregate::Sum(_) => (wide_sum(of("SumLow"), of("SumHigh"), key, output, status), 0.0),
        Aggregate::Min(_) if float => (0, nan_or(of("MinFloat"), u64::MAX - 1)),
        Aggregate::Max(_) if float => (0, nan_or(of("MaxFloat"), 1)),
        Aggregate::Min(_) => (of("MinInt") ^ HIGH_BIT, 0.0),
        Aggregate::Max(_) => (of("MaxInt") ^ HIGH_BIT, 0.0),
    };
    match spec.output(output) {
        Dtype::F64 => real.to_le_bytes().to_vec(),
        Dtype::F32 => (real as f32).to_le_bytes().to_vec(),
        Dtype::I32 => (int as u32).to_le_bytes().to_vec(),
        Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 | Dtype::U32 | Dtype::I64 | Dtype::U64 | Dtype::F16 | Dtype::Bf16 => {
            int.to_le_bytes().to_vec()
        }
    }
}
