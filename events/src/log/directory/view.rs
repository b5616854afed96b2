//! What a writer tells its readers: which segments there are, and where the last one ends.

use std::sync::{Arc, PoisonError, RwLock};

use super::super::Span;
use crate::id::{Ordinal, Position};

/// The end of what may be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct End {
    pub(in crate::log) next: Position,
    pub(in crate::log) next_ordinal: Ordinal,
    /// Bytes of blocks in the last segment.
    pub(in crate::log) offset: u64,
}

/// First positions of the segments, and the end of the last one.
#[derive(Clone, Debug, Default)]
pub(in crate::log) struct View {
    pub(in crate::log) segments: Arc<Vec<Position>>,
    pub(in crate::log) end: End,
}

impl View {
    pub(in crate::log) fn first(&self) -> Position {
        self.segments.first().copied().unwrap_or(self.end.next)
    }

    pub(in crate::log) fn span(&self) -> Span {
        Span { first: self.first(), next: self.end.next }
    }
}

/// The view that everybody shares.
#[derive(Debug, Default)]
pub(in crate::log) struct Published(RwLock<View>);

impl Published {
    pub(in crate::log) fn new(view: View) -> Published {
        Published(RwLock::new(view))
    }

    pub(in crate::log) fn get(&self) -> View {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::log) fn set(&self, view: View) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Moves the end, and names the segments where they are others than before.
    pub(in crate::log) fn advance(&self, segments: &[Position], end: End) {
        let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *view.segments != segments {
            view.segments = Arc::new(segments.to_vec());
        }
        view.end = end;
    }
}
