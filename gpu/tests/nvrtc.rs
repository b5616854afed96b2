//! The built-in kernels compile for every architecture they are meant for, without a word from the compiler, and the hot ones keep their
//! values in registers. Needs NVRTC but no device; says aloud when there is none. `ERGATE_NVRTC` names the library, or its folder, where it is not
//! found.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says aloud what did not run")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use ergate_gpu::aggregate::{self, Aggregate, AggregateSpec};
use ergate_gpu::top_k::{self, Variant};
use ergate_gpu::{Dtype, Program};
use libloading::Library;

/// From the oldest that CUDA 13 knows to those of 2025.
const ARCHITECTURES: [&str; 4] = ["sm_75", "sm_80", "sm_90", "sm_100"];
/// Kernels that read all the input.
const HOT: [&str; 5] = ["aggregate_direct", "aggregate_private", "top_k_one", "top_k_select", "top_k_load"];

/// NVRTC, as far as it is used here.
struct Nvrtc {
    library: Library,
    /// Loaded first, for the loader may not look beside the library.
    _builtins: Option<Library>,
}

/// What a kernel takes, by the compiler's report.
#[derive(Debug, Default)]
struct Usage {
    entry: String,
    stack: u64,
    spills: u64,
    registers: u64,
}

impl Nvrtc {
    fn open() -> Option<Self> {
        let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from);
        let candidates = match std::env::var_os("ERGATE_NVRTC").map(PathBuf::from) {
            Some(folder) if folder.is_dir() => names.iter().map(|name| folder.join(name)).collect(),
            Some(file) => vec![file],
            None => names.to_vec(),
        };
        for path in &candidates {
            let builtins = path.parent().and_then(builtins);
            // SAFETY: NVRTC and its builtins run no code of ours when they are loaded.
            let builtins = builtins.and_then(|path| unsafe { Library::new(path) }.ok());
            // SAFETY: as above.
            if let Ok(library) = unsafe { Library::new(path) } {
                return Some(Self { library, _builtins: builtins });
            }
        }
        eprintln!("note: there is no NVRTC ({candidates:?}; ERGATE_NVRTC names one): the kernels were not compiled for devices");
        None
    }

    /// Compiles for one architecture; the log of what succeeded, or of what did not.
    fn compile(&self, program: &Program, architecture: &str) -> Result<String, String> {
        type Create = unsafe extern "C" fn(
            *mut *mut c_void,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
        type LogSize = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
        type Log = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
        let text = |text: &str| CString::new(text).unwrap();
        let (source, name) = (text(&program.source), text(&program.name));
        let mut options = program.options.clone();
        options.extend([format!("--gpu-architecture={architecture}"), "--ptxas-options=-v".to_owned()]);
        let options: Vec<CString> = options.iter().map(|option| text(option)).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the functions have these signatures (nvrtc.h); strings and arrays live until the program is destroyed; the log is as long
        // as NVRTC says.
        unsafe {
            let create = self.library.get::<Create>(b"nvrtcCreateProgram").unwrap();
            let none = std::ptr::null();
            assert_eq!(create(&mut handle, source.as_ptr(), name.as_ptr(), 0, none, none), 0);
            let compile = self.library.get::<Compile>(b"nvrtcCompileProgram").unwrap();
            let code = compile(handle, pointers.len() as c_int, pointers.as_ptr());
            let mut size = 0;
            assert_eq!(self.library.get::<LogSize>(b"nvrtcGetProgramLogSize").unwrap()(handle, &mut size), 0);
            let mut log = vec![0u8; size.max(1)];
            assert_eq!(self.library.get::<Log>(b"nvrtcGetProgramLog").unwrap()(handle, log.as_mut_ptr().cast()), 0);
            assert_eq!(self.library.get::<Destroy>(b"nvrtcDestroyProgram").unwrap()(&mut handle), 0);
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            if code == 0 { Ok(log) } else { Err(log) }
        }
    }
}

fn builtins(folder: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so")))
}

