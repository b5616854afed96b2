//! Kernels of the configuration, and the device that they run on.

use std::path::PathBuf;
use std::sync::Arc;

use ergate::executor::factory::{ExecutorFactory, FactoryError};
use ergate::gpu::kernels::batch::Settings as Batching;
use ergate::gpu::kernels::kernel::{self, KernelSpec};
use ergate::gpu::kernels::kernel_work::KernelWork;
use ergate::gpu::kernels::{Formula, Geometry, GpuError, device};
use ergate::gpu::{Gpu, GpuSettings, OnDeath, compile};
use ergate::{TaskFunction, TypeSettings};
use ergate_config::{Batch, Config, GpuExecutor, Pool};

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
///
/// # Errors
/// With the key at fault: a file that cannot be read, a parameter or a formula that is none, what does not go together.
pub(crate) fn work(config: &Config, name: &str, executor: &GpuExecutor) -> anyhow::Result<Arc<KernelWork>> {
    let refuse = |key: &str, reason: String| config.refuse_task(name, &format!("executor.gpu.{key}"), reason);
    let path = executor.source.display();
    let size = std::fs::metadata(&executor.source).map(|found| found.len());
    let size = size.map_err(|error| refuse("source", format!("{path} cannot be read: {error}")))?;
    if size > SOURCE_BYTES_MAX {
        return Err(refuse("source", format!("{path} has {size} bytes; a kernel has at most {SOURCE_BYTES_MAX}")).into());
    }
    let source = std::fs::read_to_string(&executor.source);
    let source = source.map_err(|error| refuse("source", format!("{path} cannot be read: {error}")))?;
    let arguments: Result<Vec<kernel::Argument>, GpuError> = executor.args.iter().map(|text| text.parse()).collect();
    let spec = KernelSpec {
        name: executor.source.file_name().map_or_else(|| path.to_string(), |name| name.to_string_lossy().into_owned()),
        source,
        entry: executor.entry.clone(),
        options: executor.options.clone(),
        arguments: arguments.map_err(|error| refuse("args", error.to_string()))?,
        constants: executor.constants.clone(),
        geometry: Geometry {
            grid: three(&executor.grid).map_err(|error| refuse("grid", error.to_string()))?,
            block: three(&executor.block).map_err(|error| refuse("block", error.to_string()))?,
            shared_bytes: executor.shared.parse().map_err(|error: GpuError| refuse("shared", error.to_string()))?,
        },
        batching: match executor.batch {
            Batch::Each => kernel::Batching::Each,
            Batch::Concat => kernel::Batching::Concat,
            Batch::Stack => kernel::Batching::Stack,
        },
        payload_bytes_max: executor.payload_max,
        result_bytes_max: executor.result_max,
    };
    Ok(Arc::new(KernelWork::new(spec).map_err(|error| refuse("args", error.to_string()))?))
}

/// One to three formulas as three dimensions.
fn three(texts: &[String]) -> Result<[Formula; 3], GpuError> {
    let mut all = [Formula::number(1), Formula::number(1), Formula::number(1)];
    for (formula, text) in all.iter_mut().zip(texts) {
        *formula = text.parse()?;
    }
    Ok(all)
}

/// Looks at every kernel of the configuration, so that mistakes are told before anything starts: by the compiler where there is one.
///
/// # Errors
/// What is wrong with one, with its key, and what the compiler says with file, line and place.
pub(crate) fn check(config: &Config, name: &str, executor: &GpuExecutor) -> anyhow::Result<()> {
    let work = work(config, name, executor)?;
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

/// A kernel that a device is ready for.
pub(crate) struct KernelFactory {
    name: String,
    settings: TypeSettings,
    function: Arc<dyn TaskFunction>,
}

impl KernelFactory {
    /// Compiles a kernel for a device.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(
        config: &Config,
        name: &str,
        settings: TypeSettings,
        executor: &GpuExecutor,
        gpu: &Gpu,
    ) -> anyhow::Result<Self> {
        let work = work(config, name, executor)?;
        let batching = Batching {
            size_max: executor.batch_max,
            bytes_max: executor.batch_bytes,
            delay_us: u64::try_from(executor.batch_delay.as_micros()).unwrap_or(u64::MAX),
            weight: executor.weight,
        };
        let function = gpu.task(work, batching);
        let function = function.map_err(|error| config.refuse_task(name, "executor.gpu.source", error.to_string()))?;
        Ok(Self { name: name.to_owned(), settings, function })
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
