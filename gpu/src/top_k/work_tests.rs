//! Searches through the owner of a device, on the host and with faults.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::array::{bytes_of, read};
use crate::backend::fault::{Call, Fault, Faults};
use crate::bench::{Bench, SETTINGS, bytes, get, hex};
use crate::owner::OwnerSettings;
use crate::top_k::{MatrixSource, Metric};
use crate::work::{HostTwin, Work};
use crate::{Class, Digest, Dtype, GpuError, Sticky};

fn search(settings: impl FnOnce(&mut TopKSettings)) -> Result<TopKWork, GpuError> {
    // Whole numbers: every sum is exact, so that every answer is bit by bit the twin's.
    let matrix: Vec<f32> = (0..50 * 3).map(|index| ((index * 7919) % 23) as f32 - 11.0).collect();
    let mut all = TopKSettings {
        matrix: MatrixSource::Bytes(Arc::new(bytes_of(&matrix).to_vec())),
        digest: None,
        rows: 50,
        columns: 3,
        dtype: Dtype::F32,
        kept: Dtype::F32,
        metric: Metric::Dot,
        k: 4,
        queries_max: 10,
        tile_bytes: None,
    };
    settings(&mut all);
    TopKWork::new("search", all)
}

pub(crate) fn searching(settings: impl FnOnce(&mut TopKSettings)) -> (Arc<dyn Work>, Arc<TopKWork>) {
    let work = Arc::new(search(settings).unwrap());
    (Arc::clone(&work) as Arc<dyn Work>, work)
}

/// The example of the module's documentation.
#[test]
fn a_search_is_as_documented_in_bytes() {
    let matrix = bytes_of(&[1f32, 0.0, 0.0, 1.0, 2.0, 2.0]).to_vec();
    let (work, twin) = searching(|settings| {
        settings.matrix = MatrixSource::Bytes(Arc::new(matrix));
        (settings.rows, settings.columns, settings.k) = (3, 2, 2);
    });
    let payload = hex("00 00 80 3f  00 00 00 40");
    let result = hex("02 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  00 00 c0 40  00 00 00 40");
    assert_eq!(twin.twin(&payload), Ok(result.clone()));
    assert_eq!(bytes(&Bench::new(Faults::default()).submit(&work, &payload)), result);
}

#[test]
fn queries_of_several_attempts_are_one_search() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = searching(|_| ());
    let payloads = [1usize, 2, 1, 5].map(|queries| {
        let values: Vec<f32> = (0..queries * 3).map(|index| (index * queries) as f32 - 4.0).collect();
        bytes_of(&values).to_vec()
    });
    let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
    for (payload, answer) in payloads.iter().zip(&answers) {
        let answer = get(answer);
        assert_eq!((answer.provenance.batch_size, answer.result), (4, twin.twin(payload)));
    }
    // The matrix in one part; queries, a product, its best, twice merged and once scored again, results.
    assert_eq!((bench.faults.calls(Call::Gemm), bench.faults.calls(Call::Launch)), (1, 1 + 6));
    let alone = bytes(&bench.submit(&work, &payloads[0]));
    assert_eq!((Ok(alone), bench.faults.calls(Call::Gemm)), (twin.twin(&payloads[0]), 1));
    let figures = bench.figures();
    assert_eq!((figures.resident.hits, figures.resident.misses, figures.modules), (1, 1, 1));
    assert!(figures.resident.bytes >= 50 * 16 && figures.memory_bytes == figures.resident.bytes, "{figures:?}");
}

