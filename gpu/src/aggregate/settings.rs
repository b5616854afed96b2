//! What a task type that aggregates is set up with, by the names of its columns.

use super::{Aggregate, AggregateSpec, Hints, ROWS_MAX, refused};
use crate::{Dtype, GpuError};

/// What is made of a column in every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The sum: i64 of integers, f64 of floats.
    Sum,
    /// The smallest value, of the column's type.
    Min,
    /// The largest value, of the column's type.
    Max,
    /// The number of rows: u64.
    Count,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sum, Self::Min, Self::Max, Self::Count];

    /// The name used in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
        }
    }

    /// The operation of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// A column of values beside the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueColumn {
    /// What errors call it.
    pub name: String,
    /// The type of its values: i32, i64, f32 or f64.
    pub dtype: Dtype,
    /// What is made of it, in the order of the result.
    pub operations: Vec<Operation>,
}

/// The columns of an aggregation. Keys are i64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateSettings {
    /// The columns beside the keys, in the order of the payload; without any, the rows of each group are counted.
    pub values: Vec<ValueColumn>,
    /// The most rows of one payload.
    pub rows_max: u64,
    /// The most groups of one payload: memory is reserved for so many, and an attempt that has more fails. As many as rows without.
    pub groups_max: Option<u64>,
    /// What is known of the keys; none of it need be right.
    pub hints: Hints,
}

impl AggregateSettings {
    /// These columns, of any number of rows, with nothing known of their keys.
    pub fn new(values: impl Into<Vec<ValueColumn>>) -> Self {
        Self { values: values.into(), rows_max: ROWS_MAX, groups_max: None, hints: Hints::default() }
    }

    /// What the kernels are compiled for.
    ///
    /// # Errors
    ///
    /// Names what is wrong: too many columns or operations, a type that is not taken, two columns of one name, a column of which nothing is made,
    /// a limit of rows or groups that is 0 or too high.
    pub fn spec(&self) -> Result<AggregateSpec, GpuError> {
        if self.rows_max == 0 || self.rows_max > ROWS_MAX {
            return Err(refused(format!("rows_max is {}; give 1 to {ROWS_MAX}", self.rows_max)));
        }
        if self.groups_max == Some(0) {
            return Err(refused("groups_max is 0; give at least 1, or leave it out".to_owned()));
        }
        let mut aggregates = Vec::new();
        for (index, column) in self.values.iter().enumerate() {
            let name = &column.name;
            if name.is_empty() || self.values[..index].iter().any(|other| other.name == *name) {
                return Err(refused(format!("column {index} is called `{name}`; give each column a name of its own")));
            }
            if column.operations.is_empty() {
                return Err(refused(format!("nothing is made of column `{name}`; give it an operation or leave it out")));
            }
            aggregates.extend(column.operations.iter().map(|operation| match operation {
                Operation::Sum => Aggregate::Sum(index),
                Operation::Min => Aggregate::Min(index),
                Operation::Max => Aggregate::Max(index),
                Operation::Count => Aggregate::Count,
            }));
        }
        if self.values.is_empty() {
            aggregates.push(Aggregate::Count);
        }
        AggregateSpec::new(self.values.iter().map(|column| column.dtype).collect::<Vec<_>>(), aggregates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, dtype: Dtype, operations: &[Operation]) -> ValueColumn {
        ValueColumn { name: name.to_owned(), dtype, operations: operations.to_vec() }
    }

    #[test]
    fn operations_become_aggregates_in_their_order() {
        let settings = AggregateSettings::new([
            column("price", Dtype::F64, &[Operation::Max, Operation::Count, Operation::Sum]),
            column("size", Dtype::I32, &[Operation::Min]),
        ]);
        let wanted = [Aggregate::Max(0), Aggregate::Count, Aggregate::Sum(0), Aggregate::Min(1)];
        assert_eq!(settings.spec().unwrap(), AggregateSpec::new([Dtype::F64, Dtype::I32], wanted).unwrap());
        assert_eq!(AggregateSettings::new([]).spec().unwrap(), AggregateSpec::new([], [Aggregate::Count]).unwrap());
        assert!(Operation::ALL.iter().all(|&one| Operation::from_name(one.name()) == Some(one)));
        assert_eq!(Operation::from_name("avg"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let sum = [Operation::Sum];
        let nine: Vec<_> = (0..9).map(|index| column(&index.to_string(), Dtype::F64, &sum)).collect();
        let none = AggregateSettings { rows_max: 0, ..AggregateSettings::new([]) };
        let many = AggregateSettings { rows_max: ROWS_MAX + 1, ..AggregateSettings::new([]) };
        for (settings, says) in [
            (AggregateSettings::new([column("a", Dtype::F64, &sum), column("a", Dtype::F64, &sum)]), "column 1 is called `a`"),
            (AggregateSettings::new([column("", Dtype::F64, &sum)]), "column 0 is called ``"),
            (AggregateSettings::new([column("a", Dtype::F64, &[])]), "nothing is made of column `a`"),
            (AggregateSettings::new([column("a", Dtype::F16, &sum)]), "column 0 is f16"),
            (AggregateSettings::new(nine), "9 value columns"),
            (none, "rows_max is 0"),
            (AggregateSettings { groups_max: Some(0), ..AggregateSettings::new([]) }, "groups_max is 0"),
            (many, "rows_max is 4294967296"),
        ] {
            let error = settings.spec().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
