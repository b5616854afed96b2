//! Kernels of the configuration, and the device that they run on.

use std::path::PathBuf;
use std::sync::Arc;

use ergate::executor::factory::{ExecutorFactory, FactoryError};
use ergate::gpu::kernels::aggregate::{AggregateSettings, AggregateWork, Operation, ValueColumn};
use ergate::gpu::kernels::batch::Settings as Batching;
use ergate::gpu::kernels::kernel::{self, KernelSpec};
use ergate::gpu::kernels::kernel_work::KernelWork;
use ergate::gpu::kernels::top_k::{MatrixSource, Metric, TopKSettings, TopKWork};
use ergate::gpu::kernels::work::{HostTwin, Work};
use ergate::gpu::kernels::{Dtype, Formula, Geometry, GpuError, device};
use ergate::gpu::{Gpu, GpuSettings, OnDeath, compile, twin};
use ergate::{TaskFunction, TypeSettings};
use ergate_config::{Batch, Builtin, Config, GpuExecutor, Kernel, OwnKernel, Pool};

use super::exit::Trouble;
use super::output;

/// Longest source of a kernel, in bytes: far more than anybody writes.
const SOURCE_BYTES_MAX: u64 = 4 << 20;
/// What kernels are compiled for where there is no device, to find mistakes.
const ANY_COMPUTE: (u32, u32) = (9, 0);

/// How the configuration wants its device used.
pub(crate) fn settings(config: &Config, device: Option<&str>, on_death: OnDeath) -> GpuSettings {
    let ergate_config::Gpu { memory_max, batch_timeout, load_timeout, cache_max, kernel_deaths_max, device_deaths_max, .. } =
        config.gpu;
    GpuSettings {
        device: device.map(str::to_owned),
        memory_max,
        batch_timeout,
        load_timeout,
        cache: cache(config),
        cache_max,
        kernel_deaths_max,
        device_deaths_max,
        on_death,
    }
}

/// Where compiled kernels are: where the configuration says, or in the user's cache directory.
fn cache(config: &Config) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || Some(variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?.join("ergate/gpu"));
    config.gpu.cache.clone().or_else(usual)
}

/// The GPUs of a pool's processes, as `CUDA_VISIBLE_DEVICES` takes them.
///
/// # Errors
/// When one is named that is not there.
pub(crate) fn devices(name: &str, pool: &Pool) -> anyhow::Result<Vec<String>> {
    // Indices may be of a machine whose driver nobody needs to ask.
    if !pool.has_kernels() && pool.gpus.iter().all(|gpu| gpu.parse::<u32>().is_ok()) {
        return Ok(pool.gpus.clone());
    }
    let there = match device::list() {
        Ok(there) => there,
        // Each process says it, and the log keeps it; a driver that comes later is found without a restart of this process.
        Err(_) if pool.has_kernels() && pool.gpus.is_empty() => return Ok(Vec::new()),
        Err(error) => return Err(Trouble::Usage(format!("`gpus` of the pool {name:?} cannot be had: {error}")).into()),
    };
    let uuids = |wanted: &str| -> anyhow::Result<Vec<String>> {
        let chosen = device::choose(&there, wanted);
        let chosen = chosen.map_err(|error| Trouble::Usage(format!("`gpus` of the pool {name:?}: {error}")))?;
        Ok(chosen.into_iter().map(|device| device.uuid.clone()).collect())
    };
    if pool.gpus.is_empty() {
        return Ok(there.iter().map(|device| device.uuid.clone()).collect());
    }
    let mut all = Vec::new();
    for wanted in &pool.gpus {
        all.extend(uuids(wanted)?.into_iter().filter(|uuid| !all.contains(uuid)).collect::<Vec<_>>());
    }
    Ok(all)
}

/// A kernel of the configuration, checked.
pub(crate) enum Checked {
    /// One of its own.
    Own(Arc<dyn Work>),
    /// A built-in one, which has a twin on the CPU.
    Builtin(Arc<dyn HostTwin>),
}

