//! `gpu.top_k` against its twin, with random shapes.

use ergate_gpu::top_k::{Found, Matrix, Metric, Search, Shape, TopK, product_error, score_error, scratch_bytes_max, top_k};
use ergate_gpu::{Backend, Dtype, Slice};
use proptest::prelude::*;

use crate::data::Draw;
use crate::{backends, cases, upload};

/// Makes the matrix resident in two parts, searches twice, and wants the same twice.
pub(crate) fn run(
    backend: &mut dyn Backend,
    shape: &Shape,
    search: &Search,
    matrix: &[f32],
    queries: &[f32],
    tile_bytes: Option<u64>,
) -> Found {
    let mut kernels = TopK::default();
    kernels.tile_bytes = tile_bytes;
    let resident = Matrix::alloc(backend, *shape).unwrap();
    let half = (shape.rows / 2) as usize * shape.dimension as usize;
    let parts = [(0, &matrix[..half]), (shape.rows / 2, &matrix[half..])];
    let sources = parts.map(|(first, rows)| {
        let source = upload(backend, &floats(rows));
        kernels.keep(backend, &resident, first, source, Dtype::F32).unwrap();
        source
    });
    let queries = upload(backend, &floats(queries));
    let found = find(&mut kernels, backend, &resident, search, queries);
    let again = find(&mut kernels, backend, &resident, search, queries);
    assert_eq!(found.rows, again.rows, "rows of a second search");
    assert_eq!(bits(&found.scores), bits(&again.scores), "scores of a second search");
    let most = scratch_bytes_max(shape, search, backend.device(), tile_bytes);
    assert!(kernels.scratch_bytes() <= most, "{} bytes are held, {most} were foretold", kernels.scratch_bytes());
    for slice in [sources[0], sources[1], queries] {
        backend.free(slice.buffer).unwrap();
    }
    resident.release(backend).unwrap();
    kernels.release(backend).unwrap();
    found
}

fn find(kernels: &mut TopK, backend: &mut dyn Backend, matrix: &Matrix, search: &Search, queries: Slice) -> Found {
    let results = kernels.search(backend, matrix, search, queries).unwrap();
    kernels.read(backend, &results).unwrap()
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The true score of a row and the sum of its products' magnitudes, in float64.
fn truth(shape: &Shape, row: &[f32], query: &[f32]) -> (f64, f64) {
    let kept = |value: f32| if shape.kept == Dtype::Bf16 { half::bf16::from_f32(value).to_f64() } else { f64::from(value) };
    let products: Vec<f64> = row.iter().zip(query).map(|(&a, &b)| kept(a) * f64::from(b)).collect();
    let length = |square: f64| if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() };
    let factor = match shape.metric {
        Metric::Dot => 1.0,
        Metric::Cosine => {
            length(row.iter().map(|&a| kept(a).powi(2)).sum()) * length(query.iter().map(|&b| f64::from(b).powi(2)).sum())
        }
    };
    (products.iter().sum::<f64>() * factor, products.iter().map(|product| product.abs()).sum::<f64>() * factor)
}

