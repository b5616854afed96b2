//! Tasks on a GPU: kernels of your own as task types, run in batches by the one thread that owns the device.
//!
//! ```text
//!  slots ──begin──▶ GpuTask ──Submission──▶ Owner (its thread: copies, kernels, copies)
//!    ▲                                         │
//!    └────────── Answer, with what ran where ──┘     the context dies: record it, tell [`Gpu::died`], end the process
//! ```
//! A sticky error of CUDA kills the context until its process ends, so GPU tasks belong into a worker of their own, which ends and is started again;
//! what it had besides goes to others and counts for nothing. In the process of an engine or a service ([`OnDeath::Fail`]) such an error fails every
//! attempt that is on the device, and all that come after it until the process ends: that is the risk of it. docs/gpu.md has the table of failures.

mod task;
mod twin;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::twin::twin;
pub use ergate_gpu as kernels;
use ergate_gpu::backend::Backend;
use ergate_gpu::batch::Settings as Batching;
use ergate_gpu::cache::Cache;
use ergate_gpu::owner::{Owner, OwnerSettings};
use ergate_gpu::quarantine::{Death, Quarantine};
use ergate_gpu::record::Record;
use ergate_gpu::work::Work;
use ergate_gpu::{DeviceInfo, GpuError};
use tokio::sync::watch;

use self::task::GpuTask;
use crate::TaskFunction;

/// Attempts on a device without an answer: more than a worker has slots in practice, and bounded.
const OPEN_MAX: usize = 65_536;
/// Staging memory that is kept for reuse: two batches of the usual size in and out.
const STAGING_MAX: u64 = 256 << 20;

/// How a device is used.
#[derive(Clone, Debug)]
pub struct GpuSettings {
    /// Which device: its ordinal, the beginning of its uuid or a part of its name; the first one without.
    pub device: Option<String>,
    /// Device memory for batches in bytes; `None` is what the device has, less a tenth.
    pub memory_max: Option<u64>,
    /// How long a batch may take; then the device counts as hung.
    pub batch_timeout: Duration,
    /// How long compiling and loading a kernel may take.
    pub load_timeout: Duration,
    /// Where compiled kernels and the record of deaths are; nowhere without.
    pub cache: Option<PathBuf>,
    /// Bytes of compiled kernels kept.
    pub cache_max: u64,
    /// A kernel that killed its process so often is not run any more.
    pub kernel_deaths_max: u32,
    /// A device that failed so often is not used any more.
    pub device_deaths_max: u32,
    /// What becomes of attempts when the context dies.
    pub on_death: OnDeath,
}

impl Default for GpuSettings {
    fn default() -> GpuSettings {
        GpuSettings {
            device: None,
            memory_max: None,
            batch_timeout: Duration::from_secs(30),
            load_timeout: Duration::from_secs(120),
            cache: None,
            cache_max: 1 << 30,
            kernel_deaths_max: 3,
            device_deaths_max: 3,
            on_death: OnDeath::default(),
        }
    }
}

/// What becomes of attempts that had no part in what killed the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeath {
    /// They stay open until whoever waits for [`Gpu::died`] gives them back and ends the process.
    #[default]
    Wait,
    /// They fail and may be retried, which counts: for a process that cannot end.
    Fail,
}

/// A device in use by this process.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    cache: Option<(PathBuf, u64)>,
    quarantine: Arc<Mutex<Quarantine>>,
    died: watch::Receiver<Option<Death>>,
    on_death: OnDeath,
    /// Numbers of task types.
    kinds: Mutex<u32>,
}

impl Gpu {
    /// Takes a device of those that this process sees; `CUDA_VISIBLE_DEVICES` says which those are.
    ///
    /// # Errors
    /// In one line why there is none, or why it is not used.
    pub fn open(settings: GpuSettings) -> Result<Gpu, GpuError> {
        let devices = ergate_gpu::device::list()?;
        let wanted = settings.device.as_deref().map(|wanted| ergate_gpu::device::choose(&devices, wanted)).transpose()?;
        let chosen = wanted.map_or_else(|| devices.first(), |chosen| chosen.first().copied());
        let device = chosen.cloned().ok_or_else(|| GpuError::refused("no GPU: the driver's list is empty"))?;
        let (cache, ordinal) = (settings.cache.clone().map(|folder| (folder, settings.cache_max)), device.ordinal);
        Gpu::over(settings, &device, move || open_device(ordinal, cache))
    }

