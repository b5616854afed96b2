//! Why a manifest cannot be taken: which file, which document, which line, which field.

use std::fmt;

/// A manifest that cannot be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Which file.
    pub(crate) file: String,
    /// Which document of it, counted from 1; 0 where that is not known.
    document: usize,
    /// Which line, counted from 1; 0 where that is not known.
    line: usize,
    /// Which field, where it is one.
    path: String,
    reason: String,
}

impl Refusal {
    /// Something is wrong in this line.
    pub(super) fn at(line: usize, reason: String) -> Refusal {
        Refusal { line, reason, ..Refusal::default() }
    }

    /// Something is wrong with this field.
    pub(super) fn of(line: usize, path: impl Into<String>, reason: impl Into<String>) -> Refusal {
        Refusal { line, path: path.into(), reason: reason.into(), ..Refusal::default() }
    }

    /// The same, with the document that it is in.
    pub(super) fn in_document(self, document: usize) -> Refusal {
        Refusal { document, ..self }
    }

    /// The same, with the file that it is in.
    pub(super) fn in_file(self, file: &str) -> Refusal {
        let file = if self.file.is_empty() { file.to_owned() } else { self.file };
        Refusal { file, ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places = Vec::new();
        if !self.file.is_empty() {
            places.push(self.file.clone());
        }
        if self.document > 0 {
            places.push(format!("document {}", self.document));
        }
        if self.line > 0 {
            places.push(format!("line {}", self.line));
        }
        if !places.is_empty() {
            write!(f, "{}: ", places.join(", "))?;
        }
        if !self.path.is_empty() {
            write!(f, "`{}` ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}
