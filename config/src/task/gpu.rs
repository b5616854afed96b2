//! `executor = { gpu = { … } }`: a kernel in CUDA C++, or a built-in one, as the configuration has it. What its texts mean, `gpu/` knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::builtin::{self, Builtin, BuiltinParts};
use crate::value::{Raw, show_duration, show_size};

/// What runs on a GPU, and how it is batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuExecutor {
    /// What runs.
    pub kernel: Kernel,
    /// Attempts of the largest batch.
    pub batch_max: usize,
    /// Bytes of the largest batch.
    pub batch_bytes: u64,
    /// How long an attempt waits for others.
    pub batch_delay: Duration,
    /// Its share of the device against other task types.
    pub weight: u32,
}

/// What runs on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A kernel in CUDA C++.
    Own(Box<OwnKernel>),
    /// One that comes with Ergate.
    Builtin(Builtin),
}

/// A kernel in CUDA C++ as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKernel {
    /// The file of its source.
    pub source: PathBuf,
    /// The function that is launched.
    pub entry: String,
    /// Its parameters in order, such as `in x: f32[n]`.
    pub args: Vec<String>,
    /// Blocks, one to three formulas over the dimensions.
    pub grid: Vec<String>,
    /// Threads of a block, one to three formulas.
    pub block: Vec<String>,
    /// Dynamic shared memory of a block in bytes, a formula.
    pub shared: String,
    /// Options for the compiler.
    pub options: Vec<String>,
    /// Numbers that are defined in the source and in formulas.
    pub constants: BTreeMap<String, u64>,
    /// What a batch of attempts is to it.
    pub batch: Batch,
    /// Longest payload in bytes.
    pub payload_max: u64,
    /// Longest result in bytes.
    pub result_max: u64,
}

/// What a batch of attempts is to a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batch {
    /// A launch for each.
    #[default]
    Each,
    /// One launch, laid end to end.
    Concat,
    /// One launch, with one more dimension.
    Stack,
}

/// Its keys, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 15] = [
    "gpu.source",
    "gpu.entry",
    "gpu.args",
    "gpu.grid",
    "gpu.block",
    "gpu.shared",
    "gpu.options",
    "gpu.constants.NAME",
    "gpu.batch",
    "gpu.batch_max",
    "gpu.batch_bytes",
    "gpu.batch_delay",
    "gpu.weight",
    "gpu.payload_max",
    "gpu.result_max",
];
const CONSTANTS: &str = "gpu.constants.";
/// Longest payload and result that may be asked for; the log takes less than that (`limits` in docs/gpu.md).
const BYTES_MAX: u64 = 1 << 30;
/// Longest delay: attempts wait for others on purpose, and nobody means a minute.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Whether there is such a key, with `gpu.` in front.
pub(crate) fn knows(key: &str) -> bool {
    match key.strip_prefix(CONSTANTS) {
        Some(name) => is_identifier(name),
        None => KEYS.contains(&key) && !key.ends_with(".NAME") || builtin::knows(key),
    }
}

fn is_identifier(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Keys of batches, which built-in kernels have too.
const BATCHES: [&str; 4] = ["gpu.batch_max", "gpu.batch_bytes", "gpu.batch_delay", "gpu.weight"];

/// Values as they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GpuParts {
    builtin: BuiltinParts,
    source: Option<PathBuf>,
    texts: BTreeMap<&'static str, Vec<String>>,
    constants: BTreeMap<String, u64>,
    batch: Option<Batch>,
    counts: BTreeMap<&'static str, u64>,
    delay: Option<Duration>,
}

impl GpuParts {
    /// Whether anything of it was set.
    pub(super) fn is_set(&self) -> bool {
        *self != GpuParts::default()
    }

