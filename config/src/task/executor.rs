//! What runs a task type: a command, a call to a service, or a kernel.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::gpu::{self, GpuExecutor, GpuParts};
use crate::secret::OptionValue;
use crate::value::{Raw, show_duration, show_size};

/// What runs a task type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executor {
    /// A command.
    Process(ProcessExecutor),
    /// A call to a service.
    Http(HttpExecutor),
    /// A kernel.
    Gpu(GpuExecutor),
    /// Workers.
    Worker,
}

/// A command as the configuration has it; what is `None` takes the default of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExecutor {
    /// The program: a path, or a name to look for in PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How it gets the payload.
    pub stdin: PayloadBy,
    /// Where it runs.
    pub directory: Option<PathBuf>,
    /// Variables that it gets from our environment.
    pub env: Vec<String>,
    /// Variables that are set for it.
    pub set: BTreeMap<String, OptionValue>,
    /// Exit codes after which no other attempt is made.
    pub non_retryable_exits: Vec<RangeInclusive<u8>>,
    /// From TERM to KILL.
    pub kill_after: Duration,
    /// At one time.
    pub concurrency: usize,
}

/// A call as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpExecutor {
    /// Where it goes.
    pub url: String,
    /// At one time.
    pub concurrency: usize,
    /// The media type of the payload.
    pub content_type: String,
    /// Headers that every call has.
    pub headers: BTreeMap<String, OptionValue>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Bytes of a response.
    pub response_max: u64,
    /// Longest delay that a service may ask for.
    pub retry_after_max: Duration,
    /// Networks that may be called although they are refused unless somebody says so, as `ADDRESS/BITS`.
    pub allow_networks: Vec<String>,
}

/// How a command gets its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBy {
    /// On stdin.
    Payload,
    /// In a file.
    File,
}

/// All keys of executors, `process` and `http` included, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 15] = [
    "process",
    "stdin",
    "directory",
    "env",
    "set.NAME",
    "non_retryable_exits",
    "kill_after",
    "http",
    "content_type",
    "headers.NAME",
    "connect_timeout",
    "response_max",
    "retry_after_max",
    "allow_networks",
    "concurrency",
];
/// Keys that only commands have; [`HTTP_ONLY`] those of calls.
const PROCESS_ONLY: [&str; 6] = ["stdin", "directory", "env", "set", "non_retryable_exits", "kill_after"];
const HTTP_ONLY: [&str; 6] = ["content_type", "headers", "connect_timeout", "response_max", "retry_after_max", "allow_networks"];
/// What stands for workers.
pub(super) const WORKER: &str = "worker";
/// Attempts at one time unless the configuration says otherwise.
const CONCURRENCY: u64 = 64;
/// Largest response that can be a result.
const RESPONSE_MAX: u64 = 1 << 20;
/// As in `sysexits.h` without 75, "try again later", and what a shell says of a command that it cannot run or find.
const NON_RETRYABLE_EXITS: [RangeInclusive<u8>; 3] = [64..=74, 76..=78, 126..=127];

/// Whether there is such a key; names of variables and headers are anybody's.
pub(crate) fn knows(key: &str) -> bool {
    let Some(key) = key.strip_prefix("executor.") else { return false };
    match key.split_once('.') {
        Some(("set", name)) => is_variable(name),
        Some(("headers", name)) => is_header(name),
        Some(("gpu", _)) => gpu::knows(key),
        Some(_) => false,
        None => KEYS.contains(&key),
    }
}

/// Values as they were set, of whichever executor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    worker: bool,
    gpu: GpuParts,
    process: Option<(PathBuf, Vec<String>)>,
    http: Option<String>,
    stdin: Option<PayloadBy>,
    directory: Option<PathBuf>,
    env: Option<Vec<String>>,
    set: BTreeMap<String, OptionValue>,
    non_retryable_exits: Option<Vec<RangeInclusive<u8>>>,
    content_type: Option<String>,
    headers: BTreeMap<String, OptionValue>,
    allow_networks: Option<Vec<String>>,
    spans: BTreeMap<&'static str, Duration>,
    response_max: Option<u64>,
    concurrency: Option<u64>,
}

