//! What a server is, and what is said when it fails.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::ServerError;
use crate::child::Exit;

/// What stands for the port of a server.
pub const PORT: &str = "{port}";
/// What stands for its GPU.
const GPU: &str = "{gpu}";

/// A server that a worker keeps for itself.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The pool that it is for, for messages.
    pub pool: String,
    /// The program: a path, or a name to look for in PATH.
    pub program: PathBuf,
    /// Its arguments; `{port}` and `{gpu}` in them are replaced.
    pub arguments: Vec<String>,
    /// The URL that answers with a 2xx once the server is ready; `{port}` in it is replaced.
    pub ready: String,
    /// How long that may take.
    pub ready_within: Duration,
    /// How often it is asked whether it is well, and how long it may take to say so; never without this.
    pub health_every: Option<Duration>,
    /// How long it may take to stop before it is killed.
    pub stop_within: Duration,
    /// Variables of this process's environment that it gets too, by name.
    pub env_allow: Vec<String>,
    /// Variables that are set for it.
    pub env_set: Vec<(String, String)>,
    /// Its GPU, by index or uuid, also as `CUDA_VISIBLE_DEVICES`.
    pub gpu: Option<String>,
    /// A program with its arguments that runs the server in its own place, such as one that sets limits before.
    pub launcher: Vec<OsString>,
}

impl ServerSettings {
    /// What is wrong with them.
    pub(super) fn check(&self) -> Result<(), String> {
        let names_port = |text: &str| text.contains(PORT);
        if !names_port(&self.ready) {
            return Err(format!(
                "`ready` is {:?}, which does not say {PORT}: how is the port known that was chosen for it?",
                self.ready
            ));
        }
        let is_told = self.arguments.iter().any(|one| names_port(one)) || self.env_set.iter().any(|(_, value)| names_port(value));
        if !is_told {
            return Err(format!("neither its arguments nor its variables say {PORT}, so it cannot know on which port to listen"));
        }
        if self.gpu.is_none() && self.arguments.iter().any(|one| one.contains(GPU)) {
            return Err(format!("its arguments say {GPU}, and the worker has none; name one with --gpu, or `gpus` of the pool"));
        }
        Ok(())
    }

    fn fill(&self, text: &str, port: u16) -> String {
        text.replace(PORT, &port.to_string()).replace(GPU, self.gpu.as_deref().unwrap_or_default())
    }

    pub(super) fn ready_url(&self, port: u16) -> String {
        self.fill(&self.ready, port)
    }

    pub(super) fn command(&self, port: u16) -> Command {
        let mut words = self.launcher.iter().cloned().chain([OsString::from(&self.program)]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(self.arguments.iter().map(|argument| self.fill(argument, port))).env_clear();
        command.envs(self.env_allow.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Some(gpu) = &self.gpu {
            command.env("CUDA_VISIBLE_DEVICES", gpu);
        }
        command.envs(self.env_set.iter().map(|(name, value)| (name, self.fill(value, port))));
        command
    }

    pub(super) fn program(&self) -> String {
        self.program.display().to_string()
    }

    pub(super) fn not_started(&self, source: std::io::Error) -> ServerError {
        ServerError::Start { program: self.program(), source }
    }

    pub(super) fn ended(&self, exit: Option<&Exit>) -> ServerError {
        let how = exit.map_or_else(|| "nobody knows how".to_owned(), |exit| exit.status.to_string());
        let last_line = exit.map(|exit| exit.last_line.clone()).unwrap_or_default();
        ServerError::Ended { program: self.program(), how, last_line }
    }

    pub(super) fn late(&self, port: u16, answer: &str) -> ServerError {
        let (program, limit, url) = (self.program(), self.ready_within, self.ready_url(port));
        ServerError::Late { program, limit, url, answer: answer.to_owned() }
    }

    pub(super) fn unwell(&self, port: u16, answer: &str) -> ServerError {
        let limit = self.health_every.unwrap_or_default();
        ServerError::Late { program: self.program(), limit, url: self.ready_url(port), answer: answer.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ServerSettings {
        ServerSettings {
            pool: "models".to_owned(),
            program: "serve".into(),
            arguments: vec!["--port={port}".to_owned()],
            ready: "http://127.0.0.1:{port}/health".to_owned(),
            ready_within: Duration::from_secs(1),
            health_every: None,
            stop_within: Duration::from_secs(1),
            env_allow: vec!["PATH".to_owned()],
            env_set: vec![("MODE".to_owned(), "{port}-{gpu}".to_owned())],
            gpu: Some("2".to_owned()),
            launcher: vec!["nice".into(), "-n5".into()],
        }
    }

    #[test]
    fn a_server_is_told_its_port_and_its_gpu_and_nothing_that_was_not_allowed() {
        let command = settings().command(4_711);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap_or_default()).collect();
        assert_eq!((command.get_program().to_str(), &args[..]), (Some("nice"), &["-n5", "serve", "--port=4711"][..]));
        let names: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_str(), value.and_then(|value| value.to_str()))).collect();
        assert!(
            names.contains(&(Some("MODE"), Some("4711-2"))) && names.contains(&(Some("CUDA_VISIBLE_DEVICES"), Some("2"))),
            "{names:?}"
        );
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(settings().ready_url(4_711), "http://127.0.0.1:4711/health");
    }

    #[test]
    fn a_server_that_cannot_know_its_port_is_refused() {
        let none = ServerSettings { arguments: Vec::new(), env_set: Vec::new(), ..settings() };
        assert!(none.check().is_err_and(|reason| reason.contains("on which port")));
        let ready = ServerSettings { ready: "http://127.0.0.1:80/".to_owned(), ..settings() };
        assert!(ready.check().is_err_and(|reason| reason.contains("`ready`")));
        let gpu = ServerSettings { gpu: None, arguments: vec!["{port}{gpu}".to_owned()], ..settings() };
        assert!(gpu.check().is_err_and(|reason| reason.contains("--gpu")));
        assert_eq!(settings().check(), Ok(()));
    }
}
