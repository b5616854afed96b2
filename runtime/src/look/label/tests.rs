//! Pages of lists by label over logs that a shard writes, while tasks end.

use std::sync::Arc;

use ergate_events::block::Hash;
use ergate_events::command::Command;
use ergate_events::event::{Envelope, RuleVersions};
use ergate_events::id::{ReplicaId, ShardId, TypeId};
use ergate_events::log::index::{TaskIndex, TypeNames};
use ergate_events::log::memory::MemoryLog;
use ergate_events::log::{EventLog, LogReader};
use ergate_events::shard::{Answer, Shard};
use ergate_events::task::{Failure, RetryPolicy, TypeSettings};
use ergate_events::time::Timestamp;

use super::super::list::{Filter, TaskQuery, names_in};
use super::*;

/// A shard whose log is kept twice: once from its beginning, and once as far as retention leaves it.
struct Ground {
    shard: Shard,
    head: Hash,
    now: u64,
    whole: MemoryLog,
    kept: MemoryLog,
    dir: tempfile::TempDir,
}

impl Ground {
    /// A type that is tried once, and one slot.
    fn new() -> Ground {
        let shard = Shard::new(ShardId(0), State::default());
        let (whole, kept, dir) = (MemoryLog::new(), MemoryLog::new(), tempfile::tempdir().unwrap());
        let mut ground = Ground { shard, head: Hash::ZERO, now: 1_000_000, whole, kept, dir };
        let settings = TypeSettings { retry: RetryPolicy { attempts: 1, ..RetryPolicy::default() }, ..TypeSettings::default() };
        ground.tell(&Command::Open { rules: RuleVersions::CURRENT, writer: "test" }).unwrap();
        ground.tell(&Command::DefineType { name: "job", settings: &settings, by: "test" }).unwrap();
        ground.tell(&Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots: 1 }).unwrap();
        ground
    }

    fn tell(&mut self, command: &Command<'_>) -> Answer {
        let mut answers = Vec::new();
        self.now += 1_000;
        self.shard.batch(Timestamp(self.now), std::slice::from_ref(command), &mut answers, &mut |_: &Envelope<'_>, _: &State| ());
        answers.pop().unwrap()
    }

    fn seal(&mut self) {
        let Some(sealed) = self.shard.seal(self.head) else { return };
        self.head = sealed.hash;
        for log in [&mut self.whole, &mut self.kept] {
            log.append(&sealed).unwrap();
            log.sync().unwrap();
        }
    }

    fn request(&mut self, labels: &[(&str, &str)]) -> Ordinal {
        let asks: Vec<_> = labels.iter().map(|(name, value)| Ask::Label(name, value)).collect();
        let request = Command::Request { task_type: TypeId(0), payload: b"{}", key: None, asks: &asks };
        self.tell(&request).unwrap().task.unwrap()
    }

    fn kill(&mut self, task: Ordinal) {
        self.tell(&Command::Kill { task, by: "test", reason: "" }).unwrap();
    }

    fn list(&mut self, query: &TaskQuery, bytes_max: u64, older: bool) -> (Vec<Ordinal>, Option<super::super::row::Cursor>) {
        self.seal();
        let (reader, whole, state) = (self.kept.reader(), self.whole.reader(), self.shard.state().clone());
        let index = TaskIndex::open(self.dir.path(), [0; 16], Arc::clone(&reader)).unwrap();
        let names: TypeNames = names_in(&state);
        let older: Option<&dyn LogReader> = older.then_some(whole.as_ref());
        let log = Log { shard: ShardId(0), reader: reader.as_ref(), older, index: &index, names: &names };
        let page = query.page_within(bytes_max, Some(&state), &log).unwrap();
        assert!(page.next.is_some() || page.looked_to.is_none());
        (page.rows.iter().map(|row| row.task.ordinal).collect(), page.next)
    }

    /// All pages, with something done between two.
    fn pages(&mut self, query: &TaskQuery, bytes_max: u64, mut between: impl FnMut(&mut Ground)) -> (Vec<Ordinal>, usize) {
        let (mut query, mut found, mut pages) = (query.clone(), Vec::new(), 0);
        loop {
            let (rows, next) = self.list(&query, bytes_max, false);
            assert!(rows.len() <= query.limit && (query.before.is_none() || query.before != next), "{next:?}");
            (pages, query.before) = (pages + 1, next);
            found.extend(rows);
            if query.before.is_none() {
                return (found, pages);
            }
            between(self);
        }
    }
}

