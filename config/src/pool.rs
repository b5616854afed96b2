//! `[pool.NAME]`: how large a pool is, who starts its replicas, and what server each of them has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ergate_events::resources::{PoolResources, cores as show_cores};
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::sizing::{SHADOWS_MAX, is_shadow_name};

use crate::secret::OptionValue;
use crate::task::executor::{command, is_secret, is_variable, show_command, url};
use crate::value::{Raw, show_duration, show_size};

/// Keys of every pool, in the order of `default.toml`.
const KEYS: [&str; 4] = ["preset", "replicas", "slots", "fleet"];
/// What an hour of a replica costs.
const PRICE: &str = "price";
/// What one replica asks for.
const ASKED: [&str; 2] = ["cpu", "memory"];
/// What all replicas may ask for together.
const CEILING: [&str; 3] = ["ceiling.slots", "ceiling.cpu", "ceiling.memory"];
/// Most thousandths of a core: more than any machine has.
const CPU_MAX: u32 = 1_000_000_000;
/// Highest price, in thousandths.
const PRICE_MAX: u32 = 1_000_000_000;
/// The key of a pool that a policy of its own sizes.
const POLICY: &str = "policy";
/// What the key of a shadow begins with; its name and [`POLICY`] follow.
const SHADOW: &str = "shadow.";
/// Keys of pools whose replicas are processes.
const PROCESS_KEYS: [&str; 2] = ["gpus", "memory_max"];
/// Whether kernels may run as their twins on the CPU.
const CPU_TWINS: &str = "cpu_twins";
/// Keys of a server.
const SERVER_KEYS: [&str; 7] = ["command", "ready", "ready_within", "health_every", "stop_within", "env", "concurrency"];
/// Keys that stand for one of those above.
pub(crate) const PARTS: [&str; 7] =
    ["replicas.min", "replicas.max", CANARY_LABEL, CANARY_SHARE, CEILING[0], CEILING[1], CEILING[2]];
const CANARY_LABEL: &str = "canary.label";
const CANARY_SHARE: &str = "canary.share";
/// Most replicas of a pool and slots of a replica, as the core has it.
const COUNT_MAX: u64 = 1 << 16;
/// Fewest bytes of memory: what a worker takes that does nothing.
const MEMORY_MIN: u64 = 64 << 20;

/// Whether there is such a key.
pub(crate) fn knows(key: &str) -> bool {
    let is_plain = all().any(|known| known == key) || PARTS.contains(&key);
    is_plain || shadow(key).is_some() || key.strip_prefix("set.").is_some_and(is_variable)
}

/// The name of the shadow whose policy a key is.
fn shadow(key: &str) -> Option<&str> {
    let name = key.strip_prefix(SHADOW)?.strip_suffix(POLICY)?.strip_suffix('.')?;
    Some(name).filter(|name| is_shadow_name(name))
}

/// All keys that have one name.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().chain([POLICY, PRICE, CPU_TWINS]).chain(ASKED).chain(PROCESS_KEYS).chain(SERVER_KEYS)
}

/// `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How it follows its work.
    pub preset: Preset,
    /// Its replicas: all that it may have.
    pub replicas: u32,
    /// The fewest that it may have, where that is set.
    pub replicas_min: Option<u32>,
    /// Slots of each.
    pub slots: u32,
    /// The file of the policy that sizes it, or the name of one of [`PRESETS`](crate::PRESETS).
    pub policy: Option<PathBuf>,
    /// The same of each policy that decides beside that one, by the name of the shadow.
    pub shadows: BTreeMap<String, PathBuf>,
    /// Who starts its replicas, unless it has a server.
    fleet: Fleet,
    /// The server that each of its workers has.
    pub server: Option<Server>,
    /// What a server is to have, before anybody knows whether there is one.
    parts: Parts,
    /// GPUs for its processes: an index, the beginning of a uuid, or a part of the name.
    pub gpus: Vec<String>,
    /// Whether kernels run as their twins on the CPU where there is no GPU.
    pub cpu_twins: bool,
    /// Whether a task type that is a kernel runs in it.
    pub(crate) has_kernels: bool,
    /// Whether its replicas are processes because nobody chose who starts those of a pool with kernels.
    pub(crate) has_own_processes: bool,
    /// How many attempts a worker has at a time.
    pub concurrency: Concurrency,
    /// The label of workers of a new version, and of a thousand attempts how many they get.
    canary: (Option<(String, String)>, Option<u32>),
    /// In thousandths.
    price: Option<u32>,
    /// What one replica asks for, and all of them may.
    resources: PoolResources,
    /// Bytes of memory that each of its processes may have.
    pub memory_max: Option<u64>,
}

