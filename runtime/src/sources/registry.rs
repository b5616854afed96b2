//! How far a source is, in a file of its own in the data directory: written whole to another name, made durable, and renamed.
//!
//! It may be behind the log and is never ahead of it: what the log has taken of the lines behind an offset stands at `position` or later
//! (`history.rs`).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The folder of registries and refused lines in a data directory.
const FOLDER: &str = "sources";
/// The form of a registry.
const VERSION: u32 = 1;

/// What a source has read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    version: u32,
    /// Where in the log to look for lines behind the offsets.
    pub(super) position: u64,
    /// The files.
    pub(super) files: Vec<Entry>,
}

/// How far a file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Its name, as its tasks have it.
    pub(super) file: String,
    /// With the inode, which file that is.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Every line before this has its answer.
    pub(super) offset: u64,
    /// A digest of the bytes before the offset, so that another file in this one's place is told from it.
    pub(super) mark: String,
}

/// Why a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    /// It cannot be read.
    #[error("failed to read {path}", path = .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is something else.
    #[error("{path} is no registry of a source that this build reads; move it away to read the files from their beginning", path = .0.display())]
    Foreign(PathBuf, #[source] serde_json::Error),
}

/// Where things of a source are kept.
pub(super) fn path(data: &Path, source: &str, ending: &str) -> PathBuf {
    data.join(FOLDER).join(format!("{source}.{ending}"))
}

impl Registry {
    pub(super) fn new(position: u64, files: Vec<Entry>) -> Registry {
        Registry { version: VERSION, position, files }
    }

    /// The registry that is there; `None` where a source begins.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(super) fn read(path: &Path) -> Result<Option<Registry>, RegistryError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RegistryError::Read(path.to_owned(), error)),
        };
        let foreign = |error| RegistryError::Foreign(path.to_owned(), error);
        let registry: Registry = serde_json::from_slice(&text).map_err(foreign)?;
        if registry.version != VERSION {
            let reason = format!("it has version {} and this build reads {VERSION}", registry.version);
            return Err(foreign(serde::de::Error::custom(reason)));
        }
        Ok(Some(registry))
    }

    /// Puts it in the place of the one before; durable when this returns.
    ///
    /// # Errors
    /// What the system says; then the one before is there.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let unfinished = path.with_extension("json.tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        std::fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        (".{0,20}", any::<u64>(), any::<u64>(), any::<u64>(), "[0-9a-f]{32}")
            .prop_map(|(file, device, inode, offset, mark)| Entry { file, device, inode, offset, mark })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_written_is_read(position in any::<u64>(), files in proptest::collection::vec(entry(), 0..5)) {
            let dir = tempfile::tempdir().unwrap();
            let path = path(dir.path(), "orders", "json");
            prop_assert_eq!(Registry::read(&path).unwrap(), None);
            Registry::new(0, Vec::new()).write(&path).unwrap();
            let registry = Registry::new(position, files);
            registry.write(&path).unwrap();
            prop_assert_eq!(Registry::read(&path).unwrap(), Some(registry));
        }
    }

    #[test]
    fn what_is_none_is_refused_and_a_failed_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "orders", "json");
        let before = Registry::new(7, Vec::new());
        before.write(&path).unwrap();
        // A folder stands where the new one is written first.
        std::fs::create_dir(path.with_extension("json.tmp")).unwrap();
        assert!(Registry::new(8, Vec::new()).write(&path).is_err());
        assert_eq!(Registry::read(&path).unwrap(), Some(before));
        for foreign in
            ["", "{}", "{\"version\":2,\"position\":0,\"files\":[]}", "{\"version\":1,\"position\":0,\"files\":[],\"more\":1}"]
        {
            std::fs::write(&path, foreign).unwrap();
            let error = Registry::read(&path).unwrap_err();
            assert!(matches!(error, RegistryError::Foreign(..)), "{foreign}: {error}");
        }
    }
}