fn by(labels: &[&str], limit: usize) -> TaskQuery {
    let labels = labels.iter().map(|text| Label::read(text).unwrap()).collect();
    TaskQuery { labels, limit, ..TaskQuery::default() }
}

#[test]
fn a_label_is_read_and_matches_in_full() {
    for bad in ["", "a", "=", "=b"] {
        assert_eq!(Label::read(bad), None, "{bad:?}");
    }
    assert_eq!(Label::read(&format!("a={}", "b".repeat(512))), None);
    let is = |text: &str, name, value| Label::read(text).unwrap().is(name, value);
    assert!(is("a=b", "a", "b") && is("a=", "a", "") && is("a=b=c", "a", "b=c") && is("a=b=c", "a=b", "c"));
    assert!(!is("a=b", "a", "bc") && !is("a=bc", "a", "b") && !is("a=b", "A", "b") && !is("ab=c", "a", "b=c"));
}

/// Every task has `all`, every seventh `seven`, one `rare`; a few go on while pages are read.
fn busy(tasks: u64) -> Ground {
    let (mut ground, mut open) = (Ground::new(), Vec::new());
    for number in 0..tasks {
        let value = (number % 3).to_string();
        let mut labels = vec![("all", "yes"), ("third", &*value)];
        labels.extend((number % 7 == 0).then_some(("seven", "yes")));
        labels.extend((number == 31).then_some(("rare", "yes")));
        let task = ground.request(&labels);
        // Blocks of one task and of many, and some that request none.
        if number % 64 > 40 || number % 64 == 0 {
            ground.seal();
        }
        open.push(task);
        // The order of the ends is another than that of the requests.
        if number % 4 != 3 {
            let task = open.remove(number as usize * 7 % open.len());
            ground.kill(task);
        }
        if number % 8 == 1 {
            ground.seal();
        }
    }
    ground
}

#[test]
fn tasks_are_found_by_one_label_and_by_several() {
    let mut ground = Ground::new();
    let first = ground.request(&[("customer", "acme"), ("day", "1")]);
    let second = ground.request(&[("customer", "acme")]);
    let third = ground.request(&[("customer", "other"), ("day", "1")]);
    let live = ground.request(&[("customer", "acme"), ("day", "1")]);
    let none = ground.request(&[]);
    [second, first, third, none].into_iter().for_each(|task| ground.kill(task));
    let mut found = |labels: &[&str]| ground.list(&by(labels, 10), PAGE_BYTES_MAX, false).0;
    assert_eq!(found(&["customer=acme"]), [live, first, second]);
    assert_eq!(found(&["day=1"]), [live, third, first]);
    assert_eq!(found(&["customer=acme", "day=1"]), [live, first]);
    assert_eq!(found(&["day=1", "customer=acme", "day=1"]), [live, first]);
    assert_eq!(found(&["customer=acm"]), []);
    assert_eq!(found(&["customer=acme", "day=2"]), []);
    assert_eq!(found(&[]), [live, none, third, first, second]);
    let ended = TaskQuery { state: Some(Filter::Ended), ..by(&["customer=acme"], 10) };
    assert_eq!(ground.list(&ended, PAGE_BYTES_MAX, false).0, [first, second]);
    let alive = TaskQuery { state: Some(Filter::Live), ..by(&["customer=acme"], 10) };
    assert_eq!(ground.list(&alive, PAGE_BYTES_MAX, false).0, [live]);
}

