//! Python with packages from its registry, in a virtual environment under `target/` that later runs use again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Python that has these packages, each perhaps with its version; `None`, said aloud, where it cannot be had.
pub(crate) fn with(packages: &[&str]) -> Option<PathBuf> {
    let name: String = packages.join("-").replace(|char: char| !char.is_ascii_alphanumeric(), "_");
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python").join(&name);
    let python = home.join("bin/python");
    if home.join("complete").exists() {
        return Some(python);
    }
    match install(&home, packages) {
        Ok(()) => Some(python),
        Err(reason) => {
            eprintln!(
                "SKIPPED: no Python with {} ({reason}); install python3 with venv, and reach PyPI once",
                packages.join(", ")
            );
            None
        }
    }
}

/// Runs a script with this input and gives what it prints.
///
/// # Panics
/// When it fails.
pub(crate) fn run(python: &Path, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(python);
    command.arg("-B").args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Written beside, for a pipe holds less than a large input, and so does the one for the answers.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn install(home: &Path, packages: &[&str]) -> Result<(), String> {
    // One that was left unfinished is no use.
    let _ = fs::remove_dir_all(home);
    step(Command::new("python3").args(["-m", "venv"]).arg(home))?;
    step(
        Command::new(home.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
    )?;
    fs::write(home.join("complete"), "").map_err(|error| error.to_string())
}

fn step(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(errors.trim().lines().last().unwrap_or("it failed").to_owned())
}
