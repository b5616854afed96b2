//! The cgroup of this process, where nothing else is in it (cgroup v2, the kernel's `cgroup-v2.rst`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a cgroup has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Processor time since it began.
    pub(super) cpu: Duration,
    /// Memory less what the kernel gives up as soon as somebody needs it (files that nobody has read lately): what Kubernetes calls the working set.
    pub(super) memory_bytes: u64,
}

/// What the cgroup of this process has used; `None` where there is none, or others are in it.
pub(super) fn read(family: &BTreeSet<u32>) -> Option<Group> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = memberships.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // The root counts the whole machine, unless a container takes a cgroup of its own for the root; `memory.current` tells them apart.
    let place = Path::new("/sys/fs/cgroup").join(group);
    is_own(&place, family).then(|| measure(&place)).flatten()
}

fn is_own(place: &Path, family: &BTreeSet<u32>) -> bool {
    let Some(processes) = text(place.join("cgroup.procs")) else { return false };
    let has_none_below = text(place.join("cgroup.stat")).is_some_and(|stat| value(&stat, "nr_descendants") == Some(0));
    let mut processes = processes.split_whitespace().map(str::parse::<u32>).peekable();
    has_none_below
        && processes.peek().is_some()
        && processes.all(|process| process.is_ok_and(|process| family.contains(&process)))
}

fn measure(place: &Path) -> Option<Group> {
    let cpu = value(&text(place.join("cpu.stat"))?, "usage_usec")?;
    let memory: u64 = text(place.join("memory.current"))?.trim().parse().ok()?;
    let idle = value(&text(place.join("memory.stat"))?, "inactive_file")?;
    Some(Group { cpu: Duration::from_micros(cpu), memory_bytes: memory.saturating_sub(idle) })
}

fn text(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number behind a name in a file of such lines.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// A cgroup as the kernel shows one, with these processes.
    fn group(processes: &str, below: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cgroup.procs", processes.to_owned()),
            ("cgroup.stat", format!("nr_descendants {below}\nnr_dying_descendants 3\n")),
            ("cpu.stat", "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n".to_owned()),
            ("memory.current", "1048576\n".to_owned()),
            ("memory.stat", "anon 4096\ninactive_file 48576\nactive_file 7\n".to_owned()),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_cgroup_of_its_own_says_what_it_used_less_what_is_given_up_at_once() {
        let dir = group("7\n9\n", 0);
        let own = BTreeSet::from([7, 8, 9]);
        assert!(is_own(dir.path(), &own));
        let expected = Group { cpu: Duration::from_millis(2_500), memory_bytes: 1_000_000 };
        assert_eq!(measure(dir.path()), Some(expected));
    }

    #[test]
    fn one_with_others_in_it_or_below_it_is_none_and_neither_is_the_root_of_a_machine() {
        let own = BTreeSet::from([7, 9]);
        assert!(!is_own(group("7\n10\n", 0).path(), &own), "another process");
        assert!(!is_own(group("7\n", 1).path(), &own), "another cgroup below");
        assert!(!is_own(group("", 0).path(), &own), "nobody is in it");
        assert!(!is_own(Path::new("/nowhere"), &own));
        let root = group("7\n", 0);
        std::fs::remove_file(root.path().join("memory.current")).unwrap();
        assert_eq!(measure(root.path()), None);
    }
}
