//! The thread of a source: looks what is there, reads what is new, submits it, and notes how far it is.
//!
//! ```text
//!  look ─▶ read whole lines ─▶ submit, wait until it is durable ─▶ keep what was refused ─▶ write the registry
//! ```
//! So the registry is never ahead of the log. After a crash it may be behind; the labels of the tasks behind its position tell which lines were
//! taken, and those are passed over. That needs one thing: a name stands for one content between two positions of the registry, so nothing of a
//! file is submitted before the registry knows that the file begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ergate_actors::log_writer::chain;
use ergate_actors::submission::SubmitError;

use super::desk::{Desk, Ended, Stop, Wanted};
use super::files::{Follower, Listed, find, list};
use super::history;
use super::lines::{Found, Window};
use super::refused::{Refused, RefusedFile};
use super::registry::Registry;
use super::{SourceCounts, SourceSettings};
use crate::request::VALUE_BYTES_MAX;

/// Most lines of a batch.
const BATCH_LINES: usize = 1_000;
/// Bytes of lines after which a batch is full; the last line may be longer.
const BATCH_BYTES: usize = 1 << 20;
/// How old the registry of a source without news may become: a start reads the log from the position in it.
const REGISTRY_EVERY: Duration = Duration::from_secs(60);
/// How often a trouble that stays is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A source at work.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) settings: SourceSettings,
    pub(super) desk: Desk,
    pub(super) stop: Arc<Stop>,
    pub(super) counts: Arc<SourceCounts>,
    pub(super) registry: PathBuf,
    pub(super) refused: RefusedFile,
    /// In the order of their names.
    followers: Vec<Follower>,
    window: Window,
    batch: Batch,
    /// Where the registry that is there tells to look, as long as lines from there are passed over.
    floor: u64,
    /// Every line that was taken before the newest registry is before this.
    known: u64,
    /// Whether the registry on disk is behind.
    is_behind: bool,
    written_at: Instant,
    said: BTreeMap<String, Instant>,
}

/// Lines that travel together.
#[derive(Default)]
struct Batch {
    wanted: Vec<Wanted>,
    refused: Vec<Refused>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.wanted.len() + self.refused.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES
    }

    fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.refused.is_empty()
    }
}

impl Source {
    pub(super) fn new(
        name: String,
        settings: SourceSettings,
        desk: Desk,
        (stop, counts): (Arc<Stop>, Arc<SourceCounts>),
        (registry, refused): (PathBuf, RefusedFile),
    ) -> Source {
        let (followers, window, batch, said) = (Vec::new(), Window::default(), Batch::default(), BTreeMap::new());
        let (floor, known, is_behind) = (0, 0, true);
        let written_at = Instant::now();
        Source {
            name,
            settings,
            desk,
            stop,
            counts,
            registry,
            refused,
            followers,
            window,
            batch,
            floor,
            known,
            is_behind,
            written_at,
            said,
        }
    }

    /// Follows the files until it is told to end, or the log takes nothing more.
    pub(super) fn run(mut self, before: Option<Registry>) {
        let source = self.name.clone();
        if let Err(error) = self.resume(before) {
            let error = chain(&error);
            tracing::error!(
                source,
                error,
                "a source cannot see what the log has of it, and follows nothing; start again when the log is well"
            );
            return;
        }
        while !self.stop.is_set() {
            match self.round() {
                Ok(()) => self.stop.wait(self.settings.poll),
                // Lines of the batch may be unanswered, so how far the files are read is not to be kept.
                Err(Ended::Stopped) => return,
                Err(Ended::Failed(error)) => {
                    tracing::error!(source, %error, "a source ends, because the log takes nothing more; the next start goes on where it is");
                    return;
                }
            }
        }
        self.freshen();
    }

    /// Takes up the files of a registry where they are, as far as the log says.
    fn resume(&mut self, before: Option<Registry>) -> Result<(), ergate_events::log::LogError> {
        let reader = Arc::clone(&self.desk.parts.reader);
        let Some(registry) = before else {
            self.known = reader.span().next.0;
            return Ok(());
        };
        let mut taken = history::taken(reader.as_ref(), &self.name, registry.position)?;
        (self.floor, self.known) = (registry.position, taken.position);
        let mut passed = 0;
        for entry in registry.files {
            let ahead = taken.lines.get_mut(&entry.file).map(|lines| lines.split_off(&entry.offset)).unwrap_or_default();
            let there = find(&self.settings.path, (entry.device, entry.inode));
            let (file, lines) = (entry.file.clone(), ahead.len());
            match there.map(|path| Follower::resume(&entry, &path, ahead)) {
                Some(Ok(follower)) => {
                    passed += lines;
                    self.followers.push(follower);
                }
                Some(Err(error)) => self.say(&format!("{file} cannot be read on: {error}; what follows in it is not taken")),
                None => {
                    let offset = entry.offset;
                    tracing::warn!(
                        source = self.name,
                        file,
                        offset,
                        "a file of a source went while nobody followed it; what followed there is not taken"
                    );
                }
            }
        }
        tracing::info!(
            source = self.name,
            files = self.followers.len(),
            lines = passed,
            "a source goes on; lines that the log has are passed over"
        );
        Ok(())
    }

