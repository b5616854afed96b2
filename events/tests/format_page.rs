//! Holds `docs/log-format.md` against the code: its tables against the declarations, its worked log against the codec.

use std::fmt::Write;

use ergate_events::block::{Block, Hash};
use ergate_events::codec::v1;
use ergate_events::command::Command;
use ergate_events::event::{Envelope, RuleVersions, hex};
use ergate_events::id::{Ordinal, ReplicaId, ShardId, TypeId};
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::task::{Ask, IdempotencyKey, Outcome, TypeSettings};
use ergate_events::time::Timestamp;

const PAGE: &str = include_str!("../../docs/log-format.md");
const SOURCES: [&str; 9] = [
    include_str!("../src/event.rs"),
    include_str!("../src/task.rs"),
    include_str!("../src/limit.rs"),
    include_str!("../src/schedule.rs"),
    include_str!("../src/worker.rs"),
    include_str!("../src/scaling/signal.rs"),
    include_str!("../src/scaling/usage.rs"),
    include_str!("../src/resources.rs"),
    include_str!("../src/ran.rs"),
];
const STRUCTURES: [&str; 19] = [
    "RuleVersions",
    "TypeSettings",
    "RetryPolicy",
    "Timeouts",
    "IdempotencyKey",
    "Failure",
    "ShardReading",
    "LimitSettings",
    "Rate",
    "ScheduleSettings",
    "Label",
    "WorkerFacts",
    "ReplicaReading",
    "Used",
    "PoolResources",
    "Asked",
    "Ceiling",
    "Ran",
    "CudaVersion",
];
const ENUMERATIONS: [&str; 15] = [
    "Outcome",
    "Cause",
    "Timeout",
    "Departure",
    "Ask",
    "Dependency",
    "OnFailure",
    "When",
    "CatchUp",
    "Overlap",
    "PassedOver",
    "PoolMode",
    "Reading",
    "Value",
    "Stage",
];

/// The items between the braces of a declaration, without attributes and comments.
fn items(kind: &str, name: &str) -> Vec<String> {
    let heads = [" {\n", "<'a> {\n"].map(|end| format!("pub {kind} {name}{end}"));
    let mut places = SOURCES.iter().flat_map(|source| heads.iter().filter_map(|head| source.split_once(head.as_str())));
    let (_, rest) = places.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    let (body, _) = rest.split_once("\n}\n").expect("a declaration ends");
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with("#["));
    split(&lines.collect::<Vec<_>>().join(" "))
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        depth += i32::from("({[<".contains(c)) - i32::from(")}]>".contains(c));
        match items.last_mut() {
            Some(item) if c != ',' || depth > 0 => item.push(c),
            Some(_) | None => items.push(String::new()),
        }
    }
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// A Rust type as the page calls it.
fn page_type(rust: &str) -> String {
    let inner = |prefix: &str| rust.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>')).map(page_type);
    if rust == "Cow<'a, str>" {
        return "text".to_owned();
    }
    if let Some(inner) = inner("Box<") {
        return inner;
    }
    if let Some(inner) = inner("Option<") {
        return format!("optional {inner}");
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {inner}");
    }
    match rust.trim_end_matches("<'a>") {
        "&'a str" | "String" => "text",
        "&'a [u8]" => "bytes",
        "Digest" | "WorkerId" => "16 bytes",
        "KernelDigest" => "32 bytes",
        "Timestamp" => "time",
        "Micros" => "span",
        "Ordinal" | "Position" => "u64",
        "Epoch" | "ReplicaId" => "u32",
        "TypeId" | "PoolId" | "ShardId" | "LimitId" | "ScheduleId" => "u16",
        "Real" => "f64",
        known @ ("u8" | "u16" | "u32" | "u64" | "i64" | "bool") => known,
        named if STRUCTURES.contains(&named) || ENUMERATIONS.contains(&named) => named,
        unknown => panic!("the page has no word for {unknown}"),
    }
    .to_owned()
}

