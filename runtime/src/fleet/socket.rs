//! The socket on which an engine serves its own processes.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;

use crate::Runtime;
use crate::runtime::StartError;

/// Its name in the directory of the log.
const NAME: &str = "workers.sock";

/// A socket that is served on threads of its own until it is dropped.
pub(super) struct Socket {
    path: PathBuf,
    /// Made for it alone.
    directory: Option<PathBuf>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Serves workers in this directory, which no other engine has; or in one of its own.
    pub(super) fn open(directory: Option<PathBuf>, runtime: Runtime) -> Result<Socket, StartError> {
        let failed = |path: &Path, source| StartError::Socket { path: path.to_owned(), source };
        let own = directory.is_none().then(temporary).transpose().map_err(|source| failed(&std::env::temp_dir(), source))?;
        let path = directory.or_else(|| own.clone()).unwrap_or_default().join(NAME);
        let path = std::path::absolute(&path).map_err(|source| failed(&path, source))?;
        let listener = listen(&path).map_err(|source| failed(&path, source))?;
        let (started, handle) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("ergate-workers".to_owned()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                match crate::http::serve_workers(listener, runtime) {
                    Ok(server) => {
                        let _ = started.send(Ok(server.handle()));
                        if let Err(error) = server.await {
                            tracing::error!(%error, "the service for workers of this machine ended badly");
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        let thread = thread.map_err(StartError::Thread)?;
        let handle = handle.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let handle = handle.map_err(|source| failed(&path, source))?;
        Ok(Socket { path, directory: own, handle, thread: Some(thread) })
    }

    /// What workers are told.
    pub(super) fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that serves workers of this machine panicked");
        }
        // What stays of it harms nobody: the next engine here removes it.
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// A directory that nobody else may look into.
fn temporary() -> io::Result<PathBuf> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let path = std::env::temp_dir().join(format!("ergate-{:016x}", u64::from_le_bytes(bytes)));
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // Of an engine that was killed; the lock of the log says that there is no other one.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}
