//! `gpu.aggregate` where it is likely to break.

use ergate_gpu::aggregate::{Aggregate, AggregateSpec, Column, Hints, program};
use ergate_gpu::{Arg, Class, Dtype, Launch, Scalar, Stream, Workspace};

use crate::aggregate::{check, run, specs};
use crate::data::{Draw, Keys, column, keys};
use crate::{backends, upload};

fn spec(columns: &[Dtype], aggregates: &[Aggregate]) -> AggregateSpec {
    AggregateSpec::new(columns, aggregates).unwrap()
}

#[test]
fn no_rows_give_no_groups() {
    for (_, mut backend) in backends(1) {
        let (table, groups) = run(&mut *backend, &specs()[0], &[], &[Column::F64(vec![])], &Hints::default()).unwrap();
        assert_eq!((table.keys.len(), table.columns[0].len(), groups.count), (0, 0, 0));
    }
}

#[test]
fn the_key_that_marks_empty_slots_is_a_key_like_others() {
    let keys: Vec<i64> =
        (0..3000).map(|row| if row % 3 == 0 { i64::MIN } else { 0x0123_4567_89ab_cdef_i64.wrapping_mul(row) }).collect();
    let columns = [Column::F64((0..3000).map(f64::from).collect())];
    for groups in [1, 5000] {
        for (_, mut backend) in backends(2) {
            let hints = Hints { groups: Some(groups), keys: None };
            let (table, how) = run(&mut *backend, &specs()[0], &keys, &columns, &hints).unwrap();
            assert_eq!(how.choice.unwrap().span, 0, "these keys are hashed");
            assert_eq!(table.keys[0], i64::MIN);
            check(&specs()[0], &keys, &columns, &table);
        }
    }
}

#[test]
fn a_table_that_is_too_small_grows() {
    let mut draw = Draw(3);
    let keys = keys(&mut draw, 9000, Keys::Different);
    let columns = [column(&mut draw, 9000, Dtype::F64, false)];
    for (_, mut backend) in backends(3) {
        let hints = Hints { groups: Some(600), keys: Some((i64::MIN, i64::MAX)) };
        let (table, how) = run(&mut *backend, &specs()[0], &keys, &columns, &hints).unwrap();
        assert!(how.grown > 0, "600 groups were said and 9000 came: {how:?}");
        check(&specs()[0], &keys, &columns, &table);
    }
}

#[test]
fn keys_beyond_those_that_were_said_are_found_as_well() {
    let keys: Vec<i64> = (0..5000).map(|row| [row, -row, row * 1_000_003, i64::MAX - row][row as usize % 4]).collect();
    let columns = [Column::F64((0..5000).map(|row| f64::from(row) * 0.1).collect())];
    for (_, mut backend) in backends(4) {
        let hints = Hints { groups: Some(1_000_000), keys: Some((0, 4000)) };
        let (table, how) = run(&mut *backend, &specs()[0], &keys, &columns, &hints).unwrap();
        let choice = how.choice.unwrap();
        assert_eq!((choice.lo, choice.span, choice.private_capacity), (0, 4001, None), "dense and hashed slots");
        check(&specs()[0], &keys, &columns, &table);
    }
}

#[test]
fn one_group_and_a_hot_key_are_added_up_in_shared_memory() {
    let mut draw = Draw(5);
    for spread in [Keys::Near(1), Keys::Hot(9000)] {
        let keys = keys(&mut draw, 10_007, spread);
        for spec in specs() {
            let columns: Vec<Column> = spec.columns().iter().map(|&dtype| column(&mut draw, 10_007, dtype, false)).collect();
            for (_, mut backend) in backends(5) {
                let (table, how) = run(&mut *backend, &spec, &keys, &columns, &Hints::default()).unwrap();
                assert!(how.choice.unwrap().private_capacity.is_some(), "{spread:?}");
                check(&spec, &keys, &columns, &table);
            }
        }
    }
}

#[test]
fn sums_of_integers_are_exact_to_the_last_bit_and_beyond() {
    let spec = spec(&[Dtype::I64], &[Aggregate::Min(0), Aggregate::Max(0), Aggregate::Sum(0)]);
    let ends = [i64::MAX, i64::MIN, 1, i64::MAX, i64::MIN, -1, 0x7fff_ffff, 0x8000_0000, -0x8000_0000, -0x8000_0001, 2];
    // Group 1 passes 64 bits on the way and comes back.
    let keys: Vec<i64> = [1; 11].into_iter().chain(2..13).collect();
    let columns = [Column::I64([ends, ends].concat())];
    for (_, mut backend) in backends(6) {
        let (table, _) = run(&mut *backend, &spec, &keys, &columns, &Hints::default()).unwrap();
        check(&spec, &keys, &columns, &table);
    }
}

