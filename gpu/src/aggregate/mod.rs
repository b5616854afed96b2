//! `gpu.aggregate`: sums, minima, maxima and counts of columns by a 64-bit key.
//!
//! Groups come sorted by key. What each aggregate gives:
//!
//! | aggregate | of | gives | |
//! |---|---|---|---|
//! | count | rows | u64 | |
//! | sum | i32, i64 | i64 | exact whatever the order; a group whose sum leaves 64 bits is an error that names it |
//! | sum | f32, f64 | f64 | added in double in no fixed order: the last bits differ from run to run |
//! | min, max | any | the column's type | NaN counts only where a group has nothing else; -0.0 is below 0.0 |
//!
//! A float sum differs from the true one by at most `(rows of the group - 1) · 2⁻⁵³ · Σ|value|`, as any order does (Higham, Accuracy and
//! Stability of Numerical Algorithms, 4.2). NaN, or infinities of both signs, give NaN; a sum of nothing but -0.0 gives 0.0; partial sums
//! beyond the range of double give an infinity or NaN, which may then depend on the order.

mod choice;
mod course;
mod host;
mod host_words;
mod plan;
mod settings;
mod source;
mod twin;
pub mod work;

pub use choice::{Choice, Hints, Sample, scratch_bytes_max};
pub(crate) use host::twin as host_twin;
pub use plan::{Aggregation, Groups, Input};
pub use settings::{AggregateSettings, Operation, ValueColumn};
pub use source::{ENTRIES, program};
pub use twin::aggregate;
pub use work::AggregateWork;

use crate::{Dtype, GpuError};

/// Value columns of one aggregation, at most.
pub const COLUMNS_MAX: usize = 8;
/// Aggregates of one aggregation, at most.
pub const AGGREGATES_MAX: usize = 16;
/// Rows of one aggregation, at most: sums of integers are exact up to here.
pub const ROWS_MAX: u64 = u32::MAX as u64;

/// What is made of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// How many rows it has.
    Count,
    /// The sum of the column at this index.
    Sum(usize),
    /// The smallest value of the column at this index.
    Min(usize),
    /// The largest value of the column at this index.
    Max(usize),
}

impl Aggregate {
    /// The column it reads.
    pub const fn column(self) -> Option<usize> {
        match self {
            Self::Count => None,
            Self::Sum(column) | Self::Min(column) | Self::Max(column) => Some(column),
        }
    }
}

/// Which columns come and which aggregates go: what a kernel is compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AggregateSpec {
    columns: Vec<Dtype>,
    aggregates: Vec<Aggregate>,
}

impl AggregateSpec {
    /// Aggregates over value columns of these types.
    ///
    /// # Errors
    ///
    /// When there are none or too many, a type is none of i32, i64, f32 and f64, or an aggregate names a column that is not there.
    pub fn new(columns: impl Into<Vec<Dtype>>, aggregates: impl Into<Vec<Aggregate>>) -> Result<Self, GpuError> {
        let (columns, aggregates) = (columns.into(), aggregates.into());
        if columns.len() > COLUMNS_MAX {
            return Err(refused(format!("{} value columns; at most {COLUMNS_MAX} are taken at once", columns.len())));
        }
        if aggregates.is_empty() || aggregates.len() > AGGREGATES_MAX {
            return Err(refused(format!("{} aggregates; give 1 to {AGGREGATES_MAX}", aggregates.len())));
        }
        for (index, dtype) in columns.iter().enumerate() {
            if !matches!(dtype, Dtype::I32 | Dtype::I64 | Dtype::F32 | Dtype::F64) {
                return Err(refused(format!("column {index} is {}; give i32, i64, f32 or f64", dtype.name())));
            }
        }
        for aggregate in &aggregates {
            if let Some(column) = aggregate.column().filter(|&column| column >= columns.len()) {
                return Err(refused(format!("{aggregate:?} names column {column}; there are {}, counted from 0", columns.len())));
            }
        }
        Ok(Self { columns, aggregates })
    }

    /// The types of the value columns.
    pub fn columns(&self) -> &[Dtype] {
        &self.columns
    }

    /// The aggregates, in the order of the result's columns.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// The type of the result's column at `index`.
    ///
    /// # Panics
    ///
    /// When there is no such aggregate.
    pub fn output(&self, index: usize) -> Dtype {
        match self.aggregates[index] {
            Aggregate::Count => Dtype::U64,
            Aggregate::Sum(column) if self.columns[column].is_float() => Dtype::F64,
            Aggregate::Sum(_) => Dtype::I64,
            Aggregate::Min(column) | Aggregate::Max(column) => self.columns[column],
        }
    }
}

/// A column on the host.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Column {
    I32(Vec<i32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Column {
    /// Its type.
    pub const fn dtype(&self) -> Dtype {
        match self {
            Self::I32(_) => Dtype::I32,
            Self::I64(_) => Dtype::I64,
            Self::U64(_) => Dtype::U64,
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
        }
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values as little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// A column of little-endian bytes.
    ///
    /// # Errors
    ///
    /// When the type is none that columns have, or the bytes are no whole number of values.
    pub fn from_bytes(dtype: Dtype, bytes: &[u8]) -> Result<Self, GpuError> {
        let size = dtype.size() as usize;
        if !bytes.len().is_multiple_of(size) {
            return Err(refused(format!("{} bytes are no whole number of {}", bytes.len(), dtype.name())));
        }
        macro_rules! values {
            ($variant:ident, $rust:ty) => {
                Ok(Self::$variant(
                    bytes.as_chunks::<{ size_of::<$rust>() }>().0.iter().map(|chunk| <$rust>::from_le_bytes(*chunk)).collect(),
                ))
            };
        }
        match dtype {
            Dtype::I32 => values!(I32, i32),
            Dtype::I64 => values!(I64, i64),
            Dtype::U64 => values!(U64, u64),
            Dtype::F32 => values!(F32, f32),
            Dtype::F64 => values!(F64, f64),
            Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 | Dtype::U32 | Dtype::F16 | Dtype::Bf16 => {
                Err(refused(format!("a column of {}; give i32, i64, u64, f32 or f64", dtype.name())))
            }
        }
    }
}

/// A result on the host, sorted by key.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The keys, rising.
    pub keys: Vec<i64>,
    /// A column for every aggregate, in their order.
    pub columns: Vec<Column>,
}

pub(crate) fn refused(sentence: String) -> GpuError {
    GpuError::refused(format!("gpu.aggregate: {sentence}"))
}

/// The error for an integer sum that does not fit 64 bits.
pub(crate) fn overflow(spec: &AggregateSpec, output: usize, key: i64) -> GpuError {
    let what = spec.aggregates.get(output);
    GpuError::failed(format!(
        "gpu.aggregate: the sum of group {key} in output {output} ({what:?}) does not fit 64 bits; sum smaller values or convert them to f64"
    ))
}
