//! `gpu.top_k` where it is likely to break.

use ergate_gpu::top_k::{Matrix, Metric, Search, Shape, TopK, top_k};
use ergate_gpu::{Class, Dtype};

use crate::top_k::{floats, run};
use crate::{backends, upload};

const TYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

#[test]
fn an_empty_matrix_has_no_rows_to_find() {
    for queries in [1, 3] {
        let shape = Shape::new(0, 5, Dtype::F32, Metric::Cosine).unwrap();
        let search = Search::new(queries, 4).unwrap();
        for (_, mut backend) in backends(1) {
            let found = run(&mut *backend, &shape, &search, &[], &vec![1.0; 5 * queries as usize], None);
            assert!(found.rows.iter().all(|&row| row == -1) && found.scores.iter().all(|score| score.is_nan()));
            assert_eq!(found.rows.len(), 4 * queries as usize);
        }
    }
}

#[test]
fn among_equals_the_lower_row_is_first() {
    // All rows alike, then rows that score 0.0 and -0.0 by turns.
    for pattern in [[2.0f32, 2.0], [0.0, -0.0]] {
        let matrix: Vec<f32> = (0..1500).flat_map(|row| [pattern[row % 2]; 4]).collect();
        for (kept, queries) in TYPES.iter().flat_map(|&kept| [(kept, 1), (kept, 2)]) {
            let shape = Shape::new(1500, 4, kept, Metric::Dot).unwrap();
            let search = Search::new(queries, 9).unwrap();
            for (_, mut backend) in backends(2) {
                let found = run(&mut *backend, &shape, &search, &matrix, &vec![1.0; 4 * queries as usize], Some(1));
                assert_eq!(found.rows[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8], "{kept:?}, {queries} queries");
            }
        }
    }
}

#[test]
fn a_warp_that_lags_behind_keeps_equals_that_are_lower() {
    // The block's other warps are full of twos and know it, from a three that they found, before the lagging one comes to its own twos.
    let at_once = 128;
    let score = |row: usize| match row / at_once {
        0..4 => 1.0f32,
        8 if row.is_multiple_of(4) && (4..32).contains(&(row % at_once)) => 3.0,
        _ => 2.0,
    };
    let matrix: Vec<f32> = (0..1500).flat_map(|row| [score(row), 0.0, 0.0, 0.0]).collect();
    let shape = Shape::new(1500, 4, Dtype::F32, Metric::Dot).unwrap();
    let search = Search::new(1, 12).unwrap();
    let wanted = [1028, 1032, 1036, 1040, 1044, 1048, 1052, 512, 513, 514, 515, 516];
    for (_, mut backend) in (0..16).flat_map(backends) {
        let found = run(&mut *backend, &shape, &search, &matrix, &[1.0; 4], None);
        assert_eq!(found.rows, wanted);
    }
}

#[test]
fn rows_and_queries_of_zeros_have_cosine_zero() {
    let matrix = [[0.0f32, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]].concat();
    for (kept, queries) in TYPES.iter().flat_map(|&kept| [(kept, 1), (kept, 2)]) {
        let shape = Shape::new(4, 2, kept, Metric::Cosine).unwrap();
        let search = Search::new(queries, 4).unwrap();
        for (_, mut backend) in backends(3) {
            let found = run(&mut *backend, &shape, &search, &matrix, &[3.0, 0.0].repeat(queries as usize), None);
            assert_eq!((&found.rows[..4], &found.scores[..4]), (&[1, 0, 3, 2][..], &[1.0, 0.0, 0.0, -1.0][..]));
            let found = run(&mut *backend, &shape, &search, &matrix, &[0.0, 0.0].repeat(queries as usize), None);
            assert_eq!((&found.rows[..4], &found.scores[..4]), (&[0, 1, 2, 3][..], &[0.0; 4][..]));
        }
    }
}

#[test]
fn nan_never_wins_and_infinities_are_in_their_place() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let matrix = [[nan, 1.0], [inf, 1.0], [5.0, 1.0], [-inf, 1.0], [-nan, -1.0], [inf, nan]].concat();
    for (kept, queries) in TYPES.iter().flat_map(|&kept| [(kept, 1), (kept, 3)]) {
        let shape = Shape::new(6, 2, kept, Metric::Dot).unwrap();
        let search = Search::new(queries, 5).unwrap();
        let asked = [1.0, 1.0].repeat(queries as usize);
        for (_, mut backend) in backends(4) {
            let found = run(&mut *backend, &shape, &search, &matrix, &asked, None);
            let twin = top_k(&shape, &search, &matrix, &asked).unwrap();
            assert_eq!((&found.rows[..], &found.rows[..5]), (&twin.rows[..], &[1, 2, 3, -1, -1][..]));
            assert_eq!(found.scores[..3], [inf, 6.0, -inf]);
            // A query with NaN finds nothing.
            let found = run(&mut *backend, &shape, &search, &matrix, &[nan, 1.0].repeat(queries as usize), None);
            assert!(found.rows.iter().all(|&row| row == -1));
        }
    }
}

#[test]
fn the_best_may_be_anywhere_and_the_rows_that_fill_up_never_win() {
    // Every score is negative, so that a row of zeros beyond the end would win.
    let rows = 1027;
    for best in [0, 1, 511, 1023, 1024, 1026] {
        let matrix: Vec<f32> = (0..rows).flat_map(|row| [if row == best { -1.0 } else { -2.0 }; 3]).collect();
        for (kept, queries) in TYPES.iter().flat_map(|&kept| [(kept, 1), (kept, 2)]) {
            let shape = Shape::new(rows, 3, kept, Metric::Dot).unwrap();
            let search = Search::new(queries, 2).unwrap();
            for (_, mut backend) in backends(5) {
                let found = run(&mut *backend, &shape, &search, &matrix, &vec![1.0; 3 * queries as usize], Some(1));
                assert_eq!(found.rows[..2], [best as i64, i64::from(best == 0)]);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |error: ergate_gpu::GpuError| {
        assert_eq!(error.class(), Class::Refused);
        error.to_string()
    };
    assert!(refused(Shape::new(5, 0, Dtype::F32, Metric::Dot).unwrap_err()).contains("rows of 0 values"));
    assert!(refused(Shape::new(5, 8193, Dtype::F32, Metric::Dot).unwrap_err()).contains("8193"));
    assert!(refused(Shape::new(1 << 31, 4, Dtype::F32, Metric::Dot).unwrap_err()).contains("2147483648 rows"));
    assert!(refused(Shape::new(5, 4, Dtype::F16, Metric::Dot).unwrap_err()).contains("f16"));
    assert!(refused(Search::new(1, 129).unwrap_err()).contains("k is 129"));
    assert!(refused(Search::new(0, 1).unwrap_err()).contains("0 queries"));
    for (_, mut backend) in backends(6) {
        let backend = &mut *backend;
        let shape = Shape::new(5, 4, Dtype::F32, Metric::Dot).unwrap();
        let (mut kernels, matrix) = (TopK::default(), Matrix::alloc(backend, shape).unwrap());
        let rows = upload(backend, &floats(&[1.0; 16]));
        assert!(refused(kernels.keep(backend, &matrix, 2, rows, Dtype::F32).unwrap_err()).contains("from row 2 on"));
        assert!(refused(kernels.keep(backend, &matrix, 0, rows, Dtype::I32).unwrap_err()).contains("rows of i32"));
        let search = Search::new(3, 1).unwrap();
        assert!(refused(kernels.search(backend, &matrix, &search, rows).unwrap_err()).contains("3 of 4 values have 48"));
    }
}
