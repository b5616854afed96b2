//! Packages of other languages from their registries, in directories under `target/` that later runs use again.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Python that has these packages, each perhaps with its version.
///
/// # Errors
/// Why it cannot be had here.
pub(crate) fn python(packages: &[&str]) -> Result<PathBuf, String> {
    let home = once("python", &packages.join("-"), |home| {
        quiet(Command::new("python3").args(["-m", "venv"]).arg(home))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        quiet(Command::new(home.join("bin/python")).args(pip).args(packages))
    });
    home.map(|home| home.join("bin/python")).map_err(|reason| format!("no Python with {}: {reason}", packages.join(", ")))
}

/// A directory whose programs find this package of npm. What the package has in another language than JavaScript is fetched, not built.
///
/// # Errors
/// Why it cannot be had here.
pub(crate) fn node(package: &str, is_compiled: bool) -> Result<PathBuf, String> {
    let home = once("node", package, |home| {
        let npm = ["install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts", "--prefix"];
        quiet(Command::new("npm").args(npm).arg(home).arg(package))?;
        if is_compiled {
            let inside = home.join("node_modules").join(package.rsplit_once('@').map_or(package, |(name, _)| name));
            let fetched = quiet(Command::new(home.join("node_modules/.bin/node-pre-gyp")).arg("install").current_dir(inside));
            // Building it instead would take minutes and many libraries.
            fetched.map_err(|_| "its compiled part cannot be fetched for this system")?;
        }
        Ok(())
    });
    home.map_err(|reason| format!("no {package}: {reason}"))
}

/// Whether a program can be run.
///
/// # Errors
/// Why not.
pub(crate) fn has(program: &str, argument: &str) -> Result<(), String> {
    quiet(Command::new(program).arg(argument)).map_err(|reason| format!("{program} cannot be run: {reason}"))
}

/// Says past the capture of the test harness that something was not run.
pub(crate) fn say(text: &str) {
    // Where standard error is closed nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
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

/// A directory that is filled once; tests that run beside each other wait for the first.
fn once(kind: &str, what: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let name: String = what.replace(|char: char| !char.is_ascii_alphanumeric(), "_");
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(kind);
    let (home, lock) = (all.join(&name), all.join(name + ".lock"));
    fs::create_dir_all(&all).map_err(|error| error.to_string())?;
    let lock = File::create(lock).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !home.join("complete").exists() {
        // What was left unfinished is no use.
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).map_err(|error| error.to_string())?;
        fill(&home)?;
        fs::write(home.join("complete"), "").map_err(|error| error.to_string())?;
    }
    Ok(home)
}

fn quiet(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(errors.trim().lines().last().unwrap_or("it failed").to_owned()) }
}
