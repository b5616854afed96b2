//! Lines that were sent to a service and have no answer yet. They are kept, a few megabytes at most, so that they can be sent again.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Lines without an answer beyond which no more are read: the service keeps eight batches of a thousand in flight, and twice as many keep it busy.
const LINES_MAX: usize = 16_000;
/// Their bytes, likewise; one line has at most a megabyte and a half.
const BYTES_MAX: usize = 8 << 20;

/// A line that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Its number in the input.
    pub(super) line: u64,
    /// What it says, without its end.
    pub(super) text: Vec<u8>,
}

impl Sent {
    /// Whether it may be sent twice: the service knows it by its key.
    fn has_key(&self) -> bool {
        #[derive(Deserialize)]
        struct Keyed {
            key: Option<IgnoredAny>,
        }
        serde_json::from_slice::<Keyed>(&self.text).is_ok_and(|found| found.key.is_some())
    }
}

/// Lines without an answer, in the order in which they were sent.
#[derive(Default)]
pub(super) struct Window {
    lines: VecDeque<Sent>,
    bytes: usize,
}

impl Window {
    /// Whether more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.lines.len() < LINES_MAX && self.bytes < BYTES_MAX
    }

    /// Whether every line has its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Notes a line that is being sent.
    pub(super) fn push(&mut self, sent: Sent) {
        self.bytes += sent.text.len();
        self.lines.push_back(sent);
    }

    /// The oldest line, which has its answer now.
    pub(super) fn pop(&mut self) -> Option<Sent> {
        let sent = self.lines.pop_front()?;
        self.bytes -= sent.text.len();
        Some(sent)
    }

    /// All lines as they are sent again.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|sent| sent.text.as_slice())
    }

    /// Puts lines back that have to be sent again, before those that have no answer.
    pub(super) fn put_back(&mut self, again: Vec<Sent>) {
        for sent in again.into_iter().rev() {
            self.bytes += sent.text.len();
            self.lines.push_front(sent);
        }
    }

    /// The first and the last line without an answer, and how many of them have no key.
    pub(super) fn unknown(&self) -> Option<(u64, u64, usize)> {
        let (first, last) = (self.lines.front()?.line, self.lines.back()?.line);
        Some((first, last, self.lines.iter().filter(|sent| !sent.has_key()).count()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn sent(line: u64, text: &str) -> Sent {
        Sent { line, text: text.into() }
    }

    #[test]
    fn lines_leave_in_their_order_and_come_back_to_their_place() {
        let mut window = Window::default();
        (1..=3).for_each(|line| window.push(sent(line, r#"{"key":"k"}"#)));
        let first = window.pop().unwrap();
        window.put_back(vec![first]);
        assert_eq!(window.unknown(), Some((1, 3, 0)));
        window.push(sent(4, r#"{"type":"noop"}"#));
        window.push(sent(5, r#"{"type":"noop","key":null}"#));
        assert_eq!(window.unknown(), Some((1, 5, 2)));
        let lines: Vec<_> = std::iter::from_fn(|| window.pop()).map(|sent| sent.line).collect();
        assert_eq!((lines, window.bytes), (vec![1, 2, 3, 4, 5], 0));
    }

    #[test]
    fn it_is_full_by_lines_and_by_bytes() {
        let mut window = Window::default();
        (0..8).for_each(|line| window.push(sent(line, &"x".repeat(1 << 20))));
        assert!(!window.has_room());
        assert!(window.pop().is_some() && window.has_room());
        let mut window = Window::default();
        (0..LINES_MAX as u64).for_each(|line| window.push(sent(line, "")));
        assert!(!window.has_room());
    }
}