    /// Sets a value; the error says what the key takes.
    pub(super) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        if builtin::knows(key) {
            return self.builtin.set(key, raw, dir);
        }
        const COUNT: &str = "a whole number from 1 to 65536";
        const SIZE: &str = "a size from \"1B\" to \"1GiB\"";
        if let Some(name) = key.strip_prefix(CONSTANTS) {
            self.constants.insert(name.to_owned(), raw.count(0, u64::MAX).ok_or("a whole number")?);
            return Ok(());
        }
        let key = *KEYS.iter().find(|known| **known == key).ok_or("nothing")?;
        match key {
            "gpu.source" => {
                self.source =
                    Some(dir.join(raw.text().filter(|text| !text.is_empty()).ok_or("a file such as \"kernels/scale.cu\"")?));
            }
            "gpu.batch" => self.batch = Some(Batch::parse(raw).ok_or("\"each\", \"concat\" or \"stack\"")?),
            "gpu.batch_delay" => {
                self.delay = Some(raw.duration().filter(|span| *span <= DELAY_MAX).ok_or("a duration from \"0s\" to \"10s\"")?);
            }
            "gpu.batch_max" | "gpu.weight" => drop(self.counts.insert(key, raw.count(1, 65_536).ok_or(COUNT)?)),
            "gpu.batch_bytes" | "gpu.payload_max" | "gpu.result_max" => {
                let size = raw.size().filter(|size| (1..=BYTES_MAX).contains(size));
                self.counts.insert(key, size.ok_or(SIZE)?);
            }
            _ => {
                let (texts, expected) = listed(key, raw);
                self.texts.insert(key, texts.ok_or(expected)?);
            }
        }
        Ok(())
    }

    fn count(&self, key: &str) -> u64 {
        let default = match key {
            "gpu.batch_max" => 256,
            "gpu.batch_bytes" => 64 << 20,
            "gpu.weight" => 1,
            _ => 1 << 20,
        };
        self.counts.get(key).copied().unwrap_or(default)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let default = || match key {
            "gpu.grid" | "gpu.block" => vec!["1".to_owned()],
            "gpu.shared" => vec!["0".to_owned()],
            _ => Vec::new(),
        };
        self.texts.get(key).cloned().unwrap_or_else(default)
    }

    fn word(&self, key: &str) -> String {
        self.list(key).into_iter().next().unwrap_or_default()
    }

    fn delay(&self) -> Duration {
        self.delay.unwrap_or(Duration::from_millis(1))
    }

    /// Keys that have a value.
    pub(super) fn keys(&self) -> Vec<String> {
        if self.builtin.kind().is_some() {
            return self.builtin.keys().chain(BATCHES.map(str::to_owned)).collect();
        }
        let plain = KEYS.iter().filter(|key| !key.ends_with(".NAME")).map(|key| (*key).to_owned());
        plain.chain(self.constants.keys().map(|name| format!("{CONSTANTS}{name}"))).collect()
    }

    /// A value as a file would have it.
    pub(super) fn value(&self, key: &str) -> String {
        match key {
            _ if builtin::knows(key) => self.builtin.value(key),
            "gpu.source" => self.source.as_deref().unwrap_or(Path::new("")).display().to_string(),
            "gpu.entry" | "gpu.shared" => self.word(key),
            "gpu.args" | "gpu.grid" | "gpu.block" | "gpu.options" => format!("{:?}", self.list(key)),
            "gpu.batch" => self.batch.unwrap_or_default().name().to_owned(),
            "gpu.batch_delay" => show_duration(self.delay()),
            "gpu.batch_max" | "gpu.weight" => self.count(key).to_string(),
            "gpu.batch_bytes" | "gpu.payload_max" | "gpu.result_max" => show_size(self.count(key)),
            _ => key.strip_prefix(CONSTANTS).and_then(|name| self.constants.get(name)).map(u64::to_string).unwrap_or_default(),
        }
    }

    /// The executor, or the key at fault and why.
    pub(super) fn executor(&self) -> Result<GpuExecutor, (&'static str, String)> {
        let kernel = if self.builtin.is_set() { Kernel::Builtin(self.builtin()?) } else { Kernel::Own(Box::new(self.own()?)) };
        let narrow = |key| u32::try_from(self.count(key)).unwrap_or(u32::MAX);
        Ok(GpuExecutor {
            kernel,
            batch_max: narrow("gpu.batch_max") as usize,
            batch_bytes: self.count("gpu.batch_bytes"),
            batch_delay: self.delay(),
            weight: narrow("gpu.weight"),
        })
    }

    fn builtin(&self) -> Result<Builtin, (&'static str, String)> {
        let counts = self.counts.keys().copied().filter(|key| !BATCHES.contains(key));
        let mut own = self.source.as_ref().map(|_| "gpu.source").into_iter().chain(self.texts.keys().copied()).chain(counts);
        let own = own.next().or(self.batch.map(|_| "gpu.batch")).or((!self.constants.is_empty()).then_some("gpu.constants"));
        match own {
            Some(key) => Err(("executor.gpu.builtin", format!("`{key}` is for kernels of your own: keep one of both"))),
            None => self.builtin.builtin(),
        }
    }

    fn own(&self) -> Result<OwnKernel, (&'static str, String)> {
        let source = self.source.clone().ok_or_else(|| ("executor.gpu.source", "it names the file of the kernel".to_owned()))?;
        let needed =
            [("executor.gpu.entry", "the function that is launched"), ("executor.gpu.args", "the parameters of the function")];
        for (key, what) in needed {
            if !self.texts.contains_key(key.trim_start_matches("executor.")) {
                return Err((key, format!("a kernel needs it: {what}; docs/gpu.md has examples")));
            }
        }
        Ok(OwnKernel {
            source,
            entry: self.word("gpu.entry"),
            args: self.list("gpu.args"),
            grid: self.list("gpu.grid"),
            block: self.list("gpu.block"),
            shared: self.word("gpu.shared"),
            options: self.list("gpu.options"),
            constants: self.constants.clone(),
            batch: self.batch.unwrap_or_default(),
            payload_max: self.count("gpu.payload_max"),
            result_max: self.count("gpu.result_max"),
        })
    }
}