/// Who starts the replicas of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fleet {
    /// The engine, in its own process.
    #[default]
    Local,
    /// The engine, each as a process.
    Process,
    /// Somebody else: workers come and go by themselves.
    External,
}

impl Fleet {
    const ALL: [(&'static str, Fleet); 3] = [("local", Fleet::Local), ("process", Fleet::Process), ("external", Fleet::External)];

    /// As it stands in a file.
    pub fn name(self) -> &'static str {
        Fleet::ALL.iter().find(|(_, fleet)| *fleet == self).map_or("local", |(name, _)| name)
    }

    fn named(raw: &Raw) -> Option<Fleet> {
        Fleet::ALL.iter().find(|(name, _)| raw.text() == Some(name)).map(|(_, fleet)| *fleet)
    }
}

/// A server that a worker starts for itself, such as one with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The program: a path, or a name to look for in PATH.
    pub program: PathBuf,
    /// Its arguments; `{port}` and `{gpu}` in them are replaced.
    pub arguments: Vec<String>,
    /// What answers with a 2xx once it is ready; `{port}` is replaced.
    pub ready: String,
    /// How long that may take.
    pub ready_within: Duration,
    /// How often it is asked whether it still is, or never.
    pub health_every: Option<Duration>,
    /// From TERM to KILL.
    pub stop_within: Duration,
    /// Variables that it gets from the environment of the worker.
    pub env: Vec<String>,
    /// Variables that are set for it.
    pub set: BTreeMap<String, OptionValue>,
}

/// How many attempts a worker has at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as slots, unless it has a server.
    #[default]
    Unsaid,
    /// As many as slots.
    Fixed,
    /// As many as do best, up to its slots.
    Adaptive,
}

/// How a pool follows its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// It does not.
    #[default]
    AlwaysOn,
    /// Down to one replica.
    OnDemand,
    /// Down to none.
    ScaleToZero,
}

impl Preset {
    const ALL: [(&'static str, Preset); 3] =
        [("always-on", Preset::AlwaysOn), ("on-demand", Preset::OnDemand), ("scale-to-zero", Preset::ScaleToZero)];

    /// As it stands in a file.
    pub fn name(self) -> &'static str {
        Preset::ALL.iter().find(|(_, preset)| *preset == self).map_or("always-on", |(name, _)| name)
    }

    fn named(raw: &Raw) -> Option<Preset> {
        Preset::ALL.iter().find(|(name, _)| raw.text() == Some(name)).map(|(_, preset)| *preset)
    }
}

impl Pool {
    /// The fewest replicas that it may have.
    pub fn least(&self) -> u32 {
        self.replicas_min.unwrap_or(match self.preset {
            Preset::AlwaysOn => self.replicas,
            Preset::OnDemand => self.replicas.min(1),
            Preset::ScaleToZero => 0,
        })
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            preset: Preset::AlwaysOn,
            replicas: 1,
            replicas_min: None,
            slots: 1_024,
            policy: None,
            shadows: BTreeMap::new(),
            fleet: Fleet::Local,
            server: None,
            parts: Parts::default(),
            gpus: Vec::new(),
            cpu_twins: false,
            has_kernels: false,
            has_own_processes: false,
            concurrency: Concurrency::Unsaid,
            canary: (None, None),
            price: None,
            resources: PoolResources::default(),
            memory_max: None,
        }
    }
}

/// Values of a server as they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    command: Option<(PathBuf, Vec<String>)>,
    ready: Option<String>,
    ready_within: Option<Duration>,
    health_every: Option<Option<Duration>>,
    stop_within: Option<Duration>,
    env: Option<Vec<String>>,
    set: BTreeMap<String, OptionValue>,
}

impl Parts {
    fn server(&self) -> Option<Server> {
        let ((program, arguments), ready) = self.command.clone().zip(self.ready.clone())?;
        Some(Server {
            program,
            arguments,
            ready,
            ready_within: self.ready_within(),
            health_every: self.health_every(),
            stop_within: self.stop_within(),
            env: self.env(),
            set: self.set.clone(),
        })
    }

