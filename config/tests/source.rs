//! `[source.NAME]`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use ergate_config::{DEFAULT_TOML, Origin, Source};
use support::{read, refuses};

#[test]
fn a_source_is_read_with_all_its_keys_and_its_path_is_beside_the_file() {
    let text = "[source.orders]\npath = \"inbox\"\npoll = \"1s\"\n[source.bills]\npath = \"/var/bills.ndjson\"\nfiles_max = 3\nrefused_max = \"0B\"\n";
    let config = read(text, &[("ERGATE_SOURCE__ORDERS__FILES_MAX", "7"), ("ERGATE_SOURCE__THIRD__PATH", "here")]).unwrap();
    let Origin::File { path, .. } = config.origin("source.orders.path") else { panic!("it is in the file") };
    let all: Vec<_> = config.sources_with_paths().unwrap().into_iter().map(|(name, path, _)| (name, path.to_owned())).collect();
    let inbox = path.parent().unwrap().join("inbox");
    assert_eq!(all, [("bills", "/var/bills.ndjson".into()), ("orders", inbox.clone()), ("third", "here".into())]);
    let orders = Source { path: Some(inbox), poll: Duration::from_secs(1), files_max: 7, ..Source::default() };
    assert_eq!(config.sources["orders"], orders);
    assert_eq!((config.sources["bills"].files_max, config.sources["bills"].refused_max), (3, 0));
    let shown = config.settings();
    let value = |key: &str| shown.iter().find(|setting| setting.key == key).unwrap().value.clone();
    assert_eq!((value("source.bills.poll"), value("source.orders.refused_max")), ("200ms".to_owned(), "16MiB".to_owned()));
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    refuses("\n[source.a]\npol = \"1s\"\n", &[], &["my.toml:3", "`source.a.pol`", "the nearest is `source.a.poll`"]);
    refuses("[source.\"a b\"]\npath = \"x\"\n", &[], &["my.toml:2", "source.NAME.path"]);
    refuses("\n[source.a]\npoll = \"1s\"\n", &[], &["my.toml:3", "source.a.path", "which file or directory"]);
    refuses("[source.a]\npath = \"\"\n", &[], &["a file or a directory as a text"]);
    refuses("[source.a]\npoll = \"1ms\"\n", &[], &["a duration from \"10ms\" to \"1h\""]);
    refuses("[source.a]\nfiles_max = 0\n", &[], &["a whole number from 1 to 4096"]);
    refuses("[source.a]\nrefused_max = 5\n", &[], &["a size such as \"16MiB\""]);
    refuses("[source.a]\n", &[], &["there is no key `source.a`"]);
}

#[test]
fn every_key_is_explained_in_the_defaults_with_its_default() {
    let (_, shown) = DEFAULT_TOML.split_once("# [source.orders]\n").unwrap();
    let (shown, _) = shown.split_once("\n\n").unwrap();
    let text: String = shown.lines().map(|line| line.strip_prefix("# ").unwrap().to_owned() + "\n").collect();
    let config = read(&format!("[source.orders]\n{text}"), &[]).unwrap();
    assert_eq!(Source { path: None, ..config.sources["orders"].clone() }, Source::default());
    for setting in config.settings().iter().filter(|setting| setting.key.starts_with("source.orders.")) {
        let key = setting.key.rsplit_once('.').unwrap().1;
        assert!(shown.contains(&format!("\n# {key} = ")), "{key} is not in default.toml");
    }
}
