//! What waits to be reported: how attempts ended, already as JSON, and signs of life.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ergate_actors::executor::context::Progress;
use ergate_actors::workers::runner::News;
use ergate_events::id::AttemptId;
use ergate_events::ran::Ran;
use ergate_events::task::Outcome;
use hyper::body::Bytes;

use super::table::Left;
use super::wire;

/// Bytes after which a report is full: with the outcome that fills it, which has at most 1 MiB, or half as much more in base64, it is less than what
/// an engine takes unless it is told to take less.
const REPORT_BYTES: usize = 256 << 10;
/// Most attempts that one report names.
const REPORT_NAMES: usize = 32_768;

/// What is to be reported.
pub(super) struct Outbox {
    /// The outcomes, one behind the other, each an object.
    bytes: Vec<u8>,
    /// Each with the place of its attempt and the end of its bytes.
    ends: Vec<(usize, usize)>,
    beats: BTreeMap<usize, Beat>,
    /// Where the attempt ran whose end is the next news.
    ran: Option<(AttemptId, Ran)>,
}

/// News of an attempt that goes on.
struct Beat {
    id: AttemptId,
    progress: Option<Progress>,
    kept: Option<Vec<u8>>,
}

/// A report on its way: it is repeated until an answer comes.
pub(super) struct Parcel {
    pub(super) body: Bytes,
    /// Where in it the outcomes are, each with the place of its attempt.
    outcomes: Vec<(usize, Range<usize>)>,
    /// Where in it the signs of life are, each with the place of its attempt.
    beats: Vec<(usize, Range<usize>)>,
    /// What it says to one engine beside, as a part of an object.
    beside: Option<Vec<u8>>,
    /// How often there was nobody who could record it.
    pub(super) tries: u32,
}

impl Parcel {
    /// A parcel of what was written already.
    fn of<'a>(
        outcomes: impl Iterator<Item = (usize, &'a [u8])>,
        beats: impl Iterator<Item = (usize, &'a [u8])>,
        beside: Option<Vec<u8>>,
        tries: u32,
    ) -> Parcel {
        let mut body = b"{\"outcomes\":[".to_vec();
        let outcomes = outcomes.map(|(place, bytes)| (place, push_item(&mut body, bytes))).collect();
        body.extend_from_slice(b"],\"heartbeats\":[");
        let beats = beats.map(|(place, bytes)| (place, push_item(&mut body, bytes))).collect();
        body.push(b']');
        body.extend_from_slice(beside.as_deref().unwrap_or_default());
        body.push(b'}');
        Parcel { body: body.into(), outcomes, beats, beside, tries }
    }

    fn pieces<'a>(&'a self, of: &'a [(usize, Range<usize>)]) -> impl Iterator<Item = (usize, &'a [u8])> {
        of.iter().map(|(place, range)| (*place, &self.body[range.clone()]))
    }

    /// The news of these attempts, for somebody else.
    pub(super) fn part(&self, places: &BTreeSet<usize>) -> Parcel {
        let is_in = |(place, _): &(usize, &[u8])| places.contains(place);
        Parcel::of(self.pieces(&self.outcomes).filter(is_in), self.pieces(&self.beats).filter(is_in), None, self.tries + 1)
    }

    /// Whether it says something beside.
    pub(super) const fn has_beside(&self) -> bool {
        self.beside.is_some()
    }

    /// The same without what it says beside; nothing where there is nothing else.
    pub(super) fn without_beside(self) -> Option<Parcel> {
        if self.beside.is_none() {
            return Some(self);
        }
        let is_empty = self.outcomes.is_empty() && self.beats.is_empty();
        (!is_empty).then(|| Parcel::of(self.pieces(&self.outcomes), self.pieces(&self.beats), None, self.tries))
    }

