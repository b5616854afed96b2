//! Compiled programs on disk, by the digest of all that made them.
//!
//! An entry is written beside and renamed, so that other processes see all of it or nothing; it carries a digest of itself, so that one that
//! was damaged is compiled again. The folder belongs to one user: what lies in it is run on the device.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::{Digest, GpuError};

/// What every entry begins with; the digit is the version of the layout: magic, digest of the body, body.
const MAGIC: &[u8; 8] = b"ERGCUB1\n";
/// What an entry is called: its digest and this.
const ENTRY: &str = "cubin";
/// What is being written is called so.
const PARTIAL: &str = "partial";
/// What was being written so long ago was left behind by a process that ended.
const PARTIAL_AGE: Duration = Duration::from_secs(3600);
/// The longest entry read: no program is near it.
const ENTRY_BYTES_MAX: u64 = 256 << 20;

/// A folder of compiled programs; any number of processes may share it.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
}

/// What a look into the cache found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The program.
    Whole(Vec<u8>),
    /// Nothing.
    Nothing,
    /// An entry that cannot be used, and why; it has been removed.
    Damaged(String),
}

impl Cache {
    /// Opens a folder, which is made if there is none; `bytes_max` limits all entries together.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or belongs to or may be written by others.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, GpuError> {
        let wrong = |why: String| GpuError::refused(format!("kernel cache {}: {why}", folder.display()));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| wrong(format!("cannot be made: {error}")))?;
        let found = fs::metadata(folder).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let (user, mode) = (rustix::process::geteuid().as_raw(), found.permissions().mode() & 0o777);
        if found.uid() != user {
            return Err(wrong(format!("belongs to user {} and this process to {user}: choose a folder of its own", found.uid())));
        }
        if mode & 0o022 != 0 {
            return Err(wrong(format!("may be written by others (mode {mode:o}), who could run kernels through it: chmod go-w")));
        }
        Ok(Self { folder: folder.to_owned(), bytes_max })
    }

    /// Looks for an entry, and marks it as used.
    pub fn get(&self, key: &Digest) -> Found {
        let path = self.path(key);
        let found = File::open(&path).and_then(|file| {
            let mut bytes = Vec::new();
            (&file).take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            // Only the order of eviction depends on it.
            let _ = file.set_modified(SystemTime::now());
            Ok(bytes)
        });
        let why = match found {
            Ok(bytes) => match body(&bytes) {
                Ok(body) => return Found::Whole(body.to_vec()),
                Err(why) => why.to_owned(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => error.to_string(),
        };
        let _ = fs::remove_file(&path);
        Found::Damaged(format!("kernel cache: {} {why}; it is compiled again", path.display()))
    }

    /// Adds an entry, and removes the longest unused ones until all are within the limit.
    ///
    /// # Errors
    ///
    /// When the disk refuses; the cache is as good as before.
    pub fn put(&self, key: &Digest, program: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let partial = self.folder.join(format!("{key}.{}-{count}.{PARTIAL}", std::process::id()));
        let written = write(&partial, program).and_then(|()| fs::rename(&partial, self.path(key)));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written?;
        self.evict()
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.{ENTRY}"))
    }

    fn evict(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.folder)? {
            let found = found?;
            let path = found.path();
            // Another process may have removed it meanwhile.
            let Ok(metadata) = found.metadata() else { continue };
            let used = metadata.modified()?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(ENTRY) => entries.push((used, metadata.len(), path)),
                Some(PARTIAL) if used.elapsed().is_ok_and(|age| age > PARTIAL_AGE) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in entries {
            if bytes <= self.bytes_max {
                break;
            }
            let _ = fs::remove_file(path);
            bytes -= size;
        }
        Ok(())
    }
}

fn write(path: &Path, program: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&Digest::of(program).0)?;
    file.write_all(program)
}

