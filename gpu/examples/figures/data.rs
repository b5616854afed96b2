//! Inputs that `gpu/bench.py` makes too: hashes of indices, so that both measure the same data.

/// The finalizer of splitmix64 over an index and a salt.
pub(crate) fn hash(index: u64, salt: u64) -> u64 {
    let mut z = index.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A group among `groups`, evenly.
pub(crate) fn group(index: u64, groups: u64) -> i64 {
    ((hash(index, 1) >> 1) % groups) as i64
}

/// A value in 0 .. 1 with 53 bits.
pub(crate) fn value(index: u64) -> f64 {
    (hash(index, 2) >> 11) as f64 * 2f64.powi(-53)
}

/// A component in -1 .. 1 with 24 bits, of a matrix (salt 3) or of queries (salt 4).
pub(crate) fn component(index: u64, salt: u64) -> f32 {
    (hash(index, salt) >> 40) as f32 * 2f32.powi(-23) - 1.0
}
