//! `default.toml` and the code say the same, and every key is explained.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use ergate_config::{Config, DEFAULT_TOML, Origin, load};

fn of_file() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("default.toml");
    load(Some(&path), std::iter::empty()).unwrap()
}

#[test]
fn the_file_parses_to_exactly_the_defaults() {
    let (file, code) = (of_file(), Config::default());
    assert_eq!((&file.log, &file.limits, &file.shutdown), (&code.log, &code.limits, &code.shutdown));
    assert_eq!(file.http, code.http);
    assert_eq!(file.kafka, code.kafka);
    assert_eq!(file.pool("default"), code.pool("default"));
    let values = |config: &Config| config.settings().into_iter().map(|setting| (setting.key, setting.value)).collect::<Vec<_>>();
    assert_eq!(values(&file), values(&code));
}

#[test]
fn every_key_is_in_the_file_with_a_comment_before_it() {
    for setting in of_file().settings() {
        let Origin::File { line, .. } = setting.origin else { panic!("{} is not in the file", setting.key) };
        let before = DEFAULT_TOML.lines().nth(line - 2).unwrap();
        assert!(before.starts_with("# "), "{} has no comment", setting.key);
    }
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    let env = [("ERGATE_LOG", "debug"), ("ERGATE_LOG_FORMAT", "json"), ("PATH", "/bin"), ("OTHER__LOG__DATA", "x")];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("default.toml");
    assert_eq!(load(Some(&path), env).unwrap(), of_file());
}

#[test]
fn what_no_segment_can_be_is_refused_whatever_its_unit() {
    for value in ["1B", "63KiB", "17GiB", "64", "-1MiB", "∞"] {
        let env = std::iter::once(("ERGATE_LOG__SEGMENT_SIZE".to_owned(), value.to_owned()));
        let error = load(Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("default.toml")), env).unwrap_err().to_string();
        assert!(error.contains("from \"64KiB\" to \"16GiB\"") && error.contains("ERGATE_LOG__SEGMENT_SIZE"), "{error}");
    }
}
