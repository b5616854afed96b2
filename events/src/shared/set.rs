//! An ordered set: a [`SharedMap`] without values.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

use super::SharedMap;

/// An ordered set whose clones share their nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSet<K>(SharedMap<K, ()>)
where
    K: Copy + Ord;

impl<K: Copy + Ord> SharedSet<K> {
    /// Number of members.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is a member.
    pub fn contains(&self, member: &K) -> bool {
        self.0.contains_key(member)
    }

    /// The lowest member.
    pub fn first(&self) -> Option<&K> {
        self.0.first_key_value().map(|(member, ())| member)
    }

    /// Adds a member; says whether it was none before.
    pub fn insert(&mut self, member: K) -> bool {
        self.0.insert(member, ()).is_none()
    }

    /// Takes a member out; says whether it was one.
    pub fn remove(&mut self, member: &K) -> bool {
        self.0.remove(member).is_some()
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The members from this one on, in order.
    pub fn iter_from(&self, member: K) -> impl Iterator<Item = &K> {
        self.0.iter_from(&member).map(|(member, ())| member)
    }
}

#[cfg(test)]
impl<K: Copy + Ord> SharedSet<K> {
    /// See [`SharedMap::nodes_apart`].
    pub(crate) fn nodes_apart(&self, other: &Self) -> usize {
        self.0.nodes_apart(&other.0)
    }
}

impl<K: Copy + Ord> Default for SharedSet<K> {
    fn default() -> Self {
        SharedSet(SharedMap::default())
    }
}

impl<K: Copy + Ord> FromIterator<K> for SharedSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(members: I) -> Self {
        SharedSet(members.into_iter().map(|member| (member, ())).collect())
    }
}

impl<K: Copy + Ord + std::fmt::Debug> std::fmt::Debug for SharedSet<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Written as every other set is: the number of members, then each.
impl<K: Copy + Ord + Encode> Encode for SharedSet<K> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<Context, K: Copy + Ord + Decode<Context>> Decode<Context> for SharedSet<K> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(SharedSet(SharedMap::decode(decoder)?))
    }
}

impl<'de, Context, K: Copy + Ord + Decode<Context>> BorrowDecode<'de, Context> for SharedSet<K> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}