/// What the log says of every kernel; panics on anything that is no such report.
fn usages(log: &str) -> Vec<Usage> {
    let mut usages: Vec<Usage> = Vec::new();
    let numbers =
        |line: &str| -> Vec<u64> { line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect() };
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        // Some versions put a kernel's frame on a line of its own.
        let report = line.strip_prefix("ptxas").or_else(|| line.contains("bytes stack frame").then_some(line));
        let report = report.unwrap_or_else(|| panic!("the compiler says: {line}\n{log}"));
        if let Some(entry) = line.split_once("entry function '").and_then(|(_, rest)| rest.split_once('\'')) {
            usages.push(Usage { entry: entry.0.to_owned(), ..Usage::default() });
        } else if report.contains("bytes stack frame") {
            let usage = usages.last_mut().expect("a report follows its kernel");
            let found = numbers(report);
            (usage.stack, usage.spills) = (found[0], found[1] + found[2]);
        } else if report.contains("Used") {
            usages.last_mut().expect("a report follows its kernel").registers = numbers(report)[0];
        }
    }
    usages
}

fn programs() -> Vec<(String, Program, Vec<&'static str>)> {
    use Aggregate::{Count, Max, Min, Sum};
    let spec = |columns: &[Dtype], aggregates: &[Aggregate]| AggregateSpec::new(columns, aggregates).unwrap();
    let specs = [
        spec(&[Dtype::F64], &[Sum(0)]),
        spec(&[Dtype::F64], &[Sum(0), Count, Min(0), Max(0)]),
        spec(&[], &[Count]),
        spec(&[Dtype::I64], &[Sum(0)]),
        spec(&[Dtype::I32, Dtype::F32], &[Max(0), Sum(0), Min(1), Sum(1)]),
        spec(&[Dtype::F64; 8], &[Sum(0), Sum(1), Sum(2), Sum(3), Sum(4), Sum(5), Sum(6), Sum(7), Count]),
    ];
    let mut programs: Vec<_> = specs
        .iter()
        .map(|spec| (format!("aggregate {:?}", spec.aggregates()), aggregate::program(spec), aggregate::ENTRIES.to_vec()))
        .collect();
    for per_lane in 1..=4 {
        for flags in 0..8u8 {
            let [bf16, source_bf16, cosine] = [1, 2, 4].map(|flag| flags & flag != 0);
            let variant = Variant { per_lane, bf16, source_bf16, cosine };
            programs.push((format!("{variant:?}"), top_k::program(&variant), top_k::ENTRIES.to_vec()));
        }
    }
    programs
}

#[test]
fn every_kernel_compiles_for_every_architecture_and_the_hot_ones_spill_nothing() {
    let Some(nvrtc) = Nvrtc::open() else { return };
    for (name, program, entries) in programs() {
        // All variants for the device that this is made for, those at both ends for the others.
        let between = name.starts_with("Variant")
            && !name.contains("per_lane: 1, bf16: false")
            && !name.contains("per_lane: 4, bf16: true");
        let architectures = if between { &ARCHITECTURES[2..3] } else { &ARCHITECTURES };
        for architecture in architectures {
            let log = nvrtc.compile(&program, architecture).unwrap_or_else(|log| panic!("{name} for {architecture}:\n{log}"));
            let usages = usages(&log);
            let mut found: Vec<&str> = usages.iter().map(|usage| usage.entry.as_str()).collect();
            let mut wanted = entries.clone();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{name} for {architecture}");
            for usage in usages.iter().filter(|usage| HOT.contains(&usage.entry.as_str())) {
                assert!(usage.stack == 0 && usage.spills == 0, "{name} for {architecture}: {usage:?}");
            }
        }
    }
}

#[test]
fn an_error_in_a_kernel_is_told_with_its_line() {
    let Some(nvrtc) = Nvrtc::open() else { return };
    let program =
        Program { name: "wrong.cu".into(), source: "\nextern \"C\" __global__ void k() { missing(); }".into(), options: vec![] };
    let log = nvrtc.compile(&program, "sm_90").unwrap_err();
    assert!(log.contains("wrong.cu(2)") && log.contains("missing"), "{log}");
}
