//! Which known name somebody may have meant.

/// The known name with the fewest single-character edits; the first of several, and `None` where none is known.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|candidate| distance(name, candidate))
}

/// Levenshtein's distance between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A name is a line at most; longer ones are compared by their beginning.
    for (i, from) in a.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let known = || ["log.data", "log.durability", "limits.tasks_live_max"].into_iter();
        assert_eq!(nearest("log.durabilty", known()), Some("log.durability"));
        assert_eq!(nearest("limit.task_live_max", known()), Some("limits.tasks_live_max"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