impl Parts {
    pub(super) fn set_worker(&mut self, raw: &Raw) -> Result<(), &'static str> {
        let is_worker = raw.text() == Some(WORKER);
        self.worker |= is_worker;
        if is_worker {
            Ok(())
        } else {
            Err("\"worker\", { process = [\"./thumb.sh\"] }, { http = \"URL\" } or { gpu = { source = \"k.cu\", … } }")
        }
    }

    /// Whether workers run it.
    pub(super) const fn is_worker(&self) -> bool {
        self.worker
    }

    /// Whether it is a kernel.
    pub(super) fn is_kernel(&self) -> bool {
        self.gpu.is_set()
    }

    pub(super) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        if key.starts_with("gpu.") {
            return self.gpu.set(key, raw, dir);
        }
        const SECRET: &str = "a text, { file = \"PATH\" } or { env = \"NAME\" }; what is secret only as one of the last two";
        if let Some((map, name)) = key.split_once('.') {
            let secret = is_secret(name);
            let value = OptionValue::parse_as(secret, raw).ok_or(SECRET)?.beside(dir);
            if map == "set" { &mut self.set } else { &mut self.headers }.insert(name.to_owned(), value);
            return Ok(());
        }
        match key {
            "process" => {
                self.process = Some(command(raw, dir).ok_or("a program and its arguments such as [\"./thumb.sh\", \"--fast\"]")?)
            }
            "http" => self.http = Some(url(raw).ok_or("a URL such as \"http://127.0.0.1:9000/embed\"")?),
            "stdin" => self.stdin = Some(PayloadBy::parse(raw).ok_or("\"payload\" or \"file\"")?),
            "directory" => {
                self.directory = Some(dir.join(raw.text().filter(|text| !text.is_empty()).ok_or("a directory as a text")?));
            }
            "env" => {
                let names = raw.texts().filter(|names| names.iter().all(|name| is_variable(name)));
                self.env = Some(names.ok_or("a list of names of variables such as [\"PATH\", \"LANG\"]")?);
            }
            "non_retryable_exits" => {
                let codes = raw.texts().and_then(|all| all.iter().map(|codes| exits(codes)).collect());
                self.non_retryable_exits = Some(codes.ok_or("a list of exit codes from 1 to 255 such as [2, \"64-78\"]")?);
            }
            "content_type" => self.content_type = Some(visible(raw, 256).ok_or("a media type such as \"application/json\"")?),
            "allow_networks" => {
                self.allow_networks = Some(raw.texts().ok_or("a list of networks such as [\"169.254.7.0/24\"]")?);
            }
            "response_max" => {
                let size = raw.size().filter(|size| (1..=RESPONSE_MAX).contains(size));
                self.response_max = Some(size.ok_or("a size from \"1B\" to \"1MiB\"")?);
            }
            "concurrency" => {
                self.concurrency = Some(raw.count(1, 65_536).ok_or("a whole number from 1 to 65536")?);
            }
            _ => {
                let key = ["kill_after", "connect_timeout", "retry_after_max"]
                    .into_iter()
                    .find(|known| *known == key)
                    .ok_or("nothing")?;
                let span = raw.duration().filter(|span| *span <= super::SPAN_MAX).ok_or(super::SPAN)?;
                self.spans.insert(key, span);
            }
        }
        Ok(())
    }

    fn span(&self, key: &str) -> Duration {
        let default = match key {
            "kill_after" | "connect_timeout" => Duration::from_secs(5),
            _ => Duration::from_secs(3_600),
        };
        self.spans.get(key).copied().unwrap_or(default)
    }

    /// Keys that have a value.
    pub(super) fn keys(&self) -> Vec<String> {
        if self.worker {
            return Vec::new();
        }
        if self.is_kernel() {
            return self.gpu.keys();
        }
        let named = |map: &str, values: &BTreeMap<String, OptionValue>| {
            values.keys().map(|name| format!("{map}.{name}")).collect::<Vec<_>>()
        };
        let foreign: &[&str] = if self.http.is_some() { &PROCESS_ONLY } else { &HTTP_ONLY };
        let of_other = if self.http.is_some() { "process" } else { "http" };
        let plain = KEYS.iter().filter(|key| !key.contains('.') && !foreign.contains(key) && **key != of_other);
        let mut keys: Vec<String> = plain.map(|key| (*key).to_owned()).collect();
        keys.extend(named("set", &self.set).into_iter().chain(named("headers", &self.headers)));
        keys
    }

    /// A value as a file would have it.
    pub(super) fn value(&self, key: &str) -> String {
        if key.starts_with("gpu.") {
            return self.gpu.value(key);
        }
        if let Some((map, name)) = key.split_once('.') {
            let map = if map == "set" { &self.set } else { &self.headers };
            return map.get(name).map(ToString::to_string).unwrap_or_default();
        }
        match key {
            "process" => self.process.as_ref().map(|(program, rest)| show_command(program, rest)).unwrap_or_default(),
            "http" => self.http.clone().unwrap_or_default(),
            "stdin" => self.stdin.unwrap_or(PayloadBy::Payload).name().to_owned(),
            "directory" => self.directory.as_deref().unwrap_or(Path::new(".")).display().to_string(),
            "env" => format!("{:?}", self.env.clone().unwrap_or_else(env_default)),
            "non_retryable_exits" => show_exits(self.non_retryable_exits.as_deref().unwrap_or(&NON_RETRYABLE_EXITS)),
            "content_type" => self.content_type.clone().unwrap_or_else(json),
            "allow_networks" => format!("{:?}", self.allow_networks.clone().unwrap_or_default()),
            "response_max" => show_size(self.response_max.unwrap_or(RESPONSE_MAX)),
            "concurrency" => self.concurrency.unwrap_or(CONCURRENCY).to_string(),
            _ => show_duration(self.span(key)),
        }
    }

    /// The executor, or the key at fault and why.
    pub(super) fn executor(&self) -> Result<Executor, (&'static str, String)> {
        if self.worker {
            let is_alone = *self == Parts { worker: true, ..Parts::default() };
            return if is_alone {
                Ok(Executor::Worker)
            } else {
                Err(("executor", "workers run it, and it says how as well".to_owned()))
            };
        }
        if self.is_kernel() {
            let is_alone = *self == Parts { gpu: self.gpu.clone(), ..Parts::default() };
            let reason = "a kernel runs it, and it has keys of other executors: keep `gpu` alone";
            return if is_alone { self.gpu.executor().map(Executor::Gpu) } else { Err(("executor", reason.to_owned())) };
        }
        match (&self.process, &self.http) {
            (Some(_), Some(_)) => Err(("executor", "it has two: keep either `process` or `http`".to_owned())),
            (None, None) => {
                let reason = "a task type needs what runs it: `executor = { process = [\"./thumb.sh\"] }`, `executor = { http = \"URL\" }`, `executor = { gpu = { source = \"k.cu\", … } }` or `executor = \"worker\"`";
                Err(("executor", reason.to_owned()))
            }
            (Some((program, arguments)), None) => {
                self.none_of("http", self.foreign_to_process())?;
                Ok(Executor::Process(self.process(program, arguments)))
            }
            (None, Some(url)) => {
                self.none_of("process", self.foreign_to_http())?;
                Ok(Executor::Http(self.http(url)))
            }
        }
    }

    fn none_of(&self, other: &str, found: Option<&'static str>) -> Result<(), (&'static str, String)> {
        match found {
            Some(key) => Err(("executor", format!("`{key}` is for the executor `{other}`"))),
            None => Ok(()),
        }
    }

    fn foreign_to_process(&self) -> Option<&'static str> {
        let found = [self.content_type.is_some(), !self.headers.is_empty(), self.spans.contains_key("connect_timeout")];
        let more = [self.response_max.is_some(), self.spans.contains_key("retry_after_max"), self.allow_networks.is_some()];
        HTTP_ONLY.into_iter().zip(found.into_iter().chain(more)).find(|(_, found)| *found).map(|(key, _)| key)
    }

    fn foreign_to_http(&self) -> Option<&'static str> {
        let found = [self.stdin.is_some(), self.directory.is_some(), self.env.is_some(), !self.set.is_empty()];
        let more = [self.non_retryable_exits.is_some(), self.spans.contains_key("kill_after")];
        PROCESS_ONLY.into_iter().zip(found.into_iter().chain(more)).find(|(_, found)| *found).map(|(key, _)| key)
    }

    fn at_once(&self) -> usize {
        usize::try_from(self.concurrency.unwrap_or(CONCURRENCY)).unwrap_or(usize::MAX)
    }

    fn process(&self, program: &Path, arguments: &[String]) -> ProcessExecutor {
        ProcessExecutor {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            stdin: self.stdin.unwrap_or(PayloadBy::Payload),
            directory: self.directory.clone(),
            env: self.env.clone().unwrap_or_else(env_default),
            set: self.set.clone(),
            non_retryable_exits: self.non_retryable_exits.clone().unwrap_or_else(|| NON_RETRYABLE_EXITS.to_vec()),
            kill_after: self.span("kill_after"),
            concurrency: self.at_once(),
        }
    }

    fn http(&self, url: &str) -> HttpExecutor {
        HttpExecutor {
            url: url.to_owned(),
            concurrency: self.at_once(),
            content_type: self.content_type.clone().unwrap_or_else(json),
            headers: self.headers.clone(),
            connect_timeout: self.span("connect_timeout"),
            response_max: self.response_max.unwrap_or(RESPONSE_MAX),
            retry_after_max: self.span("retry_after_max"),
            allow_networks: self.allow_networks.clone().unwrap_or_default(),
        }
    }
}

