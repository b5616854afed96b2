//! The files of a source: which are there, which is which, and how far each is read.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ergate_events::event::Digest;
use rustix::fs::OFlags;

use super::lines::Place;
use super::registry::Entry;

/// What the names of files in a directory end in.
const ENDING: &str = ".ndjson";
/// Longest name of a file, in bytes: with the longest name of a source and an offset it is the value of a label.
pub(super) const FILE_NAME_BYTES_MAX: usize = 160;
/// Bytes before an offset that tell a file from another one in its place.
const MARK_BYTES: u64 = 256;
/// How long a file that is no longer there under its name must not have grown until it is at its end: whoever writes it may still have it open.
const QUIET: Duration = Duration::from_secs(1);

/// The length of a file before anybody looked.
const NOT_LOOKED: u64 = u64::MAX;

/// Which file it is, whatever its name: device and inode.
pub(super) type FileId = (u64, u64);

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their names.
    pub(super) files: Vec<Listed>,
    /// What is there and cannot be followed, for a person.
    pub(super) passed_over: Vec<String>,
}

/// The files of a source that are there now: the path itself, or in a directory those whose names say that they are NDJSON.
///
/// # Errors
/// What the system says of the path; one that does not exist yet is no error.
pub(super) fn list(path: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            for entry in std::fs::read_dir(path)? {
                let path = entry?.path();
                if path.as_os_str().as_encoded_bytes().ends_with(ENDING.as_bytes()) {
                    // One that is gone by now is not there.
                    path.metadata().iter().for_each(|found| listing.add(&path, found));
                }
            }
        }
        Ok(found) => listing.add(path, &found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    listing.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

impl Listing {
    fn add(&mut self, path: &Path, found: &Metadata) {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.chars().any(char::is_control));
        match name {
            Some(name) if found.is_file() && name.len() <= FILE_NAME_BYTES_MAX => {
                self.files.push(Listed { name: name.to_owned(), path: path.to_owned(), id: id_of(found) });
            }
            Some(_) if !found.is_file() => self.passed_over.push(format!("{} is no file", path.display())),
            Some(_) | None => {
                let rule = format!("needs a name in UTF-8, without control characters, of at most {FILE_NAME_BYTES_MAX} bytes");
                self.passed_over.push(format!("{:?} {rule}", path.display().to_string()));
            }
        }
    }
}

/// Where a file lies now that was followed under another name, in the folder of a source.
pub(super) fn find(path: &Path, id: FileId) -> Option<PathBuf> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_it = |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && id_of(&found) == id);
    std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(is_it)
}

fn id_of(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// A file that is followed.
pub(super) struct Follower {
    /// Its name, as its tasks have it.
    pub(super) name: String,
    file: File,
    pub(super) id: FileId,
    pub(super) place: Place,
    mark: String,
    /// At which place the mark was made.
    marked: u64,
    /// Lines behind its place that the log has.
    pub(super) ahead: BTreeSet<u64>,
    /// Whether the registry knows it under this name and at this place or an earlier one; before that nothing of it is submitted.
    pub(super) is_begun: bool,
    /// Whether no name of the source leads to it any more.
    pub(super) is_leaving: bool,
    /// How long it is, or [`NOT_LOOKED`].
    pub(super) size: u64,
    grown_at: Instant,
}

impl Follower {
    /// Opens a file to be read from its beginning.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(name: &str, path: &Path) -> io::Result<Follower> {
        // What is no file by now must not hold the thread up.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (name, mark, ahead) = (name.to_owned(), mark_of(b""), BTreeSet::new());
        let (place, id, grown_at) = (Place::at(0), id_of(&found), Instant::now());
        Ok(Follower {
            name,
            file,
            id,
            place,
            mark,
            marked: 0,
            ahead,
            is_begun: false,
            is_leaving: false,
            size: NOT_LOOKED,
            grown_at,
        })
    }

    /// Opens a file to be read on from where a registry says.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn resume(entry: &Entry, path: &Path, ahead: BTreeSet<u64>) -> io::Result<Follower> {
        let new = Follower::open(&entry.file, path)?;
        Ok(Follower {
            place: Place::at(entry.offset),
            mark: entry.mark.clone(),
            marked: entry.offset,
            ahead,
            is_begun: true,
            ..new
        })
    }

    /// Notes how long the file is now; gives whether it is not the one that was read: shorter, or with other bytes before its place.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        if size == self.size {
            return Ok(false);
        }
        (self.size, self.grown_at) = (size, Instant::now());
        Ok(size < self.place.seen || self.mark_now()? != self.mark)
    }

    /// Begins the file anew.
    pub(super) fn begin_anew(&mut self) {
        self.place = Place::at(0);
        (self.mark, self.marked) = (mark_of(b""), 0);
        self.ahead.clear();
        self.is_begun = false;
    }

    /// Whether there is something to read, and whether nothing follows it.
    pub(super) fn news(&self) -> Option<(u64, bool)> {
        let is_over = self.is_leaving && self.grown_at.elapsed() >= QUIET;
        let has_news = self.place.seen < self.size || is_over && self.place.line < self.size;
        has_news.then_some((self.size, is_over))
    }

    /// Whether everything was read that will ever be there.
    pub(super) fn is_done(&self) -> bool {
        self.is_leaving && self.place.line >= self.size && self.grown_at.elapsed() >= QUIET
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(to, offset)
    }

    /// Whether the log has this line; lines come in their order.
    pub(super) fn is_taken(&mut self, offset: u64) -> bool {
        while self.ahead.first().is_some_and(|first| *first < offset) {
            self.ahead.pop_first();
        }
        self.ahead.remove(&offset)
    }

    /// Notes what stands before its place.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn note_mark(&mut self) -> io::Result<()> {
        if self.marked != self.place.line {
            (self.mark, self.marked) = (self.mark_now()?, self.place.line);
        }
        Ok(())
    }

    fn mark_now(&self) -> io::Result<String> {
        let mut bytes = [0; MARK_BYTES as usize];
        let count = usize::try_from(self.place.line.min(MARK_BYTES)).unwrap_or_default();
        let found = self.file.read_at(&mut bytes[..count], self.place.line - count as u64)?;
        Ok(mark_of(&bytes[..found]))
    }

    /// What a registry says of it.
    pub(super) fn entry(&self) -> Entry {
        let (device, inode) = self.id;
        Entry { file: self.name.clone(), device, inode, offset: self.place.line, mark: self.mark.clone() }
    }
}

fn mark_of(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Digest::of(bytes).0))
}