/// Fields with their types: `name: type, …`.
fn fields(items: &[String]) -> String {
    let field = |item: &String| {
        let (name, rust) = item.trim_start_matches("pub ").split_once(": ").expect("a field has a type");
        format!("{name}: {}", page_type(rust))
    };
    items.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// Names and fields of all events in the order of their numbers.
fn events() -> Vec<(String, String)> {
    let event = |item: &String| {
        let (name, body) = item.split_once(" {").expect("every event has fields");
        (snake(name), fields(&split(body.trim_end_matches('}'))))
    };
    items("enum", "Event").iter().map(event).collect()
}

/// A variant with what it holds: `Name` or `Name(type, …)`.
fn variant(item: &str) -> String {
    let Some((name, body)) = item.split_once('(') else { return item.to_owned() };
    let types: Vec<String> = split(body.trim_end_matches(')')).iter().map(|rust| page_type(rust)).collect();
    format!("{name}({})", types.join(", "))
}

fn tables() -> [String; 3] {
    let mut tables = ["| number | name | fields in order |\n|---|---|---|\n", "", ""].map(str::to_owned);
    for (number, (name, fields)) in events().iter().enumerate() {
        writeln!(tables[0], "| {number} | `{name}` | {fields} |").expect("a text takes it");
    }
    for name in STRUCTURES {
        writeln!(tables[1], "| `{name}` | {} |", fields(&items("struct", name))).expect("a text takes it");
    }
    for name in ENUMERATIONS {
        let variants = items("enum", name);
        let variants = variants.iter().enumerate().map(|(number, item)| format!("{number} `{}`", variant(item)));
        writeln!(tables[2], "| `{name}` | {} |", variants.collect::<Vec<_>>().join(", ")).expect("a text takes it");
    }
    tables
}

#[test]
fn the_tables_of_the_page_are_the_declarations_of_the_code() {
    for table in tables() {
        assert!(PAGE.contains(&table), "docs/log-format.md should have this table:\n{table}");
    }
}

#[test]
fn every_event_is_encoded_under_the_number_that_the_page_gives() {
    let mut bytes: &[u8] = include_bytes!("../../tests/fixtures/v4/log.blocks");
    let mut missing: Vec<String> = events().into_iter().map(|(name, _)| name).collect();
    let names = missing.clone();
    while !bytes.is_empty() {
        let block = Block::parse(bytes).expect("a frozen block can be read");
        for envelope in block.records() {
            let event = envelope.expect("a frozen record can be read").event;
            let mut record = Vec::new();
            v1::encode(0, &event, &mut record);
            assert_eq!(names[usize::from(record[1])], event.name());
            missing.retain(|name| name != event.name());
        }
        bytes = &bytes[block.header.block_len()..];
    }
    assert!(missing.is_empty(), "no frozen log has {missing:?}");
}

/// What stands between the first fence after a heading and its end.
fn fenced(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n### {heading}")).expect("the page has the heading");
    let (_, rest) = rest.split_once("\n```").and_then(|(_, rest)| rest.split_once('\n')).expect("a fence follows it");
    rest.split_once("```").expect("the fence ends").0
}

/// The bytes of a worked block; every line says where its bytes stand.
fn worked(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in fenced(&format!("Block {number}:")).lines() {
        let (offset, rest) = line.split_once(": ").expect("a line begins with its offset");
        assert_eq!(offset.trim().parse(), Ok(bytes.len()), "{line}");
        let (digits, _) = rest.split_once(';').unwrap_or((rest, ""));
        bytes.extend(digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits a byte")));
    }
    bytes
}

#[test]
fn the_worked_log_is_read_as_the_records_that_the_page_lists() {
    let mut lines = fenced("The records of all three").lines();
    let mut head = Hash::ZERO;
    for number in 1..=3 {
        let bytes = worked(number);
        let block = Block::parse(&bytes).expect("the worked block can be read");
        assert_eq!((block.header.block_len(), block.header.previous), (bytes.len(), head));
        for envelope in block.records() {
            let envelope = envelope.expect("the worked record can be read");
            assert_eq!(lines.next(), serde_json::to_string(&envelope).ok().as_deref());
        }
        head = block.hash();
        let (_, rest) = PAGE.split_once(&format!("\n### Block {number}:")).expect("the page has the block");
        assert!(rest.contains(&format!("\nHash: `{head}`\n")), "the hash of block {number} is {head}");
    }
    assert_eq!(lines.next(), None);
}

#[cfg(feature = "json")]
#[test]
fn the_worked_json_is_the_block_and_gives_its_hash() {
    use ergate_events::json::{decode, encode};
    let block = Block::parse(&worked(2)).expect("the worked block can be read");
    let page = fenced("Block 2 as JSON").replace('\n', "");
    let mut json = Vec::new();
    encode(&block, block.hash(), &mut json).expect("the worked records can be read");
    assert_eq!(page, String::from_utf8(json).expect("JSON is UTF-8"));
    let (read, hash) = decode(page.as_bytes()).expect("the JSON of the page is a block");
    assert_eq!((read.hash(), hash), (block.hash(), block.hash()));
    let (_, rest) =
        PAGE.split_once("What the hash is over, as it follows from that:\n\n```text\n").expect("the page lists the bytes");
    let lines = rest.split_once("```").expect("the fence ends").0.lines();
    let digits = lines.flat_map(|line| line.split(';').next().unwrap_or(line).split_whitespace());
    let bytes: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).expect("two digits a byte")).collect();
    assert_eq!(bytes[72..], worked(2)[88..], "the body");
    assert_eq!(Hash(*blake3::hash(&bytes).as_bytes()), hash);
}

