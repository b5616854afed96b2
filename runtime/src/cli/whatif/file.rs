//! Files that a comparison reads.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ergate::events::scaling::AnyPolicy;

use super::super::exit::Trouble;

/// Largest trace: 20 million tasks in short lines.
pub(super) const TRACE_BYTES_MAX: u64 = 1 << 30;

/// Reads a text of at most so many bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<String, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(most + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > most {
        return Err(format!("it is larger than {} MiB", most >> 20));
    }
    String::from_utf8(text).map_err(|_| "it is no text in UTF-8".to_owned())
}

/// The policies of files or of the names of those that come with Ergate, each called as its file is.
pub(super) fn policies(paths: &[PathBuf]) -> Result<Vec<(String, AnyPolicy)>, Trouble> {
    let one = |path: &PathBuf| {
        let policy = ergate_config::read_policy(path).map_err(Trouble::Usage)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok((name, policy))
    };
    paths.iter().map(one).collect()
}

/// Those that come with Ergate.
pub(super) fn presets() -> anyhow::Result<Vec<(String, AnyPolicy)>> {
    let one = |(name, text): &(&str, &str)| Ok(((*name).to_owned(), ergate_config::policy(text)?));
    ergate_config::PRESETS.iter().map(one).collect()
}
