//! Attempts that may be reported about from outside: a token for each, known only to the service that was called with it.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::executor::context::Context;
use crate::executor::word::Word;

/// Random bytes of a token by which it is found; nobody has to keep them from anybody.
const NAME_BYTES: usize = 8;
/// Random bytes of a token that must not be guessed.
const SECRET_BYTES: usize = 32;

/// The attempts of this process that call back.
#[derive(Default)]
pub struct Callbacks(Mutex<HashMap<String, Entry>>);

struct Entry {
    secret: String,
    context: Context,
}

/// The token means no attempt that runs here: it has ended, or there never was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no attempt with this token runs here")]
pub struct UnknownToken;

/// The attempts of this process: what a service that listens for reports asks.
pub fn callbacks() -> &'static Callbacks {
    static ALL: OnceLock<Callbacks> = OnceLock::new();
    ALL.get_or_init(Callbacks::default)
}

impl Callbacks {
    /// Takes a report about the attempt that the token was made for.
    ///
    /// # Errors
    /// [`UnknownToken`].
    pub fn report(&self, token: &str, word: &Word) -> Result<(), UnknownToken> {
        word.tell(&self.find(token)?);
        Ok(())
    }

    /// What the attempt before left for the attempt that the token was made for.
    ///
    /// # Errors
    /// [`UnknownToken`].
    pub fn checkpoint(&self, token: &str) -> Result<Option<Vec<u8>>, UnknownToken> {
        Ok(self.find(token)?.checkpoint().map(<[u8]>::to_vec))
    }

    /// Makes a token for an attempt. It ends with what is returned.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn register(&'static self, context: Context) -> io::Result<Registered> {
        let (name, secret) = (random::<NAME_BYTES>()?, random::<SECRET_BYTES>()?);
        let token = format!("{name}.{secret}");
        self.all().insert(name, Entry { secret, context });
        Ok(Registered { all: self, token })
    }

    fn find(&self, token: &str) -> Result<Context, UnknownToken> {
        let (name, secret) = token.split_once('.').ok_or(UnknownToken)?;
        let all = self.all();
        let entry = all.get(name).filter(|entry| same(entry.secret.as_bytes(), secret.as_bytes()));
        entry.map(|entry| entry.context.clone()).ok_or(UnknownToken)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token while it counts.
pub(super) struct Registered {
    all: &'static Callbacks,
    token: String,
}

impl Registered {
    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let name = self.token.split('.').next().unwrap_or_default();
        self.all.all().remove(name);
    }
}

/// Compares in a time that does not depend on where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

/// Random bytes in hexadecimal.
fn random<const N: usize>() -> io::Result<String> {
    let (mut bytes, mut filled) = ([0_u8; N], 0);
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use ergate_events::id::{Epoch, Ordinal, ShardId};
    use ergate_events::time::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::executor::context::SlotControl;

    fn context() -> Context {
        let control = Arc::new(SlotControl::new(Arc::new(ManualClock::at(Timestamp(7)))));
        let generation = control.begin();
        let checkpoint = Some(Arc::from(&b"page 6"[..]));
        let (shard, task, epoch) = (ShardId(0), Ordinal(1), Epoch(1));
        let (deadline, trace_parent) = (Timestamp(9), None);
        Context { control, generation, shard, task, number: 1, epoch, deadline, checkpoint, trace_parent }
    }

    #[test]
    fn a_token_counts_as_long_as_its_attempt_and_for_no_other() {
        let (first, second) = (context(), context());
        let own = callbacks().register(first.clone()).expect("random numbers");
        let other = callbacks().register(second.clone()).expect("random numbers");
        let token = own.token().to_owned();
        let word = Word::parse(br#"{"percent":40,"stage":"resize","checkpoint":"page 7"}"#).expect("a word");
        callbacks().report(&token, &word).expect("it runs");
        assert_eq!(first.last_progress().expect("told").percent, Some(40));
        assert_eq!(first.control.lock().checkpoint.as_deref(), Some(&b"page 7"[..]));
        assert_eq!(first.control.seen.load(Ordering::Relaxed), 7);
        assert_eq!(second.last_progress(), None);
        assert_eq!(callbacks().checkpoint(&token), Ok(Some(b"page 6".to_vec())));
        let (name, secret) = token.split_once('.').expect("two parts");
        let foreign = other.token().split_once('.').expect("two parts").1;
        for wrong in ["", ".", name, &format!("{name}."), &format!("{name}.{foreign}"), &format!("{name}.{}", &secret[1..])] {
            assert_eq!(callbacks().report(wrong, &word), Err(UnknownToken), "{wrong}");
        }
        drop(own);
        assert_eq!(callbacks().report(&token, &word), Err(UnknownToken));
    }
}
