//! `executor = { gpu = { builtin = "…" } }`: the kernels that come with Ergate, as the configuration has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::value::Raw;

/// A built-in kernel as the configuration has it. What its texts mean, `gpu/` knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Groups rows by a key.
    Aggregate {
        /// Columns beside the key with what is made of them, such as `price: f64 sum, max`.
        values: Vec<String>,
        /// Most groups of one payload; as many as rows without.
        groups_max: Option<u64>,
    },
    /// Finds the most similar rows of a matrix.
    TopK {
        /// The file of the matrix.
        matrix: PathBuf,
        /// The digest of its bytes, where it is said.
        digest: Option<String>,
        /// Its rows.
        rows: u64,
        /// Values of a row.
        columns: u32,
        /// The type of its values in the file, and as they are kept on the device.
        dtype: [String; 2],
        /// `cosine` or `dot`.
        metric: String,
        /// Rows found for each query.
        k: u32,
        /// Most queries of one payload.
        queries_max: u32,
    },
}

/// Keys of each built-in kernel, in the order of `default.toml`.
pub(crate) const AGGREGATE: [&str; 2] = ["gpu.values", "gpu.groups_max"];
pub(crate) const TOP_K: [&str; 9] =
    ["gpu.matrix", "gpu.digest", "gpu.rows", "gpu.columns", "gpu.dtype", "gpu.kept", "gpu.metric", "gpu.k", "gpu.queries_max"];
/// What says which it is.
pub(super) const BUILTIN: &str = "gpu.builtin";
/// Rows of a matrix, at most.
const ROWS_MAX: u64 = 1 << 31;
const NONE: &str = "none";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Aggregate,
    TopK,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Aggregate => "aggregate",
            Kind::TopK => "top_k",
        }
    }

    const fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Aggregate => &AGGREGATE,
            Kind::TopK => &TOP_K,
        }
    }
}

/// Values as they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuiltinParts {
    kind: Option<Kind>,
    values: Option<Vec<String>>,
    texts: BTreeMap<&'static str, String>,
    counts: BTreeMap<&'static str, u64>,
}

/// Whether a key is one of a built-in kernel.
pub(super) fn knows(key: &str) -> bool {
    key == BUILTIN || AGGREGATE.contains(&key) || TOP_K.contains(&key)
}

impl BuiltinParts {
    pub(super) fn is_set(&self) -> bool {
        *self != BuiltinParts::default()
    }

    /// Which it is, if it is any.
    pub(super) const fn kind(&self) -> Option<Kind> {
        self.kind
    }

