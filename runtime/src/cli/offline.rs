//! Opens a log for looking at it, without a server and beside a running one.

use std::path::PathBuf;
use std::sync::Arc;

use ergate::events::log::LogReader;
use ergate::events::log::file::FileReader;

use super::Globals;

/// Where the log is when nobody says otherwise.
pub(crate) const DATA_DEFAULT: &str = "ergate-data";

/// The data directory that flags and configuration name.
pub(crate) fn data_dir(globals: &Globals) -> anyhow::Result<PathBuf> {
    Ok(globals.data.clone().unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)))
}

/// A reader of the log, which another process may be writing.
pub(crate) fn reader(globals: &Globals) -> anyhow::Result<Arc<dyn LogReader>> {
    Ok(Arc::new(FileReader::open(&data_dir(globals)?)?))
}
