//! What one replica of a pool asks for, and how much all of them may ask for together.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Most thousandths of a core, and most bytes of memory, that a setting may name: more than any machine has, and a sum of as many replicas as there may be
/// is still a number.
pub const RESOURCE_MAX: u64 = 1 << 50;

/// What one replica of a pool asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// How much all replicas of a pool may have together; what is not said has no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// Slots.
    pub slots: Option<u64>,
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// What is said of a pool's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolResources {
    /// What one replica asks for.
    pub asked: Asked,
    /// How much all of them may ask for together.
    pub ceiling: Ceiling,
}

/// What a ceiling is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Slots.
    Slots,
    /// CPU, counted in thousandths of a core.
    Cpu,
    /// Memory, counted in bytes.
    Memory,
}

/// How many replicas fit under a ceiling, and by which of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Which part leaves room for the fewest.
    pub of: Resource,
    /// How much there may be, in the unit of the resource.
    pub most: u64,
    /// How much one replica takes.
    pub each: u64,
}

impl PoolResources {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == PoolResources::default()
    }

    /// How many replicas with so many slots fit; `None` where there is no ceiling. Of equals the first: slots, CPU, memory.
    pub fn fit(&self, slots: u32) -> Option<Fit> {
        let PoolResources { asked, ceiling } = self;
        let parts = [
            (Resource::Slots, ceiling.slots, Some(u64::from(slots))),
            (Resource::Cpu, ceiling.cpu_milli, asked.cpu_milli),
            (Resource::Memory, ceiling.memory_bytes, asked.memory_bytes),
        ];
        let fits =
            parts.into_iter().filter_map(|(of, most, each)| Some(Fit { of, most: most?, each: each.filter(|each| *each > 0)? }));
        fits.min_by_key(|fit| fit.replicas())
    }

    /// What makes no sense: the part at fault and why; `None` where all does.
    pub fn conflict(&self) -> Option<(&'static str, &'static str)> {
        let PoolResources { asked, ceiling } = self;
        let within = |amount: Option<u64>| amount.is_none_or(|amount| (1..=RESOURCE_MAX).contains(&amount));
        match () {
            () if !within(asked.cpu_milli) => Some(("cpu", "it is more than nothing, and fewer than a trillion cores")),
            () if !within(asked.memory_bytes) => Some(("memory", "it is more than nothing, and at most 1024 TiB")),
            () if !within(ceiling.slots) => Some(("ceiling.slots", "it is at least 1")),
            () if !within(ceiling.cpu_milli) => Some(("ceiling.cpu", "it is more than nothing, and fewer than a trillion cores")),
            () if !within(ceiling.memory_bytes) => Some(("ceiling.memory", "it is more than nothing, and at most 1024 TiB")),
            () if ceiling.cpu_milli.is_some() && asked.cpu_milli.is_none() => {
                Some(("ceiling.cpu", "nobody knows how many replicas fit: set `cpu` beside it, what one of them asks for"))
            }
            () if ceiling.memory_bytes.is_some() && asked.memory_bytes.is_none() => {
                Some(("ceiling.memory", "nobody knows how many replicas fit: set `memory` beside it, what one of them asks for"))
            }
            () => None,
        }
    }
}

impl Resource {
    /// What a part of a ceiling is called.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Slots => "slots",
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
        }
    }

    /// An amount of it, as people write it: `64 slots`, `2.5 cores`, `128 GiB`.
    pub fn amount(self, amount: u64) -> String {
        match self {
            Resource::Slots => format!("{amount} slot{}", if amount == 1 { "" } else { "s" }),
            Resource::Cpu => format!("{} core{}", cores(amount), if amount == 1_000 { "" } else { "s" }),
            Resource::Memory => memory(amount),
        }
    }
}

/// Thousandths of a core as a number of cores.
pub fn cores(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes in the largest unit of which they are a whole number.
fn memory(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    whole.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

impl Fit {
    /// How many replicas that is.
    pub fn replicas(self) -> u32 {
        u32::try_from(self.most / self.each.max(1)).unwrap_or(u32::MAX)
    }

    /// What the ceiling would have to be for so many.
    pub fn needed(self, replicas: u32) -> String {
        self.of.amount(self.each.saturating_mul(u64::from(replicas)))
    }
}

/// The arithmetic: `32 cores at 2 cores each`.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} each", self.of.amount(self.most), self.of.amount(self.each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn pool(asked: (Option<u64>, Option<u64>), ceiling: (Option<u64>, Option<u64>, Option<u64>)) -> PoolResources {
        PoolResources {
            asked: Asked { cpu_milli: asked.0, memory_bytes: asked.1 },
            ceiling: Ceiling { slots: ceiling.0, cpu_milli: ceiling.1, memory_bytes: ceiling.2 },
        }
    }

    #[test]
    fn the_part_that_leaves_room_for_the_fewest_counts_and_says_its_arithmetic() {
        let asked = (Some(2_000), Some(4 * GIB));
        for (ceiling, slots, expected) in [
            ((Some(64), Some(32_000), Some(128 * GIB)), 1, Some((16, "32 cores at 2 cores each"))),
            ((Some(64), Some(32_000), Some(128 * GIB)), 8, Some((8, "64 slots at 8 slots each"))),
            ((Some(64), Some(32_000), Some(30 * GIB)), 8, Some((7, "30 GiB at 4 GiB each"))),
            // Of equals the first.
            ((Some(16), Some(32_000), Some(64 * GIB)), 1, Some((16, "16 slots at 1 slot each"))),
            ((None, Some(1_999), None), 1, Some((0, "1.999 cores at 2 cores each"))),
            ((None, None, None), 1, None),
        ] {
            let fit = pool(asked, ceiling).fit(slots);
            assert_eq!(fit.map(|fit| (fit.replicas(), fit.to_string())), expected.map(|(count, text)| (count, text.to_owned())));
        }
        let fit = pool(asked, (None, Some(32_000), None)).fit(1).expect("there is a ceiling");
        assert_eq!(fit.needed(20), "40 cores");
        assert_eq!(pool((None, None), (None, Some(1), None)).fit(1), None, "nobody knows how many fit");
    }

    #[test]
    fn a_part_without_what_a_replica_takes_of_it_is_a_conflict() {
        for (asked, ceiling, expected) in [
            ((None, None), (Some(4), None, None), None),
            ((None, None), (None, Some(4_000), None), Some("ceiling.cpu")),
            ((Some(500), None), (None, Some(4_000), None), None),
            ((Some(500), None), (None, Some(4_000), Some(GIB)), Some("ceiling.memory")),
            ((Some(0), None), (None, None, None), Some("cpu")),
            ((None, Some(RESOURCE_MAX + 1)), (None, None, None), Some("memory")),
            ((None, None), (Some(0), None, None), Some("ceiling.slots")),
        ] {
            assert_eq!(pool(asked, ceiling).conflict().map(|(key, _)| key), expected, "{asked:?} {ceiling:?}");
        }
    }

    #[test]
    fn amounts_are_what_people_write() {
        for (resource, amount, expected) in [
            (Resource::Cpu, 1_000, "1 core"),
            (Resource::Cpu, 500, "0.5 cores"),
            (Resource::Cpu, 2_250, "2.25 cores"),
            (Resource::Memory, 128 * GIB, "128 GiB"),
            (Resource::Memory, 1_536 << 20, "1536 MiB"),
            (Resource::Memory, 1_000_000_000, "1000000000 bytes"),
            (Resource::Memory, 0, "0 bytes"),
        ] {
            assert_eq!(resource.amount(amount), expected);
        }
    }
}
