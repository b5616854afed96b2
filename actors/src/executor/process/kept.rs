//! The attempt's log: the beginning and the end of what a command says on stderr, for the middle of a flood tells nobody anything.

use std::collections::VecDeque;

/// Bytes kept of the beginning: the first error is often the one that counts.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes kept of the end: what a command dies of is said last.
const TAIL_BYTES_MAX: usize = 48 << 10;

/// Keeps the head and the tail of a stream.
#[derive(Debug, Default)]
pub(super) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    /// Takes more of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES_MAX - self.head.len()));
        self.head.extend_from_slice(first);
        // Of a piece that is longer than the tail only its own end stays.
        let skipped = rest.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.extend(&rest[skipped..]);
        let over = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..over);
        self.left_out += (skipped + over) as u64;
    }

    /// A line of our own among those of the command.
    pub(super) fn note(&mut self, text: &str) {
        let last = self.tail.back().or(self.head.last()).copied();
        if last.is_some_and(|byte| byte != b'\n') {
            self.push(b"\n");
        }
        self.push(format!("ergate: {text}\n").as_bytes());
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Everything kept, as text; bytes that are none are replaced.
    pub(super) fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.left_out > 0 {
            bytes.extend_from_slice(gap(self.left_out).as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// At most so many bytes of it: a third from the beginning, the rest from the end.
    pub(super) fn excerpt(&self, max: usize) -> String {
        let text = self.text();
        // Room for the words between, with a number of twenty digits.
        let room = max.saturating_sub(48);
        if text.len() <= max || room == 0 {
            return text[..text.floor_char_boundary(max)].to_owned();
        }
        let head = &text[..text.floor_char_boundary(room / 3)];
        let tail = &text[text.ceil_char_boundary(text.len() - (room - head.len()))..];
        let left_out = (text.len() - head.len() - tail.len()) as u64 + self.left_out;
        format!("{head}{}{tail}", gap(left_out))
    }
}

fn gap(bytes: u64) -> String {
    format!("\n[{bytes} bytes left out]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_its_beginning_and_its_end() {
        let mut kept = Kept::default();
        kept.push(b"first\n");
        for _ in 0..100 {
            kept.push(&[b'x'; 10_000]);
        }
        kept.push(b"\nlast\n");
        let text = kept.text();
        assert!(text.starts_with("first\n") && text.ends_with("\nlast") && text.contains("bytes left out"), "{}", text.len());
        assert!(text.len() <= HEAD_BYTES_MAX + TAIL_BYTES_MAX + 48);
        let left_out = 1_000_012 - HEAD_BYTES_MAX - TAIL_BYTES_MAX;
        assert!(text.contains(&format!("[{left_out} bytes left out]")), "one byte too many or too few");
        let excerpt = kept.excerpt(1_000);
        assert!(excerpt.len() <= 1_000 && excerpt.starts_with("first\n") && excerpt.ends_with("\nlast"), "{excerpt}");
    }

    #[test]
    fn little_is_kept_as_it_is() {
        let mut kept = Kept::default();
        assert!(kept.is_empty());
        kept.push(b"no such file");
        kept.note("line 3 is no word");
        assert_eq!(kept.text(), "no such file\nergate: line 3 is no word");
        assert_eq!(kept.excerpt(7), "no such");
        kept.push(&[0xff, b'\n']);
        assert!(kept.text().ends_with('\u{fffd}'));
    }
}
