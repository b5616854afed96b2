//! What strangers may hand in: read or refused with a sentence, in bounded time, and never anything that an engine would refuse.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ergate::events::scaling::Policy;
use ergate::events::scaling::signal::Bounds;
use proptest::prelude::*;

use super::{From, Outcome, import, plan, show, yaml};

const ALL: [From; 3] = [From::Hpa, From::Keda, From::Aws];

fn read(from: From, text: &str) -> Result<Outcome, String> {
    let files = [("file".to_owned(), text.to_owned())];
    import(from, &files, (Some(1), Some(9))).map_err(|refusal| refusal.to_string())
}

/// Whatever comes out has to be what an engine takes.
fn check(outcome: &Outcome) {
    for pool in &outcome.pools {
        assert!(!pool.name.is_empty() && pool.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert!(pool.min <= pool.max && pool.max <= plan::REPLICAS_MAX);
        pool.policy.check(Bounds { min: pool.min, max: pool.max }).unwrap();
    }
    for (name, text) in show::files(outcome) {
        if name != "pools.toml" {
            let policy = ergate_config::policy(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(outcome.pools.iter().any(|pool| pool.policy == policy), "{text}");
        }
    }
}

fn fixtures() -> Vec<(From, String)> {
    let mut all = Vec::new();
    for (from, folder) in [(From::Hpa, "hpa"), (From::Keda, "keda"), (From::Aws, "aws")] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(folder);
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml" || extension == "json") {
                all.push((from, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(all.len() >= 14, "{}", all.len());
    all
}

/// How long a refusal may take here, in a build without optimisation on a machine that others keep busy; alone it is below a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// It is refused, soon.
fn refused(text: &str, part: &str) {
    for from in ALL {
        let began = Instant::now();
        let error = match read(from, text) {
            Err(error) => error,
            Ok(outcome) => panic!("{part}: {} pools", outcome.pools.len()),
        };
        assert!(began.elapsed() < PATIENCE, "{part}: {:?}", began.elapsed());
        assert!(error.contains(part) && error.lines().count() == 1 && error.len() < 500, "{part}: {error}");
    }
}

#[test]
fn bombs_are_refused_soon() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    refused(&laughs, "more than 250000 values");
    let mut merges = String::from("a0: &a0 {x: 1}\n");
    for level in 1..40 {
        writeln!(merges, "a{level}: &a{level} {{l: *a{0}, r: *a{0}}}", level - 1).unwrap();
    }
    refused(&merges, "more than 250000 values");
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    refused(&chain, "nested deeper than 64");
    refused("a: &a [*a]", "an alias stands inside of what it stands for");
    refused("a: &a {<<: *a}", "an alias stands inside of what it stands for");
    refused(&"[".repeat(10_000), "nested deeper than 64");
    refused(&"{a: ".repeat(10_000), "nested deeper than 64");
    refused(&"- ".repeat(10_000), "nested deeper than 64");
    refused(&"? ".repeat(10_000), "nested deeper than 64");
    refused(&(0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>(), "nested deeper than 64");
    refused(&"- a\n".repeat(1_000_000), "more than 250000 values");
    refused(&"---\na: 1\n".repeat(400_000), "more than 250000 values");
}

#[test]
fn much_of_one_thing_is_read_or_refused_within_a_few_seconds() {
    let size = 1 << 20;
    for pattern in [
        "a",
        "\"",
        "'",
        "a: ",
        "a: b: ",
        "[",
        "]",
        "{}",
        ",",
        "&a ",
        "*a ",
        "!a ",
        "| ",
        ">\n",
        "#",
        "%",
        "\n",
        "\t",
        " ",
        "- \t",
        "\r",
        "\u{feff}",
        "ü",
        "\\",
        "a\n",
        "a: 1\n",
        "\"\\u00",
        "? a\n",
        ": ",
        "<<: ",
        "a: |\n b\n",
        "...\n",
        "--- ",
        "[a,",
        "{a: b,",
        "[[a],",
    ] {
        let text = pattern.repeat(size / pattern.len());
        let began = Instant::now();
        for from in ALL {
            let _ = read(from, &text);
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{pattern:?}: {:?}", began.elapsed());
    }
}

#[test]
fn what_yaml_can_mean_in_two_ways_is_refused_by_its_name() {
    refused("a: 1\na: 2", "the key \"a\" is there twice");
    refused("{\"a\": 1, \"a\": 2}", "the key \"a\" is there twice");
    refused("a: *b", "line 1: it is no YAML");
    refused("a:\n\t- b", "line 2: it is no YAML");
    refused("{a: b", "it is no YAML");
    refused("[a]: b", "a key is a list of 1, and should be a text");
    refused("a: &x 1\nb: {<<: *x}", "`<<` merges \"1\", and can merge only objects");
    refused("{\"a\": 1}\n{\"b\": 2}", "line 2");
    let hpa = |field: &str| {
        let text = format!(
            "kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nspec:\n  scaleTargetRef: {{name: a}}\n  {field}\n"
        );
        read(From::Hpa, &text).err().unwrap_or_default()
    };
    for value in
        ["010", "0x10", "1_000", "1e1", "-1", "+5", "1.0", "ten", "2026-01-01", "[1]", "{a: 1}", "!!binary aGk=", "99999999999"]
    {
        let error = hpa(&format!("maxReplicas: {value}"));
        assert!(error.starts_with("file, document 1, line 5: `spec.maxReplicas` is "), "{value}: {error}");
    }
    assert!(hpa("maxReplicas: null").contains("line 4: `spec.maxReplicas` is missing"), "{}", hpa("maxReplicas: null"));
    assert!(hpa("maxReplicas: 4\n  minReplicas: 5").contains("at least minReplicas, which is 5"));
    assert!(hpa("maxReplicas: !Ref Max").contains("Ref …, which only its own tool knows"));
}

#[test]
fn aliases_and_merge_keys_in_moderate_use_are_read() {
    let text = "base: &base {a: 1, b: &list [1, 2]}\nmore: &more {b: 3, c: 4}\nall:\n  <<: [*base, *more]\n  a: 5\nlist: *list\n";
    let documents = yaml::read(text).unwrap();
    let all = documents[0].root.get("all").unwrap();
    let text = |key: &str| all.get(key).and_then(|node| node.text().map(str::to_owned));
    assert_eq!((text("a"), text("c")), (Some("5".into()), Some("4".into())));
    assert_eq!(all.get("b").and_then(|node| node.list()).map(<[_]>::len), Some(2), "what is merged first counts");
    assert_eq!(documents[0].root.get("list").unwrap().line, 6);
    // Names of anchors end with their document.
    assert!(yaml::read("a: &a 1\n---\nb: *a\n").is_err());
    assert_eq!(yaml::read("\u{feff}a: 1\n---\n# nothing\n---\nb: 2\n...\n").unwrap().len(), 2);
}

#[test]
fn every_fixture_makes_pools_that_an_engine_takes() {
    for (from, text) in fixtures() {
        // A scalable target of its own has no policy.
        if !text.contains("SuspendedState") {
            let outcome = read(from, &text).unwrap();
            assert!(!outcome.pools.is_empty());
            check(&outcome);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bytes_of_anybody_are_read_or_refused(text in "[-a-z0-9:,{}\\[\\]&*!|>'\"%@`#? \n\t.<~=]{0,200}|.{0,100}") {
        for from in ALL {
            if let Ok(outcome) = read(from, &text) {
                check(&outcome);
            }
        }
    }

    #[test]
    fn a_manifest_with_mistakes_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..6_u8, any::<prop::sample::Index>(), "[-a-z0-9:{}\\[\\]&*!\"# \n.]{0,6}"), 1..8),
    ) {
        let all = fixtures();
        let (from, text) = which.get(&all);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, kind, other, text) in edits {
            if lines.is_empty() {
                break;
            }
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[other].clone()),
                2 => lines.swap(at, other),
                3 => lines[at].push_str(&text),
                4 => {
                    // Another value behind the same key.
                    let end = lines[at].find(": ").map_or(0, |end| end + 2);
                    lines[at].truncate(end);
                    lines[at].push_str(&text);
                }
                _ => {
                    let end = lines[at].char_indices().nth(other % 20).map_or(0, |(end, _)| end);
                    lines[at].insert_str(end, &text);
                }
            }
        }
        let began = Instant::now();
        if let Ok(outcome) = read(*from, &lines.join("\n")) {
            check(&outcome);
        }
        prop_assert!(began.elapsed() < PATIENCE);
    }
}
