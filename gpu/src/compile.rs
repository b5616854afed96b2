//! CUDA C++ to machine code by NVRTC, which is loaded at run time and needs no device.

use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

use cudarc::nvrtc::sys;

use crate::cache::{Cache, Found};
use crate::{Digest, GpuError, Program};

/// The variable that names libnvrtc or the folder it is in.
pub const NVRTC_VARIABLE: &str = "ERGATE_NVRTC";
/// Where it is looked for besides the loader's own places.
const FOLDERS: [&str; 2] = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"];
/// File names, newest first.
const FILES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// How much of what the compiler says is passed on, in bytes: the first errors are what one reads.
const LOG_BYTES_MAX: usize = 16 * 1024;

/// The compiler, and the cache of what it made.
#[derive(Debug)]
pub struct Compiler {
    version: (u32, u32),
    /// Architectures that it makes machine code for: 90 for 9.0.
    architectures: Vec<u32>,
    cache: Option<Cache>,
}

/// A program compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code (an ELF file), or PTX with a zero byte at its end where the compiler is older than the device.
    pub image: Vec<u8>,
    /// Whether the cache had it.
    pub cached: bool,
    /// What was wrong with the cache, for the log.
    pub note: Option<String>,
}

impl Compiler {
    /// Finds NVRTC.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn new(cache: Option<Cache>) -> Result<Self, GpuError> {
        find()?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the library is there; all are valid for writing.
        check("nvrtcVersion", unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
        // SAFETY: as above.
        check("nvrtcGetNumSupportedArchs", unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) })?;
        let mut architectures: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: as many numbers as the call before told are valid for writing.
        check("nvrtcGetSupportedArchs", unsafe { sys::nvrtcGetSupportedArchs(architectures.as_mut_ptr()) })?;
        let number = |value: c_int| u32::try_from(value).unwrap_or(0);
        Ok(Self {
            version: (number(major), number(minor)),
            architectures: architectures.into_iter().map(number).collect(),
            cache,
        })
    }

    /// The version of NVRTC.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Compiles for a device of this compute capability and driver, or takes it from the cache.
    ///
    /// # Errors
    ///
    /// What the compiler said, with file, line and caret; or that the device is of no architecture it knows.
    pub fn compile(&self, program: &Program, compute: (u32, u32), driver: (u32, u32)) -> Result<Compiled, GpuError> {
        let target = self.target(compute)?;
        let key = self.key(program, &target, driver);
        let mut note = None;
        match self.cache.as_ref().map(|cache| cache.get(&key)) {
            Some(Found::Whole(image)) => return Ok(Compiled { image, cached: true, note: None }),
            Some(Found::Damaged(why)) => note = Some(why),
            Some(Found::Nothing) | None => {}
        }
        let image = self.run(program, &target)?;
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(&key, &image)) {
            note = Some(format!("kernel cache: {} could not be kept: {error}", program.name));
        }
        Ok(Compiled { image, cached: false, note })
    }

    /// `sm_90` for machine code, `compute_90` for PTX.
    fn target(&self, (major, minor): (u32, u32)) -> Result<String, GpuError> {
        let wanted = major * 10 + minor;
        if self.architectures.contains(&wanted) {
            return Ok(format!("sm_{wanted}"));
        }
        let newest = self.architectures.iter().max().copied().unwrap_or(0);
        if wanted > newest && newest > 0 {
            // The driver of a newer device translates it.
            return Ok(format!("compute_{newest}"));
        }
        let (have_major, have_minor) = self.version;
        Err(GpuError::refused(format!(
            "NVRTC {have_major}.{have_minor} makes no code for compute capability {major}.{minor}, only for {:?}: install another CUDA",
            self.architectures
        )))
    }

    fn key(&self, program: &Program, target: &str, driver: (u32, u32)) -> Digest {
        let versions = [self.version.0, self.version.1, driver.0, driver.1].map(u32::to_le_bytes).concat();
        // The name is in what the compiler says and in line information.
        Digest::of_parts([&program.digest().0[..], program.name.as_bytes(), target.as_bytes(), &versions])
    }

    fn run(&self, program: &Program, target: &str) -> Result<Vec<u8>, GpuError> {
        let text = |what: &str, text: &str| {
            CString::new(text).map_err(|_| GpuError::refused(format!("kernel {}: {what} has a zero byte in it", program.name)))
        };
        let (source, name) = (text("the source", &program.source)?, text("the name", &program.name)?);
        let mut options = vec![text("the architecture", &format!("--gpu-architecture={target}"))?];
        for option in &program.options {
            options.push(text("an option", option)?);
        }
        let handle = Handle::new(&source, &name)?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is alive, and as many options as are told are strings that live until the call returns.
        let compiled = unsafe { sys::nvrtcCompileProgram(handle.0, options.len() as c_int, options.as_ptr()) };
        if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
            let log = handle.log();
            let why = if log.trim().is_empty() { format!("{compiled:?}; options {:?}", program.options) } else { log };
            return Err(GpuError::refused(format!("kernel {} does not compile for {target}:\n{why}", program.name)));
        }
        if target.starts_with("sm_") {
            handle.take(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
        } else {
            handle.take(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)
        }
    }
}