#[test]
fn queries_that_are_wrong_are_refused_by_name_and_place() {
    let bench = Bench::new(Faults::default());
    let (work, twin) = searching(|settings| settings.queries_max = 2);
    for (values, cut, says) in [
        (vec![1f32; 3], 1, "payload of search: 11 bytes are no whole number of queries of 3 f32, which have 12 bytes"),
        (vec![], 0, "payload of search: 0 queries; give 1 to 2"),
        (vec![1f32; 9], 0, "payload of search: 3 queries; give 1 to 2"),
        (vec![1.0, 2.0, 3.0, 4.0, f32::NAN, 5.0], 0, "query 1, value 1 (both from 0) is NaN or infinite"),
        (vec![1.0, 2.0, f32::NEG_INFINITY], 0, "query 0, value 2 (both from 0) is NaN or infinite"),
    ] {
        let payload = &bytes_of(&values)[..values.len() * 4 - cut];
        let refused = bench.try_submit(0, &work, payload.to_vec(), false).unwrap_err();
        assert!(refused.class() == Class::Refused && refused.to_string().contains(says), "{refused}");
        assert_eq!(twin.twin(payload), Err(refused));
    }
    assert_eq!(bench.faults.calls(Call::Alloc), 0);
}

#[test]
fn a_matrix_that_is_wrong_is_refused_by_name_and_place() {
    let with = |values: Vec<f32>| {
        move |settings: &mut TopKSettings| settings.matrix = MatrixSource::Bytes(Arc::new(bytes_of(&values).to_vec()))
    };
    let (mut nan, short) = (vec![1f32; 150], vec![1f32; 149]);
    nan[37] = f32::NAN;
    type Change = Box<dyn FnOnce(&mut TopKSettings)>;
    let table: Vec<(Change, &str)> = vec![
        (Box::new(with(nan.clone())), "row 12, column 1 (both from 0) is NaN or infinite"),
        (Box::new(with(short)), "has 596 bytes; 50 rows of 3 f32 have 600"),
        (Box::new(|settings| settings.matrix = MatrixSource::File("/nowhere/m.f32".into())), "/nowhere/m.f32: No such file"),
        (Box::new(|settings| settings.dtype = Dtype::F64), "a matrix of f64"),
        (Box::new(|settings| settings.kept = Dtype::F16), "a matrix kept in f16"),
        (Box::new(|settings| settings.columns = 0), "rows of 0 values"),
        (Box::new(|settings| settings.k = 129), "k is 129"),
        (Box::new(|settings| settings.queries_max = 0), "0 queries; give 1 to"),
    ];
    for (change, says) in table {
        let error = search(change).unwrap_err();
        assert!(error.class() == Class::Refused && error.to_string().contains(says), "{says}: {error}");
    }
    // One whose digest is given is read when it is filled, and its attempts are told so once each.
    let named = Digest::of(bytes_of(&nan));
    let (work, twin) = searching(|settings| {
        with(nan)(settings);
        settings.digest = Some(named);
    });
    let bench = Bench::new(Faults::default());
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    let answers = [bench.submit(&work, &query), bench.submit(&work, &query)];
    for answer in &answers {
        let answer = get(answer);
        let error = answer.result.unwrap_err();
        assert!(error.to_string().contains("row 12, column 1"), "{error}");
        assert_eq!(
            (answer.provenance.batch_size, twin.twin(&query)),
            (2, Err(error)),
            "what is wrong with all is not tried again"
        );
    }
    assert_eq!(bench.figures().memory_bytes, 0);
}

#[test]
fn a_file_that_changed_is_told_and_one_that_did_not_is_read_again_after_eviction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.f32");
    let values: Vec<f32> = (0..150).map(|index| (index % 11) as f32).collect();
    std::fs::write(&path, bytes_of(&values)).unwrap();
    let from = |settings: &mut TopKSettings| settings.matrix = MatrixSource::File(path.clone());
    let (work, twin) = searching(from);
    assert_eq!(twin.matrix_digest(), Digest::of(bytes_of(&values)));
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    // Two matrices do not fit beside each other and a batch: each makes room for the other.
    let bench = Bench::with(Faults::default(), OwnerSettings { memory_max: 7500, ..SETTINGS });
    let (other, other_twin) = searching(|_| ());
    for round in 0..3 {
        assert_eq!(get(&bench.submit(&work, &query)).result, twin.twin(&query), "round {round}");
        assert_eq!(get(&bench.submit(&other, &query)).result, other_twin.twin(&query), "round {round}");
    }
    let counters = bench.figures().resident;
    assert_eq!((counters.hits, counters.misses, counters.evictions), (0, 6, 5), "{counters:?}");
    assert!(bench.figures().memory_high_bytes <= 7500);
    std::fs::write(&path, bytes_of(&[1f32; 150])).unwrap();
    let error = get(&bench.submit(&work, &query)).result.unwrap_err();
    assert!(error.class() == Class::Refused && error.to_string().contains("m.f32 has the digest"), "{error}");
    assert_eq!(get(&bench.submit(&other, &query)).result, other_twin.twin(&query), "the device is sound");
}

