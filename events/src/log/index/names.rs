//! What task types are called.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::id::TypeId;

/// The names of the task types that were defined up to some position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TypeNames {
    /// By number, and so in the order in which they were defined.
    names: BTreeMap<u16, String>,
    /// Whether no definition can be missing.
    whole: bool,
}

impl TypeNames {
    /// No names yet; `whole` where nothing was defined before either.
    pub const fn new(whole: bool) -> TypeNames {
        TypeNames { names: BTreeMap::new(), whole }
    }

    /// Whether no definition can be missing. One can be where the log had lost its beginning before it was indexed.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Adds a definition.
    pub fn define(&mut self, id: TypeId, name: &str) {
        self.names.insert(id.0, name.to_owned());
    }

    /// Adds what others know that begin where these end, or earlier.
    pub(super) fn join(&mut self, later: &TypeNames) {
        self.names.extend(later.names.iter().map(|(id, name)| (*id, name.clone())));
        self.whole |= later.whole;
    }

    /// What a type is called.
    pub fn name(&self, id: TypeId) -> Option<&str> {
        self.names.get(&id.0).map(String::as_str)
    }

    /// Every definition, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, &str)> {
        self.names.iter().map(|(id, name)| (TypeId(*id), name.as_str()))
    }
}
