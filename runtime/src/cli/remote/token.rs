//! The token that proves who asks. It comes from a file or the environment, never from the command line, which everybody on the machine can read.

use std::io::Read;
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

use super::error::RemoteError;

/// The variable that holds a token.
const TOKEN: &str = "ERGATE_TOKEN";
/// The variable that names the file of one.
const TOKEN_FILE: &str = "ERGATE_TOKEN_FILE";
/// Before a token in its header.
const SCHEME: &str = "Bearer ";
/// Longest file that is read for a token, and the longest token of any service of ours with room to spare.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// A token and where it came from.
pub(super) struct Token {
    /// The header, marked so that nothing prints it.
    pub(super) header: HeaderValue,
    /// For messages.
    pub(super) from: String,
}

/// Finds the token: the flag counts before the environment, and that before the configuration. In the environment the token itself counts before a file.
pub(super) fn find(flag: Option<&Path>, configured: Option<&Path>) -> Result<Option<Token>, RemoteError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = flag {
        return of_file(path, "--token-file").map(Some);
    }
    if let Some(token) = variable(TOKEN) {
        let text = token.to_str().map(str::to_owned);
        return header(text.as_deref(), TOKEN.to_owned()).map(Some);
    }
    match (variable(TOKEN_FILE).map(PathBuf::from), configured) {
        (Some(path), _) => of_file(&path, TOKEN_FILE).map(Some),
        (None, Some(path)) => of_file(path, "client.token_file").map(Some),
        (None, None) => Ok(None),
    }
}

/// As [`find`], the token alone.
pub(crate) fn text(flag: Option<&Path>, configured: Option<&Path>) -> Result<Option<String>, RemoteError> {
    let found = find(flag, configured)?;
    Ok(found.and_then(|token| Some(token.header.to_str().ok()?.strip_prefix(SCHEME)?.to_owned())))
}

fn of_file(path: &Path, named_by: &str) -> Result<Token, RemoteError> {
    let from = format!("{}, named by {named_by},", path.display());
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| RemoteError::Credential(format!("the token in {from} cannot be read: {error}")))?;
    header(Some(&text), from)
}

/// The header. What is wrong with a token is told without it.
fn header(text: Option<&str>, from: String) -> Result<Token, RemoteError> {
    let token = text.map(str::trim).filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
    let value = token.and_then(|token| HeaderValue::from_str(&format!("{SCHEME}{token}")).ok());
    let Some(mut header) = value else {
        let text = format!("what {from} holds is no token; one line is expected, as `ergate token new` prints it");
        return Err(RemoteError::Credential(text));
    };
    header.set_sensitive(true);
    Ok(Token { header, from })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_is_never_shown() {
        let token = header(Some(" ergate_abc\n"), "X".to_owned()).unwrap();
        assert_eq!(token.header.to_str().unwrap(), "Bearer ergate_abc");
        assert!(!format!("{:?}", token.header).contains("abc"));
        for wrong in [None, Some(""), Some("sec\nret"), Some("sec ret"), Some("secr\u{e9}t")] {
            let error = header(wrong, "X".to_owned()).err().unwrap().to_string();
            assert!(error.contains('X') && !error.contains("sec"), "{error}");
        }
    }
}