fn body(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("does not begin as an entry does")?;
    let (digest, body) = rest.split_at_checked(32).ok_or("is cut off")?;
    if Digest::of(body).0 == digest { Ok(body) } else { Err("is not what was written") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("a/b"), bytes_max).unwrap();
        (folder, cache)
    }

    fn key(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[test]
    fn what_was_put_is_found_by_everyone() {
        let (folder, cache) = cache(1 << 20);
        assert_eq!(cache.get(&key(1)), Found::Nothing);
        cache.put(&key(1), b"program").unwrap();
        cache.put(&key(1), b"program").unwrap();
        assert_eq!(cache.get(&key(1)), Found::Whole(b"program".to_vec()));
        let other = Cache::open(&folder.path().join("a/b"), 1 << 20).unwrap();
        assert_eq!(other.get(&key(1)), Found::Whole(b"program".to_vec()));
        assert_eq!(other.get(&key(2)), Found::Nothing);
    }

    #[test]
    fn a_damaged_entry_is_said_once_and_replaced() {
        let (_folder, cache) = cache(1 << 20);
        cache.put(&key(1), b"program").unwrap();
        let whole = fs::read(cache.path(&key(1))).unwrap();
        // Every single bit, every shorter length.
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            for bytes in [&damaged[..], &whole[..byte]] {
                fs::write(cache.path(&key(1)), bytes).unwrap();
                assert!(matches!(cache.get(&key(1)), Found::Damaged(_)), "byte {byte}");
                assert_eq!(cache.get(&key(1)), Found::Nothing);
            }
        }
        cache.put(&key(1), b"program").unwrap();
        assert_eq!(cache.get(&key(1)), Found::Whole(b"program".to_vec()));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let (_folder, cache) = cache(3 * 1064);
        let age = |number: u8, seconds: u64| {
            let file = File::options().append(true).open(cache.path(&key(number))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for number in 1..=3 {
            cache.put(&key(number), &[number; 1024]).unwrap();
            age(number, 100 - u64::from(number));
        }
        // Used again, so 2 is now the longest unused.
        assert!(matches!(cache.get(&key(1)), Found::Whole(_)));
        cache.put(&key(4), &[4; 1024]).unwrap();
        assert_eq!(cache.get(&key(2)), Found::Nothing);
        for number in [1, 3, 4] {
            assert!(matches!(cache.get(&key(number)), Found::Whole(_)), "{number}");
        }
    }

    #[test]
    fn leftovers_of_a_dead_process_go_and_those_of_a_living_one_stay() {
        let (_folder, cache) = cache(1 << 20);
        let (old, new) = (cache.folder.join("x.1-1.partial"), cache.folder.join("x.2-1.partial"));
        File::create(&old).unwrap().set_modified(SystemTime::now() - 2 * PARTIAL_AGE).unwrap();
        File::create(&new).unwrap();
        cache.put(&key(1), b"program").unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, taken) in [(0o700, true), (0o755, true), (0o770, false), (0o707, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Cache::open(folder.path(), 1).is_ok(), taken, "{mode:o}");
        }
    }

    /// Writers and readers of the same few keys at once: a reader sees nothing or all, never a part.
    #[test]
    fn many_at_once_never_see_a_part() {
        let (folder, _) = cache(1 << 20);
        let path = folder.path().join("a/b");
        std::thread::scope(|scope| {
            for worker in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    // Small enough to evict all the time.
                    let cache = Cache::open(path, 40_000).unwrap();
                    for round in 0..100u8 {
                        let number = (worker + round) % 5;
                        if round % 2 == 0 {
                            cache.put(&key(number), &[number; 10_000]).unwrap();
                        } else {
                            match cache.get(&key(number)) {
                                Found::Whole(bytes) => assert_eq!(bytes, [number; 10_000]),
                                Found::Nothing => {}
                                Found::Damaged(why) => panic!("{why}"),
                            }
                        }
                    }
                });
            }
        });
    }
}
