//! Reads which partitions a member of a consumer group was given, from what the group's leader wrote for it (`ConsumerProtocolAssignment`
//! in Kafka's protocol): a version, then topics with partitions, then bytes of the leader's own. What is cut off gives what came before.

/// Topics with their partitions; nothing of bytes that are no assignment.
pub(crate) fn read(bytes: &[u8]) -> Vec<(String, Vec<i32>)> {
    let mut from = From(bytes);
    let mut topics = Vec::new();
    let Some(count) = from.i16().and_then(|_version| from.i32()) else { return topics };
    for _ in 0..count {
        let Some(name) = from.text() else { return topics };
        let mut partitions = Vec::new();
        let wanted = from.i32().unwrap_or(0);
        for _ in 0..wanted {
            let Some(partition) = from.i32() else { break };
            partitions.push(partition);
        }
        topics.push((name, partitions));
    }
    topics
}

/// What is not read yet.
struct From<'a>(&'a [u8]);

impl From<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"\0\x01\0\0\0\x02\0\x03a.r\0\0\0\x02\0\0\0\x05\0\0\0\x07\0\x03a.c\0\0\0\x01\0\0\0\0\0\0\0\0";

    #[test]
    fn topics_come_with_their_partitions() {
        assert_eq!(read(TWO), [("a.r".to_owned(), vec![5, 7]), ("a.c".to_owned(), vec![0])]);
    }

    #[test]
    fn what_is_cut_off_gives_what_came_before_and_nonsense_nothing() {
        for end in 0..TWO.len() {
            assert!(read(&TWO[..end]).len() <= 2);
        }
        assert_eq!(read(&[0xff; 40]), []);
        assert_eq!(read(&[]), []);
    }
}
