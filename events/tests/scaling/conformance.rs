//! The HPA against scenario files: ours, and those that somebody else's autoscaler produced where they are.

use std::path::PathBuf;

use ergate_events::scaling::hpa::cases::{File, SCHEMA};

/// Scenarios of others: in the folder that `ERGATE_SHARED_DATA` names, or beside the repository.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("ERGATE_SHARED_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    Some(folder.join("hpa-cases.json")).filter(|path| path.exists())
}

fn holds(path: &PathBuf) -> usize {
    let file: File = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(file.schema, SCHEMA);
    let differences: Vec<_> = file.scenarios().filter_map(|scenario| file.difference(scenario)).collect();
    let ids: Vec<_> = differences.iter().map(|difference| &difference.scenario).collect();
    assert!(differences.is_empty(), "{} of {} differ: {ids:?}\n{:#?}", ids.len(), file.scenarios().count(), differences[0]);
    file.scenarios().count()
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn every_scenario_of_the_controller_ends_as_there() {
    match shared() {
        Some(path) => assert!(holds(&path) >= 200),
        None => eprintln!("skipped: no hpa-cases.json; ERGATE_SHARED_DATA names the folder that has it"),
    }
}

#[test]
fn our_own_scenarios_hold() {
    assert_eq!(holds(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/hpa/scenarios.json")), 16);
}

#[test]
fn a_scenario_that_expects_something_else_is_told_from_the_others() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/hpa/scenarios.json");
    let text = std::fs::read_to_string(path).unwrap();
    // The count, the event, a condition and the error flag: each by itself is a difference.
    for (from, to) in [
        (r#""replicas": 12,"#, r#""replicas": 11,"#),
        ("New size: 2; reason: All", "New size: 4; reason: All"),
        (r#"["True", "SucceededGetScale"]"#, r#"["True", "ReadyForNewScale"]"#),
        (r#""error": true, "event""#, r#""error": false, "event""#),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let file: File = serde_json::from_str(&changed).unwrap();
        assert_eq!(file.scenarios().filter_map(|scenario| file.difference(scenario)).count(), 1, "{from}");
    }
}
