//! `gpu.aggregate`: sums of f64 by i64 keys of several spreads.

use ergate_gpu::aggregate::{Aggregate, AggregateSpec, Aggregation, Column, Hints, Input};
use ergate_gpu::{Backend, Dtype, GpuError};

use crate::{Sizes, Upload, buffer, data, median_ms};

/// Keys of a figure, from an index and the number of groups.
type Keys = fn(u64, u64) -> i64;

const SPREADS: [(&str, Keys); 5] = [
    ("keys next to each other", data::group),
    // An odd factor, so that the keys are as many and lie anywhere in 64 bits.
    ("keys anywhere", |index, groups| data::group(index, groups).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)),
    ("one group", |_, _| 42),
    ("a thousand groups", |index, _| data::group(index, 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)),
    ("half of the rows in one group", |index, groups| if index % 2 == 0 { -1 } else { data::group(index, groups) }),
];

pub(crate) fn figures(backend: &mut dyn Backend, sizes: &Sizes) -> Result<(), GpuError> {
    let spec = AggregateSpec::new([Dtype::F64], [Aggregate::Sum(0)])?;
    let mut aggregation = Aggregation::load(backend, spec)?;
    let upload = Upload::new(backend)?;
    let keys = buffer(backend, sizes.rows * 8)?;
    let values = buffer(backend, sizes.rows * 8)?;
    upload.fill(backend, values, |index| data::value(index).to_le_bytes())?;
    let input = Input { keys, columns: vec![values], rows: sizes.rows };
    for (name, key) in SPREADS {
        upload.fill(backend, keys, |index| key(index, sizes.groups).to_le_bytes())?;
        let hints = Hints::default();
        let ms = median_ms(backend, sizes.repeats, |backend| aggregation.run(backend, &input, &hints).map(drop))?;
        let groups = aggregation.run(backend, &input, &hints)?;
        let table = aggregation.read(backend, &groups)?;
        let Column::F64(sums) = &table.columns[0] else { return Err(GpuError::failed("a sum of f64 that is none")) };
        let (first, last) = (table.keys[0], table.keys[table.keys.len() - 1]);
        println!(
            "{{\"figure\": \"aggregate, {name}\", \"ms\": {ms}, \"rows\": {}, \"groups\": {}, \"first\": {first}, \"last\": {last}, \
             \"first_sum\": {}, \"sum\": {}, \"choice\": \"{:?}\", \"scratch_bytes\": {}}}",
            sizes.rows,
            groups.count,
            sums[0],
            sums.iter().sum::<f64>(),
            groups.choice,
            aggregation.scratch_bytes(),
        );
    }
    backend.free(keys.buffer)?;
    backend.free(values.buffer)?;
    upload.release(backend)?;
    aggregation.release(backend)
}

/// A small aggregation from nothing: kernels, memory, a run, the sums on the host.
pub(crate) fn first(backend: &mut dyn Backend) -> Result<(), GpuError> {
    const ROWS: u64 = 10_000;
    let mut aggregation = Aggregation::load(backend, AggregateSpec::new([Dtype::F64], [Aggregate::Sum(0)])?)?;
    let upload = Upload::new(backend)?;
    let (keys, values) = (buffer(backend, ROWS * 8)?, buffer(backend, ROWS * 8)?);
    upload.fill(backend, keys, |index| data::group(index, 100).to_le_bytes())?;
    upload.fill(backend, values, |_| 1f64.to_le_bytes())?;
    let groups = aggregation.run(backend, &Input { keys, columns: vec![values], rows: ROWS }, &Hints::default())?;
    let table = aggregation.read(backend, &groups)?;
    let Column::F64(sums) = &table.columns[0] else { return Err(GpuError::failed("a sum of f64 that is none")) };
    let sum: f64 = sums.iter().sum();
    if sum == ROWS as f64 { Ok(()) } else { Err(GpuError::failed(format!("{ROWS} rows of 1.0 sum up to {sum}"))) }
}