#[test]
fn kinds_of_work_with_one_matrix_share_it() {
    let bench = Bench::new(Faults::default());
    let (four, _) = searching(|_| ());
    let (two, twin) = searching(|settings| settings.k = 2);
    let (bf16, bf16_twin) = searching(|settings| settings.kept = Dtype::Bf16);
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    bytes(&bench.submit(&four, &query));
    assert_eq!(get(&bench.submit(&two, &query)).result, twin.twin(&query));
    let figures = bench.figures();
    assert_eq!((figures.resident.misses, figures.resident.hits), (1, 1));
    assert_eq!(get(&bench.submit(&bf16, &query)).result, bf16_twin.twin(&query));
    assert_eq!(bench.figures().resident.misses, 2, "kept otherwise it is another");
}

#[test]
fn a_matrix_that_does_not_fit_is_refused_at_once_and_one_that_finds_no_memory_is_tried_again() {
    let small = Bench::with(Faults::default(), OwnerSettings { memory_max: 2000, ..SETTINGS });
    let (work, twin) = searching(|_| ());
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    let error = small.try_submit(0, &work, query.clone(), false).unwrap_err();
    assert!(error.class() == Class::OutOfMemory && error.to_string().contains("it keeps on the device"), "{error}");
    for nth in 1..=3 {
        let bench = Bench::new(Faults::default().at(Call::Alloc, nth, Fault::OutOfMemory));
        assert_eq!(get(&bench.submit(&work, &query)).result, twin.twin(&query), "allocation {nth}");
        let figures = bench.figures();
        assert_eq!(figures.memory_bytes, figures.resident.bytes, "allocation {nth}");
    }
}

#[test]
fn what_a_batch_itself_searches_makes_no_room_for_it() {
    let (work, twin) = searching(|settings| settings.queries_max = 100);
    let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
    // As much as the matrix and one query take: four take more.
    let probe = Bench::new(Faults::default());
    bytes(&probe.submit(&work, &query));
    let bench = Bench::with(Faults::default(), OwnerSettings { memory_max: probe.figures().memory_high_bytes + 512, ..SETTINGS });
    assert_eq!(get(&bench.submit(&work, &query)).result, twin.twin(&query));
    let many = bytes_of(&[2f32; 3 * 4]).to_vec();
    let error = get(&bench.submit(&work, &many)).result.unwrap_err();
    assert!(error.class() == Class::OutOfMemory && error.to_string().contains("a batch of 1 of search"), "{error}");
    assert_eq!((bench.figures().resident.evictions, bench.figures().resident.misses), (0, 1));
    assert_eq!(get(&bench.submit(&work, &query)).result, twin.twin(&query));
}

#[test]
fn a_matrix_of_many_parts_is_filled_in_its_order() {
    // Thirty parts of 32 KiB, as it is in tests: rows that do not fill them evenly.
    let (rows, columns) = (301u64, 791u32);
    let values: Vec<f32> = (0..rows * u64::from(columns)).map(|index| (index * index % 13) as f32 - 6.0).collect();
    let source = MatrixSource::Bytes(Arc::new(bytes_of(&values).to_vec()));
    for seed in 0..8 {
        let (work, twin) = searching(|settings| {
            settings.matrix = source.clone();
            (settings.rows, settings.columns, settings.k) = (rows, columns, 128);
        });
        let query = bytes_of(&values[..columns as usize]).to_vec();
        assert_eq!(get(&Bench::lazy(seed).submit(&work, &query)).result, twin.twin(&query));
    }
}