impl Checked {
    /// A kernel of the configuration.
    ///
    /// # Errors
    /// With the key at fault: a file that cannot be read, a parameter or a formula that is none, what does not go together.
    pub(crate) fn of(config: &Config, name: &str, executor: &GpuExecutor) -> anyhow::Result<Checked> {
        let refuse = |key: &str, reason: String| config.refuse_task(name, &format!("executor.gpu.{key}"), reason);
        Ok(match &executor.kernel {
            Kernel::Own(own) => Checked::Own(Arc::new(self::own(own).map_err(|(key, reason)| refuse(key, reason))?)),
            Kernel::Builtin(builtin) => {
                let work = self::builtin(name, builtin);
                Checked::Builtin(work.map_err(|(key, error)| refuse(key, error.to_string()))?)
            }
        })
    }

    fn work(&self) -> Arc<dyn Work> {
        match self {
            Checked::Own(work) => Arc::clone(work),
            Checked::Builtin(work) => Arc::clone(work) as Arc<dyn Work>,
        }
    }
}

/// A kernel in CUDA C++, or the key at fault and why.
fn own(own: &OwnKernel) -> Result<KernelWork, (&'static str, String)> {
    let path = own.source.display();
    let unread = |error| ("source", format!("{path} cannot be read: {error}"));
    let size = std::fs::metadata(&own.source).map_err(unread)?.len();
    if size > SOURCE_BYTES_MAX {
        return Err(("source", format!("{path} has {size} bytes; a kernel has at most {SOURCE_BYTES_MAX}")));
    }
    let said = |key| move |error: GpuError| (key, error.to_string());
    let arguments: Result<Vec<kernel::Argument>, GpuError> = own.args.iter().map(|text| text.parse()).collect();
    let spec = KernelSpec {
        name: own.source.file_name().map_or_else(|| path.to_string(), |name| name.to_string_lossy().into_owned()),
        source: std::fs::read_to_string(&own.source).map_err(unread)?,
        entry: own.entry.clone(),
        options: own.options.clone(),
        arguments: arguments.map_err(said("args"))?,
        constants: own.constants.clone(),
        geometry: Geometry {
            grid: three(&own.grid).map_err(said("grid"))?,
            block: three(&own.block).map_err(said("block"))?,
            shared_bytes: own.shared.parse().map_err(said("shared"))?,
        },
        batching: match own.batch {
            Batch::Each => kernel::Batching::Each,
            Batch::Concat => kernel::Batching::Concat,
            Batch::Stack => kernel::Batching::Stack,
        },
        payload_bytes_max: own.payload_max,
        result_bytes_max: own.result_max,
    };
    KernelWork::new(spec).map_err(said("args"))
}

/// A built-in kernel, or the key at fault and why.
fn builtin(name: &str, builtin: &Builtin) -> Result<Arc<dyn HostTwin>, (&'static str, GpuError)> {
    match builtin {
        Builtin::Aggregate { values, groups_max } => {
            let values: Result<Vec<ValueColumn>, GpuError> = values.iter().map(|text| column(text)).collect();
            let settings = AggregateSettings {
                groups_max: *groups_max,
                ..AggregateSettings::new(values.map_err(|error| ("values", error))?)
            };
            Ok(Arc::new(AggregateWork::new(name, settings).map_err(|error| ("values", error))?))
        }
        Builtin::TopK { matrix, digest, rows, columns, dtype: [dtype, kept], metric, k, queries_max } => {
            let of = |name: &String| Dtype::from_name(name).ok_or_else(|| GpuError::refused(format!("`{name}` is no type")));
            let settings = TopKSettings {
                matrix: MatrixSource::File(matrix.clone()),
                digest: digest.as_ref().map(|text| text.parse()).transpose().map_err(|error| ("digest", error))?,
                rows: *rows,
                columns: *columns,
                dtype: of(dtype).map_err(|error| ("dtype", error))?,
                kept: of(kept).map_err(|error| ("kept", error))?,
                metric: if metric == "dot" { Metric::Dot } else { Metric::Cosine },
                k: *k,
                queries_max: *queries_max,
                tile_bytes: None,
            };
            Ok(Arc::new(TopKWork::new(name, settings).map_err(|error| ("matrix", error))?))
        }
    }
}

