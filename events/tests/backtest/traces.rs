//! Readers of traces: every format, and what is wrong with a line.

use ergate_events::backtest::bounds;
use ergate_events::backtest::trace::{Format, ServiceModel, Trace, TraceError, read};
use ergate_events::time::{Micros, Timestamp};

use crate::support::published;

fn good(text: &str) -> Trace {
    read(text, ServiceModel::AZURE).unwrap()
}

fn tasks(trace: &Trace) -> Vec<(u64, u64, u8)> {
    trace.arrivals.tasks().iter().map(|task| (task.at.0, task.service.0, task.priority)).collect()
}

#[test]
fn our_own_tables_are_counted_from_the_earliest() {
    let trace = good("\u{feff}service_s, priority ,arrival_s\r\n1.5,7,12.25\r\n\r\n0,0,10\r\n");
    assert_eq!((trace.format, trace.skipped), (Format::Csv, 0));
    assert_eq!(tasks(&trace), [(0, 0, 0), (2_250_000, 1_500_000, 7)]);
    assert_eq!(tasks(&good("arrival_s,service_s\n5,1\n")), [(0, 1_000_000, 4)]);
    assert!(good("arrival_s,service_s\n").arrivals.is_empty());
}

#[test]
fn azure_has_dates_and_tokens() {
    let text =
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,100\n";
    let trace = good(text);
    assert_eq!((trace.format, trace.arrivals.began()), (Format::Azure, Timestamp(1_700_158_623_979_960)));
    // 0.2 ms × 4808 + 20 ms × 10, and 0.2 ms × 3180 + 20 ms × 100.
    assert_eq!(tasks(&trace), [(0, 1_161_600, 4), (52_000, 2_636_000, 4)]);
    let model = ServiceModel { context: Micros(0), generated: Micros(1), least: Micros(50) };
    let trace = read(text, model).unwrap();
    assert_eq!(tasks(&trace), [(0, 50, 4), (52_000, 100, 4)]);
}

#[test]
fn alibaba_leaves_out_what_never_ran() {
    let text = "id,gmt_create,\"exec_time_seconds\",loras\n1,2024-11-15 00:00:03,28.7,\"a,b\"\n2,2024-11-15 00:00:05,,\n3,2024-11-15 00:00:04,3,\"\"\n";
    let trace = good(text);
    assert_eq!((trace.format, trace.skipped), (Format::Alibaba, 1));
    assert_eq!(tasks(&trace), [(0, 28_700_000, 4), (1_000_000, 3_000_000, 4)]);
    assert_eq!(tasks(&good("gmt_create,exec_time_seconds\n1000,2\n1001.5,2\n"))[1], (1_500_000, 2_000_000, 4));
}

#[cfg(feature = "json")]
#[test]
fn json_lines_are_ours_or_mooncakes() {
    let trace =
        good("{\"arrival_s\": 3, \"service_s\": 0.5, \"priority\": 9}\n{\"service_s\": 1, \"arrival_s\": 1, \"who\": \"x\"}\n");
    assert_eq!(trace.format, Format::Ndjson);
    assert_eq!(tasks(&trace), [(0, 1_000_000, 4), (2_000_000, 500_000, 9)]);
    let trace = good("{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n");
    assert_eq!((trace.format, tasks(&trace)), (Format::Mooncake, vec![(0, 2_431_000, 4)]));
    for (text, part) in [
        ("{\"arrival_s\": 1}", "line 1: service_s is missing"),
        ("{\"arrival_s\": -1, \"service_s\": 1}", "line 1: arrival_s is \"-1\"; expected 0 or more"),
        ("{\"timestamp\": 1, \"input_length\": 1}", "line 1: output_length is missing"),
        ("{\"arrival_s\": 1, \"service_s\": 1}\n[1]", "line 2: "),
        ("{\"arrival_s\": 1, \"service_s\": 1}\n{", "line 2: "),
    ] {
        let error = read(text, ServiceModel::AZURE).unwrap_err().to_string();
        assert!(error.starts_with(part), "{text}: {error}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, expected) in [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        ("a,b\n1,2\n", "its first line is that of no known format"),
        ("arrival_s,service_s\n1\n", "line 2: service_s is missing"),
        ("arrival_s,service_s\n1,x\n", "line 2: service_s is \"x\"; expected a number of seconds, 0 or more"),
        ("arrival_s,service_s\n\n1,-1\n", "line 3: service_s is \"-1\""),
        ("arrival_s,service_s\nnan,1\n", "line 2: arrival_s is \"nan\""),
        ("arrival_s,service_s,priority\n1,1,10\n", "task 1: priority 10 is not in 0 to 9"),
        ("arrival_s,service_s,priority\n1,1,-1\n", "line 2: priority is \"-1\"; expected 0 to 9"),
        ("arrival_s,service_s\n1,1e30\n", "task 1: a service time of "),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n",
            "line 2: TIMESTAMP is \"yesterday\"; expected a date and a time",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1.5,1\n", "line 2: ContextTokens is \"1.5\""),
    ] {
        let error = read(text, ServiceModel::AZURE).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    let long = format!("arrival_s,service_s\n{}", "1".repeat(2 << 20));
    assert_eq!(read(&long, ServiceModel::AZURE), Err(TraceError::LongLine { line: 2 }));
}

#[test]
fn the_published_hour_has_its_known_bounds() {
    let Some(arrivals) = published("conv.csv") else { return };
    let hours = |span: Micros| (span.0 as f64 / 3.6e8).round() / 10.0;
    assert_eq!(arrivals.len(), 19_366);
    assert_eq!(hours(bounds::work_floor(&arrivals, 1)), 24.0);
    assert_eq!(hours(bounds::zero_wait(&arrivals, 1, Micros::from_secs(60)).optimum), 37.7);
}
