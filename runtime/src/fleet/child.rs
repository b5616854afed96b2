//! One process of a pool.

use std::io::{IsTerminal, Write};
use std::process::Command;
use std::time::Instant;

use ergate_events::worker::WorkerId;

use super::WorkerCommand;
use crate::child::{Child, Exit};

/// What a process is to be.
pub(super) struct Role {
    pub(super) engine: String,
    pub(super) pool: String,
    pub(super) slots: u32,
    pub(super) name: String,
    pub(super) worker: WorkerId,
    pub(super) gpu: Option<String>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The engine does not know it as a worker yet.
    Starting,
    /// It is a worker since then.
    Working(Instant),
    /// It is to end, and may take as long as it needs.
    Draining,
}

/// A process that was started.
pub(super) struct Process {
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) begun: Instant,
    pub(super) child: Child,
}

impl Process {
    /// Starts a process; `exited` is called with its end, on another thread.
    pub(super) fn start(
        command: &WorkerCommand,
        role: Role,
        exited: impl FnOnce(Exit) + Send + 'static,
    ) -> std::io::Result<Process> {
        // Nobody may be there to read it.
        let said = |line: &[u8]| drop(std::io::stderr().lock().write_all(line));
        let child = Child::start(build(command, &role), true, said, exited)?;
        Ok(Process { role, phase: Phase::Starting, begun: Instant::now(), child })
    }
}

fn build(command: &WorkerCommand, role: &Role) -> Command {
    let mut built = Command::new(&command.program);
    built.args(command.arguments.iter().map(|argument| match argument.to_str() {
        Some(text) => fill(text, role).into(),
        None => argument.clone(),
    }));
    if let Some(gpu) = &role.gpu {
        built.env("CUDA_VISIBLE_DEVICES", gpu);
    }
    // Its lines come through a pipe, and are read where those of the engine are.
    let is_unsaid = matches!(std::env::var("ERGATE_LOG_FORMAT").as_deref(), Err(_) | Ok("" | "auto"));
    if is_unsaid && std::io::stderr().is_terminal() {
        built.env("ERGATE_LOG_FORMAT", "pretty");
    }
    built
}

fn fill(text: &str, role: &Role) -> String {
    let (slots, id) = (role.slots.to_string(), role.worker.to_string());
    let parts = [
        ("{engine}", role.engine.as_str()),
        ("{slots}", &slots),
        ("{id}", &id),
        ("{gpu}", role.gpu.as_deref().unwrap_or_default()),
        ("{name}", &role.name),
        ("{pool}", &role.pool),
    ];
    parts.into_iter().fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_what_the_process_is_to_be() {
        let role = Role {
            engine: "unix:/run/workers.sock".to_owned(),
            pool: "models".to_owned(),
            slots: 4,
            name: "models-r7".to_owned(),
            worker: WorkerId([7; 16]),
            gpu: None,
        };
        let text = "--engine={engine} {pool} {slots} {id} {name} <{gpu}> {other}";
        let id = "07".repeat(16);
        assert_eq!(fill(text, &role), format!("--engine=unix:/run/workers.sock models 4 {id} models-r7 <> {{other}}"));
        assert_eq!(fill("{gpu}", &Role { gpu: Some("1".to_owned()), ..role }), "1");
    }
}
