//! What a command finds in its environment: nothing but what the configuration lets through, and what it should know of its attempt.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::super::context::Context;
use super::ProcessSettings;

/// Files that an attempt is given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Files<'a> {
    /// Where it says how far it is.
    pub(super) report: Option<&'a Path>,
    /// The payload, where it is not on stdin.
    pub(super) payload: Option<&'a Path>,
    /// What the attempt before left.
    pub(super) checkpoint: Option<&'a Path>,
}

/// The part of the environment that all attempts of a task type share: what is let through, then what is set.
pub(super) fn shared(
    settings: &ProcessSettings,
    own: impl Iterator<Item = (OsString, OsString)>,
) -> BTreeMap<OsString, OsString> {
    let allowed = |name: &OsStr| settings.env_allow.iter().any(|allowed| name == OsStr::new(allowed));
    let mut all: BTreeMap<_, _> = own.filter(|(name, _)| allowed(name)).collect();
    all.extend(settings.env_set.iter().map(|(name, value)| (name.into(), value.into())));
    all
}

/// What one attempt is told of itself; it wins over everything else.
pub(super) fn of_attempt(task_type: &str, context: &Context, files: Files<'_>) -> Vec<(&'static str, OsString)> {
    let attempt = context.attempt();
    let mut all: Vec<(&str, OsString)> = vec![
        ("ERGATE_TASK", attempt.task.to_string().into()),
        ("ERGATE_ATTEMPT", attempt.number.to_string().into()),
        ("ERGATE_FENCE", context.fence().to_string().into()),
        ("ERGATE_DEADLINE", context.deadline().rfc3339().into()),
        ("ERGATE_TYPE", task_type.into()),
    ];
    // The name that tools for tracing agree on.
    all.extend(context.trace_parent().map(|trace| ("TRACEPARENT", trace.into())));
    let named =
        [("ERGATE_REPORT", files.report), ("ERGATE_PAYLOAD_FILE", files.payload), ("ERGATE_CHECKPOINT_FILE", files.checkpoint)];
    all.extend(named.into_iter().filter_map(|(name, path)| Some((name, path?.as_os_str().to_owned()))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_through_that_was_not_asked_for() {
        let mut settings = ProcessSettings::new("thumb", "/bin/true");
        settings.env_set = vec![("MODE".to_owned(), "fast".to_owned()), ("LANG".to_owned(), "C".to_owned())];
        settings.env_allow.push("LANG".to_owned());
        let own = [("PATH", "/bin"), ("LANG", "de"), ("AWS_SECRET_ACCESS_KEY", "x"), ("LD_PRELOAD", "y"), ("PATHS", "z")];
        let found = shared(&settings, own.into_iter().map(|(name, value)| (name.into(), value.into())));
        let found: Vec<_> =
            found.iter().map(|(name, value)| (name.to_str().expect("text"), value.to_str().expect("text"))).collect();
        assert_eq!(found, [("LANG", "C"), ("MODE", "fast"), ("PATH", "/bin")]);
    }
}
