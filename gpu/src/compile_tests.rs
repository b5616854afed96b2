use super::*;

/// The compiler, or says that there is none. `ERGATE_NVRTC_REQUIRED=1` makes that a failure.
fn compiler(cache: Option<Cache>) -> Option<Compiler> {
    match Compiler::new(cache) {
        Ok(compiler) => Some(compiler),
        Err(why) => {
            assert!(std::env::var_os("ERGATE_NVRTC_REQUIRED").is_none(), "{why}");
            skipped(&why);
            None
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn skipped(why: &GpuError) {
    eprintln!("SKIPPED: {why}");
}

fn program(source: &str) -> Program {
    Program { name: "k.cu".to_owned(), source: source.to_owned(), options: Vec::new() }
}

const SCALE: &str = "extern \"C\" __global__ void scale(const float* x, float* y, float factor, unsigned n) {\n\
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;\n    if (i < n) y[i] = FACTOR * factor * x[i];\n}\n\
    extern \"C\" __global__ void other(float* y) { y[threadIdx.x] = 0.0f; }\n";

fn scale() -> Program {
    Program { options: vec!["-DFACTOR=1.0f".to_owned()], ..program(SCALE) }
}

#[test]
fn kernels_compile_for_every_architecture_in_use() {
    let Some(compiler) = compiler(None) else { return };
    for compute in [(7, 5), (8, 0), (9, 0), (10, 0)] {
        let compiled = compiler.compile(&scale(), compute, (13, 0)).unwrap();
        assert!(compiled.image.starts_with(b"\x7fELF") && !compiled.cached && compiled.note.is_none());
        let mut found = entries(&compiled.image);
        found.sort();
        assert_eq!(found, ["other", "scale"]);
    }
}

#[test]
fn an_error_has_file_line_and_caret() {
    let Some(compiler) = compiler(None) else { return };
    let wrong = "extern \"C\" __global__ void k(float* y) {\n    int a = 1;\n    y[0] = nothing_like_it;\n}\n";
    let error = compiler.compile(&program(wrong), (9, 0), (13, 0)).unwrap_err();
    assert_eq!(error.class(), crate::Class::Refused);
    let error = error.to_string();
    assert!(error.contains("k.cu(3): error: identifier \"nothing_like_it\" is undefined"), "{error}");
    assert!(error.lines().any(|line| line.trim() == "^"), "{error}");
}

#[test]
fn what_the_compiler_does_not_know_is_refused() {
    let Some(compiler) = compiler(None) else { return };
    let option = Program { options: vec!["--no-such-option".to_owned()], ..scale() };
    assert!(compiler.compile(&option, (9, 0), (13, 0)).unwrap_err().to_string().contains("no-such-option"));
    let old = compiler.compile(&scale(), (3, 5), (13, 0)).unwrap_err().to_string();
    assert!(old.contains("compute capability 3.5"), "{old}");
    let newer = compiler.compile(&scale(), (99, 0), (13, 0)).unwrap();
    assert!(String::from_utf8_lossy(&newer.image).contains(".visible .entry scale"));
}

#[test]
fn the_second_time_it_comes_from_the_cache_unless_anything_differs() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Some(Cache::open(&folder.path().join("cache"), 1 << 30).unwrap());
    let Some(compiler) = compiler(open()) else { return };
    let cached = |program: &Program, compute, driver| compiler.compile(program, compute, driver).unwrap().cached;
    let base = scale();
    assert!(!cached(&base, (9, 0), (13, 0)));
    assert!(cached(&base, (9, 0), (13, 0)));
    assert!(!cached(&base, (8, 0), (13, 0)));
    assert!(!cached(&base, (9, 0), (13, 1)));
    assert!(!cached(&Program { options: vec!["-DFACTOR=2.0f".to_owned()], ..base.clone() }, (9, 0), (13, 0)));
    assert!(!cached(&Program { source: format!("{SCALE} "), ..base.clone() }, (9, 0), (13, 0)));
    assert!(cached(&base, (9, 0), (13, 0)));
    // One that was damaged is compiled again, and said.
    let first = compiler.compile(&base, (9, 0), (13, 0)).unwrap();
    for entry in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"nonsense").unwrap();
    }
    let again = compiler.compile(&base, (9, 0), (13, 0)).unwrap();
    assert!(!again.cached && again.note.unwrap().contains("compiled again"));
    assert_eq!(again.image, first.image);
}

#[test]
fn entries_are_found_only_in_machine_code() {
    assert_eq!(entries(b"\x7fELF\0.text.a\0.text.b\0.nv.info.a\0.text.a\0.text.\0"), ["a", "b"]);
    assert!(entries(b"\0.text.a\0").is_empty());
    assert!(entries(b"\x7fELF\0.text.unfinished").len() <= 1);
}