    /// Uses whatever backend is opened, on a thread of its own: one of the CPU, or one that fails on purpose in tests.
    ///
    /// # Errors
    /// What opening it met; that the device is in quarantine.
    pub fn over<F>(settings: GpuSettings, device: &DeviceInfo, open: F) -> Result<Gpu, GpuError>
    where
        F: FnOnce() -> Result<Box<dyn Backend>, GpuError> + Send + 'static,
    {
        let GpuSettings { memory_max, batch_timeout, load_timeout, cache, cache_max, .. } = settings;
        let owner = OwnerSettings {
            memory_max: memory_max.unwrap_or(device.memory_bytes - device.memory_bytes / 10),
            staging_max: STAGING_MAX,
            open_max: OPEN_MAX,
            timeout: batch_timeout,
            load_timeout,
        };
        // Whoever may write there could run kernels here, so this is looked at before anything is read from it.
        cache.as_deref().map(|folder| Cache::open(folder, cache_max)).transpose()?;
        let record = cache.as_deref().map(Record::of);
        let known = record.as_ref().map(Record::read).transpose()?.unwrap_or_default();
        let quarantine = Quarantine::new(settings.kernel_deaths_max, settings.device_deaths_max).restore(&known);
        quarantine.check_device(&device.uuid)?;
        let quarantine = Arc::new(Mutex::new(quarantine));
        let (tell, died) = watch::channel(None);
        let kept = Arc::clone(&quarantine);
        let on_death = move |death: Death| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).record(&death);
            if let Some(Err(error)) = record.map(|record| record.add(&death)) {
                tracing::error!(%error, "the quarantine does not know of it");
            }
            // Nobody may be waiting for it.
            let _ = tell.send(Some(death));
        };
        let owner = Owner::start(owner, open, Box::new(on_death))?;
        let cache = cache.map(|folder| (folder, cache_max));
        Ok(Gpu { inner: Arc::new(Inner { owner, cache, quarantine, died, on_death: settings.on_death, kinds: Mutex::new(0) }) })
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        self.inner.owner.device()
    }

    /// What killed the context, if it is dead.
    pub fn death(&self) -> Option<Death> {
        self.inner.died.borrow().clone()
    }

    /// A kind of work as a task type; its payload and result are bytes.
    ///
    /// # Errors
    /// What the compiler says of its programs, with file, line and place.
    pub fn task(&self, work: Arc<dyn Work>, batching: Batching) -> Result<Arc<dyn TaskFunction>, GpuError> {
        self.compile(&*work)?;
        let mut kinds = self.inner.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        *kinds += 1;
        Ok(Arc::new(GpuTask::new(self.clone(), *kinds, batching, work)))
    }

    /// Waits until the context dies.
    pub async fn died(&self) -> Death {
        let mut died = self.inner.died.clone();
        let found = died.wait_for(Option::is_some).await.ok().and_then(|death| death.clone());
        match found {
            Some(death) => death,
            // The owner ended well, and nothing dies any more.
            None => std::future::pending().await,
        }
    }

    /// Compiles now what would be compiled before the first batch, so that mistakes are told at the start; the cache keeps it.
    fn compile(&self, work: &dyn Work) -> Result<(), GpuError> {
        let device = self.device();
        // A backend of the CPU has no compute capability, and compiles nothing.
        if device.compute == (0, 0) {
            return Ok(());
        }
        compile(work, device.compute, device.driver, self.inner.cache.clone())
    }
}

/// Compiles the programs of a kind of work for a device, to find mistakes and to fill the cache.
///
/// # Errors
/// What the compiler says, with file, line and place; that there is no compiler.
pub fn compile(work: &dyn Work, compute: (u32, u32), driver: (u32, u32), cache: Option<(PathBuf, u64)>) -> Result<(), GpuError> {
    let cache = cache.map(|(folder, bytes_max)| Cache::open(&folder, bytes_max)).transpose()?;
    let compiler = ergate_gpu::compile::Compiler::new(cache)?;
    for (program, entry) in work.programs() {
        let compiled = compiler.compile(&program, compute, driver)?;
        if let Some(note) = compiled.note {
            tracing::warn!(note, program = program.name, "the cache of compiled kernels");
        }
        let entries = ergate_gpu::compile::entries(&compiled.image);
        if !entries.is_empty() && !entries.contains(&entry) {
            let there = entries.join(", ");
            let name = program.name;
            let hint = "is it `extern \"C\" __global__`?";
            return Err(GpuError::refused(format!("kernel {name} has no entry `{entry}`; it has {there}; {hint}")));
        }
    }
    Ok(())
}

fn open_device(ordinal: u32, cache: Option<(PathBuf, u64)>) -> Result<Box<dyn Backend>, GpuError> {
    let cache = cache.map(|(folder, bytes_max)| Cache::open(&folder, bytes_max)).transpose()?;
    Ok(Box::new(ergate_gpu::backend::Cuda::open(ordinal, cache)?))
}