    /// A key that was set, of those that mean nothing without a server.
    fn first(&self) -> Option<&'static str> {
        let all = [
            ("ready_within", self.ready_within.is_some()),
            ("health_every", self.health_every.is_some()),
            ("stop_within", self.stop_within.is_some()),
            ("env", self.env.is_some()),
            ("set", !self.set.is_empty()),
        ];
        all.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
    }

    /// Models of some gigabytes are read from a disk for minutes.
    fn ready_within(&self) -> Duration {
        self.ready_within.unwrap_or(Duration::from_secs(300))
    }

    fn health_every(&self) -> Option<Duration> {
        self.health_every.unwrap_or(Some(Duration::from_secs(10)))
    }

    fn stop_within(&self) -> Duration {
        self.stop_within.unwrap_or(Duration::from_secs(10))
    }

    fn env(&self) -> Vec<String> {
        self.env.clone().unwrap_or_else(|| vec!["PATH".to_owned()])
    }
}

impl Pool {
    /// Who starts its replicas: a worker of its own has every server, so a pool with one is not in the process of the engine; nor is one with kernels
    /// unless somebody chose that.
    pub fn fleet(&self) -> Fleet {
        let has_processes = self.parts.command.is_some() || self.has_own_processes;
        if self.fleet == Fleet::Local && has_processes { Fleet::Process } else { self.fleet }
    }

    /// Whether kernels run in processes of its own.
    pub const fn has_kernels(&self) -> bool {
        self.has_kernels
    }

    /// The label of workers of a new version, its value, and of a thousand attempts how many they get.
    pub fn canary(&self) -> Option<(&str, &str, u32)> {
        let ((name, value), share) = self.canary.0.as_ref().zip(self.canary.1)?;
        Some((name, value, share))
    }

    /// What an hour of a replica costs, in whatever currency.
    pub fn price(&self) -> Option<f64> {
        self.price.map(|thousandths| f64::from(thousandths) / 1_000.0)
    }

    /// What one replica asks for, and how much all of them may ask for together.
    pub const fn resources(&self) -> &PoolResources {
        &self.resources
    }