    /// One look at everything.
    fn round(&mut self) -> Result<(), Ended> {
        self.meet();
        self.begin();
        for index in 0..self.followers.len() {
            if self.followers[index].is_begun {
                self.visit(index)?;
            }
        }
        self.settle()?;
        self.forget();
        if self.is_behind || self.written_at.elapsed() >= REGISTRY_EVERY {
            self.freshen();
        }
        self.count_unread();
        Ok(())
    }

    /// Meets the files that are there now.
    fn meet(&mut self) {
        let listing = match list(&self.settings.path) {
            Ok(listing) => listing,
            Err(error) => {
                return self.say(&format!("{} cannot be looked into: {error}; it is tried on", self.settings.path.display()));
            }
        };
        listing.passed_over.iter().for_each(|reason| self.say(reason));
        for index in 0..self.followers.len() {
            self.recognise(index, &listing.files);
        }
        let missing = |file: &&Listed| !self.followers.iter().any(|known| known.id == file.id || known.name == file.name);
        let new: Vec<Listed> = listing.files.iter().filter(missing).cloned().collect();
        let room = self.settings.files_max.saturating_sub(self.followers.len());
        if let Some(first) = new.get(room) {
            let more = new.len() - room;
            self.say(&format!(
                "{more} files from {} on are not followed, for `files_max` are; move those away that are read",
                first.name
            ));
        }
        for Listed { name, path, .. } in new.into_iter().take(room) {
            match Follower::open(&name, &path) {
                Ok(follower) => self.followers.push(follower),
                Err(error) => self.say(&format!("{} cannot be opened: {error}; it is tried on", path.display())),
            }
        }
        self.followers.sort_by(|a, b| a.name.cmp(&b.name));
        for index in 0..self.followers.len() {
            self.look(index);
        }
        self.count_unread();
    }

    /// Looks under which name a file is there now, if it is.
    fn recognise(&mut self, index: usize, files: &[Listed]) {
        let follower = &self.followers[index];
        let same: Vec<&Listed> = files.iter().filter(|file| file.id == follower.id).collect();
        let is_same = same.iter().any(|file| file.name == follower.name);
        let renamed = same.first().filter(|file| !is_same && !self.followers.iter().any(|other| other.name == file.name));
        if let Some(file) = renamed.filter(|_| self.may_begin()) {
            tracing::info!(
                source = self.name,
                from = follower.name,
                to = file.name,
                "a file of a source has another name, and is read on"
            );
            self.followers[index].name.clone_from(&file.name);
            self.followers[index].is_begun = false;
        }
        self.followers[index].is_leaving = same.is_empty();
    }

    fn look(&mut self, index: usize) {
        let follower = &mut self.followers[index];
        match follower.look() {
            Ok(false) => {}
            Ok(true) => {
                let (file, read, bytes) = (&follower.name, follower.place.line, follower.size);
                tracing::warn!(
                    source = self.name,
                    file,
                    read,
                    bytes,
                    "a file of a source is not the one that was read, but shorter or another; it is read from its beginning"
                );
                follower.begin_anew();
            }
            Err(error) => {
                let reason = format!("{} cannot be looked at: {error}; it is tried on", follower.name);
                self.say(&reason);
            }
        }
    }

    /// Whether files may be begun: as long as lines are passed over, the registry must tell where they are found.
    fn may_begin(&self) -> bool {
        self.followers.iter().all(|follower| follower.ahead.is_empty())
    }

    /// Has the registry know the files that are new, before anything of them is submitted.
    fn begin(&mut self) {
        if self.may_begin() && self.followers.iter().any(|follower| !follower.is_begun) {
            self.write_registry();
        }
    }

