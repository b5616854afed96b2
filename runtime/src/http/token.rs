//! Who may come in: bearer tokens, of which only hashes are stored, and what each allows.
//!
//! A token has 256 bits of chance, so a fast hash is enough: nobody can try so many. A slow hash protects passwords, which people choose, and would
//! cost every request milliseconds.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ergate_events::time::Timestamp;

use super::watched::Watched;
use crate::request::parse_moment;

/// Bytes of chance in a token.
const SECRET_BYTES: usize = 32;
/// What every token begins with, so that scanners find one that was published.
const PREFIX: &str = "ergate_";
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 256;
/// Largest file of tokens: ten thousand lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at tasks, pools and the log.
    Read,
    /// Submit tasks.
    Submit,
    /// Look, cancel, kill, try again, size pools.
    Operate,
    /// Do work as a worker.
    Work,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 5] = [Scope::Read, Scope::Submit, Scope::Operate, Scope::Work, Scope::Admin];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Submit => "submit",
            Scope::Operate => "operate",
            Scope::Work => "work",
            Scope::Admin => "admin",
        }
    }

    /// Whether a token with this scope may do what needs the other. An operator has to see what is operated; who submits need not.
    const fn allows(self, needed: Scope) -> bool {
        matches!(
            (self, needed),
            (Scope::Admin, _)
                | (Scope::Operate, Scope::Operate | Scope::Read)
                | (Scope::Submit, Scope::Submit)
                | (Scope::Read, Scope::Read)
                | (Scope::Work, Scope::Work)
        )
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        let named = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        named.ok_or_else(|| "write read, submit, operate, work or admin".to_owned())
    }
}

/// What a token is given: a scope, and of `work` perhaps only a part. Printed and read as `read`, `work`, `work:POOL` or `work:POOL/TYPE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    scope: Scope,
    /// The pool and the task type that it is limited to.
    place: Option<(String, Option<String>)>,
}

impl Right {
    /// Whether it lets a worker work for this task type of a pool; `None` is every type of it.
    fn covers(&self, pool: &str, task_type: Option<&str>) -> bool {
        self.scope == Scope::Work
            && self
                .place
                .as_ref()
                .is_none_or(|(known, only)| known == pool && only.as_deref().is_none_or(|only| Some(only) == task_type))
    }
}

impl From<Scope> for Right {
    fn from(scope: Scope) -> Right {
        Right { scope, place: None }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope.name())?;
        match &self.place {
            None => Ok(()),
            Some((pool, None)) => write!(f, ":{pool}"),
            Some((pool, Some(task_type))) => write!(f, ":{pool}/{task_type}"),
        }
    }
}

impl std::str::FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Right, String> {
        let Some(place) = text.strip_prefix("work:") else { return text.parse().map(Scope::into) };
        let (pool, task_type) = place.split_once('/').map_or((place, None), |(pool, name)| (pool, Some(name.to_owned())));
        let is_word = |name: &str| !name.is_empty() && name.chars().all(|c| !c.is_whitespace() && c != ',');
        if !is_word(pool) || task_type.as_deref().is_some_and(|name| !is_word(name)) {
            return Err("write work:POOL or work:POOL/TYPE".to_owned());
        }
        Ok(Right { scope: Scope::Work, place: Some((pool.to_owned(), task_type)) })
    }
}

/// A line of the file.
#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    rights: Arc<BTreeSet<Right>>,
    hash: blake3::Hash,
    until: Option<Timestamp>,
}

/// A token and its line, which is all that is kept of it.
pub struct NewToken {
    /// The token itself, to be handed to its user once.
    pub token: String,
    /// The line for the file of tokens.
    pub line: String,
}