    pub(super) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        if key == BUILTIN {
            let kind = [Kind::Aggregate, Kind::TopK].into_iter().find(|kind| raw.text() == Some(kind.name()));
            self.kind = Some(kind.ok_or("\"aggregate\" or \"top_k\"")?);
            return Ok(());
        }
        let key = *AGGREGATE.iter().chain(&TOP_K).find(|known| **known == key).ok_or("nothing")?;
        let text = raw.text().filter(|text| !text.is_empty());
        match key {
            "gpu.values" => {
                let values = raw.texts().filter(|all| all.iter().all(|text| !text.is_empty()));
                self.values = Some(values.ok_or("a list of columns such as [\"price: f64 sum, max\"]")?);
            }
            "gpu.matrix" => {
                let path = dir.join(text.ok_or("a file such as \"embeddings.f32\"")?);
                self.texts.insert(key, path.to_str().ok_or("a path in UTF-8")?.to_owned());
            }
            "gpu.digest" => drop(self.texts.insert(key, text.ok_or("a digest as b3sum prints it, or \"none\"")?.to_owned())),
            "gpu.dtype" | "gpu.kept" => {
                let dtype = text.filter(|text| ["f32", "bf16"].contains(text));
                self.texts.insert(key, dtype.ok_or("\"f32\" or \"bf16\"")?.to_owned());
            }
            "gpu.metric" => {
                let metric = text.filter(|text| ["cosine", "dot"].contains(text));
                self.texts.insert(key, metric.ok_or("\"cosine\" or \"dot\"")?.to_owned());
            }
            "gpu.rows" => drop(self.counts.insert(key, raw.count(1, ROWS_MAX).ok_or("a whole number from 1 to 2147483648")?)),
            "gpu.groups_max" if text == Some(NONE) => drop(self.counts.remove(key)),
            _ => {
                let most = if key == "gpu.groups_max" { u64::MAX } else { 65_536 };
                self.counts.insert(key, raw.count(1, most).ok_or("a whole number of at least 1")?);
            }
        }
        Ok(())
    }

    fn count(&self, key: &str) -> u64 {
        let default = match key {
            "gpu.k" => 10,
            "gpu.queries_max" => 64,
            _ => 0,
        };
        self.counts.get(key).copied().unwrap_or(default)
    }

    fn text(&self, key: &str) -> String {
        let default = match key {
            "gpu.dtype" => "f32",
            "gpu.kept" => return self.texts.get(key).cloned().unwrap_or_else(|| self.text("gpu.dtype")),
            "gpu.metric" => "cosine",
            _ => NONE,
        };
        self.texts.get(key).map_or(default, String::as_str).to_owned()
    }

    /// Keys that have a value.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let own = self.kind.map_or(&[][..], Kind::keys);
        self.kind.map(|_| BUILTIN).into_iter().chain(own.iter().copied()).map(str::to_owned)
    }

    /// A value as a file would have it.
    pub(super) fn value(&self, key: &str) -> String {
        match key {
            BUILTIN => self.kind.map_or("", Kind::name).to_owned(),
            "gpu.values" => format!("{:?}", self.values.clone().unwrap_or_default()),
            "gpu.groups_max" => self.counts.get(key).map_or_else(|| NONE.to_owned(), u64::to_string),
            "gpu.rows" | "gpu.columns" | "gpu.k" | "gpu.queries_max" => self.count(key).to_string(),
            _ => self.text(key),
        }
    }

    /// The kernel, or the key at fault and why.
    pub(super) fn builtin(&self) -> Result<Builtin, (&'static str, String)> {
        let Some(kind) = self.kind else {
            let found = AGGREGATE.iter().chain(&TOP_K).find(|key| self.has(key)).copied().unwrap_or(BUILTIN);
            return Err(("executor.gpu.builtin", format!("`{found}` is for built-in kernels: say which it is")));
        };
        let others = AGGREGATE.iter().chain(&TOP_K).filter(|key| !kind.keys().contains(key));
        if let Some(key) = others.into_iter().find(|key| self.has(key)) {
            return Err(("executor.gpu.builtin", format!("`{key}` is not for {:?}", kind.name())));
        }
        let narrow = |key| u32::try_from(self.count(key)).unwrap_or(u32::MAX);
        Ok(match kind {
            Kind::Aggregate => Builtin::Aggregate {
                values: self.values.clone().unwrap_or_default(),
                groups_max: self.counts.get("gpu.groups_max").copied(),
            },
            Kind::TopK => {
                for (key, what) in [
                    ("executor.gpu.matrix", "the file of the matrix"),
                    ("executor.gpu.rows", "how many rows it has"),
                    ("executor.gpu.columns", "how many values a row has"),
                ] {
                    if !self.has(key.trim_start_matches("executor.")) {
                        return Err((key, format!("a search needs it: {what}")));
                    }
                }
                Builtin::TopK {
                    matrix: self.text("gpu.matrix").into(),
                    digest: self.texts.get("gpu.digest").filter(|text| *text != NONE).cloned(),
                    rows: self.count("gpu.rows"),
                    columns: narrow("gpu.columns"),
                    dtype: [self.text("gpu.dtype"), self.text("gpu.kept")],
                    metric: self.text("gpu.metric"),
                    k: narrow("gpu.k"),
                    queries_max: narrow("gpu.queries_max"),
                }
            }
        })
    }

    fn has(&self, key: &str) -> bool {
        self.texts.contains_key(key) || self.counts.contains_key(key) || key == "gpu.values" && self.values.is_some()
    }
}
