//! The databases of one log as everybody in this process shares them: each is open at most once, and closed when nobody reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::super::LogError;
use super::super::directory::engine::Survey;
use super::super::directory::layout::Layout;
use super::super::directory::store;
use super::super::directory::view::{Published, View};
use super::database::Database;
use super::{ballast, recover};
use crate::id::Position;

/// The logs that are open in this process, by their canonical paths. sled's locks belong to the process, so this does too.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Databases>>> = Mutex::new(BTreeMap::new());
/// How often a sealed database is looked at until nobody reads it any more.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
const SETTLE_TRIES_MAX: u32 = 1_200;

/// One log's databases.
pub(in crate::log) struct Databases {
    pub(super) layout: Layout,
    pub(super) view: Published,
    open: Mutex<BTreeMap<Position, Arc<Mutex<Weak<Database>>>>>,
    /// The sealed database that was opened last, for whoever asks it the next question.
    recent: Mutex<Option<Arc<Database>>>,
    /// Held by a reader that has no writer to hold it.
    _lock: Option<File>,
}

impl Databases {
    /// What a writer, who holds the lock itself, shares with its readers: those of the writer before it in this process included.
    pub(super) fn written(layout: &Layout) -> Arc<Databases> {
        if let Some(shared) = Databases::known(layout) {
            return shared;
        }
        Arc::new(Databases::new(layout, None))
    }

    /// Shows what was found of the log to everybody in this process.
    pub(super) fn open_to_readers(self: &Arc<Self>, view: View) {
        self.view.set(view);
        self.register();
    }

    fn new(layout: &Layout, lock: Option<File>) -> Databases {
        Databases {
            layout: layout.clone(),
            view: Published::default(),
            open: Mutex::default(),
            recent: Mutex::default(),
            _lock: lock,
        }
    }

    fn register(self: &Arc<Self>) {
        if let Ok(path) = self.layout.dir.canonicalize() {
            let mut open = lock(&OPEN);
            open.retain(|_, known| known.strong_count() > 0);
            open.insert(path, Arc::downgrade(self));
        }
    }

    /// The databases of a log for reading: those that this process has open already, or all of it with the log's lock.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has the log, and whatever looking at it meets.
    pub(super) fn share(layout: &Layout) -> Result<(Arc<Databases>, Survey), LogError> {
        if let Some(shared) = Databases::known(layout) {
            let survey = recover::published(&shared)?;
            return Ok((shared, survey));
        }
        let held = store::lock(layout)?;
        let shared = Arc::new(Databases::new(layout, Some(held)));
        let (survey, newest) = recover::survey(&shared)?;
        shared.open_to_readers(survey.view(newest.map_or(0, |newest| newest.bytes)));
        Ok((shared, survey))
    }

    /// As [`Databases::share`], verifying the blocks only when they are read.
    ///
    /// # Errors
    /// As [`Databases::share`].
    pub(super) fn read(layout: &Layout) -> Result<Arc<Databases>, LogError> {
        if let Some(shared) = Databases::known(layout) {
            return Ok(shared);
        }
        let held = store::lock(layout)?;
        let shared = Arc::new(Databases::new(layout, Some(held)));
        let survey = match recover::glance(&shared)? {
            Some(survey) => survey,
            None => recover::survey(&shared)?.0,
        };
        // How many bytes there are, only a writer needs to know.
        shared.view.set(survey.view(0));
        shared.register();
        Ok(shared)
    }

    /// The databases that this process has open already, or else for whoever holds the log's lock.
    pub(super) fn here(layout: &Layout) -> Arc<Databases> {
        Databases::known(layout).unwrap_or_else(|| Arc::new(Databases::new(layout, None)))
    }

    fn known(layout: &Layout) -> Option<Arc<Databases>> {
        let path = layout.dir.canonicalize().ok()?;
        lock(&OPEN).get(&path).and_then(Weak::upgrade)
    }

    /// An open database.
    ///
    /// # Errors
    /// [`LogError::Gone`] when retention was faster, and whatever opening meets.
    pub(super) fn get(&self, first: Position) -> Result<Arc<Database>, LogError> {
        let slot = self.slot(first);
        let mut slot = lock(&slot);
        if let Some(database) = slot.upgrade() {
            return Ok(database);
        }
        // Before the next one is opened: each may take as much memory as a database has bytes.
        *lock(&self.recent) = None;
        let opened = self.open_database(first)?;
        let gone = || LogError::Gone { at: first, first: self.view.get().first() };
        let database = Arc::new(opened.ok_or_else(gone)?);
        *slot = Arc::downgrade(&database);
        *lock(&self.recent) = Some(Arc::clone(&database));
        Ok(database)
    }

    fn open_database(&self, first: Position) -> Result<Option<Database>, LogError> {
        let path = self.layout.segment(first);
        match Database::open(&path, first) {
            // sled writes before it reads.
            Err(LogError::Full { .. }) if ballast::give_back(&self.layout).unwrap_or(false) => Database::open(&path, first),
            opened => opened,
        }
    }

    /// Takes in a database that the writer has just created.
    pub(super) fn adopt(&self, database: Database) -> Arc<Database> {
        let database = Arc::new(database);
        *lock(&self.slot(database.first)) = Arc::downgrade(&database);
        database
    }

    fn slot(&self, first: Position) -> Arc<Mutex<Weak<Database>>> {
        Arc::clone(lock(&self.open).entry(first).or_default())
    }

    /// Forgets a database that is no longer part of the log.
    pub(super) fn forget(&self, first: Position) {
        lock(&self.open).remove(&first);
        lock(&self.recent).take_if(|database| database.first == first);
    }

    /// Opens a sealed database once more when nobody reads it, and closes it: sled then writes a snapshot, from which it opens in
    /// 3 ms instead of 40. Whatever goes wrong here, the next reader meets and says.
    pub(super) fn settle(self: &Arc<Self>, first: Position) {
        let shared = Arc::downgrade(self);
        // Without the thread, the next opening takes its 40 ms.
        let _ = std::thread::Builder::new().name("ergate-sled-settle".to_owned()).spawn(move || {
            for _ in 0..SETTLE_TRIES_MAX {
                std::thread::sleep(SETTLE_EVERY);
                let Some(shared) = shared.upgrade() else { return };
                let slot = shared.slot(first);
                let slot = lock(&slot);
                if slot.strong_count() == 0 {
                    // Not worth the ballast.
                    let _ = Database::open(&shared.layout.segment(first), first);
                    return;
                }
            }
        });
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
