//! Splits a stream into lines of bounded length.

use std::io::{self, BufRead, BufReader, Read};

/// Longest line that is read: the longest request.
pub(super) const LINE_BYTES_MAX: usize = ergate::request::VALUE_BYTES_MAX;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// Lines of a stream. A longer one than [`LINE_BYTES_MAX`] is passed over without being kept.
pub(super) struct Lines<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Its content without the end of line; a byte order mark at the very beginning is left out.
    Text(&'a [u8]),
    /// Nothing but white space.
    Blank,
    /// It was too long and was passed over.
    TooLong,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(from: R) -> Lines<R> {
        Lines { from: BufReader::with_capacity(READ_BYTES, from), line: Vec::new(), number: 0 }
    }

    /// Whether the next line is here in full, so that reading it does not wait.
    pub(super) fn is_ready(&self) -> bool {
        self.from.buffer().contains(&b'\n')
    }

    /// The next line with its number from 1 on; `None` at the end.
    ///
    /// # Errors
    /// What the stream answers.
    pub(super) fn next_line(&mut self) -> io::Result<Option<(u64, Found<'_>)>> {
        self.line.clear();
        let mut bytes = 0;
        loop {
            let buffer = match self.from.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() && bytes == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            if self.line.len() + part.len() <= LINE_BYTES_MAX {
                self.line.extend_from_slice(part);
            }
            bytes += part.len();
            let at_end = end.is_some() || buffer.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.from.consume(used);
            if at_end {
                self.number += 1;
                return Ok(Some((self.number, self.found(bytes))));
            }
            // Counted only until it is known to be too long.
            bytes = bytes.min(LINE_BYTES_MAX + 1);
        }
    }

    fn found(&self, bytes: usize) -> Found<'_> {
        if bytes > LINE_BYTES_MAX {
            return Found::TooLong;
        }
        let line = if self.number == 1 { self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line) } else { &self.line };
        let line = line.trim_ascii();
        if line.is_empty() { Found::Blank } else { Found::Text(line) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_line().unwrap() {
            found.push(match line {
                Found::Text(text) => format!("{number} {}", text.escape_ascii()),
                Found::Blank => format!("{number} blank"),
                Found::TooLong => format!("{number} long"),
            });
        }
        found
    }

    #[test]
    fn lines_end_in_any_usual_way() {
        assert_eq!(all(b""), Vec::<String>::new());
        assert_eq!(all(b"a\nb\r\n\n \t\nc"), ["1 a", "2 b", "3 blank", "4 blank", "5 c"]);
        assert_eq!(all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), ["1 a", r"2 \xef\xbb\xbfb"]);
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_one_is_found() {
        let mut bytes = vec![b'a'; LINE_BYTES_MAX];
        bytes.extend_from_slice(b"\nb\n");
        bytes.extend(vec![b'c'; LINE_BYTES_MAX + 1]);
        bytes.extend_from_slice(b"\nd");
        let found = all(&bytes);
        assert_eq!((found[0].len(), &found[1..]), (LINE_BYTES_MAX + 2, &["2 b".to_owned(), "3 long".into(), "4 d".into()][..]));
    }
}
