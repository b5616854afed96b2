//! What the parent knows from what the children told, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::process::Facts;

/// What was told.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Acknowledged: ordinal to key and payload.
    pub(crate) acknowledged: BTreeMap<u64, (String, String)>,
    pub(crate) sent: BTreeSet<String>,
    /// Digests of states that children worked with, by position.
    pub(crate) digests: BTreeMap<u64, String>,
    pub(crate) acknowledgements: u64,
}

impl Ledger {
    pub(crate) fn note(&mut self, line: &str) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("S"), Some(_), Some(payload), None) => {
                self.sent.insert(payload.to_owned());
            }
            (Some("A"), Some(ordinal), Some(key), Some(payload)) => {
                self.acknowledgements += 1;
                let entry = (key.to_owned(), payload.to_owned());
                let known = self.acknowledged.entry(ordinal.parse().expect("an ordinal")).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "task {ordinal} was acknowledged for two requests");
            }
            (Some("D"), Some(position), Some(digest), None) => {
                self.digests.insert(position.parse().expect("a position"), digest.to_owned());
            }
            (Some("FINISHED"), ..) => {}
            _ => panic!("a child says: {line}"),
        }
    }

    pub(crate) fn check(&mut self, facts: &Facts) {
        for (ordinal, (key, payload)) in &self.acknowledged {
            let Some((found, found_key)) = facts.tasks.get(*ordinal as usize) else {
                panic!("task {ordinal} was acknowledged and is lost; the log has {} tasks", facts.tasks.len());
            };
            assert_eq!(String::from_utf8_lossy(found), format!("{payload:?}"), "task {ordinal} has another payload");
            assert_eq!(found_key.as_deref().unwrap_or("-"), key, "task {ordinal} has another key");
        }
        let mut seen = BTreeSet::new();
        for (payload, _) in &facts.tasks {
            let payload = String::from_utf8_lossy(payload).trim_matches('"').to_owned();
            assert!(self.sent.contains(&payload), "a task that nobody sent is in the log: {payload}");
            assert!(seen.insert(payload.clone()), "a request is in the log twice: {payload}");
        }
        for (position, digest) in &facts.digests {
            assert_eq!(Some(digest), self.digests.get(position), "the live state at position {position} is not the fold");
        }
    }
}
