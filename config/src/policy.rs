//! Scaling policies as files: TOML or JSON, and those that come with Ergate.

use std::io::Read as _;
use std::path::Path;

use ergate_events::scaling::AnyPolicy;
use ergate_events::sizing::POLICY_BYTES_MAX;
use serde::Deserialize;

/// The policies that are compared when nobody names any: what they are called, and their text.
pub const PRESETS: [(&str, &str); 8] = [
    ("low-cost", include_str!("../examples/policies/low-cost.toml")),
    ("balanced", include_str!("../examples/policies/balanced.toml")),
    ("low-latency", include_str!("../examples/policies/low-latency.toml")),
    ("rate", include_str!("../examples/policies/rate.toml")),
    ("kpa", include_str!("../examples/policies/kpa.toml")),
    ("hpa", include_str!("../examples/policies/hpa.toml")),
    ("hpa-waiting", include_str!("../examples/policies/hpa-waiting.toml")),
    ("keda", include_str!("../examples/policies/keda.toml")),
];

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
#[error("it is no policy: {0}")]
pub struct PolicyError(String);

/// Reads a policy from TOML; JSON is what a text is taken for that begins with a brace.
///
/// # Errors
/// Says what is wrong, and in which line.
pub fn policy(text: &str) -> Result<AnyPolicy, PolicyError> {
    let error = |reason: &dyn ToString| PolicyError(reason.to_string().trim_end().to_owned());
    if text.len() > POLICY_BYTES_MAX {
        return Err(error(&format!("it is larger than {POLICY_BYTES_MAX} bytes")));
    }
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|why| error(&why));
    }
    let table: toml::Table = text.parse().map_err(|why: toml::de::Error| error(&why))?;
    AnyPolicy::deserialize(table).map_err(|why| error(&why))
}

/// Reads the policy of a file, or the one of [`PRESETS`] that is called so.
///
/// # Errors
/// A sentence that says what is wrong, and where.
pub fn read_policy(path: &Path) -> Result<AnyPolicy, String> {
    let shown = path.display();
    if let Some((_, text)) = PRESETS.iter().find(|(name, _)| path.as_os_str() == *name) {
        return policy(text).map_err(|error| format!("{shown}: {error}"));
    }
    let unread = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let mut bytes = Vec::new();
    // A file that never ends is not read to its end.
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(POLICY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is no policy: it is not UTF-8"))?;
    policy(&text).map_err(|error| format!("{shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use ergate_events::scaling::signal::{Bounds, names};
    use ergate_events::scaling::{Policy, needs};

    use super::*;

    #[test]
    fn every_example_is_a_policy_that_makes_sense() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policies");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= PRESETS.len());
        for path in files {
            let policy =
                policy(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // One that sleeps makes no sense in a pool that does not, and the other way round.
            let answers = [0, 1].map(|min| policy.check(Bounds { min, max: 20 }));
            assert!(answers.contains(&Ok(())), "{}: {answers:?}", path.display());
            // An engine reads all that it names, or shows it replicas one by one.
            let unknown: Vec<_> =
                needs::signals(&policy).into_iter().filter(|name| !names::ALL.contains(&name.as_str())).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        }
    }

    #[test]
    fn json_is_read_as_well_and_what_is_unknown_is_refused() {
        let same = policy("policy = \"rate\"\nreserve = 1").unwrap();
        assert_eq!(policy(r#"{"policy": "rate", "reserve": 1.0}"#).unwrap(), same);
        for (text, part) in [
            ("", "policy"),
            ("policy = \"magic\"", "magic"),
            ("policy = \"rate\"\nreserves = 1", "reserves"),
            ("policy = \"rate\"\nreserve = nan", "finite"),
            ("policy = ", "line 1"),
            ("{", "EOF"),
        ] {
            let error = policy(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