/// A value that is one text or several, and what its key takes.
fn listed(key: &str, raw: &Raw) -> (Option<Vec<String>>, &'static str) {
    let one = || raw.text().map(str::to_owned).or_else(|| raw.count(0, u64::MAX).map(|number| number.to_string()));
    let some = |texts: &Vec<String>| texts.iter().all(|text| !text.is_empty());
    let formulas =
        || one().map(|text| vec![text]).or_else(|| raw.texts()).filter(|all| (1..=3).contains(&all.len()) && some(all));
    match key {
        "gpu.entry" => (one().filter(|name| is_identifier(name)).map(|name| vec![name]), "the name of a function"),
        "gpu.shared" => (one().filter(|text| !text.is_empty()).map(|text| vec![text]), "a number or a formula such as \"4 * n\""),
        "gpu.grid" | "gpu.block" => {
            (formulas(), "a number, a formula such as \"ceil(n / 256)\", or a list of up to three of them")
        }
        "gpu.args" => (raw.texts().filter(some), "a list of parameters such as [\"in x: f32[n]\", \"out y: f32[n]\"]"),
        _ => (raw.texts().filter(some), "a list of options such as [\"--use_fast_math\"]"),
    }
}

impl Batch {
    const ALL: [(&'static str, Batch); 3] = [("each", Batch::Each), ("concat", Batch::Concat), ("stack", Batch::Stack)];

    fn name(self) -> &'static str {
        Batch::ALL.iter().find(|(_, batch)| *batch == self).map_or("each", |(name, _)| name)
    }

    fn parse(raw: &Raw) -> Option<Batch> {
        Batch::ALL.iter().find(|(name, _)| raw.text() == Some(name)).map(|(_, batch)| *batch)
    }
}