#[test]
fn a_sum_that_leaves_64_bits_is_told_with_its_group() {
    let spec = spec(&[Dtype::F64, Dtype::I64], &[Aggregate::Sum(0), Aggregate::Sum(1)]);
    for (value, other) in [(i64::MAX, 1), (i64::MIN, -1), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)] {
        let keys = [7, -41, 7, -41];
        let columns = [Column::F64(vec![0.0; 4]), Column::I64(vec![5, value, 6, other])];
        for (_, mut backend) in backends(7) {
            let error = run(&mut *backend, &spec, &keys, &columns, &Hints::default()).unwrap_err();
            assert_eq!(error.class(), Class::Failed);
            assert!(error.to_string().contains("group -41 in output 1"), "{error}");
        }
        let twin = ergate_gpu::aggregate::aggregate(&spec, &keys, &columns).unwrap_err();
        assert!(twin.to_string().contains("group -41 in output 1"), "{twin}");
    }
}

#[test]
fn zeros_infinities_and_nan_are_as_documented() {
    let spec = spec(
        &[Dtype::F64, Dtype::F32],
        &[Aggregate::Sum(0), Aggregate::Min(0), Aggregate::Max(0), Aggregate::Min(1), Aggregate::Max(1)],
    );
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let groups = [
        vec![-0.0, -0.0],
        vec![-0.0, 0.0],
        vec![nan, 3.0, 4.0],
        vec![nan, -nan],
        vec![inf, 1.0],
        vec![inf, -inf],
        vec![-inf, nan],
    ];
    let keys: Vec<i64> = (0..).zip(&groups).flat_map(|(key, values)| vec![key; values.len()]).collect();
    let values = groups.concat();
    let columns = [Column::F64(values.clone()), Column::F32(values.iter().map(|&value| value as f32).collect())];
    // Few rows, which are added up in shared memory, and many, which are not.
    for (times, groups) in [(1, None), (1, Some(100_000))] {
        let keys = keys.repeat(times);
        for (_, mut backend) in backends(8) {
            let (table, _) = run(&mut *backend, &spec, &keys, &columns, &Hints { groups, keys: None }).unwrap();
            check(&spec, &keys, &columns, &table);
            let [Column::F64(sums), Column::F64(least), Column::F64(most), ..] = &table.columns[..] else {
                panic!("types of outputs")
            };
            assert_eq!(sums[..2].iter().map(|sum| sum.to_bits()).collect::<Vec<_>>(), [0, 0], "sums of zeros");
            assert_eq!((least[1].to_bits(), most[1].to_bits()), ((-0.0f64).to_bits(), 0));
            assert_eq!((least[2], most[2]), (3.0, 4.0));
            assert!(least[3].is_nan() && most[3].is_nan() && sums[5].is_nan());
            assert_eq!((least[6], most[6]), (-inf, -inf));
        }
    }
}

#[test]
fn the_places_of_more_runs_than_a_block_has_threads_are_right() {
    let mut draw = Draw(10);
    for (runs, dense) in [(1u32, 0u32), (1023, 1023), (1024, 1), (1025, 1024), (5000, 3000)] {
        let counts: Vec<u32> = (0..runs).map(|_| draw.below(2049) as u32).collect();
        for (_, mut backend) in backends(u64::from(runs)) {
            let backend = &mut *backend;
            let module = backend.load(&program(&specs()[0])).unwrap();
            let kernel = backend.kernel(module, "aggregate_places").unwrap();
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            let (places, status) = (upload(backend, &bytes), upload(backend, &[0xff; 64]));
            let launch = Launch { grid: [1, 1, 1], block: [1024, 1, 1], shared_bytes: 0 };
            let number = |value: u32| Arg::Scalar(Scalar::U32(value));
            let args = [Arg::Slice(places), number(runs), number(dense), Arg::Slice(status)];
            backend.launch(Stream::Compute, kernel, &launch, &args).unwrap();
            let mut workspace = Workspace::default();
            let found: Vec<u32> =
                workspace.read(backend, places).unwrap().as_chunks().0.iter().map(|&place| u32::from_le_bytes(place)).collect();
            let sums: Vec<u32> = (0..runs as usize).map(|run| counts[..run].iter().sum()).collect();
            assert_eq!(found, sums);
            let words = workspace.read(backend, status).unwrap();
            let word = |index: usize| u64::from_le_bytes(words[index * 8..index * 8 + 8].try_into().unwrap());
            let all = |runs: u32| u64::from(counts[..runs as usize].iter().sum::<u32>());
            assert_eq!((word(2), word(3)), (all(dense), all(runs)));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |result: Result<AggregateSpec, ergate_gpu::GpuError>| {
        let error = result.unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        error.to_string()
    };
    assert!(refused(AggregateSpec::new([Dtype::U8], [Aggregate::Count])).contains("column 0 is u8"));
    assert!(refused(AggregateSpec::new([Dtype::F64], [Aggregate::Sum(1)])).contains("names column 1"));
    assert!(refused(AggregateSpec::new([], [])).contains("0 aggregates"));
    assert!(refused(AggregateSpec::new([Dtype::F64; 9], [Aggregate::Count])).contains("9 value columns"));
    for (_, mut backend) in backends(9) {
        let error = run(&mut *backend, &specs()[0], &[1, 2, 3], &[Column::F64(vec![1.0; 2])], &Hints::default()).unwrap_err();
        assert!(error.to_string().contains("column 0 have 16 bytes; 3 rows have 24"), "{error}");
        let error = run(&mut *backend, &specs()[0], &[1], &[], &Hints::default()).unwrap_err();
        assert!(error.to_string().contains("0 columns where 1 were named"), "{error}");
    }
}
