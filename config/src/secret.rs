//! Options that are passed through, and secrets among them, which are named and never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::value::Raw;

/// Longest secret; keys and certificates in PEM are some kilobytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The value of an option that is passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// As it is.
    Plain(String),
    /// What this file holds, without the end of its last line.
    File(PathBuf),
    /// What this environment variable holds.
    Env(String),
    /// A secret that came in the environment under the option's own name.
    Hidden(Hidden),
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a secret cannot be had. Nothing of what was read is in it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum SecretError {
    /// The file cannot be read.
    #[error("failed to read {path}, which holds the option {option}")]
    Unreadable {
        option: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is no text of a sensible length.
    #[error("{path} should hold the option {option}, and holds no text of at most 64 KiB")]
    NoText { option: String, path: PathBuf },
    /// The environment has no such variable.
    #[error("the environment variable {name} should hold the option {option}, and is not set")]
    Unset { option: String, name: String },
}

/// Whether an option of librdkafka holds something that nobody should see.
pub(crate) fn is_secret(name: &str) -> bool {
    let words = ["password", "passphrase", "secret", "token"];
    // What is passed to a token provider holds its secret; a private key may be given as a text.
    let names = ["sasl.oauthbearer.config", "ssl.key.pem", "ssl_key"];
    (words.iter().any(|word| name.contains(word)) && !name.contains("endpoint"))
        || names.contains(&name)
        || name.ends_with(".key.pem")
}

impl OptionValue {
    /// Takes a value for this option; `None` for what it cannot be, a secret in the open included.
    pub(crate) fn parse(name: &str, raw: &Raw) -> Option<OptionValue> {
        OptionValue::parse_as(is_secret(name), raw)
    }

    /// As [`OptionValue::parse`], where somebody else knows what is secret.
    pub(crate) fn parse_as(secret: bool, raw: &Raw) -> Option<OptionValue> {
        match raw {
            Raw::Reference(kind, target) if target.is_empty() || kind.is_empty() => None,
            Raw::Reference("file", path) => Some(OptionValue::File(path.into())),
            Raw::Reference("env", name) => Some(OptionValue::Env(name.clone())),
            Raw::Word(text) if secret => Some(OptionValue::Hidden(Hidden(text.clone()))),
            Raw::Text(_) | Raw::Number(_) | Raw::Other(..) | Raw::List(_) if secret => None,
            Raw::Text(text) | Raw::Word(text) => Some(OptionValue::Plain(text.clone())),
            Raw::Number(number) => Some(OptionValue::Plain(number.to_string())),
            Raw::Other("boolean" | "number" | "fraction", text) => Some(OptionValue::Plain(text.clone())),
            Raw::Other(..) | Raw::Reference(..) | Raw::List(_) => None,
        }
    }

    /// The same value with a relative file beside the configuration that names it.
    pub(crate) fn beside(self, dir: &Path) -> OptionValue {
        match self {
            OptionValue::File(path) => OptionValue::File(dir.join(path)),
            other @ (OptionValue::Plain(_) | OptionValue::Env(_) | OptionValue::Hidden(_)) => other,
        }
    }

    /// The value itself.
    ///
    /// # Errors
    /// [`SecretError`] when the file or variable that holds it cannot be used.
    pub fn resolve(&self, option: &str) -> Result<String, SecretError> {
        match self {
            OptionValue::Plain(text) | OptionValue::Hidden(Hidden(text)) => Ok(text.clone()),
            OptionValue::File(path) => read(option, path),
            OptionValue::Env(name) => {
                std::env::var(name).map_err(|_| SecretError::Unset { option: option.to_owned(), name: name.clone() })
            }
        }
    }
}

fn read(option: &str, path: &Path) -> Result<String, SecretError> {
    let unreadable = |source| SecretError::Unreadable { option: option.to_owned(), path: path.to_owned(), source };
    let no_text = || SecretError::NoText { option: option.to_owned(), path: path.to_owned() };
    if std::fs::metadata(path).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(no_text());
    }
    let text = String::from_utf8(std::fs::read(path).map_err(unreadable)?).map_err(|_| no_text())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if text.contains('\0') { Err(no_text()) } else { Ok(text.to_owned()) }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Plain(text) => f.write_str(text),
            OptionValue::File(path) => write!(f, "{{ file = {:?} }}", path.display().to_string()),
            OptionValue::Env(name) => write!(f, "{{ env = {name:?} }}"),
            OptionValue::Hidden(hidden) => write!(f, "{hidden:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_should_see_is_known_by_its_name() {
        for name in
            ["sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.ca.pem", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "linger.ms"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_secret_in_a_file_ends_with_its_line() {
        let dir = std::env::temp_dir().join(format!("ergate-secret-{}", std::process::id()));
        for (bytes, expected) in
            [(&b"abc\n"[..], Some("abc")), (b"abc\r\n", Some("abc")), (b" a b ", Some(" a b ")), (b"a\xff", None), (b"a\0", None)]
        {
            std::fs::write(&dir, bytes).expect("a file can be written");
            let found = OptionValue::File(dir.clone()).resolve("sasl.password");
            assert_eq!(found.ok().as_deref(), expected);
        }
        std::fs::remove_file(&dir).expect("it is there");
        let error = OptionValue::File(dir).resolve("sasl.password").expect_err("it is gone").to_string();
        assert!(error.contains("sasl.password"), "{error}");
    }
}