impl PayloadBy {
    const fn name(self) -> &'static str {
        match self {
            PayloadBy::Payload => "payload",
            PayloadBy::File => "file",
        }
    }

    fn parse(raw: &Raw) -> Option<PayloadBy> {
        [PayloadBy::Payload, PayloadBy::File].into_iter().find(|by| raw.text() == Some(by.name()))
    }
}

/// A command; a program with a slash in it is beside the file that names it.
pub(crate) fn command(raw: &Raw, dir: &Path) -> Option<(PathBuf, Vec<String>)> {
    let words = raw.texts().filter(|words| words.iter().all(|word| !word.contains('\0')))?;
    let (program, arguments) = words.split_first().filter(|(program, _)| !program.is_empty())?;
    let program = if program.contains('/') { dir.join(program) } else { PathBuf::from(program) };
    Some((program, arguments.to_vec()))
}

pub(crate) fn show_command(program: &Path, arguments: &[String]) -> String {
    let program = program.display().to_string();
    format!("{:?}", std::iter::once(&program).chain(arguments).collect::<Vec<_>>())
}

pub(crate) fn url(raw: &Raw) -> Option<String> {
    let url = visible(raw, 2_048)?;
    (url.starts_with("http://") || url.starts_with("https://")).then_some(url)
}

