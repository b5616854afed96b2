//! Cuts a stream into lines of a bounded length.

use crate::executor::word::WORD_BYTES_MAX;

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
    /// The line that is being read was too long and is passed over.
    skipping: bool,
    number: u64,
}

/// A line, or that there was one too long to be kept.
pub(super) type Line<'a> = Option<&'a [u8]>;

impl Lines {
    /// Takes more bytes; tells every line that is complete with its number, counted from 1. Empty lines are passed over.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut tell: impl FnMut(u64, Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.end(&mut tell);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The stream is over: what has no end of line is a line too.
    pub(super) fn finish(&mut self, mut tell: impl FnMut(u64, Line<'_>)) {
        if !self.open.is_empty() || self.skipping {
            self.end(&mut tell);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.open.len() + bytes.len() > WORD_BYTES_MAX {
            self.skipping = true;
            self.open = Vec::new();
        }
        if !self.skipping {
            self.open.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, tell: &mut impl FnMut(u64, Line<'_>)) {
        self.number += 1;
        let line = self.open.trim_ascii();
        if self.skipping {
            tell(self.number, None);
        } else if !line.is_empty() {
            tell(self.number, Some(line));
        }
        self.open.clear();
        self.skipping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(u64, Option<String>)> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        let mut tell = |number, line: Line<'_>| told.push((number, line.map(|line| String::from_utf8_lossy(line).into_owned())));
        pieces.iter().for_each(|piece| lines.push(piece, &mut tell));
        lines.finish(&mut tell);
        told
    }

    #[test]
    fn lines_come_out_however_they_arrive() {
        let expected = vec![(1, Some("a".to_owned())), (3, Some("bc".to_owned()))];
        assert_eq!(cut(&[b"a\r\n\nbc\n"]), expected);
        assert_eq!(cut(&[b"a", b"\n", b"\nb", b"c"]), expected);
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn a_line_without_end_is_passed_over_and_the_next_one_counts() {
        let long = vec![b'x'; WORD_BYTES_MAX + 1];
        assert_eq!(cut(&[&long, &long, b"\nok\n"]), [(1, None), (2, Some("ok".to_owned()))]);
        assert_eq!(cut(&[&long]), [(1, None)]);
        assert_eq!(cut(&[&long[1..], b"\n"]).len(), 1);
    }
}
