//! Kernels' text made a shared library by the machine's C++ compiler.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;

use ergate_gpu::Program;
use libloading::Library as Loaded;

/// Runs one launch: grid, block, bytes of dynamic shared memory, pointers to the arguments and their count, seed. 0 when it ran.
pub(super) type Entry = unsafe extern "C" fn(*const u32, *const u32, u32, *mut *mut c_void, u32, u64) -> i32;

/// The compiler, when there is one.
pub(crate) fn compiler() -> Option<PathBuf> {
    let wanted = std::env::var_os("CXX").map_or_else(|| "g++".into(), PathBuf::from);
    Command::new(&wanted).arg("--version").output().ok().filter(|output| output.status.success()).map(|_| wanted)
}

/// A program's kernels.
pub(super) struct Library(Loaded);

impl Library {
    /// Compiles a program, or takes what a run before compiled.
    pub(super) fn of(program: &Program) -> Result<Self, String> {
        let header = include_str!("cuda.h");
        let mut text = format!("{header}\n#line 1 \"{}\"\n{}\n", program.name, program.source);
        for name in entries(&program.source) {
            text.push_str(&format!("EMULATED_KERNEL({name})\n"));
        }
        let digest = blake3::hash(text.as_bytes()).to_hex();
        // Where tests have their scratch files, when cargo says so; carried to another machine, they have none there.
        let built = option_env!("CARGO_TARGET_TMPDIR").map(PathBuf::from).filter(|folder| folder.exists());
        let folder = built.unwrap_or_else(std::env::temp_dir);
        let folder = folder.as_path();
        let path = folder.join(format!("emulated-{}.so", &digest[..16]));
        if !path.exists() {
            compile(&text, folder, &path)?;
        }
        // SAFETY: the library has no code that runs when it is loaded but constructors of plain C++ objects.
        unsafe { Loaded::new(&path) }.map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn entry(&self, name: &str) -> Result<Entry, String> {
        // SAFETY: the macro EMULATED_KERNEL makes functions of this signature; libraries are never unloaded.
        let symbol = unsafe { self.0.get::<Entry>(format!("emulated_{name}").as_bytes()) };
        symbol.map(|symbol| *symbol).map_err(|error| format!("no kernel {name}: {error}"))
    }
}

fn compile(text: &str, folder: &Path, path: &Path) -> Result<(), String> {
    let compiler = compiler().ok_or("no C++ compiler")?;
    let scratch = tempfile::tempdir_in(folder).map_err(|error| error.to_string())?;
    let (source, library) = (scratch.path().join("kernels.cpp"), scratch.path().join("kernels.so"));
    std::fs::write(&source, text).map_err(|error| error.to_string())?;
    // Undefined behaviour ends the program: signed overflow, shifts too far, accesses at odd addresses.
    let output = Command::new(compiler)
        .args(["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off"])
        .args(["-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-clobbered"])
        .args(["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"])
        .arg("-o")
        .args([&library, &source])
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(format!("the kernels do not compile as C++:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    // At once or not at all: tests run beside each other.
    std::fs::rename(&library, path).map_err(|error| error.to_string())
}

/// The names of the kernels in a source.
pub(super) fn entries(source: &str) -> Vec<&str> {
    let after = source.split("__global__ void").skip(1);
    after
        .filter_map(|text| {
            let text = text.trim_start();
            let text =
                text.strip_prefix("__launch_bounds__").map_or(text, |rest| rest.split_once(')').map_or(rest, |(_, rest)| rest));
            text.split_once('(').map(|(name, _)| name.trim())
        })
        .collect()
}
