//! Configurations out of a file with this text, and what they are refused with.

use ergate_config::{Config, ConfigError, load};

/// What the tests give as a secret, so that no refusal may say it.
const SECRET: &str = "hunter2";

pub(crate) fn read(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    std::fs::write(&file, text).unwrap();
    load(Some(&file), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[track_caller]
pub(crate) fn refuses(text: &str, env: &[(&str, &str)], words: &[&str]) {
    let error = read(text, env).unwrap_err();
    let said = format!("{error} {error:?}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said}"));
    assert!(!said.contains(SECRET), "{said}");
}
