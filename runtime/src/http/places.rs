//! The cursor of a list that is merged of several shards: a place in each of them.
//!
//! As bytes: the version, then for each shard that the list has begun with its number, as the distance from the one before, the kind of its
//! place, and its numbers; all as LEB128. It is for programs to hand back, so it is base64 and says nothing to people.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ergate_events::id::{Ordinal, Position, ShardId};

use crate::look::row::Cursor;

/// The first byte.
const VERSION: u8 = 1;
/// Longest text of a cursor: it travels in an address, which may have 8 KiB in all. It has room for 400 shards and more.
const TEXT_BYTES_MAX: usize = 6 << 10;
/// The kinds of places.
const END: u8 = 0;
const LIVE: u8 = 1;
const LIVE_AS_OF: u8 = 2;
const ENDED: u8 = 3;

/// Where a list goes on in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind this.
    Behind(Cursor),
    /// Nowhere: all of it was listed.
    End,
}

/// A place in each shard that a list has begun with; the others begin with their newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(pub(super) BTreeMap<ShardId, Place>);

impl Places {
    /// Writes them as a text; `None` where there are too many to go into an address.
    pub(super) fn write(&self) -> Option<String> {
        let (mut out, mut next) = (vec![VERSION], 0);
        for (shard, place) in &self.0 {
            put(&mut out, u64::from(shard.0) - next);
            next = u64::from(shard.0) + 1;
            match place {
                Place::End => out.push(END),
                Place::Behind(Cursor::Live { before, as_of: None }) => numbers(&mut out, LIVE, &[before.0]),
                Place::Behind(Cursor::Live { before, as_of: Some(as_of) }) => numbers(&mut out, LIVE_AS_OF, &[before.0, as_of.0]),
                Place::Behind(Cursor::Ended(at)) => numbers(&mut out, ENDED, &[at.0]),
            }
        }
        Some(URL_SAFE_NO_PAD.encode(out)).filter(|text| text.len() <= TEXT_BYTES_MAX)
    }

    /// Reads a text; `None` for one that was not written by [`Places::write`] of a log with so many shards.
    pub(super) fn read(text: &str, shards: u16) -> Option<Places> {
        let bytes = (text.len() <= TEXT_BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        let (version, mut rest) = bytes.split_first()?;
        let (mut places, mut next) = (BTreeMap::new(), 0_u64);
        while *version == VERSION && !rest.is_empty() {
            let shard = next.checked_add(take(&mut rest)?).filter(|shard| *shard < u64::from(shards))?;
            next = shard + 1;
            places.insert(ShardId(u16::try_from(shard).ok()?), place(&mut rest)?);
        }
        (*version == VERSION).then_some(Places(places))
    }
}

fn place(rest: &mut &[u8]) -> Option<Place> {
    let (kind, tail) = rest.split_first()?;
    *rest = tail;
    Some(match *kind {
        END => Place::End,
        LIVE => Place::Behind(Cursor::Live { before: Ordinal(take(rest)?), as_of: None }),
        LIVE_AS_OF => {
            let before = Ordinal(take(rest)?);
            Place::Behind(Cursor::Live { before, as_of: Some(Position(take(rest)?)) })
        }
        ENDED => Place::Behind(Cursor::Ended(Position(take(rest)?))),
        _ => return None,
    })
}

fn numbers(out: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    out.push(kind);
    numbers.iter().for_each(|number| put(out, *number));
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_place() -> impl Strategy<Value = Place> {
        let live = |(before, as_of): (u64, Option<u64>)| Cursor::Live { before: Ordinal(before), as_of: as_of.map(Position) };
        prop_oneof![
            Just(Place::End),
            any::<(u64, Option<u64>)>().prop_map(live).prop_map(Place::Behind),
            any::<u64>().prop_map(|at| Place::Behind(Cursor::Ended(Position(at)))),
        ]
    }

    proptest! {
        #[test]
        fn places_are_read_as_they_were_written(places in prop::collection::btree_map((0_u16..64).prop_map(ShardId), any_place(), 0..64)) {
            let places = Places(places);
            let text = places.write().expect("they are few");
            prop_assert_eq!(Places::read(&text, 64), Some(places));
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
            let of_bytes = Places::read(&URL_SAFE_NO_PAD.encode(&bytes), 16);
            prop_assert!(of_bytes.is_none_or(|places| places.0.keys().all(|shard| shard.0 < 16)));
            let _ = Places::read(&text, 16);
        }
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let of = |bytes: &[u8]| Places::read(&URL_SAFE_NO_PAD.encode(bytes), 4);
        assert_eq!(of(&[VERSION]), Some(Places::default()));
        for bytes in [
            &[][..],
            &[2],
            &[VERSION, 4, END],
            &[VERSION, 3, END, 0, END],
            &[VERSION, 0, 9],
            &[VERSION, 0, LIVE],
            &[VERSION, 0, LIVE, 0x80],
        ] {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
        let many: BTreeMap<_, _> =
            (0..2_000).map(|shard| (ShardId(shard), Place::Behind(Cursor::Ended(Position(1 << 40))))).collect();
        assert_eq!(Places(many).write(), None);
    }
}
