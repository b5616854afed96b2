//! What a worker is: a process, here or elsewhere, that asks for attempts, runs them and reports how they ended.
//!
//! To a shard it is a replica whose slots count only when it asks: an offer that nobody waits for would keep work from others. What it is given is a
//! *lease*: as long as it gives signs of life the attempts are its own, and once it has been silent for the time that it joined with, they return.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::event::hex;
use crate::id::{ParseIdError, ReplicaId, from_printed};
use crate::schedule::Label;
use crate::task::TEXT_BYTES_MAX;
use crate::time::Micros;

/// The first id of a replica that is a worker; those below belong to pools with a size.
pub const WORKER_FIRST: ReplicaId = ReplicaId(1 << 31);
/// Most task types that one worker names.
pub const WORKER_TYPES_MAX: usize = 1_024;
/// Most labels of one worker.
pub const WORKER_LABELS_MAX: usize = 16;
/// Shortest lease: a network that answers late now and then must not cost work.
pub const LEASE_MIN: Micros = Micros::from_millis(500);
/// Longest lease: what a vanished worker held comes back within a quarter of an hour.
pub const LEASE_MAX: Micros = Micros::from_secs(900);

/// One run of a worker, drawn by chance by the worker itself; prints as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct WorkerId(pub [u8; 16]);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for WorkerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
            let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect();
            <[u8; 16]>::try_from(bytes).ok().filter(|_| text.len() == 32).map(WorkerId)
        };
        parse().ok_or_else(|| ParseIdError::new(text, "32 hexadecimal digits"))
    }
}

impl Serialize for WorkerId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkerId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from_printed(from)
    }
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerFacts {
    /// Which run of which worker.
    pub id: WorkerId,
    /// What people call it.
    pub name: String,
    /// The task types that it can run, in order, each once; none stands for all of its pool.
    pub types: Vec<String>,
    /// What tells it from others, by name, each once and in order.
    pub labels: Vec<Label>,
    /// How long it may be silent before what it runs goes to others.
    pub lease: Micros,
}

impl WorkerFacts {
    /// Whether it can run tasks of this type.
    pub fn serves(&self, task_type: &str) -> bool {
        self.types.is_empty() || self.types.binary_search_by(|known| known.as_str().cmp(task_type)).is_ok()
    }

    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let ordered = |types: &[String]| types.is_sorted_by(|one, next| one < next);
        let texts =
            [&self.name].into_iter().chain(&self.types).chain(self.labels.iter().flat_map(|label| [&label.name, &label.value]));
        if texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            Some(("a text about the worker", "at most 256 bytes"))
        } else if self.types.len() > WORKER_TYPES_MAX || !ordered(&self.types) {
            Some(("the task types of the worker", "at most 1024, in order, each once"))
        } else if self.labels.len() > WORKER_LABELS_MAX || !self.labels.is_sorted_by(|one, next| one.name < next.name) {
            Some(("the labels of the worker", "at most 16, in order, each once"))
        } else if self.lease < LEASE_MIN || self.lease > LEASE_MAX {
            Some(("the lease of the worker", "500 ms to 15 min"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_reads_as_32_digits_and_nothing_else() {
        let id = WorkerId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0dfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &"ä".repeat(16)] {
            assert!(wrong.parse::<WorkerId>().is_err(), "{wrong:?}");
        }
    }
}
