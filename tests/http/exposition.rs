//! Reads the text format of Prometheus, strictly: what its own parser takes, and what it would let pass and a reader of ours should not.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::collections::{BTreeMap, BTreeSet};

/// A scrape: samples by name and labels.
pub(crate) struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
    /// Names of the families, and what they are.
    pub(crate) families: BTreeMap<String, String>,
}

pub(crate) type Labels = Vec<(String, String)>;

impl Scrape {
    /// Reads a whole exposition.
    ///
    /// # Panics
    /// With the line that is not as the format has it.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Scrape {
        assert!(text.ends_with('\n'), "the last line is not ended");
        let mut scrape = Scrape { samples: BTreeMap::new(), families: BTreeMap::new() };
        let mut family = String::new();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind) && helped.contains(name), "{line}");
                assert!(scrape.families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                name.clone_into(&mut family);
            } else {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("outside of its family {family}: {line}"));
                let allowed: &[&str] =
                    if scrape.families[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(allowed.contains(&suffix), "{line}");
                assert!(scrape.samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn check_histograms(&self) {
        for name in self.families.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((_, labels), value) in self.samples.iter().filter(|((found, _), _)| *found == format!("{name}_bucket")) {
                let bound = labels.iter().find(|(name, _)| name == "le").unwrap_or_else(|| panic!("no bound: {name} {labels:?}"));
                let others = labels.iter().filter(|(name, _)| name != "le").cloned().collect();
                buckets.entry(others).or_default().push((bound.1.replace("+Inf", "inf").parse().unwrap(), *value));
            }
            assert!(!buckets.is_empty(), "{name} has no buckets");
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name} {buckets:?}");
                let last = buckets.last().unwrap();
                assert!(last.0.is_infinite(), "{name} has no last bucket");
                assert_eq!(self.samples[&(format!("{name}_count"), labels.clone())].to_bits(), last.1.to_bits(), "{name}");
                let sum = self.samples[&(format!("{name}_sum"), labels)];
                assert!(sum >= 0.0 && (last.1 > 0.0 || sum == 0.0), "{name}");
            }
        }
    }

    /// The value of a sample; its labels in any order.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut wanted: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        wanted.sort();
        let found = self.samples.get(&(name.to_owned(), wanted));
        *found.unwrap_or_else(|| panic!("no {name} {labels:?} among {:?}", self.of(name)))
    }

    /// Samples of this name with their labels.
    pub(crate) fn of(&self, name: &str) -> Vec<(&Labels, f64)> {
        self.samples.iter().filter(|((found, _), _)| found == name).map(|((_, labels), value)| (labels, *value)).collect()
    }

    /// The sum of all samples of this name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).iter().map(|(_, value)| value).sum()
    }
}

fn is_name(name: &str) -> bool {
    let letter = |char: char| char.is_ascii_alphabetic() || char == '_' || char == ':';
    name.starts_with(letter) && name.chars().all(|char| letter(char) || char.is_ascii_digit())
}

/// `name{label="value",…} value`, the labels sorted by name.
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("no end: {line}"));
            assert!(is_name(label) && !label.starts_with("__"), "{line}");
            labels.push((label.to_owned(), value));
            rest = after;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("no end: {line}"));
    }
    labels.sort();
    assert!(labels.windows(2).all(|pair| pair[0].0 != pair[1].0), "{line}");
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// The text up to its closing quote, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            char => value.push(char),
        }
    }
    None
}