impl NewToken {
    /// Makes a token.
    ///
    /// # Errors
    /// When the system gives no chance, or the name is not one of letters, digits, `-`, `_` and `.`.
    pub fn make(name: &str, rights: &BTreeSet<Right>) -> Result<NewToken, String> {
        if !is_name(name) {
            return Err("a name has up to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        let mut secret = [0_u8; SECRET_BYTES];
        let filled = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        if filled.ok() != Some(SECRET_BYTES) {
            return Err("the system has no random numbers".to_owned());
        }
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let rights: Vec<_> = rights.iter().map(ToString::to_string).collect();
        let line = format!("{name} {} blake3:{}", rights.join(","), blake3::hash(token.as_bytes()).to_hex());
        Ok(NewToken { token, line })
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Why a file of tokens cannot be used. Nothing of what is in it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("failed to read the tokens in {path}")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A line is not one.
    #[error("{path}:{line}: {reason}; a line is `NAME SCOPE[,SCOPE] blake3:HASH [until=TIME]`, as `ergate token new` prints it")]
    Line {
        /// Where the file is.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is none in it.
    #[error("{path} has no token; `ergate token new` makes one")]
    Empty {
        /// Where the file is.
        path: PathBuf,
    },
}

/// The tokens of a file, which is read again when it changes.
pub struct Tokens(Watched<[Entry], TokenError>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("files", &self.0.files()).finish_non_exhaustive()
    }
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The name on its line.
    pub name: Arc<str>,
    rights: Arc<BTreeSet<Right>>,
}

impl Bearer {
    /// Whether the token allows what needs this scope.
    pub fn may(&self, needed: Scope) -> bool {
        self.rights.iter().any(|right| right.scope.allows(needed))
    }

    /// Whether the token lets a worker work for all of these task types of a pool; none are all of them.
    pub fn works_for(&self, pool: &str, types: &[String]) -> bool {
        let covers = |task_type: Option<&str>| self.rights.iter().any(|right| right.covers(pool, task_type));
        let is_covered = if types.is_empty() { covers(None) } else { types.iter().all(|name| covers(Some(name))) };
        self.rights.contains(&Scope::Admin.into()) || is_covered
    }
}

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// [`TokenError`] when it cannot be read, has a line that is not one, or no token.
    pub fn open(path: &Path) -> Result<Tokens, TokenError> {
        let file = path.to_owned();
        Watched::open("the tokens were", vec![path.to_owned()], Box::new(move || read(&file))).map(Tokens)
    }

    /// Reads the file again. One that cannot be used changes nothing: those who were let in stay so, and the messages say why.
    pub fn reload(&self) {
        self.0.reload();
    }

    /// Whose token this is, if it is one and has not expired.
    pub fn bearer(&self, token: &str, now: Timestamp) -> Option<Bearer> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash = blake3::hash(token.as_bytes());
        let entries = self.0.current();
        // Hashes are compared in constant time, and all of them, so that the time tells nothing.
        let mut found = None;
        for entry in entries.iter() {
            if entry.hash == hash {
                found = Some(entry);
            }
        }
        let valid = found.filter(|entry| entry.until.is_none_or(|until| now < until))?;
        Some(Bearer { name: Arc::clone(&valid.name), rights: Arc::clone(&valid.rights) })
    }
}

fn read(path: &Path) -> Result<Arc<[Entry]>, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TokenError::Line { path: path.to_owned(), line: 1, reason: "the file is over 1 MiB" });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let entry = |(line, text)| entry(text).map_err(|reason| TokenError::Line { path: path.to_owned(), line, reason });
    let entries: Arc<[Entry]> = lines.map(entry).collect::<Result<_, _>>()?;
    if entries.is_empty() { Err(TokenError::Empty { path: path.to_owned() }) } else { Ok(entries) }
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next().filter(|name| is_name(name)).ok_or("the name is not one")?;
    let rights = words.next().ok_or("the scopes are missing")?;
    let rights = rights.split(',').map(str::parse).collect::<Result<BTreeSet<Right>, String>>();
    let hash = words.next().and_then(|word| word.strip_prefix("blake3:")).ok_or("the hash is missing")?;
    let until = words.next().map(|word| word.strip_prefix("until=").and_then(parse_moment).ok_or("the time is not one"));
    if words.next().is_some() {
        return Err("there is too much on it");
    }
    Ok(Entry {
        name: name.into(),
        rights: rights.map_err(|_| "a scope is not read, submit, operate, work or admin")?.into(),
        hash: blake3::Hash::from_hex(hash).map_err(|_| "the hash is not one of 64 digits")?,
        until: until.transpose()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let made = NewToken::make("ci", &[Scope::Submit.into()].into()).unwrap();
        assert!(made.token.starts_with(PREFIX) && made.token.len() == 50 && !made.line.contains(&made.token));
        let (_dir, path) = file(&format!("# people\n\n{}\n", made.line));
        let tokens = Tokens::open(&path).unwrap();
        let bearer = tokens.bearer(&made.token, Timestamp(0)).unwrap();
        assert_eq!((&*bearer.name, bearer.may(Scope::Submit), bearer.may(Scope::Read)), ("ci", true, false));
        for other in ["", "ergate_", &made.token[..49], &format!("{}x", made.token), &"x".repeat(10_000)] {
            assert_eq!(tokens.bearer(other, Timestamp(0)), None);
        }
        assert_ne!(made.token, NewToken::make("ci", &[Scope::Submit.into()].into()).unwrap().token);
        assert!(!format!("{tokens:?}").contains("blake3"));
    }

    #[test]
    fn a_token_ends_with_its_time_and_leaves_with_its_line() {
        let made = NewToken::make("a", &[Scope::Admin.into()].into()).unwrap();
        let (_dir, path) = file(&format!("{} until=1970-01-01T00:00:01Z\n", made.line));
        let tokens = Tokens::open(&path).unwrap();
        assert!(tokens.bearer(&made.token, Timestamp(999_999)).is_some_and(|bearer| bearer.may(Scope::Operate)));
        assert_eq!(tokens.bearer(&made.token, Timestamp(1_000_000)), None);
        std::fs::write(&path, "nonsense\n").unwrap();
        tokens.reload();
        assert!(tokens.bearer(&made.token, Timestamp(0)).is_some(), "a bad file locks nobody out");
        std::fs::write(&path, NewToken::make("b", &[Scope::Read.into()].into()).unwrap().line).unwrap();
        tokens.reload();
        assert_eq!(tokens.bearer(&made.token, Timestamp(0)), None);
    }

    #[test]
    fn a_worker_may_be_limited_to_a_pool_and_to_task_types() {
        let made = NewToken::make("w", &[Scope::Work.into()].into()).unwrap();
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (one, two) = (types(&["resize"]), types(&["resize", "crop"]));
        for (scopes, pool, types, may) in [
            ("work", "models", &[][..], true),
            ("work:models", "models", &two, true),
            ("work:models", "other", &one, false),
            ("work:models/resize", "models", &one, true),
            ("work:models/resize", "models", &two, false),
            ("work:models/resize", "models", &[], false),
            ("work:models/resize,work:models/crop", "models", &two, true),
            ("admin", "models", &two, true),
            ("submit", "models", &one, false),
        ] {
            let rights: BTreeSet<Right> = scopes.split(',').map(|right| right.parse().unwrap()).collect();
            let made = NewToken::make("w", &rights).unwrap();
            let (_dir, path) = file(&made.line);
            let bearer = Tokens::open(&path).unwrap().bearer(&made.token, Timestamp(0)).unwrap();
            assert_eq!(bearer.works_for(pool, types), may, "{scopes} {pool} {types:?}");
        }
        for wrong in ["work:", "work:/a", "work:a/", "works"] {
            let (_dir, path) = file(&made.line.replacen(" work ", &format!(" {wrong} "), 1));
            assert!(Tokens::open(&path).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let hash = "0".repeat(64);
        for (text, reason) in [
            ("", "no token"),
            ("a", ":1: the scopes"),
            (&format!("\na root blake3:{hash}"), ":2: a scope"),
            (&format!("a read sha256:{hash}"), "hash is missing"),
            (&format!("a read blake3:{}", &hash[1..]), "64 digits"),
            (&format!("a read blake3:{hash} until=soon"), "the time"),
            (&format!("a read blake3:{hash} until=2030-01-01T00:00:00Z x"), "too much"),
            (&format!("a/b read blake3:{hash}"), "name"),
        ] {
            let (_dir, path) = file(text);
            let said = Tokens::open(&path).unwrap_err().to_string();
            assert!(said.contains(reason), "{text:?}: {said}");
        }
    }
}
