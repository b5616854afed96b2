//! Somebody else's verifier: `tests/verifier/`, written from docs/log-format.md alone, in a Python environment of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What [`python`] must be able to import.
const NEEDED: &str = "import blake3, lz4.block";

/// The folder of the verifier.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier")
}

/// Python with the verifier's packages, in an environment that is made once and kept between runs.
///
/// # Panics
/// When it cannot be made; a log that nobody else verified is not tested.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verifier");
        let python = home.join("bin/python");
        if runs(Command::new(&python).args(["-c", NEEDED])).is_err() {
            let needed = folder().join("requirements.txt");
            let made = runs(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))
                .and_then(|()| runs(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(needed)));
            made.unwrap_or_else(|error| {
                panic!("the verifier in Python cannot be run ({error}); it needs python3, python3-venv and the packages blake3 and lz4")
            });
        }
        python
    })
}

fn runs(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {}", output.status, said())) }
}

/// What the verifier says of a log; `input` is what it reads where the log is `-`.
pub(crate) fn verify(log: &OsStr, input: &[u8]) -> Verdict {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::write(&path, input).unwrap();
    let mut command = Command::new(python());
    command.args(["-B".as_ref(), folder().join("verify.py").as_os_str(), "--json".as_ref(), log]);
    Verdict(command.stdin(std::fs::File::open(path).unwrap()).output().unwrap())
}

/// What the verifier said.
#[derive(Debug)]
pub(crate) struct Verdict(Output);

impl Verdict {
    /// The report, which it made.
    #[track_caller]
    pub(crate) fn report(&self) -> serde_json::Value {
        assert!(self.0.status.success(), "{self:?}");
        serde_json::from_slice(&self.0.stdout).unwrap()
    }

    /// It refused the log with one sentence that has these words, and reported nothing.
    #[track_caller]
    pub(crate) fn refuses(&self, words: &str) {
        let said = String::from_utf8_lossy(&self.0.stderr);
        assert!(self.0.status.code() == Some(1) && self.0.stdout.is_empty(), "{self:?}");
        assert!(said.starts_with("verify.py: ") && said.lines().count() == 1 && said.contains(words), "{words:?} in {self:?}");
    }
}
