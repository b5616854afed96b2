//! Records to requests: ns a record, one thread, no broker.

use criterion::{Criterion, criterion_group, criterion_main};
use ergate::events::time::Timestamp;
use ergate::request::{Record, parse};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Headers of a record.
type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// The least that has to be read.
#[derive(Deserialize)]
#[allow(dead_code, reason = "reading it is what is measured")]
struct Bare<'a> {
    #[serde(rename = "type", borrow)]
    task_type: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

const EVENT: Headers<'_> = &[
    ("ce_specversion", Some(b"1.0")),
    ("ce_type", Some(b"thumbnail")),
    ("ce_id", Some(b"6f1c2a3e")),
    ("ce_source", Some(b"/shop")),
    ("ce_idempotencykey", Some(b"a.png@3")),
    ("content-type", Some(b"application/json")),
];
const TRACE: Headers<'_> = &[("traceparent", Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))];
const STRUCTURED: Headers<'_> = &[("content-type", Some(b"application/cloudevents+json"))];

fn request(criterion: &mut Criterion) {
    let usual =
        br#"{"type":"thumbnail","payload":{"path":"images/2026/a.png","width":200,"height":100,"crop":true,"tags":["a","b"]}}"#;
    let keyed = br#"{"type":"thumbnail","payload":{"path":"images/2026/a.png","width":200},"key":"a.png@3","priority":7}"#;
    let event =
        br#"{"specversion":"1.0","type":"thumbnail","id":"6f1c2a3e","source":"/shop","data":{"path":"images/2026/a.png"}}"#;
    let mut large = br#"{"type":"thumbnail","payload":{"items":[0"#.to_vec();
    (0..20_000).for_each(|number| large.extend_from_slice(format!(",{number}").as_bytes()));
    large.extend_from_slice(b"]}}");
    let records: [(&str, &[u8], Headers<'_>); 7] = [
        ("plain, type and 100-byte payload", usual, &[]),
        ("plain with a trace in a header", usual, TRACE),
        ("plain with a key and a priority", keyed, &[]),
        ("CloudEvent, binary, with a key", br#"{"path":"images/2026/a.png"}"#, EVENT),
        ("CloudEvent, structured", event, STRUCTURED),
        ("refused: a slip in a name", br#"{"type":"thumbnail","priorty":7}"#, &[]),
        ("plain, 110 KB payload", &large, &[]),
    ];
    let mut group = criterion.benchmark_group("request");
    for (name, value, headers) in records {
        let record = Record { key: Some(b"a.png"), value: Some(value), headers };
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(std::hint::black_box(&record), Timestamp(1_767_225_600_000_000)))
        });
    }
    group.bench_function("floor: serde_json takes the usual record apart, and nothing is checked", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Bare<'_>>(std::hint::black_box(usual)).expect("it is JSON"));
    });
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