/// A program of NVRTC, given back at the end.
struct Handle(sys::nvrtcProgram);

type SizeOf = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Copy = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

impl Handle {
    fn new(source: &CString, name: &CString) -> Result<Self, GpuError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: both are strings that live until the call returns, and no headers are given.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(&raw mut handle, source.as_ptr(), name.as_ptr(), 0, std::ptr::null(), std::ptr::null())
        })?;
        Ok(Self(handle))
    }

    fn take(&self, size: SizeOf, copy: Copy) -> Result<Vec<u8>, GpuError> {
        let mut bytes = 0;
        // SAFETY: the program is alive.
        check("the size of what NVRTC made", unsafe { size(self.0, &raw mut bytes) })?;
        let mut taken = vec![0u8; bytes];
        // SAFETY: as many bytes as the call before told are valid for writing.
        check("what NVRTC made", unsafe { copy(self.0, taken.as_mut_ptr().cast()) })?;
        Ok(taken)
    }

    fn log(&self) -> String {
        let log = self.take(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
        let shown = &log[..log.len().min(LOG_BYTES_MAX)];
        String::from_utf8_lossy(shown).trim_matches(['\0', '\n']).to_owned()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it was created and is used by nobody after this.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

fn check(what: &str, result: sys::nvrtcResult) -> Result<(), GpuError> {
    if result == sys::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(GpuError::failed(format!("NVRTC: {what}: {result:?}"))) }
}

/// Makes sure that cudarc finds libnvrtc: it panics otherwise.
fn find() -> Result<(), GpuError> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os(NVRTC_VARIABLE).filter(|path| !path.is_empty()) {
            let path = std::path::PathBuf::from(path);
            let files: Vec<_> = if path.is_dir() { FILES.iter().map(|file| path.join(file)).collect() } else { vec![path.clone()] };
            if !files.iter().any(|file| keep(file)) {
                return Err(format!("{NVRTC_VARIABLE} is {}, and there is no libnvrtc that can be loaded", path.display()));
            }
        }
        // SAFETY: loads the library and unloads it again; NVIDIA's does nothing at either.
        let present = || unsafe { sys::is_culib_present() };
        let elsewhere = || FOLDERS.iter().any(|folder| FILES.iter().any(|file| keep(&std::path::Path::new(folder).join(file))));
        if present() || elsewhere() && present() {
            return Ok(());
        }
        Err(format!(
            "NVRTC, which compiles kernels, is not there: install CUDA's libnvrtc (pip: nvidia-cuda-nvrtc) and name its folder by \
             LD_LIBRARY_PATH or {NVRTC_VARIABLE}"
        ))
    });
    found.clone().map_err(GpuError::Refused)
}

/// Loads a library for good, so that it is found by its name from then on.
fn keep(path: &std::path::Path) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the file is NVIDIA's library by its name and place, or was named by whoever runs this process.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map(std::mem::forget).is_ok()
}

/// The kernels in machine code: NVRTC gives each a section `.text.NAME`. Empty for PTX.
pub fn entries(image: &[u8]) -> Vec<String> {
    const SECTION: &[u8] = b"\0.text.";
    let mut entries = Vec::new();
    let mut rest = if image.starts_with(b"\x7fELF") { image } else { &[] };
    while let Some(at) = rest.windows(SECTION.len()).position(|window| window == SECTION) {
        rest = &rest[at + SECTION.len()..];
        let name: Vec<u8> = rest.iter().copied().take_while(|&byte| byte != 0).collect();
        if let Some(name) = String::from_utf8(name).ok().filter(|name| !name.is_empty() && !entries.contains(name)) {
            entries.push(name);
        }
    }
    entries
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
