//! `gpu.aggregate` against its twin, with random shapes and keys.

use ergate_gpu::aggregate::{
    Aggregate, AggregateSpec, Aggregation, Column, Groups, Hints, Input, Table, aggregate, scratch_bytes_max,
};
use ergate_gpu::{Backend, Dtype, GpuError};
use proptest::prelude::*;

use crate::data::{Draw, Keys, column, keys};
use crate::{backends, cases, upload};

/// The specs that are compiled: each type and each aggregate, groups marked by every kind of word.
pub(crate) fn specs() -> Vec<AggregateSpec> {
    use Aggregate::{Count, Max, Min, Sum};
    let spec = |columns: &[Dtype], aggregates: &[Aggregate]| AggregateSpec::new(columns, aggregates).unwrap();
    vec![
        spec(&[Dtype::F64], &[Sum(0)]),
        spec(&[], &[Count]),
        spec(&[Dtype::I64], &[Min(0), Max(0), Sum(0)]),
        spec(&[Dtype::I32, Dtype::F32], &[Max(0), Sum(0), Min(0), Min(1), Max(1), Sum(1)]),
        spec(&[Dtype::F64, Dtype::I64, Dtype::F32], &[Max(0), Sum(1), Count, Min(0), Sum(2), Sum(0), Sum(1)]),
    ]
}

/// Runs the kernels on fresh buffers, and the same again: what is exact must come out equal.
pub(crate) fn run(
    backend: &mut dyn Backend,
    spec: &AggregateSpec,
    keys: &[i64],
    columns: &[Column],
    hints: &Hints,
) -> Result<(Table, Groups), GpuError> {
    let mut aggregation = Aggregation::load(backend, spec.clone())?;
    let key_bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    let input = Input {
        keys: upload(backend, &key_bytes),
        columns: columns.iter().map(|column| upload(backend, &column.to_bytes())).collect(),
        rows: keys.len() as u64,
    };
    let result = aggregation.run(backend, &input, hints).and_then(|groups| Ok((aggregation.read(backend, &groups)?, groups)));
    if let Ok((table, _)) = &result {
        let again = aggregation.run(backend, &input, hints)?;
        let again = aggregation.read(backend, &again)?;
        assert_eq!(again.keys, table.keys, "keys of a second run");
        for (index, (one, two)) in table.columns.iter().zip(&again.columns).enumerate() {
            let sum_of_floats = matches!(spec.aggregates()[index], Aggregate::Sum(_)) && spec.output(index).is_float();
            assert!(sum_of_floats || one.to_bytes() == two.to_bytes(), "column {index} of a second run differs");
        }
    }
    let most = scratch_bytes_max(spec, input.rows);
    assert!(aggregation.scratch_bytes() <= most, "{} bytes are held, {most} were foretold", aggregation.scratch_bytes());
    backend.free(input.keys.buffer)?;
    input.columns.iter().try_for_each(|column| backend.free(column.buffer))?;
    aggregation.release(backend)?;
    result
}

/// Compares a table with the twin's: integers, counts and extremes bit by bit, sums of floats within the bound that is documented.
pub(crate) fn check(spec: &AggregateSpec, keys: &[i64], columns: &[Column], table: &Table) {
    let twin = aggregate(spec, keys, columns).unwrap();
    assert_eq!(table.keys, twin.keys, "keys");
    for (index, aggregate) in spec.aggregates().iter().enumerate() {
        let (one, two) = (&table.columns[index], &twin.columns[index]);
        match (aggregate, one, two) {
            (Aggregate::Sum(column), Column::F64(sums), Column::F64(true_sums)) => {
                let bounds = bounds(keys, &columns[*column], &twin.keys);
                for (group, (sum, wanted)) in sums.iter().zip(true_sums).enumerate() {
                    let close = (sum - wanted).abs() <= bounds[group] || sum == wanted || (sum.is_nan() && wanted.is_nan());
                    assert!(close, "{aggregate:?} of {}: {sum} is not within {} of {wanted}", twin.keys[group], bounds[group]);
                    assert!(wanted != &0.0 || sum.is_sign_positive() || sum != wanted, "a sum of zeros is 0.0, not -0.0");
                }
            }
            _ => assert!(same(one, two), "{aggregate:?}: {one:?} is not {two:?}"),
        }
    }
}

/// Bit by bit, any NaN like any other.
fn same(one: &Column, two: &Column) -> bool {
    match (one, two) {
        (Column::F32(a), Column::F32(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        }
        (Column::F64(a), Column::F64(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        }
        _ => one == two,
    }
}

/// (rows - 1) · 2⁻⁵³ · Σ|value| of every group, and a rounding of the twin's own.
fn bounds(keys: &[i64], column: &Column, groups: &[i64]) -> Vec<f64> {
    let (mut rows, mut sums) = (vec![0.0f64; groups.len()], vec![0.0f64; groups.len()]);
    for (row, key) in keys.iter().enumerate() {
        let group = groups.binary_search(key).unwrap();
        rows[group] += 1.0;
        sums[group] += match column {
            Column::F32(values) => f64::from(values[row]).abs(),
            Column::F64(values) => values[row].abs(),
            Column::I32(_) | Column::I64(_) | Column::U64(_) => 0.0,
        };
    }
    rows.iter().zip(&sums).map(|(rows, sum)| rows * f64::EPSILON / 2.0 * sum).collect()
}

fn spreads() -> impl Strategy<Value = Keys> {
    prop_oneof![
        (1..5000u64).prop_map(Keys::Near),
        (1..5000u64).prop_map(Keys::Far),
        (1..5000u64).prop_map(Keys::Hot),
        (1..2000u64).prop_map(Keys::Outliers),
        Just(Keys::Ends),
        Just(Keys::Different),
    ]
}

fn row_counts() -> impl Strategy<Value = usize> {
    let chosen: &'static [usize] = &[0, 1, 2, 31, 32, 33, 127, 257, 1009, 2047, 2048, 2049, 4095, 4096, 4097, 7919];
    prop_oneof![proptest::sample::select(chosen), 0..12_000usize]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernels_agree_with_the_twin(
        which in 0..5usize,
        rows in row_counts(),
        spread in spreads(),
        groups_hint in proptest::option::of(1..20_000u64),
        wild: bool,
        seed: u64,
    ) {
        let spec = &specs()[which];
        let mut draw = Draw(seed);
        let keys = keys(&mut draw, rows, spread);
        let columns: Vec<Column> = spec.columns().iter().map(|&dtype| column(&mut draw, rows, dtype, wild)).collect();
        for (_, mut backend) in backends(seed) {
            let hints = Hints { groups: groups_hint, keys: None };
            let (table, _) = run(&mut *backend, spec, &keys, &columns, &hints).unwrap();
            check(spec, &keys, &columns, &table);
        }
    }
}