#[cfg(feature = "json")]
#[test]
fn the_page_lists_the_fields_of_a_block_as_json() {
    let block = Block::parse(&worked(1)).expect("the worked block can be read");
    let mut json = Vec::new();
    ergate_events::json::encode(&block, block.hash(), &mut json).expect("the worked records can be read");
    let (_, section) = PAGE.split_once("\n## Blocks as JSON\n").expect("the page has the section");
    let table = section.split("\n\n").find(|part| part.starts_with("| field |")).expect("a table follows");
    let listed: Vec<&str> = table.lines().skip(2).filter_map(|row| row.split('`').nth(1)).collect();
    let json = String::from_utf8(json).expect("JSON is UTF-8");
    let (head, _) = json.split_once("\"events\":").expect("there are events");
    let found: Vec<&str> = head.split(",\"").filter_map(|field| field.trim_start_matches("{\"").split('"').next()).collect();
    assert_eq!(listed, [&found[..], &["events"]].concat());
}

#[test]
fn the_worked_log_is_what_a_shard_writes() {
    let (mut shard, mut answers) = (Shard::new(ShardId(0), State::default()), Vec::new());
    let mut nothing = |_: &Envelope<'_>, _: &State| {};
    let (settings, replica) = (TypeSettings::default(), ReplicaId(0));
    let at = |micros: u64| Timestamp(1_772_366_400_000_000 + micros);
    let setup = [
        Command::Open { rules: RuleVersions::CURRENT, writer: "me" },
        Command::DefineType { name: "greet", settings: &settings, by: "me" },
        Command::JoinReplica { replica, pool: "default", slots: 2 },
    ];
    shard.batch(at(0), &setup, &mut answers, &mut nothing);
    let first = shard.seal(Hash::ZERO).expect("there are records");
    let key = Some(IdempotencyKey { key: "k1", window: None });
    let request = Command::Request { task_type: TypeId(0), payload: b"\"Ada\"", key, asks: &[Ask::Priority(7)] };
    shard.batch(at(1_000_000), &[request], &mut answers, &mut nothing);
    let result = b"\"hello, Ada\"";
    let success = Command::Succeed { task: Ordinal(0), attempt: 1, outcome: Outcome::Succeeded, result };
    shard.batch(at(1_001_500), &[success], &mut answers, &mut nothing);
    let second = shard.seal(first.hash).expect("there are records");
    let payload = b"\"say it again, and again, and again, and again\"";
    let requests = [0; 4].map(|_| Command::Request { task_type: TypeId(0), payload, key: None, asks: &[] });
    shard.batch(at(2_000_000), &requests, &mut answers, &mut nothing);
    let third = shard.seal(second.hash).expect("there are records");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(hex(&worked(1)), hex(&first.bytes));
    assert_eq!(hex(&worked(2)), hex(&second.bytes));
    // Another version of lz4 may find other matches; the hash is over the body.
    assert_eq!(Block::parse(&worked(3)).expect("the worked block can be read").hash(), third.hash);
    assert_eq!(third.header.codec, 1);
}