/// A text of visible ASCII without spaces at its ends.
fn visible(raw: &Raw, max: usize) -> Option<String> {
    let text = raw.text().filter(|text| (1..=max).contains(&text.len()) && text.trim() == *text)?;
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then(|| text.to_owned())
}

/// One exit code, or a range of them.
fn exits(text: &str) -> Option<RangeInclusive<u8>> {
    let code = |text: &str| text.trim().parse::<u8>().ok().filter(|code| *code > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (code(first)?, code(last)?),
        None => (code(text)?, code(text)?),
    };
    (first <= last).then_some(first..=last)
}

fn show_exits(codes: &[RangeInclusive<u8>]) -> String {
    let show = |codes: &RangeInclusive<u8>| match codes.start() == codes.end() {
        true => codes.start().to_string(),
        false => format!("{}-{}", codes.start(), codes.end()),
    };
    format!("{:?}", codes.iter().map(show).collect::<Vec<_>>())
}

fn env_default() -> Vec<String> {
    vec!["PATH".to_owned()]
}

fn json() -> String {
    "application/json".to_owned()
}

pub(crate) fn is_variable(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with("ERGATE_")
}

/// Whether this can be the name of a header, and is not one of those that the call itself has.
fn is_header(name: &str) -> bool {
    let own = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "content-type",
        "idempotency-key",
        "traceparent",
        "te",
        "upgrade",
    ];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let lower = name.to_ascii_lowercase();
    (1..=128).contains(&name.len()) && name.bytes().all(plain) && !own.contains(&lower.as_str()) && !lower.starts_with("ergate-")
}

/// Whether a variable or a header holds something that nobody should see.
pub(crate) fn is_secret(name: &str) -> bool {
    let words =
        ["authorization", "cookie", "password", "passphrase", "secret", "token", "apikey", "api_key", "api-key", "credential"];
    let lower = name.to_ascii_lowercase();
    words.iter().any(|word| lower.contains(word)) || lower.ends_with("_key") || lower.ends_with("-key")
}