    /// Whether a worker looks for the number of attempts that it does best with.
    pub fn is_adaptive(&self) -> bool {
        match self.concurrency {
            Concurrency::Adaptive => true,
            Concurrency::Fixed => false,
            Concurrency::Unsaid => self.parts.command.is_some(),
        }
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        const REPLICAS: &str = "a whole number from 0 to 65536, or { min = 1, max = 4 }";
        const SPAN: &str = "a duration such as \"30s\"";
        const CORES: &str = "a number of cores such as 2 or 0.5, with up to three places, or thousandths of one such as \"500m\"";
        const SIZE: &str = "a size such as \"4GiB\"";
        let count = |least| raw.count(least, COUNT_MAX).and_then(|count| u32::try_from(count).ok());
        let parts = &mut self.parts;
        match key {
            "preset" => self.preset = Preset::named(raw).ok_or("\"always-on\", \"on-demand\" or \"scale-to-zero\"")?,
            "replicas" => (self.replicas, self.replicas_min) = (count(0).ok_or(REPLICAS)?, None),
            "replicas.min" => self.replicas_min = Some(count(0).ok_or("a whole number from 0 to 65536")?),
            "replicas.max" => self.replicas = count(0).ok_or("a whole number from 0 to 65536")?,
            "slots" => self.slots = count(1).ok_or("a whole number from 1 to 65536")?,
            POLICY => self.policy = Some(policy_file(raw, dir)?),
            _ if let Some(name) = shadow(key) => drop(self.shadows.insert(name.to_owned(), policy_file(raw, dir)?)),
            "fleet" => self.fleet = Fleet::named(raw).ok_or("\"local\", \"process\" or \"external\"")?,
            "gpus" => self.gpus = gpus(raw).ok_or("a list of indices, uuids or names such as [0, \"GPU-8f0a\", \"H100\"]")?,
            CPU_TWINS => self.cpu_twins = raw.flag().ok_or("true or false")?,
            "memory_max" => {
                let size = raw.size().filter(|size| *size >= MEMORY_MIN);
                self.memory_max = Some(size.ok_or("a size of at least \"64MiB\"")?);
            }
            "concurrency" => {
                self.concurrency = match raw.text() {
                    Some("fixed") => Concurrency::Fixed,
                    Some("adaptive") => Concurrency::Adaptive,
                    Some(_) | None => return Err("\"fixed\" or \"adaptive\""),
                }
            }
            "command" => {
                let words =
                    command(raw, dir).ok_or("a program and its arguments such as [\"llama-server\", \"--port\", \"{port}\"]")?;
                parts.command = Some(words);
            }
            "ready" => parts.ready = Some(url(raw).ok_or("a URL such as \"http://127.0.0.1:{port}/health\"")?),
            "ready_within" => parts.ready_within = Some(raw.duration().ok_or(SPAN)?),
            "stop_within" => parts.stop_within = Some(raw.duration().ok_or(SPAN)?),
            "health_every" if raw.text() == Some("never") => parts.health_every = Some(None),
            "health_every" => {
                parts.health_every =
                    Some(Some(raw.duration().filter(|span| !span.is_zero()).ok_or("a duration such as \"10s\", or \"never\"")?))
            }
            CANARY_LABEL => {
                let label = raw.text().and_then(|text| text.split_once('=')).filter(|(name, _)| !name.is_empty());
                let (name, value) = label.ok_or("a label such as \"version=2\"")?;
                self.canary.0 = Some((name.to_owned(), value.to_owned()));
            }
            CANARY_SHARE => {
                self.canary.1 = Some(raw.thousandths(0, 1_000).ok_or("a share from 0 to 1 such as 0.1, with up to three places")?)
            }
            "cpu" => self.resources.asked.cpu_milli = Some(cores(raw).ok_or(CORES)?),
            "ceiling.cpu" => self.resources.ceiling.cpu_milli = Some(cores(raw).ok_or(CORES)?),
            "memory" => self.resources.asked.memory_bytes = Some(raw.size().ok_or(SIZE)?),
            "ceiling.memory" => self.resources.ceiling.memory_bytes = Some(raw.size().ok_or(SIZE)?),
            "ceiling.slots" => self.resources.ceiling.slots = Some(raw.count(1, u64::MAX).ok_or("a whole number of at least 1")?),
            PRICE => {
                let price = raw.thousandths(0, PRICE_MAX);
                self.price = Some(price.ok_or("a price from 0 to 1000000 such as 2.5, with up to three places")?);
            }
            "env" => {
                let names = raw.texts().filter(|names| names.iter().all(|name| is_variable(name)));
                parts.env = Some(names.ok_or("a list of names of variables such as [\"PATH\", \"HOME\"]")?);
            }
            _ => {
                const SECRET: &str =
                    "a text, { file = \"PATH\" } or { env = \"NAME\" }; what is secret only as one of the last two";
                let name = key.strip_prefix("set.").ok_or("nothing")?;
                let value = OptionValue::parse_as(is_secret(name), raw).ok_or(SECRET)?.beside(dir);
                parts.set.insert(name.to_owned(), value);
            }
        }
        self.server = self.parts.server();
        Ok(())
    }

    /// Keys that have a value.
    pub(crate) fn keys(&self) -> Vec<String> {
        let processes = (self.fleet() == Fleet::Process).then_some(PROCESS_KEYS).into_iter().flatten();
        let server = self.server.is_some().then_some(SERVER_KEYS).into_iter().flatten();
        let canary = self.canary().map(|_| [CANARY_LABEL, CANARY_SHARE]).into_iter().flatten();
        let policy = self.policy.as_ref().map(|_| POLICY);
        let price = self.price.map(|_| PRICE).into_iter().chain(self.cpu_twins.then_some(CPU_TWINS));
        let resources = ASKED.into_iter().chain(CEILING).filter(|key| self.resource(key).is_some());
        let processes = policy.into_iter().chain(price).chain(resources).chain(processes).chain(canary);
        let plain = KEYS.into_iter().chain(processes).chain(server).map(str::to_owned);
        let shadows = self.shadows.keys().map(|name| format!("{SHADOW}{name}.{POLICY}"));
        plain.chain(shadows).chain(self.parts.set.keys().map(|name| format!("set.{name}"))).collect()
    }

