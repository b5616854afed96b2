//! The fields of an object: each is read as what it should be, and those that nobody reads are named.

use std::cell::RefCell;

use super::refusal::Refusal;
use super::yaml::{Entry, Node};

/// Longest list in an object: many times what anybody writes by hand, so that comparing all with all is no matter.
const LIST_MAX: usize = 1_000;

/// The fields of one object, and which of them were read.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the object is, as a path from the root of its manifest; empty for the root itself.
    pub(super) path: String,
    /// Which line it begins in.
    pub(super) line: usize,
    entries: &'a [Entry],
    read: RefCell<Vec<bool>>,
    /// Whether the first letter of a key may be of either case, as in what people write for AWS.
    is_loose: bool,
}

impl<'a> Fields<'a> {
    /// The fields of an object at a path.
    pub(super) fn of(node: &'a Node, path: &str, is_loose: bool) -> Result<Fields<'a>, Refusal> {
        let Some(entries) = node.entries().filter(|_| node.tag.is_none()) else {
            return Err(Refusal::of(node.line, path, format!("is {}, and should be an object", node.kind())));
        };
        Ok(Fields { path: path.to_owned(), line: node.line, entries, read: RefCell::new(vec![false; entries.len()]), is_loose })
    }

    /// The path of a field.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn matches(&self, found: &str, key: &str) -> bool {
        if found == key {
            return true;
        }
        let (mut found, mut key) = (found.chars(), key.chars());
        self.is_loose
            && found.next().map(|letter| letter.to_ascii_lowercase()) == key.next().map(|letter| letter.to_ascii_lowercase())
            && found.as_str() == key.as_str()
    }

    /// What stands under a key, unless it says nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let index = self.entries.iter().position(|entry| self.matches(&entry.key, key))?;
        if let Some(read) = self.read.borrow_mut().get_mut(index) {
            *read = true;
        }
        self.entries.get(index).map(|entry| &entry.value).filter(|node| !node.is_nothing())
    }

    /// Fields that are known and mean nothing here; those of them that are there.
    pub(super) fn pass_over(&self, keys: &[&'static str]) -> Vec<&'static str> {
        keys.iter().filter(|key| self.get(key).is_some()).copied().collect()
    }

    /// The paths and lines of the fields that nobody has read.
    pub(super) fn unread(&self) -> Vec<(String, usize)> {
        let read = self.read.borrow();
        let unread = self.entries.iter().zip(read.iter()).filter(|(_, is_read)| !**is_read);
        unread.map(|(entry, _)| (self.path(&entry.key), entry.value.line)).collect()
    }

    fn wrong<T>(&self, key: &str, node: &Node, expected: &str) -> Result<T, Refusal> {
        Err(Refusal::of(node.line, self.path(key), format!("is {}, and should be {expected}", node.kind())))
    }

    /// A text. A number without quotes is one as well.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.text() {
            Some(text) => Ok(Some(text)),
            None => self.wrong(key, node, "a text"),
        }
    }

    /// A whole number from 0 on; with quotes or without.
    pub(super) fn whole(&self, key: &str) -> Result<Option<u32>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let text = node.text().unwrap_or_default();
        // 010 is 8 for one reader and 10 for another.
        let is_octal = text.len() > 1 && text.starts_with('0');
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !is_octal;
        match text.parse().ok().filter(|_| is_plain) {
            Some(number) => Ok(Some(number)),
            None => self.wrong(key, node, "a whole number from 0 to 4294967295, written without sign, leading zeros and dots"),
        }
    }

    /// Any number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let text = node.text().unwrap_or_default();
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        match text.parse::<f64>().ok().filter(|number| is_number && number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => self.wrong(key, node, "a number"),
        }
    }

    /// Yes or no.
    pub(super) fn yes(&self, key: &str) -> Result<Option<bool>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.text() {
            Some("true" | "True" | "TRUE") => Ok(Some(true)),
            Some("false" | "False" | "FALSE") => Ok(Some(false)),
            Some(_) | None => self.wrong(key, node, "true or false"),
        }
    }

    /// A quantity of Kubernetes, in thousandths.
    pub(super) fn milli(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.text().and_then(super::quantity::milli) {
            Some(milli) => Ok(Some(milli)),
            None => self.wrong(key, node, "a quantity such as 10, 500m or 2Gi"),
        }
    }

    /// An object.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, Refusal> {
        self.get(key).map(|node| Fields::of(node, &self.path(key), self.is_loose)).transpose()
    }

    /// A list, empty where there is none, with the path of each element.
    pub(super) fn list(&self, key: &str) -> Result<Vec<(String, &'a Node)>, Refusal> {
        let Some(node) = self.get(key) else { return Ok(Vec::new()) };
        let Some(list) = node.list() else { return self.wrong(key, node, "a list") };
        if list.len() > LIST_MAX {
            return self.wrong(key, node, &format!("one of at most {LIST_MAX}"));
        }
        Ok(list.iter().enumerate().map(|(index, node)| (format!("{}[{index}]", self.path(key)), node)).collect())
    }

    /// The objects of a list.
    pub(super) fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>, Refusal> {
        self.list(key)?.into_iter().map(|(path, node)| Fields::of(node, &path, self.is_loose)).collect()
    }

    /// What has to be there.
    pub(super) fn need<T>(&self, key: &str, found: Option<T>) -> Result<T, Refusal> {
        found.ok_or_else(|| Refusal::of(self.line, self.path(key), "is missing"))
    }

    /// Something is wrong with a field.
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> Refusal {
        let line = self.entries.iter().find(|entry| self.matches(&entry.key, key)).map_or(self.line, |entry| entry.value.line);
        let path = if key.is_empty() { self.path.clone() } else { self.path(key) };
        Refusal::of(line, path, reason)
    }
}
