//! The built-in kinds of work through the owner of a device, with the kernels' own text: every byte of a payload and of a result.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use ergate_gpu::aggregate::{Aggregate, AggregateSettings, AggregateWork, Column, Operation, Table, ValueColumn};
use ergate_gpu::array::read;
use ergate_gpu::batch::Settings;
use ergate_gpu::figures::Figures;
use ergate_gpu::owner::{Owner, OwnerSettings, Submission};
use ergate_gpu::top_k::{MatrixSource, Metric, Search, Shape, TopKSettings, TopKWork};
use ergate_gpu::work::{HostTwin, Work};
use ergate_gpu::{Backend, Dtype};
use proptest::prelude::*;

use crate::data::{Draw, Keys, column, keys};
use crate::emulated::Emulated;
use crate::emulated::compile::compiler;
use crate::{aggregate, cases, top_k};

/// An owner of whatever can run kernels here, by name.
fn owners(seed: u64) -> Vec<(&'static str, Owner)> {
    let settings = OwnerSettings {
        memory_max: 256 << 20,
        staging_max: 64 << 20,
        open_max: 100,
        timeout: Duration::from_secs(120),
        load_timeout: Duration::from_secs(600),
    };
    let mut owners = Vec::new();
    if compiler().is_some() && std::env::var_os("ERGATE_EMULATED").is_none_or(|value| value != "0") {
        let open = move || Ok(Box::new(Emulated::new(seed)) as Box<dyn Backend>);
        owners.push(("emulated", Owner::start(settings, open, Box::new(|death| panic!("{death:?}"))).unwrap()));
    } else {
        eprintln!("note: there is no C++ compiler, or ERGATE_EMULATED=0: the kernels were not emulated");
    }
    #[cfg(feature = "cuda")]
    {
        let open = || Ok(Box::new(ergate_gpu::backend::Cuda::open(0, None)?) as Box<dyn Backend>);
        match Owner::start(settings, open, Box::new(|death| panic!("{death:?}"))) {
            Ok(owner) => owners.push(("cuda", owner)),
            Err(error) => eprintln!("note: the kernels were not run on a device: {error}"),
        }
    }
    owners
}

/// Runs payloads as one batch; their results in order, and what the owner says of it.
fn run(owner: &Owner, work: &Arc<dyn Work>, payloads: &[Vec<u8>]) -> (Vec<Vec<u8>>, Figures) {
    let (send, receive) = channel();
    for (index, payload) in payloads.iter().enumerate() {
        let send = send.clone();
        let answer = Box::new(move |answer| send.send((index, answer)).unwrap());
        let batching = Settings { size_max: payloads.len(), bytes_max: u64::MAX, delay_us: 60_000_000, weight: 1 };
        let (work, payload) = (Arc::clone(work), Arc::new(payload.clone()));
        owner.submit(Submission { kind: 0, batching, work, payload, alone: false, answer }).unwrap();
    }
    let mut results = vec![Vec::new(); payloads.len()];
    for _ in payloads {
        let (index, answer) = receive.recv_timeout(Duration::from_secs(600)).unwrap();
        assert_eq!(answer.provenance.batch_size, payloads.len());
        results[index] = answer.result.unwrap();
    }
    (results, owner.figures())
}

/// Settings of which every aggregate has a name; the spec that comes of them is that of `aggregate::specs`.
fn settings() -> Vec<AggregateSettings> {
    use Operation::{Count, Max, Min, Sum};
    let column = |name: &str, dtype, operations: &[Operation]| ValueColumn {
        name: name.to_owned(),
        dtype,
        operations: operations.to_vec(),
    };
    vec![
        AggregateSettings::new([]),
        AggregateSettings::new([column("a", Dtype::F64, &[Sum])]),
        AggregateSettings::new([column("a", Dtype::I64, &[Min, Max, Sum])]),
        AggregateSettings::new([column("a", Dtype::I32, &[Max, Count, Sum]), column("b", Dtype::F32, &[Min, Sum])]),
    ]
}