#[test]
fn pages_have_every_match_once_while_tasks_end_however_little_a_page_may_read() {
    for label in ["all=yes", "third=1", "seven=yes", "rare=yes", "none=yes"] {
        let expected = busy(160).pages(&by(&[label], 10_000), PAGE_BYTES_MAX, |_| ()).0;
        let count = match label {
            "all=yes" => 160,
            "third=1" => 53,
            "seven=yes" => 23,
            "rare=yes" => 1,
            _ => 0,
        };
        assert_eq!(expected.len(), count, "{label}");
        for (limit, bytes_max) in [(7, PAGE_BYTES_MAX), (1, 100_000), (50, 1), (3, 40_000), (10_000, 1)] {
            let mut ground = busy(160);
            let mut live: Vec<_> = ground.shard.state().work.tasks.iter().map(|(ordinal, ..)| ordinal).collect();
            let (mut found, pages) = ground.pages(&by(&[label], limit), bytes_max, |ground| {
                // From the middle, so that both those that were listed and those that were not end.
                if !live.is_empty() {
                    let task = live.remove(live.len() / 2);
                    ground.kill(task);
                    let new =
                        ground.request(&[("all", "yes"), ("third", "1"), ("seven", "yes"), ("rare", "yes"), ("none", "yes")]);
                    ground.kill(new);
                }
            });
            if limit == 10_000 && label != "all=yes" {
                assert!(pages > 10, "{label}: {pages} pages of one look each");
            }
            found.sort();
            let mut expected = expected.clone();
            expected.sort();
            assert_eq!(found, expected, "{label}, {limit} a page, {bytes_max} bytes");
        }
    }
}

#[test]
fn tasks_that_all_end_at_once_are_each_listed_once_however_little_a_page_may_read() {
    for bytes_max in [1, 20_000, PAGE_BYTES_MAX] {
        let mut ground = Ground::new();
        let mut live: Vec<_> = (0..20).map(|_| ground.request(&[("team", "red")])).collect();
        let expected: Vec<_> = live.iter().rev().copied().collect();
        let found = ground.pages(&by(&["team=red"], 2), bytes_max, |ground| live.drain(..).for_each(|task| ground.kill(task)));
        assert_eq!(found.0, expected, "{bytes_max} bytes");
    }
}

#[test]
fn a_page_is_short_where_its_bound_is_reached_and_says_how_far_it_looked() {
    let mut ground = busy(160);
    let query = TaskQuery { state: Some(Filter::Ended), ..by(&["none=yes"], 5) };
    let (rows, next) = ground.list(&query, 200_000, false);
    assert!(rows.is_empty() && next.is_some());
    let (rows, next) = ground.list(&query, PAGE_BYTES_MAX, false);
    assert!(rows.is_empty() && next.is_none());
}

#[test]
fn labels_stay_with_dead_letters_and_with_tasks_that_are_made_of_them() {
    let mut ground = Ground::new();
    let failure = Failure { class: "c", message: "m", retryable: false, delay: None };
    let first = ground.request(&[("team", "red")]);
    ground.tell(&Command::Fail { task: first, attempt: 1, failure }).unwrap();
    ground.seal();
    let again = ground.tell(&Command::Redrive { task: first, by: "test", reason: "" }).unwrap().task.unwrap();
    assert_eq!(ground.list(&by(&["team=red"], 9), PAGE_BYTES_MAX, false).0, [again, first]);
    ground.tell(&Command::Fail { task: again, attempt: 1, failure }).unwrap();
    let third = ground.tell(&Command::Redrive { task: again, by: "test", reason: "" }).unwrap().task.unwrap();
    ground.seal();
    ground.kill(third);
    assert_eq!(ground.list(&by(&["team=red"], 9), PAGE_BYTES_MAX, false).0, [third, again, first]);
    assert_eq!(ground.list(&by(&["team=blue"], 9), PAGE_BYTES_MAX, false).0, []);
}

#[test]
fn a_request_that_is_not_kept_is_looked_for_in_the_older_log() {
    let mut ground = Ground::new();
    let failure = Failure { class: "c", message: "m", retryable: false, delay: None };
    let [dead, live, old] = [0; 3].map(|_| ground.request(&[("team", "red")]));
    ground.tell(&Command::Fail { task: dead, attempt: 1, failure }).unwrap();
    ground.seal();
    let kept_from = ground.shard.state().position;
    ground.kill(old);
    let new = ground.request(&[("team", "red")]);
    ground.kill(new);
    ground.seal();
    ground.kept.retain(kept_from).unwrap();
    let red = by(&["team=red"], 9);
    // The end of the dead letter was dropped with its request.
    assert_eq!(ground.list(&red, PAGE_BYTES_MAX, false).0, [live, new]);
    assert_eq!(ground.list(&red, PAGE_BYTES_MAX, true).0, [live, new, old]);
}
