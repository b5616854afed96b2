//! Inputs of more bytes than 31 bits count, on a device: where an index in 32 bits would come around. Skipped aloud without the memory.

use ergate_gpu::aggregate::{Aggregate, AggregateSpec, Aggregation, Column, Hints, Input};
use ergate_gpu::top_k::{Matrix, Metric, Search, Shape, TopK};
use ergate_gpu::{Backend, Dtype, Slice, Stream};

use crate::backends;

/// Free memory on the device that these tests need, in bytes.
const NEEDED: u64 = 12 << 30;
const CHUNK: u64 = 64 << 20;

/// A device with enough memory.
fn device(what: &str) -> Option<Box<dyn Backend>> {
    if std::env::var_os("ERGATE_LARGE").is_some_and(|value| value == "0") {
        eprintln!("note: ERGATE_LARGE=0: {what} was skipped");
        return None;
    }
    let found = backends(1).into_iter().find(|(name, _)| *name == "cuda");
    let Some((_, backend)) = found else {
        eprintln!("note: there is no device: {what} was skipped");
        return None;
    };
    let free = backend.memory().unwrap().free;
    if free < NEEDED {
        eprintln!("note: {free} bytes are free on the device, {NEEDED} are needed: {what} was skipped");
        return None;
    }
    Some(backend)
}

fn filled<const N: usize>(backend: &mut dyn Backend, bytes: u64, element: impl Fn(u64) -> [u8; N]) -> Slice {
    let slice = Slice { buffer: backend.alloc(bytes).unwrap(), offset: 0, bytes };
    let staging = backend.stage(CHUNK).unwrap();
    let mut at = 0;
    while at < bytes {
        let size = CHUNK.min(bytes - at);
        for (index, chunk) in backend.staged(staging).unwrap()[..size as usize].as_chunks_mut::<N>().0.iter_mut().enumerate() {
            *chunk = element(at / N as u64 + index as u64);
        }
        backend.copy_in(Stream::Compute, staging, 0, Slice { offset: at, bytes: size, ..slice }).unwrap();
        backend.synchronize().unwrap();
        at += size;
    }
    backend.unstage(staging).unwrap();
    slice
}

#[test]
fn columns_of_more_than_two_gigabytes_are_aggregated() {
    let Some(mut backend) = device("aggregating columns of more than 2 GB") else { return };
    let backend = &mut *backend;
    let rows = (1u64 << 28) + 12_345;
    let groups = 1_000_003u64;
    // The last rows are told apart, so that none may be missed or counted twice.
    let value = |row: u64| if row >= rows - 10 { 1_000_000 } else { 1 };
    for factor in [1i64, 0x9e37_79b9_7f4a_7c15_u64 as i64] {
        let spec = AggregateSpec::new([Dtype::I64], [Aggregate::Sum(0), Aggregate::Count]).unwrap();
        let mut aggregation = Aggregation::load(backend, spec).unwrap();
        let keys = filled(backend, rows * 8, |row| ((row % groups) as i64).wrapping_mul(factor).to_le_bytes());
        let values = filled(backend, rows * 8, |row| i64::to_le_bytes(value(row)));
        let groups_found = aggregation.run(backend, &Input { keys, columns: vec![values], rows }, &Hints::default()).unwrap();
        let table = aggregation.read(backend, &groups_found).unwrap();
        let mut wanted = vec![(0i64, 0u64); groups as usize];
        for row in 0..rows {
            let group = &mut wanted[(row % groups) as usize];
            *group = (group.0 + value(row), group.1 + 1);
        }
        let mut wanted: Vec<(i64, (i64, u64))> = (0..).map(|group: i64| group.wrapping_mul(factor)).zip(wanted).collect();
        wanted.sort_unstable();
        assert_eq!(table.keys, wanted.iter().map(|group| group.0).collect::<Vec<_>>());
        assert_eq!(table.columns[0], Column::I64(wanted.iter().map(|group| group.1.0).collect()));
        assert_eq!(table.columns[1], Column::U64(wanted.iter().map(|group| group.1.1).collect()));
        backend.free(keys.buffer).unwrap();
        backend.free(values.buffer).unwrap();
        aggregation.release(backend).unwrap();
    }
}

#[test]
fn a_matrix_of_more_than_two_gigabytes_is_searched() {
    let Some(mut backend) = device("searching a matrix of more than 2 GB") else { return };
    let backend = &mut *backend;
    let (rows, dimension) = (9_000_003u64, 64u32);
    // Rows score their place in 0 .. 1000, but for a few that are better; the last one is the best.
    let best = [rows - 1, 4_500_000, 0, 8_388_608, 8_388_607];
    let score = |row: u64| best.iter().position(|&one| one == row).map_or((row % 1000) as f32, |place| 5000.0 - place as f32);
    let row_bytes = u64::from(dimension) * 4;
    for kept in [Dtype::F32, Dtype::Bf16] {
        let shape = Shape::new(rows, dimension, kept, Metric::Dot).unwrap();
        let mut kernels = TopK::default();
        let matrix = Matrix::alloc(backend, shape).unwrap();
        // All weight in one component, whose value bf16 keeps: scores in steps of 1 are two components, of 64 and of 1.
        let source = filled(backend, rows * row_bytes, |index| {
            let (row, component) = (index / u64::from(dimension), index % u64::from(dimension));
            let score = score(row);
            let value = match component {
                5 => (score / 64.0).floor(),
                63 => score % 64.0,
                _ => 0.0,
            };
            value.to_le_bytes()
        });
        kernels.keep(backend, &matrix, 0, source, Dtype::F32).unwrap();
        for count in [1u32, 3] {
            let query = |index: u64| match index % u64::from(dimension) {
                5 => 64.0f32,
                63 => 1.0,
                _ => 0.0,
            };
            let queries = filled(backend, u64::from(count) * row_bytes, |index| query(index).to_le_bytes());
            let search = Search::new(count, 7).unwrap();
            let results = kernels.search(backend, &matrix, &search, queries).unwrap();
            let found = kernels.read(backend, &results).unwrap();
            for rows in found.rows.chunks_exact(7) {
                assert_eq!(rows, [best.map(|row| row as i64).as_slice(), &[999, 1999]].concat(), "{kept:?}, {count} queries");
            }
            backend.free(queries.buffer).unwrap();
        }
        backend.free(source.buffer).unwrap();
        matrix.release(backend).unwrap();
        kernels.release(backend).unwrap();
    }
}