/// Checks one query's rows against the true scores and the bounds that are documented.
pub(crate) fn check(shape: &Shape, search: &Search, matrix: &[f32], query: &[f32], rows: &[i64], scores: &[f32]) {
    let dimension = shape.dimension as usize;
    let truths: Vec<(f64, f64)> = matrix.chunks_exact(dimension).map(|row| truth(shape, row, query)).collect();
    let eligible = truths.iter().filter(|(score, _)| !score.is_nan()).count();
    let found = rows.iter().take_while(|&&row| row >= 0).count();
    assert_eq!(found, eligible.min(search.k as usize), "rows found of {eligible}");
    assert!(rows[found..].iter().all(|&row| row == -1) && scores[found..].iter().all(|score| score.is_nan()));
    for place in 0..found {
        let (score, magnitude) = truths[rows[place] as usize];
        let error = score_error(shape.dimension, magnitude);
        assert!(
            (f64::from(scores[place]) - score).abs() <= error,
            "row {}: {} is not within {error} of {score}",
            rows[place],
            scores[place]
        );
        if place > 0 {
            let before = (scores[place - 1], rows[place - 1]);
            let sorted = before.0 > scores[place] || (before.0 == scores[place] && before.1 < rows[place]);
            assert!(sorted, "place {place}: {before:?} before {:?}", (scores[place], rows[place]));
        }
    }
    let Some(&last) = scores[..found].last().filter(|_| found < eligible) else { return };
    for (row, &(score, magnitude)) in truths.iter().enumerate() {
        if score.is_nan() || rows.contains(&(row as i64)) || score <= f64::from(last) + score_error(shape.dimension, magnitude) {
            continue;
        }
        // Only a crowd within the error of the matrix product may hide a row.
        let product = |magnitude| product_error(shape.kept, shape.dimension, magnitude);
        let crowd = truths.iter().filter(|&&(other, size)| other + product(size) >= score - product(magnitude)).count();
        assert!(
            search.queries > 1 && crowd > search.kept() as usize,
            "row {row} scores {score}, the last row found {last}; {crowd} rows crowd there"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernels_agree_with_the_true_scores(
        rows in prop_oneof![proptest::sample::select(&[0u64, 1, 7, 8, 9, 31, 33, 257, 1031]), 0..3000u64],
        dimension in prop_oneof![proptest::sample::select(&[1u32, 3, 4, 5, 8, 31, 64, 127]), 1..160u32],
        queries in proptest::sample::select(&[1u32, 1, 2, 3, 5]),
        k in prop_oneof![1..=12u32, proptest::sample::select(&[32u32, 33, 65, 128])],
        bf16: bool,
        cosine: bool,
        small_tiles: bool,
        seed: u64,
    ) {
        let kept = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
        let shape = Shape::new(rows, dimension, kept, if cosine { Metric::Cosine } else { Metric::Dot }).unwrap();
        let search = Search::new(queries, k).unwrap();
        let mut draw = Draw(seed);
        let mut matrix: Vec<f32> = (0..rows * u64::from(dimension)).map(|_| draw.unit() as f32).collect();
        // Some rows are NaN, zeros, or those of others.
        for _ in 0..rows.div_ceil(20) {
            let (at, from) = (draw.below(rows) as usize, draw.below(rows) as usize);
            let size = dimension as usize;
            match draw.below(4) {
                0 => matrix[at * size + draw.below(u64::from(dimension)) as usize] = f32::NAN,
                1 => matrix[at * size..(at + 1) * size].fill(0.0),
                _ => matrix.copy_within(from * size..(from + 1) * size, at * size),
            }
        }
        let asked: Vec<f32> = (0..queries * dimension).map(|_| (draw.unit() * 3.0) as f32).collect();
        for (_, mut backend) in backends(seed) {
            let found = run(&mut *backend, &shape, &search, &matrix, &asked, small_tiles.then_some(1));
            for (query, asked) in asked.chunks_exact(dimension as usize).enumerate() {
                let part = query * k as usize..(query + 1) * k as usize;
                check(&shape, &search, &matrix, asked, &found.rows[part.clone()], &found.scores[part]);
            }
        }
    }

    #[test]
    fn small_whole_numbers_are_found_exactly_as_by_the_twin(
        rows in 1..2500u64,
        dimension in 1..40u32,
        queries in 1..4u32,
        k in prop_oneof![1..=8u32, 1..=128u32],
        bf16: bool,
        seed: u64,
    ) {
        // Products and sums of these have no error in any type, and ties abound.
        let kept = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
        let shape = Shape::new(rows, dimension, kept, Metric::Dot).unwrap();
        let search = Search::new(queries, k).unwrap();
        let mut draw = Draw(seed);
        let mut whole = |count: u64| (0..count).map(|_| draw.below(7) as f32 - 3.0).collect::<Vec<f32>>();
        let (matrix, asked) = (whole(rows * u64::from(dimension)), whole(u64::from(queries * dimension)));
        let twin = top_k(&shape, &search, &matrix, &asked).unwrap();
        for (_, mut backend) in backends(seed) {
            let found = run(&mut *backend, &shape, &search, &matrix, &asked, None);
            prop_assert_eq!(&found.rows, &twin.rows);
            prop_assert_eq!(bits(&found.scores).len(), bits(&twin.scores).len());
            for (one, two) in found.scores.iter().zip(&twin.scores) {
                prop_assert!(one == two || (one.is_nan() && two.is_nan()));
            }
        }
    }
}
