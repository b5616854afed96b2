//! Which sidecars are there, and which are not used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::page::Unusable;
use super::sidecar::Sidecar;
use crate::id::{Ordinal, Position};

/// Pages of types kept in memory, 16 KiB and 8,192 tasks each.
const TYPE_PAGES_MAX: usize = 128;

/// A sidecar that is not used until it is built again; its range is read from the log.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: Arc<Unusable>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// By position, and so by ordinal.
    pub(super) sidecars: Vec<Arc<Sidecar>>,
    pub(super) set_aside: Vec<SetAside>,
    /// By first position of the sidecar, and page.
    pub(super) types: BTreeMap<(Position, usize), Vec<u8>>,
}

impl Known {
    /// Forgets what lies at this path, a sidecar or the reason why it is none.
    pub(super) fn forget(&mut self, path: &Path) {
        let dropped = self.sidecars.iter().position(|sidecar| sidecar.path == path).map(|index| self.sidecars.remove(index));
        if let Some(dropped) = dropped {
            self.types.retain(|(first, _), _| *first != dropped.span().first);
        }
        self.set_aside.retain(|aside| aside.path != path);
    }

    /// Adds a sidecar, or the reason why what lies there is none.
    pub(super) fn add(&mut self, path: PathBuf, opened: Result<Sidecar, Unusable>) {
        match opened {
            Ok(sidecar) => {
                let index = self.sidecars.partition_point(|other| other.span().first < sidecar.span().first);
                self.sidecars.insert(index, Arc::new(sidecar));
            }
            Err(reason) => self.set_aside.push(SetAside { path, reason: Arc::new(reason) }),
        }
    }

    /// Whether it is this very sidecar that is used, and not one that was built in its place.
    pub(super) fn has(&self, sidecar: &Arc<Sidecar>) -> bool {
        self.sidecars.iter().any(|other| Arc::ptr_eq(other, sidecar))
    }

    /// The sidecar of the range that begins there.
    pub(super) fn beginning(&self, first: Position) -> Option<Arc<Sidecar>> {
        let index = self.sidecars.partition_point(|sidecar| sidecar.span().first < first);
        self.sidecars.get(index).filter(|sidecar| sidecar.span().first == first).cloned()
    }

    /// The sidecar of the range that ends there.
    pub(super) fn ending(&self, next: Position) -> Option<Arc<Sidecar>> {
        let before = self.sidecars.iter().rev().find(|sidecar| sidecar.span().next <= next);
        before.filter(|sidecar| sidecar.span().next == next).cloned()
    }

    /// The sidecar of the range that creates the task.
    pub(super) fn creating(&self, task: Ordinal) -> Option<Arc<Sidecar>> {
        let index = self.sidecars.partition_point(|sidecar| sidecar.next_ordinal() <= task);
        self.sidecars.get(index).filter(|sidecar| sidecar.index_of(task).is_some()).cloned()
    }

    /// Keeps a page of types for the next task in it.
    pub(super) fn keep_types(&mut self, sidecar: &Arc<Sidecar>, key: (Position, usize), page: Vec<u8>) {
        if self.types.len() >= TYPE_PAGES_MAX {
            self.types.clear();
        }
        if self.has(sidecar) {
            self.types.insert(key, page);
        }
    }
}
