//! Takes what has been appended to a file apart into whole lines of bounded length; a line without its end is left for later.

use std::io;

use crate::request::VALUE_BYTES_MAX;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// How far a file has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the first line begins that was not taken.
    pub(super) line: u64,
    /// No line ends between that and here.
    pub(super) seen: u64,
}

impl Place {
    /// A line begins here.
    pub(super) const fn at(offset: u64) -> Place {
        Place { line: offset, seen: offset }
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Its content without white space around it; a byte order mark at the beginning of the file is left out.
    Text(&'a [u8]),
    /// Nothing but white space.
    Blank,
    /// It is longer than [`VALUE_BYTES_MAX`], and was passed over without being kept.
    TooLong,
}

/// A part of a file in memory; one of these serves all files of a source, one after the other.
#[derive(Default)]
pub(super) struct Window {
    /// Where in the file the bytes begin.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Turns to a file.
    pub(super) fn turn_to(&mut self, place: &mut Place) {
        self.bytes.clear();
        if place.seen - place.line <= VALUE_BYTES_MAX as u64 {
            // The beginning of the line is needed once its end is here.
            place.seen = place.line;
        }
        self.start = place.seen;
    }

    /// The next whole line before `until`, with the offset at which it begins. At the end of a file for good, the rest is a line too.
    ///
    /// # Errors
    /// What `read_at` answers.
    pub(super) fn next_line(
        &mut self,
        place: &mut Place,
        (until, is_over): (u64, bool),
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Option<(u64, Found<'_>)>> {
        loop {
            let unseen = usize::try_from(place.seen - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
            if let Some(length) = self.bytes[unseen..].iter().position(|byte| *byte == b'\n') {
                let end = place.seen + length as u64;
                return Ok(Some(self.take(place, end, end + 1)));
            }
            place.seen = self.start + self.bytes.len() as u64;
            if place.seen >= until {
                let is_rest = is_over && place.seen > place.line;
                return Ok(if is_rest { Some(self.take(place, place.seen, place.seen)) } else { None });
            }
            self.drop_read(place);
            let (kept, wanted) = (self.bytes.len(), usize::try_from(until - place.seen).unwrap_or(READ_BYTES).min(READ_BYTES));
            self.bytes.resize(kept + wanted, 0);
            let count = read_at(&mut self.bytes[kept..], place.seen);
            self.bytes.truncate(kept + count.as_ref().map_or(0, |count| *count));
            if count? == 0 {
                // It became shorter than it was said to be, which the next look finds out.
                return Ok(None);
            }
        }
    }

    /// Gives up what was taken, and of a line that is too long everything.
    fn drop_read(&mut self, place: &Place) {
        if place.seen - place.line > VALUE_BYTES_MAX as u64 {
            self.bytes.clear();
            self.start = place.seen;
        } else {
            let taken = usize::try_from(place.line - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
            self.bytes.drain(..taken);
            self.start = place.line;
        }
    }

    fn take(&mut self, place: &mut Place, end: u64, next: u64) -> (u64, Found<'_>) {
        let offset = place.line;
        *place = Place::at(next);
        if end - offset > VALUE_BYTES_MAX as u64 {
            return (offset, Found::TooLong);
        }
        let within = |at: u64| usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let line = &self.bytes[within(offset)..within(end)];
        let line = if offset == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let line = line.trim_ascii();
        (offset, if line.is_empty() { Found::Blank } else { Found::Text(line) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file in memory that gives a few bytes at a time.
    fn read_from(file: &[u8], most: usize) -> impl FnMut(&mut [u8], u64) -> io::Result<usize> + '_ {
        move |to, at| {
            let rest = &file[usize::try_from(at).unwrap().min(file.len())..];
            let count = rest.len().min(to.len()).min(most);
            to[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    fn shown((offset, found): (u64, Found<'_>)) -> String {
        match found {
            Found::Text(text) => format!("{offset} {}", text.escape_ascii()),
            Found::Blank => format!("{offset} blank"),
            Found::TooLong => format!("{offset} long"),
        }
    }

    /// Everything that a file which grows to these lengths gives, look by look.
    fn looks(file: &[u8], lengths: &[usize], most: usize) -> Vec<String> {
        let (mut place, mut window, mut found) = (Place::default(), Window::default(), Vec::new());
        for length in lengths {
            let part = &file[..*length];
            window.turn_to(&mut place);
            let end = (part.len() as u64, false);
            while let Some(line) = window.next_line(&mut place, end, read_from(part, most)).unwrap() {
                found.push(shown(line));
            }
        }
        found
    }

    #[test]
    fn a_line_is_taken_when_its_end_is_there() {
        let file = b"\xef\xbb\xbfa\nbc\r\n\n \n{\"half";
        assert_eq!(looks(file, &[2], 9), Vec::<String>::new());
        assert_eq!(looks(file, &[2, 4, 5, 7, file.len()], 9), ["0 a", "5 bc", "9 blank", "10 blank"]);
        let (mut place, mut window) = (Place::at(12), Window::default());
        window.turn_to(&mut place);
        let rest = window.next_line(&mut place, (file.len() as u64, true), read_from(file, 3)).unwrap().map(shown);
        assert_eq!((rest.as_deref(), place), (Some("12 {\\\"half"), Place::at(file.len() as u64)));
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_in_little_memory_and_the_next_one_is_found() {
        let mut file = vec![b'a'; VALUE_BYTES_MAX];
        file.extend_from_slice(b"\nb\n");
        file.extend(vec![b'c'; 4 * VALUE_BYTES_MAX]);
        let open = file.len();
        file.extend_from_slice(b"\nd\n");
        let found = looks(&file, &[open, open, file.len()], usize::MAX);
        let begins: Vec<&str> = found.iter().map(|line| line.split_at(line.len().min(13)).0).collect();
        let long = format!("{} long", VALUE_BYTES_MAX + 3);
        let last = format!("{} d", open + 1);
        assert_eq!(begins, ["0 aaaaaaaaaaa", &format!("{} b", VALUE_BYTES_MAX + 1), &long, &last]);
        let (mut place, mut window) = (Place::default(), Window::default());
        while window.next_line(&mut place, (open as u64, false), read_from(&file, usize::MAX)).unwrap().is_some() {}
        assert!(window.bytes.capacity() < 2 * VALUE_BYTES_MAX + 2 * READ_BYTES, "{}", window.bytes.capacity());
    }

    proptest! {
        /// However a file grows and is read, the same lines come with the same offsets, and nothing that has no end.
        #[test]
        fn growth_changes_no_line(
            file in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b' '), Just(b'b')], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
            most in 1_usize..40,
        ) {
            let mut lengths: Vec<usize> = cuts.into_iter().map(|cut| cut.min(file.len())).chain([file.len()]).collect();
            lengths.sort_unstable();
            let mut expected = Vec::new();
            let mut offset = 0;
            for line in file.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
                let text = line.trim_ascii();
                expected.push(if text.is_empty() { format!("{offset} blank") } else { format!("{offset} {}", text.escape_ascii()) });
                offset += line.len();
            }
            prop_assert_eq!(looks(&file, &lengths, most), expected);
        }
    }
}