    /// A value as a file would have it.
    pub(crate) fn value(&self, key: &str) -> String {
        let parts = &self.parts;
        match (key, self.replicas_min) {
            ("preset", _) => self.preset.name().to_owned(),
            ("replicas", Some(min)) => format!("{{ min = {min}, max = {} }}", self.replicas),
            ("replicas", None) => self.replicas.to_string(),
            ("slots", _) => self.slots.to_string(),
            ("fleet", _) => self.fleet().name().to_owned(),
            (CANARY_LABEL, _) => self.canary().map(|(name, value, _)| format!("{name}={value}")).unwrap_or_default(),
            (CANARY_SHARE, _) => self.canary().map(|(.., share)| format!("{}", f64::from(share) / 1_000.0)).unwrap_or_default(),
            (POLICY, _) => self.policy.as_deref().unwrap_or(Path::new("")).display().to_string(),
            (PRICE, _) => self.price().map(|price| price.to_string()).unwrap_or_default(),
            (key, _) if ASKED.contains(&key) || CEILING.contains(&key) => self.resource(key).unwrap_or_default(),
            (CPU_TWINS, _) => self.cpu_twins.to_string(),
            ("gpus", _) => format!("{:?}", self.gpus),
            ("memory_max", _) => self.memory_max.map_or_else(|| "none".to_owned(), show_size),
            ("concurrency", _) => if self.is_adaptive() { "adaptive" } else { "fixed" }.to_owned(),
            ("command", _) => parts.command.as_ref().map(|(program, rest)| show_command(program, rest)).unwrap_or_default(),
            ("ready", _) => parts.ready.clone().unwrap_or_default(),
            ("ready_within", _) => show_duration(parts.ready_within()),
            ("health_every", _) => parts.health_every().map_or_else(|| "never".to_owned(), show_duration),
            ("stop_within", _) => show_duration(parts.stop_within()),
            ("env", _) => format!("{:?}", parts.env()),
            _ if let Some(name) = shadow(key) => {
                self.shadows.get(name).map(|path| path.display().to_string()).unwrap_or_default()
            }
            _ => {
                let named = key.strip_prefix("set.").and_then(|name| parts.set.get(name));
                named.map(ToString::to_string).unwrap_or_default()
            }
        }
    }

    /// A part of the resources as a file would have it, if it is set.
    fn resource(&self, key: &str) -> Option<String> {
        let PoolResources { asked, ceiling } = &self.resources;
        match key {
            "cpu" => asked.cpu_milli.map(show_cores),
            "memory" => asked.memory_bytes.map(show_size),
            "ceiling.slots" => ceiling.slots.map(|slots| slots.to_string()),
            "ceiling.cpu" => ceiling.cpu_milli.map(show_cores),
            _ => ceiling.memory_bytes.map(show_size),
        }
    }

    /// What cannot be together: the key at fault, and why. `is_fleet_said` says whether somebody chose who starts its replicas.
    pub(crate) fn conflict(&self, is_fleet_said: bool) -> Option<(&'static str, &'static str)> {
        let Parts { command, ready, .. } = &self.parts;
        match (command, ready) {
            (Some(_), None) => {
                return Some(("command", "it needs `ready` beside it, the URL at which its server says that it is ready"));
            }
            (None, Some(_)) => return Some(("ready", "it needs `command` beside it, which starts the server")),
            (None, None) => {
                if let Some(key) = self.parts.first() {
                    return Some((key, "only a pool with a `command` has it, for its server"));
                }
            }
            (Some(_), Some(_)) => {}
        }
        match self.canary {
            (Some(_), None) => {
                return Some((CANARY_LABEL, "it needs `share` beside it: how much of the work the new version gets"));
            }
            (None, Some(_)) => return Some((CANARY_SHARE, "it needs `label` beside it: which workers are the new version")),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if let Some(conflict) = self.resources.conflict() {
            return Some(conflict);
        }
        if is_fleet_said && self.fleet == Fleet::Local && command.is_some() {
            return Some(("fleet", "every server has a worker of its own; use \"process\" or \"external\""));
        }
        if self.fleet() == Fleet::Local && self.is_adaptive() {
            return Some(("concurrency", "only workers adapt; use the fleet \"process\" or \"external\""));
        }
        if self.fleet() != Fleet::Process && !self.gpus.is_empty() {
            return Some((
                "gpus",
                "only processes of the engine are given GPUs; give a worker its own with `ergate worker --gpu`",
            ));
        }
        (self.fleet() != Fleet::Process && self.memory_max.is_some()).then_some((
            "memory_max",
            "only processes of the engine have it; give a worker its own with `ergate worker --memory-max`",
        ))
    }
}

/// Cores in thousandths: `2`, `0.5` or `"500m"`.
fn cores(raw: &Raw) -> Option<u64> {
    let thousandths = raw.text().and_then(|text| text.strip_suffix('m')).map(|text| text.parse::<u32>().ok());
    thousandths.unwrap_or_else(|| raw.thousandths(1, CPU_MAX)).filter(|milli| (1..=CPU_MAX).contains(milli)).map(u64::from)
}

/// The file of a policy, which lies beside that of the configuration, or the name of one that comes with Ergate.
fn policy_file(raw: &Raw, dir: &Path) -> Result<PathBuf, &'static str> {
    let path = raw.text().filter(|text| !text.is_empty()).ok_or("the file of a policy as a text")?;
    let shipped = crate::PRESETS.iter().any(|(name, _)| *name == path);
    Ok(if shipped { path.into() } else { dir.join(path) })
}