/// A column with what is made of it: `price: f64 sum, max`.
fn column(text: &str) -> Result<ValueColumn, GpuError> {
    let wrong = |why: &str| GpuError::refused(format!("column `{text}`: {why}; write it as `price: f64 sum, max`"));
    let (name, rest) = text.split_once(':').ok_or_else(|| wrong("it has no `:` between name and type"))?;
    let (dtype, operations) = rest.trim().split_once(' ').ok_or_else(|| wrong("it says not what is made of it"))?;
    let operation = |name: &str| Operation::from_name(name.trim()).ok_or_else(|| wrong("operations are sum, min, max and count"));
    Ok(ValueColumn {
        name: name.trim().to_owned(),
        dtype: Dtype::from_name(dtype).ok_or_else(|| wrong("its type is none: i32, i64, f32 or f64"))?,
        operations: operations.split(',').map(operation).collect::<Result<_, _>>()?,
    })
}

/// One to three formulas as three dimensions.
fn three(texts: &[String]) -> Result<[Formula; 3], GpuError> {
    let mut all = [Formula::number(1), Formula::number(1), Formula::number(1)];
    for (formula, text) in all.iter_mut().zip(texts) {
        *formula = text.parse()?;
    }
    Ok(all)
}

/// Looks at a kernel of the configuration, so that mistakes are told before anything starts: by the compiler where there is one.
///
/// # Errors
/// What is wrong with it, with its key, and what the compiler says with file, line and place.
pub(crate) fn check(config: &Config, name: &str, executor: &GpuExecutor) -> anyhow::Result<()> {
    let Checked::Own(work) = Checked::of(config, name, executor)? else { return Ok(()) };
    let device = device::list().ok().and_then(|all| all.into_iter().next());
    let (compute, driver) = device.map_or((ANY_COMPUTE, (0, 0)), |device| (device.compute, device.driver));
    match compile(&*work, compute, driver, None) {
        Ok(()) => Ok(()),
        // Who compiles it is on another machine, perhaps.
        Err(error) if !has_compiler() => {
            tracing::debug!(%error, name, "a kernel was not compiled to look for mistakes");
            Ok(())
        }
        Err(error) => Err(config.refuse_task(name, "executor.gpu.source", error.to_string()).into()),
    }
}

fn has_compiler() -> bool {
    ergate::gpu::kernels::compile::Compiler::new(None).is_ok()
}

/// A kernel that a device is ready for, or its twin.
pub(crate) struct KernelFactory {
    name: String,
    settings: TypeSettings,
    function: Arc<dyn TaskFunction>,
}

impl KernelFactory {
    /// Compiles a kernel for a device, or takes its twin where there is none and the pool allows that; `None` for a kernel that runs nowhere here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(
        config: &Config,
        name: &str,
        settings: TypeSettings,
        executor: &GpuExecutor,
        gpu: Option<&Gpu>,
    ) -> anyhow::Result<Option<Self>> {
        let batching = Batching {
            size_max: executor.batch_max,
            bytes_max: executor.batch_bytes,
            delay_us: u64::try_from(executor.batch_delay.as_micros()).unwrap_or(u64::MAX),
            weight: executor.weight,
        };
        let twins = config.pool(&settings.pool).cpu_twins;
        let checked = Checked::of(config, name, executor)?;
        let function = match (gpu, &checked) {
            (Some(gpu), _) => {
                let key = if matches!(checked, Checked::Own(_)) { "executor.gpu.source" } else { "executor.gpu.builtin" };
                let function = gpu.task(checked.work(), batching);
                function.map_err(|error| config.refuse_task(name, key, error.to_string()))?
            }
            (None, Checked::Builtin(work)) if twins => twin(Arc::clone(work)),
            (None, Checked::Own(_) | Checked::Builtin(_)) => return Ok(None),
        };
        Ok(Some(Self { name: name.to_owned(), settings, function }))
    }
}

impl ExecutorFactory for KernelFactory {
    fn task_type(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> TypeSettings {
        self.settings.clone()
    }

    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError> {
        Ok(Arc::clone(&self.function))
    }
}

/// The device for the kernels of a pool that run in this process; says why there is none.
pub(crate) fn open(config: &Config, device: Option<&str>, on_death: OnDeath) -> Result<Gpu, GpuError> {
    Gpu::open(settings(config, device, on_death))
}

/// Says that kernels do not run here, and why.
pub(crate) fn tell_missing(pool: &str, error: &GpuError) {
    output::note(&output::escape(&format!("the kernels of the pool {pool:?} do not run here: {error}")));
}
