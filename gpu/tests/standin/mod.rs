//! A library that stands in for NVML, made by the machine's C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the stand-in with what is to go wrong with it (the words at the top of `nvml.c`); none, said aloud, where there is no compiler.
#[track_caller]
pub(crate) fn nvml(folder: &Path, wrong: &[&str]) -> Option<PathBuf> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let library = folder.join(format!("libnvidia-ml-{}.so.1", wrong.join("-").to_lowercase()));
    let mut command = Command::new(&compiler);
    command
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wno-unused", "-x", "c", "-o"])
        .arg(&library)
        .args(wrong.iter().map(|word| format!("-D{word}")));
    let source = folder.join(format!("nvml-{}.c", wrong.join("-").to_lowercase()));
    std::fs::write(&source, include_str!("nvml.c")).unwrap();
    match command.arg(&source).output() {
        Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("note: there is no C compiler ({}, or CC: {error}): nothing stood in for NVML", compiler.display());
            return None;
        }
    }
    Some(library)
}