fn gpus(raw: &Raw) -> Option<Vec<String>> {
    let is_one = |text: &String| {
        (1..=64).contains(&text.len()) && text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    raw.texts().filter(|all| all.iter().all(is_one))
}

impl crate::keys::Config {
    /// What is said of the resources of pools, by name.
    ///
    /// # Errors
    /// [`ConfigError::Refused`](crate::ConfigError::Refused) where the fewest replicas that a pool may have do not fit under its ceiling.
    pub fn resources(&self) -> Result<Vec<(&str, PoolResources)>, crate::ConfigError> {
        let said = self.pools.iter().filter(|(_, pool)| !pool.resources.is_empty());
        said.map(|(name, pool)| match (pool.resources.fit(pool.slots), pool.least()) {
            (Some(fit), least) if fit.replicas() < least => {
                let key = format!("pool.{name}.ceiling.{}", fit.of.name());
                let count = fit.replicas();
                let reason = format!(
                    "the pool has {least} replicas at least, and {count} fit: {fit}; lower `replicas.min`, or raise the ceiling to {}",
                    fit.needed(least)
                );
                Err(crate::ConfigError::Refused { origin: self.origin(&key), key, reason })
            }
            _ => Ok((name.as_str(), pool.resources)),
        })
        .collect()
    }

    /// The policies of pools, by name: those of their files, and the usual one of pools that follow their work.
    ///
    /// # Errors
    /// [`ConfigError::Refused`](crate::ConfigError::Refused) where a file cannot be read or is none, or a setting is out of range.
    pub fn policies(&self) -> Result<Vec<(&str, AnyPolicy)>, crate::ConfigError> {
        let mut all = Vec::new();
        for (name, pool) in &self.pools {
            let policy = match (&pool.policy, pool.preset) {
                (Some(path), _) => crate::read_policy(path),
                (None, Preset::OnDemand | Preset::ScaleToZero) => Ok(AnyPolicy::Rate(Rate::default())),
                (None, Preset::AlwaysOn) => continue,
            };
            let bounds = Bounds { min: pool.least(), max: pool.replicas };
            let checked = policy.and_then(|policy| policy.check(bounds).map(|()| policy).map_err(|error| error.to_string()));
            let key = format!("pool.{name}.{}", if pool.policy.is_some() { POLICY } else { "replicas" });
            let origin = self.origin(&key);
            all.push((name.as_str(), checked.map_err(|reason| crate::ConfigError::Refused { origin, key, reason })?));
        }
        Ok(all)
    }

    /// The shadows of pools: the pool, the name, and the policy of its file.
    ///
    /// # Errors
    /// [`ConfigError::Refused`](crate::ConfigError::Refused) as for [`Config::policies`](crate::Config::policies), and where a pool has no policy beside
    /// which a shadow could decide, or too many of them.
    pub fn shadows(&self) -> Result<Vec<(&str, &str, AnyPolicy)>, crate::ConfigError> {
        let mut all = Vec::new();
        for (pool, settings) in &self.pools {
            let bounds = Bounds { min: settings.least(), max: settings.replicas };
            let is_sized = settings.policy.is_some() || settings.preset != Preset::AlwaysOn;
            for (index, (name, path)) in settings.shadows.iter().enumerate() {
                let read = || {
                    if !is_sized {
                        return Err(
                            "a shadow decides beside the policy of its pool; give it a `policy`, or another preset".to_owned()
                        );
                    }
                    if index >= SHADOWS_MAX {
                        return Err(format!("a pool has at most {SHADOWS_MAX} shadows; take some away"));
                    }
                    let policy = crate::read_policy(path)?;
                    policy.check(bounds).map(|()| policy).map_err(|error| error.to_string())
                };
                let key = format!("pool.{pool}.{SHADOW}{name}.{POLICY}");
                let refused = |reason| crate::ConfigError::Refused { origin: self.origin(&key), key: key.clone(), reason };
                all.push((pool.as_str(), name.as_str(), read().map_err(refused)?));
            }
        }
        Ok(all)
    }
}
