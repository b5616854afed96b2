//! Finds the program of a task type when the runtime starts, so that a slip is not found by the first task.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Why a command cannot be a task type.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum ProgramError {
    /// Nothing is there.
    #[error("the program {program} of the task type {task_type:?} cannot be used")]
    Missing {
        task_type: String,
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// No directory of PATH has it.
    #[error(
        "the program {program:?} of the task type {task_type:?} is in no directory of PATH; give its path, such as \"./{program}\""
    )]
    NotInPath { task_type: String, program: String },
    /// It is a directory, a device or the like.
    #[error("the program {program} of the task type {task_type:?} is no file")]
    NoFile { task_type: String, program: PathBuf },
    /// It may not be run.
    #[error("the program {program} of the task type {task_type:?} is not executable; `chmod +x` makes it so")]
    NotExecutable { task_type: String, program: PathBuf },
    /// Its working directory is none.
    #[error("the working directory {directory} of the task type {task_type:?} is no directory")]
    NoDirectory { task_type: String, directory: PathBuf },
}

/// The absolute path of a program: as it is where it has a slash, else the first executable of that name in `path`.
pub(super) fn resolve(task_type: &str, program: &Path, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let task_type = || task_type.to_owned();
    if program.components().count() == 1 && !program.has_root() && !program.starts_with(".") {
        let candidates = path.map(std::env::split_paths).into_iter().flatten().map(|dir| dir.join(program));
        let found = candidates.filter(|candidate| candidate.is_absolute()).find(|candidate| is_program(candidate));
        let program = program.display().to_string();
        return found.ok_or_else(|| ProgramError::NotInPath { task_type: task_type(), program });
    }
    let missing = |source| ProgramError::Missing { task_type: task_type(), program: program.to_owned(), source };
    let absolute = std::path::absolute(program).map_err(missing)?;
    if !std::fs::metadata(&absolute).map_err(missing)?.is_file() {
        return Err(ProgramError::NoFile { task_type: task_type(), program: absolute });
    }
    if is_program(&absolute) {
        Ok(absolute)
    } else {
        Err(ProgramError::NotExecutable { task_type: task_type(), program: absolute })
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_found_or_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = dir.path().join("thumb.sh");
        let of = |program: &Path| resolve("thumb", program, Some(dir.path().as_os_str()));
        let said = |program: &Path| of(program).expect_err("no program").to_string();
        assert!(said(&script).contains("thumb.sh of the task type \"thumb\" cannot be used"));
        assert!(said(Path::new("thumb.sh")).contains("\"thumb.sh\" of the task type \"thumb\" is in no directory of PATH"));
        std::fs::write(&script, "#!/bin/sh\n").expect("written");
        assert!(said(&script).contains("not executable"));
        assert!(said(dir.path()).contains("is no file"));
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("changed");
        assert_eq!(of(&script).expect("it is there"), script);
        assert_eq!(of(Path::new("thumb.sh")).expect("it is in PATH"), script);
        // A dot in front means the directory, not PATH.
        assert!(of(Path::new("./thumb.sh")).is_err());
    }
}