#[test]
fn a_device_that_dies_while_a_matrix_is_filled_answers_everybody() {
    for (call, fault) in [(Call::CopyIn, Fault::Sticky(Sticky::Hardware)), (Call::Launch, Fault::Sticky(Sticky::LaunchFailed))] {
        let bench = Bench::new(Faults::default().at(call, 1, fault));
        let (work, _) = searching(|_| ());
        let query = bytes_of(&[1f32, 2.0, 3.0]).to_vec();
        let waiting = bench.waits(&work, &query);
        let culprit = bench.try_submit(0, &work, query.clone(), true).unwrap().1;
        assert_eq!(get(&culprit).result.unwrap_err().class(), Class::Sticky);
        assert_eq!(get(&waiting).result.unwrap_err().class(), Class::Returned);
        assert_eq!(bench.deaths.lock().unwrap().len(), 1);
    }
    // One that hangs has the time that loading has, and no more.
    let bench = Bench::with(
        Faults::default().at(Call::CopyIn, 1, Fault::Hang),
        OwnerSettings { load_timeout: Duration::from_millis(300), ..SETTINGS },
    );
    let (work, _) = searching(|_| ());
    let culprit = bench.try_submit(0, &work, bytes_of(&[1f32, 2.0, 3.0]).to_vec(), true).unwrap().1;
    assert!(matches!(get(&culprit).result, Err(GpuError::Sticky { sticky: Sticky::Hung { .. }, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn searches_of_any_shape_are_those_of_the_twin(
        rows in prop_oneof![Just(0u64), Just(1), Just(7), Just(8), Just(1031), 0..300u64],
        columns in prop_oneof![Just(1u32), Just(3), Just(31), 1..40u32],
        k in prop_oneof![1..12u32, Just(128)],
        queries in prop::collection::vec(1..4usize, 1..5),
        bf16: bool,
        source_bf16: bool,
        tiles: bool,
        lazy: bool,
        seed: u32,
    ) {
        let whole = |index: usize| ((index as u32).wrapping_mul(2_654_435_761) ^ seed).wrapping_mul(40_503) >> 20 & 7;
        let values: Vec<f32> = (0..rows as usize * columns as usize).map(|index| whole(index) as f32 - 3.0).collect();
        let bytes = if source_bf16 {
            values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect()
        } else {
            bytes_of(&values).to_vec()
        };
        let (work, twin) = searching(|settings| {
            settings.matrix = MatrixSource::Bytes(Arc::new(bytes));
            (settings.rows, settings.columns, settings.k) = (rows, columns, k);
            (settings.kept, settings.tile_bytes) = (if bf16 { Dtype::Bf16 } else { Dtype::F32 }, tiles.then_some(1));
            settings.dtype = if source_bf16 { Dtype::Bf16 } else { Dtype::F32 };
        });
        let bench = if lazy { Bench::lazy(seed.into()) } else { Bench::new(Faults::default()) };
        let payloads: Vec<Vec<u8>> = queries.iter().enumerate().map(|(salt, queries)| {
            let values: Vec<f32> = (0..queries * columns as usize).map(|index| whole(index + 7 * salt) as f32 - 2.0).collect();
            bytes_of(&values).to_vec()
        }).collect();
        let answers: Vec<_> = payloads.iter().map(|payload| bench.submit(&work, payload)).collect();
        for (payload, answer) in payloads.iter().zip(&answers) {
            let (result, wanted) = (get(answer).result.unwrap(), twin.twin(payload).unwrap());
            let rows = payload.len() / (columns as usize * 4) * k as usize * 8;
            prop_assert_eq!(read::<i64>(&result[..rows]), read::<i64>(&wanted[..rows]));
            for (one, two) in read::<f32>(&result[rows..]).unwrap().iter().zip(read::<f32>(&wanted[rows..]).unwrap()) {
                prop_assert!(*one == two || (one.is_nan() && two.is_nan()));
            }
        }
    }
}