/// What a result says, read as it is documented.
fn table(work: &AggregateWork, result: &[u8]) -> Table {
    let spec = work.spec();
    let groups = u64::from_le_bytes(result[..8].try_into().unwrap()) as usize;
    let (keys, mut rest) = result[8..].split_at(groups * 8);
    let columns = (0..spec.aggregates().len()).map(|output| {
        let (mine, others) = rest.split_at(groups * spec.output(output).size() as usize);
        rest = others;
        Column::from_bytes(spec.output(output), mine).unwrap()
    });
    let table = Table { keys: read(keys).unwrap(), columns: columns.collect() };
    assert!(rest.is_empty(), "{} bytes more than {groups} groups have", rest.len());
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(8), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn aggregations_through_the_owner_agree_with_the_twin(
        which in 0..4usize,
        rows in prop::collection::vec(prop_oneof![proptest::sample::select(&[0usize, 1, 2, 31, 257, 2049, 4099]), 0..6000usize], 1..4),
        groups in 1..5000u64,
        far: bool,
        seed: u64,
    ) {
        let work = Arc::new(AggregateWork::new("rollup", settings().swap_remove(which)).unwrap());
        let spec = work.spec().clone();
        let mut draw = Draw(seed);
        let inputs: Vec<(Vec<i64>, Vec<Column>)> = rows.iter().map(|&rows| {
            let keys = keys(&mut draw, rows, if far { Keys::Far(groups) } else { Keys::Outliers(groups) });
            (keys, spec.columns().iter().map(|&dtype| column(&mut draw, rows, dtype, true)).collect())
        }).collect();
        let payloads: Vec<Vec<u8>> = inputs.iter().map(|(keys, columns)| {
            let keys = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
            std::iter::once(keys).chain(columns.iter().map(Column::to_bytes)).flatten().collect()
        }).collect();
        for (name, owner) in owners(seed) {
            let (results, figures) = run(&owner, &(Arc::clone(&work) as Arc<dyn Work>), &payloads);
            for ((keys, columns), (payload, result)) in inputs.iter().zip(payloads.iter().zip(&results)) {
                aggregate::check(&spec, keys, columns, &table(&work, result));
                let twin = work.twin(payload).unwrap();
                prop_assert_eq!(twin.len(), result.len(), "{}", name);
                let floats = spec.aggregates().iter().any(|one| matches!(one, Aggregate::Sum(column) if spec.columns()[*column].is_float()));
                if !floats && !spec.columns().iter().any(|dtype| dtype.is_float()) {
                    prop_assert_eq!(&twin, result, "{}", name);
                }
            }
            prop_assert_eq!((figures.memory_bytes, figures.batches), (0, 1), "{}", name);
        }
    }

    #[test]
    fn searches_through_the_owner_agree_with_the_true_scores(
        rows in prop_oneof![proptest::sample::select(&[0u64, 1, 7, 8, 9, 257, 1031]), 0..2000u64],
        columns in prop_oneof![proptest::sample::select(&[1u32, 3, 4, 31, 64, 127]), 1..130u32],
        queries in prop::collection::vec(1..3u32, 1..4),
        k in prop_oneof![1..=12u32, proptest::sample::select(&[33u32, 128])],
        bf16: bool,
        cosine: bool,
        small_tiles: bool,
        seed: u64,
    ) {
        let (kept, metric) = (if bf16 { Dtype::Bf16 } else { Dtype::F32 }, if cosine { Metric::Cosine } else { Metric::Dot });
        let mut draw = Draw(seed);
        let mut floats = |count: u64| (0..count).map(|_| draw.unit() as f32).collect::<Vec<f32>>();
        let matrix = floats(rows * u64::from(columns));
        let settings = TopKSettings {
            matrix: MatrixSource::Bytes(Arc::new(top_k::floats(&matrix))),
            digest: None,
            rows,
            columns,
            dtype: Dtype::F32,
            kept,
            metric,
            k,
            queries_max: 2,
            tile_bytes: small_tiles.then_some(1),
        };
        let work = Arc::new(TopKWork::new("search", settings).unwrap());
        let asked: Vec<Vec<f32>> = queries.iter().map(|&queries| floats(u64::from(queries * columns))).collect();
        let payloads: Vec<Vec<u8>> = asked.iter().map(|asked| top_k::floats(asked)).collect();
        let shape = Shape::new(rows, columns, kept, metric).unwrap();
        // As many as share the batch: several are looked for by a matrix product.
        let search = Search::new(queries.iter().sum(), k).unwrap();
        for (name, owner) in owners(seed) {
            let (results, figures) = run(&owner, &(Arc::clone(&work) as Arc<dyn Work>), &payloads);
            for (asked, result) in asked.iter().zip(&results) {
                let queries = asked.len() / columns as usize;
                let (found, scores) = result.split_at(queries * k as usize * 8);
                let (found, scores) = (read::<i64>(found).unwrap(), read::<f32>(scores).unwrap());
                prop_assert_eq!(scores.len(), queries * k as usize, "{}", name);
                for (query, asked) in asked.chunks_exact(columns as usize).enumerate() {
                    let part = query * k as usize..(query + 1) * k as usize;
                    top_k::check(&shape, &search, &matrix, asked, &found[part.clone()], &scores[part]);
                }
            }
            prop_assert_eq!(figures.memory_bytes, figures.resident.bytes, "{}", name);
            // Alone, the same scores to the last bit for the rows that are found both times.
            let (alone, _) = run(&owner, &(Arc::clone(&work) as Arc<dyn Work>), &payloads[..1]);
            let size = k as usize * (asked[0].len() / columns as usize);
            let [one, other] = [&alone[0], &results[0]].map(|result| (read::<i64>(&result[..size * 8]).unwrap(), read::<u32>(&result[size * 8..]).unwrap()));
            for place in 0..size {
                let query = place / k as usize * k as usize;
                if let Some(at) = (query..query + k as usize).find(|&at| other.0[at] == one.0[place]) {
                    prop_assert_eq!(one.1[place], other.1[at], "{}: the score of row {}", name, one.0[place]);
                }
            }
        }
    }
}