    /// The places of the attempts that are over with it.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.outcomes.iter().map(|(place, _)| *place)
    }

    /// The same in smaller parcels; none where it is one piece of news.
    pub(super) fn split(&self) -> Vec<Parcel> {
        if self.outcomes.len() + self.beats.len() < 2 {
            return Vec::new();
        }
        let (outcomes, beats) = (self.outcomes.chunks(self.outcomes.len().div_ceil(2).max(1)), self.beats.chunks(1));
        let mut beside = self.beside.clone();
        let none = std::iter::empty::<(usize, &[u8])>;
        // Signs of life first, as the engine counts them.
        let beats = beats.map(|some| Parcel::of(none(), self.pieces(some), beside.take(), self.tries)).collect::<Vec<_>>();
        let outcomes = outcomes.map(|some| Parcel::of(self.pieces(some), none(), beside.take(), self.tries));
        beats.into_iter().chain(outcomes).collect()
    }
}

/// Appends an item of a list, and says where it is.
fn push_item(into: &mut Vec<u8>, item: &[u8]) -> Range<usize> {
    if !into.ends_with(b"[") {
        into.push(b',');
    }
    let start = into.len();
    into.extend_from_slice(item);
    start..into.len()
}

impl Outbox {
    pub(super) const fn new() -> Outbox {
        Outbox { bytes: Vec::new(), ends: Vec::new(), beats: BTreeMap::new(), ran: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.beats.is_empty()
    }

    /// Adds how an attempt ended, or what it says on its way.
    pub(super) fn add(&mut self, place: usize, id: AttemptId, news: News<'_>) {
        match news {
            News::Succeeded(outcome, result) => self.end(place, id, |bytes| {
                wire::push_bytes(bytes, "result", result);
                if outcome != Outcome::Succeeded {
                    wire::push_value(bytes, "outcome", &outcome.name());
                }
            }),
            News::Failed(failure) => {
                let retry_after = failure.delay.map(|delay| delay.to_string());
                let ergate_events::task::Failure { class, message, retryable, .. } = failure;
                let failure = wire::Failure { class, message, retryable, retry_after };
                self.end(place, id, |bytes| wire::push_value(bytes, "failure", &failure));
            }
            News::Released => self.leave(place, id, Left::Stopped),
            News::Kept(details) => self.beat(place, id).kept = Some(details.to_vec()),
            News::Ran(ran) => self.ran = Some((id, ran.clone())),
            News::Progressed(progress) => self.beat(place, id).progress = Some(progress.clone()),
            News::Alive => drop(self.beat(place, id)),
        }
    }

    /// Adds that an attempt was not ended.
    pub(super) fn leave(&mut self, place: usize, id: AttemptId, left: Left) {
        let name = match left {
            Left::Stopped => "stopped",
            Left::Returned => "returned",
        };
        self.end(place, id, |bytes| wire::push_value(bytes, name, &true));
    }

    fn end(&mut self, place: usize, id: AttemptId, rest: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(format!("{{\"attempt\":\"{id}\"").as_bytes());
        rest(&mut self.bytes);
        if let Some((_, ran)) = self.ran.take().filter(|(ended, _)| *ended == id) {
            wire::push_value(&mut self.bytes, "ran", &wire::Ran::from(&ran));
        }
        self.bytes.push(b'}');
        self.ends.push((place, self.bytes.len()));
    }

    fn beat(&mut self, place: usize, id: AttemptId) -> &mut Beat {
        let beat = self.beats.entry(place).or_insert(Beat { id, progress: None, kept: None });
        if beat.id != id {
            *beat = Beat { id, progress: None, kept: None };
        }
        beat
    }

    /// Takes what goes into one report, with what it says beside.
    pub(super) fn pack(&mut self, beside: Option<Vec<u8>>) -> Parcel {
        let count = self.fitting();
        let end_of = |index: usize| self.ends[index].1;
        let start_of = |index: usize| index.checked_sub(1).map_or(0, end_of);
        let outcomes = (0..count).map(|index| (self.ends[index].0, &self.bytes[start_of(index)..end_of(index)]));
        let (mut beats, mut bytes) = (Vec::new(), 0);
        while bytes < REPORT_BYTES
            && beats.len() < REPORT_NAMES
            && let Some((place, beat)) = self.beats.pop_first()
        {
            let written = written(&beat);
            bytes += written.len();
            beats.push((place, written));
        }
        let parcel = Parcel::of(outcomes, beats.iter().map(|(place, beat)| (*place, &beat[..])), beside, 0);
        let packed = start_of(count);
        self.bytes.drain(..packed);
        self.ends.drain(..count);
        self.ends.iter_mut().for_each(|(_, end)| *end -= packed);
        parcel
    }

    /// How many of the outcomes go into one report.
    fn fitting(&self) -> usize {
        let full = self.ends.iter().position(|(_, end)| *end >= REPORT_BYTES).map_or(self.ends.len(), |index| index + 1);
        full.min(REPORT_NAMES)
    }
}

fn written(beat: &Beat) -> Vec<u8> {
    let mut bytes = format!("{{\"attempt\":\"{}\"", beat.id).into_bytes();
    if let Some(Progress { percent, stage, message }) = &beat.progress {
        wire::push_value(&mut bytes, "progress", &wire::Progress { percent: *percent, stage, message });
    }
    if let Some(details) = &beat.kept {
        wire::push_bytes(&mut bytes, "checkpoint", details);
    }
    bytes.push(b'}');
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate_events::ran::{CudaVersion, KernelDigest};
    use ergate_events::time::Micros;
    use serde_json::Value;

    use super::*;

    fn id(number: u64) -> AttemptId {
        format!("0-{number}.1").parse().unwrap()
    }

    fn read(parcel: &Parcel) -> (Vec<String>, Vec<String>) {
        let value: Value = serde_json::from_slice(&parcel.body).unwrap();
        let ids = |name: &str| {
            let list = value[name].as_array().unwrap().iter();
            list.map(|one| one["attempt"].as_str().unwrap().to_owned()).collect()
        };
        (ids("outcomes"), ids("heartbeats"))
    }

    #[test]
    fn everything_that_waits_goes_into_one_report() {
        let mut outbox = Outbox::new();
        outbox.add(1, id(1), News::Succeeded(Outcome::Partial, b"{}"));
        outbox.add(2, id(2), News::Kept(b"7"));
        outbox.add(2, id(2), News::Alive);
        outbox.leave(3, id(3), Left::Returned);
        let parcel = outbox.pack(None);
        let expected = r#"{"outcomes":[{"attempt":"0-1.1","result":{},"outcome":"PARTIAL"},{"attempt":"0-3.1","returned":true}],"heartbeats":[{"attempt":"0-2.1","checkpoint":7}]}"#;
        assert_eq!(std::str::from_utf8(&parcel.body).unwrap(), expected);
        assert_eq!((parcel.places().collect::<Vec<_>>(), outbox.is_empty()), (vec![1, 3], true));
    }

    #[test]
    fn where_an_attempt_ran_goes_with_its_end_and_with_no_other() {
        let mut outbox = Outbox::new();
        let kernel = KernelDigest([0xab; 32]);
        let spans = |queue| (Micros(queue), Micros(0), Micros(u64::MAX));
        let ran = |driver, queue| {
            let (queue, copy, compute) = spans(queue);
            Ran { device: "GPU-\"1".to_owned(), driver, kernel, batch_size: 2, queue, copy, compute, memory_bytes: 9 }
        };
        outbox.add(1, id(1), News::Ran(&ran(Some(CudaVersion { major: 13, minor: 0 }), 1_200)));
        outbox.add(1, id(1), News::Succeeded(Outcome::Partial, b"{}"));
        outbox.add(2, id(2), News::Ran(&ran(None, 50)));
        outbox.leave(3, id(3), Left::Returned);
        outbox.add(2, id(2), News::Succeeded(Outcome::Succeeded, b"2"));
        let body = outbox.pack(None).body;
        let value: Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!([
            {"attempt": "0-1.1", "result": {}, "outcome": "PARTIAL", "ran": {
                "device": "GPU-\"1", "driver": "13.0", "kernel": "ab".repeat(32), "batch_size": 2, "queue": "1.2ms", "copy": "0ns",
                "compute": "18446744073709.551615s", "memory_bytes": 9
            }},
            {"attempt": "0-3.1", "returned": true},
            {"attempt": "0-2.1", "result": 2},
        ]);
        assert_eq!(value["outcomes"], expected);
        // The other end of the wire reads each span as it was.
        for span in [0, 1, 50, 999, 1_000, 1_234_567, 3_600_000_000, u64::MAX] {
            assert_eq!(crate::request::parse_span(&Micros(span).to_string()), Some(Micros(span)));
        }
    }

    #[test]
    fn large_outcomes_go_one_by_one() {
        let mut outbox = Outbox::new();
        let large = format!("\"{}\"", "1".repeat(REPORT_BYTES)).into_bytes();
        (0..3).for_each(|number| outbox.add(number, id(number as u64), News::Succeeded(Outcome::Succeeded, &large)));
        for number in 0..3 {
            let parcel = outbox.pack(None);
            assert_eq!((read(&parcel).0, parcel.places().collect::<Vec<_>>()), (vec![format!("0-{number}.1")], vec![number]));
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_parcel_that_is_too_large_is_split_until_it_is_one_piece_of_news() {
        let mut outbox = Outbox::new();
        (0..5).for_each(|number| outbox.add(number, id(number as u64), News::Succeeded(Outcome::Succeeded, b"null")));
        outbox.add(9, id(9), News::Alive);
        let parts = outbox.pack(Some(b",\"beside\":1".to_vec())).split();
        let read: Vec<_> = parts.iter().map(read).collect();
        assert_eq!(read[0], (vec![], vec!["0-9.1".to_owned()]));
        assert_eq!((read[1].0.len(), read[2].0.len()), (3, 2));
        assert!(parts[0].split().is_empty());
        assert!(parts[0].body.ends_with(b"],\"beside\":1}"), "{:?}", parts[0].body);
        assert!(parts[1].body.ends_with(b"\"heartbeats\":[]}"), "{:?}", parts[1].body);
    }

    #[test]
    fn a_part_for_somebody_else_is_as_it_was_written() {
        let mut outbox = Outbox::new();
        (0..3).for_each(|number| outbox.add(number, id(number as u64), News::Succeeded(Outcome::Succeeded, b"{ \"a\": 1 }")));
        outbox.add(1, id(1), News::Kept(b"7"));
        outbox.add(9, id(9), News::Alive);
        let whole = outbox.pack(Some(b",\"beside\":1".to_vec()));
        let part = whole.part(&[1, 9].into());
        let expected = r#"{"outcomes":[{"attempt":"0-1.1","result":{ "a": 1 }}],"heartbeats":[{"attempt":"0-1.1","checkpoint":7},{"attempt":"0-9.1"}]}"#;
        assert_eq!(std::str::from_utf8(&part.body).unwrap(), expected);
        assert_eq!((part.places().collect::<Vec<_>>(), part.tries), (vec![1], 1));
        // What is said to one engine beside is for that one.
        let places: Vec<_> = whole.places().collect();
        let rest = whole.without_beside().unwrap();
        assert!(rest.body.ends_with(br#"{"attempt":"0-9.1"}]}"#) && !rest.has_beside(), "{:?}", rest.body);
        assert_eq!((rest.places().collect::<Vec<_>>(), places), (vec![0, 1, 2], vec![0, 1, 2]));
        assert!(outbox.pack(Some(Vec::new())).without_beside().is_none());
    }
}
