//! A process and its descendants, as `/proc` has them (proc(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

/// Most processes that are looked at: a process that has more descendants is told as if it had these.
const PROCESSES_MAX: usize = 4_096;

/// What a process and its descendants have used.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Which they are.
    pub(super) processes: BTreeSet<u32>,
    /// Processor time since they began, that of children that have ended among it.
    pub(super) cpu: Duration,
    /// Memory that is resident: of pages that several share, each has its own.
    pub(super) memory_bytes: u64,
    /// The time of descendants, with theirs, that are not among it.
    pub(super) apart: BTreeMap<u32, Duration>,
}

/// What `stat` says of one process.
struct Stat {
    parent: u32,
    ticks: u64,
    pages: u64,
}

impl Tree {
    /// Adds up; `None` where there is no such file system.
    pub(super) fn read(root: u32, apart: &BTreeSet<u32>) -> Option<Tree> {
        let units = units()?;
        stat(root)?;
        let family = Family::read(root);
        let mut tree = Tree::default();
        tree.add(&family, root, apart, units);
        Some(tree)
    }

    fn add(&mut self, family: &Family, root: u32, apart: &BTreeSet<u32>, units: Units) {
        let mut next = vec![root];
        while let Some(process) = next.pop().filter(|_| self.processes.len() < PROCESSES_MAX) {
            if apart.contains(&process) && process != root {
                let mut own = Tree::default();
                own.add(family, process, apart, units);
                self.apart.insert(process, own.cpu);
                continue;
            }
            // One that has ended meanwhile has left its time to its parent.
            let Some(stat) = stat(process) else { continue };
            if self.processes.insert(process) {
                self.cpu += Duration::from_micros(stat.ticks.saturating_mul(1_000_000) / units.ticks_per_s);
                self.memory_bytes += stat.pages.saturating_mul(units.page_bytes);
                next.extend(family.children(process));
            }
        }
    }
}

/// Who is whose child.
enum Family {
    /// The kernel says it of each thread.
    Listed,
    /// Read from all processes, where it does not.
    Read(BTreeMap<u32, Vec<u32>>),
}

impl Family {
    fn read(root: u32) -> Family {
        if std::path::Path::new(&format!("/proc/{root}/task/{root}/children")).exists() {
            return Family::Listed;
        }
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for process in numbers("/proc") {
            if let Some(stat) = stat(process) {
                children.entry(stat.parent).or_default().push(process);
            }
        }
        Family::Read(children)
    }

    fn children(&self, of: u32) -> Vec<u32> {
        match self {
            Family::Read(children) => children.get(&of).cloned().unwrap_or_default(),
            Family::Listed => {
                let tasks = numbers(&format!("/proc/{of}/task"));
                let lists = tasks.filter_map(|task| std::fs::read_to_string(format!("/proc/{of}/task/{task}/children")).ok());
                lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
            }
        }
    }
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(process: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The name of the program is in brackets and may have any letters, so it is read from the last bracket on.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // utime, stime, and those of children that have ended and were waited for.
    let ticks = [14, 15, 16, 17].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks, pages: number(24)? })
}

#[derive(Clone, Copy, Debug)]
struct Units {
    ticks_per_s: u64,
    page_bytes: u64,
}

/// In what the kernel counts: it tells every process at its start.
fn units() -> Option<Units> {
    static UNITS: OnceLock<Option<Units>> = OnceLock::new();
    *UNITS.get_or_init(|| units_of(&std::fs::read("/proc/self/auxv").ok()?))
}

fn units_of(auxv: &[u8]) -> Option<Units> {
    /// Numbers of entries of the vector (getauxval(3)).
    const PAGE_BYTES: usize = 6;
    const TICKS_PER_S: usize = 17;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    let find = |wanted: usize| {
        let mut entries = auxv.chunks_exact(2 * WORD);
        let entry = entries.find(|entry| word(&entry[..WORD]) == Some(wanted))?;
        word(&entry[WORD..]).map(|value| value as u64).filter(|value| *value > 0)
    };
    Some(Units { ticks_per_s: find(TICKS_PER_S)?, page_bytes: find(PAGE_BYTES)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_program_is_called() {
        let text = "42 (a) b (c) R 7 42 42 0 -1 4194304 1 2 3 4 11 22 33 44 20 0 1 0 6531027 16961536 3351 18446744073709551615";
        let stat = parse(text).unwrap();
        assert_eq!((stat.parent, stat.ticks, stat.pages), (7, 110, 3_351));
        for text in ["", "42", "42 (x) R 1 2", "42 (x) R a b c"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_units_are_found_among_the_others() {
        let words = [3_usize, 9, 17, 100, 6, 4_096, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let units = units_of(&bytes).unwrap();
        assert_eq!((units.ticks_per_s, units.page_bytes), (100, 4_096));
        assert!(units_of(&bytes[..4]).is_none() && units_of(&[]).is_none());
    }
}
