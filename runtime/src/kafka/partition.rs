//! Which partition a key goes to.

use ergate_events::id::ShardId;

/// The shard of what has a name and belongs to no task, such as a schedule: the one that a record with this key goes to.
pub fn home(name: &str, shards: u16) -> ShardId {
    ShardId(of_key(name.as_bytes(), shards))
}

/// The partition that Kafka's own clients choose for a key (`BuiltInPartitioner.partitionForKey`): so a request with an idempotency key meets
/// the same shard whoever publishes it with that key.
pub(crate) fn of_key(key: &[u8], partitions: u16) -> u16 {
    let hash = murmur2(key) & 0x7fff_ffff;
    // Less than `partitions`.
    (hash % u32::from(partitions.max(1))) as u16
}

/// MurmurHash2 with 32 bits, as `org.apache.kafka.common.utils.Utils.murmur2` seeds it.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        let mixed = (mixed ^ (mixed >> SHIFT)).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ mixed;
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafka() {
        // From `UtilsTest.testMurmur2` of Apache Kafka.
        let table: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (bytes, hash) in table {
            assert_eq!(murmur2(bytes), hash.cast_unsigned(), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(of_key(b"21", 16), ((-973_932_308_i32).cast_unsigned() & 0x7fff_ffff) as u16 % 16);
    }
}