    /// Reads what is new in a file.
    fn visit(&mut self, index: usize) -> Result<(), Ended> {
        let Some(end) = self.followers[index].news() else { return Ok(()) };
        self.window.turn_to(&mut self.followers[index].place);
        loop {
            let follower = &mut self.followers[index];
            let mut place = follower.place;
            let next = self.window.next_line(&mut place, end, |to, at| follower.read_at(to, at));
            follower.place = place;
            match next {
                Ok(Some((offset, found))) if !follower.is_taken(offset) => {
                    self.batch.add(&self.desk, &self.name, &follower.name, offset, &found)
                }
                Ok(Some(_)) => self.is_behind = true,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let reason = format!("{} cannot be read: {error}; it is tried on", follower.name);
                    self.say(&reason);
                    return Ok(());
                }
            }
            if self.batch.is_full() {
                self.settle()?;
            }
        }
    }

    /// Submits the batch, waits for its answers, and notes how far the files are.
    fn settle(&mut self) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let Batch { wanted, mut refused, .. } = std::mem::take(&mut self.batch);
        let counts = &self.counts;
        let position = self.desk.submit(wanted, &self.stop, |wanted, answer| match answer {
            Ok(false) => drop(counts.taken.fetch_add(1, Relaxed)),
            Ok(true) => drop(counts.duplicate.fetch_add(1, Relaxed)),
            Err(error) => refused.push(Refused::by_the_rules(wanted, &error)),
        })?;
        self.known = self.known.max(position);
        if !refused.is_empty() {
            refused.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
            self.counts.refused.fetch_add(refused.len() as u64, Relaxed);
            match self.refused.add(&self.name, &refused) {
                Ok(0) => {}
                Ok(_) => self.say(&format!(
                    "{} is as long as `refused_max`, and refused lines are only said and counted; move it away",
                    self.refused.path.display()
                )),
                Err(error) => self.say(&format!(
                    "{} cannot be written: {error}; refused lines are only said and counted",
                    self.refused.path.display()
                )),
            }
        }
        self.write_registry();
        self.count_unread();
        if self.stop.is_set() { Err(Ended::Stopped) } else { Ok(()) }
    }

    /// Writes how far it is. What cannot be written is kept in memory and tried again.
    fn write_registry(&mut self) {
        for index in 0..self.followers.len() {
            if let Err(error) = self.followers[index].note_mark() {
                self.say(&format!("{} cannot be read: {error}; it is tried on", self.followers[index].name));
            }
        }
        let may_begin = self.may_begin();
        if may_begin {
            self.floor = self.known;
        }
        let named = self.followers.iter().filter(|follower| may_begin || follower.is_begun);
        let registry = Registry::new(self.floor, named.map(Follower::entry).collect());
        let written = registry.write(&self.registry);
        self.written_at = Instant::now();
        self.is_behind = written.is_err();
        match written {
            Ok(()) => self.followers.iter_mut().filter(|_| may_begin).for_each(|follower| follower.is_begun = true),
            Err(error) => {
                let path = self.registry.display();
                let reason = format!(
                    "{path} cannot be written: {error}; the source goes on with the files that it has and begins no others until it can"
                );
                self.say(&reason);
            }
        }
    }

    /// Writes the registry while nothing is on its way: all that was taken is in front of the end of the log.
    fn freshen(&mut self) {
        self.known = self.known.max(self.desk.parts.tail.borrow().head.next.0);
        self.write_registry();
    }

    /// Forgets files that are gone and read to their end.
    fn forget(&mut self) {
        let done: BTreeSet<usize> = (0..self.followers.len()).filter(|index| self.followers[*index].is_done()).collect();
        for index in done.into_iter().rev() {
            let Follower { name, size, .. } = self.followers.remove(index);
            tracing::info!(source = self.name, file = name, bytes = size, "a file of a source is gone and read to its end");
            self.is_behind = true;
        }
    }

    fn count_unread(&self) {
        let unread = self.followers.iter().map(|follower| follower.size.saturating_sub(follower.place.line)).sum();
        self.counts.unread_bytes.store(unread, Relaxed);
    }

    /// Says a trouble that may stay: at once, and then once a minute.
    fn say(&mut self, reason: &str) {
        self.said.retain(|_, at| at.elapsed() < SAY_EVERY);
        if !self.said.contains_key(reason) {
            tracing::warn!(source = self.name, reason, "a source has a trouble");
            self.said.insert(reason.to_owned(), Instant::now());
        }
    }
}

impl Batch {
    fn add(&mut self, desk: &Desk, source: &str, file: &str, offset: u64, found: &Found<'_>) {
        let refused = |line: &[u8], field: Option<String>, reason: String| Refused {
            file: file.to_owned(),
            offset,
            line: line.to_vec(),
            field,
            reason,
        };
        match found {
            Found::Blank => {}
            Found::TooLong => self.refused.push(refused(b"", None, format!("the line is longer than {VALUE_BYTES_MAX} bytes"))),
            Found::Text(line) => {
                self.bytes += line.len();
                match desk.read(source, file, offset, line) {
                    Ok(wanted) => self.wanted.push(wanted),
                    Err(refusal) => self.refused.push(refused(line, Some(refusal.field.clone()), refusal.to_string())),
                }
            }
        }
    }
}

impl Refused {
    fn by_the_rules(wanted: Wanted, error: &SubmitError) -> Refused {
        Refused { file: wanted.file, offset: wanted.offset, line: wanted.line, field: None, reason: error.to_string() }
    }
}
