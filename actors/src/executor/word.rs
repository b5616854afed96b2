//! What work outside this process says about itself: a line on a pipe, or the body of a call back.

use ergate_events::task::CHECKPOINT_BYTES_MAX;
use serde::Deserialize;

use super::context::Context;

/// Longest word, in bytes: a checkpoint of [`CHECKPOINT_BYTES_MAX`] with every second byte escaped.
pub const WORD_BYTES_MAX: usize = 2 * CHECKPOINT_BYTES_MAX + (1 << 10);

/// One thing said about an attempt, as JSON: `{"heartbeat":true}`, `{"percent":40,"stage":"resize","message":"3 of 8"}`,
/// `{"checkpoint":"page 7"}`, or several of them in one object. Each is a sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// Nothing but a sign of life; `false` is none.
    pub heartbeat: Option<bool>,
    /// How much is done, from 0 to 100.
    pub percent: Option<u8>,
    /// What it is at.
    pub stage: Option<String>,
    /// What a person may want to know.
    pub message: Option<String>,
    /// What the next attempt is to receive, at most [`CHECKPOINT_BYTES_MAX`] bytes.
    pub checkpoint: Option<String>,
}

/// Why a word says nothing.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// It is longer than any word.
    #[error("it has more than {WORD_BYTES_MAX} bytes")]
    Long,
    /// It is no JSON of the right shape.
    #[error("{0}; a word is such as {{\"percent\":40,\"stage\":\"resize\"}}")]
    Shape(#[from] serde_json::Error),
    /// There is no such percentage.
    #[error("{0} percent is more than everything")]
    Percent(u8),
    /// The checkpoint cannot be kept.
    #[error("a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes, and this one has {0}")]
    Checkpoint(usize),
    /// It has no field at all.
    #[error("it says nothing: use heartbeat, percent, stage, message or checkpoint")]
    Empty,
}

impl Word {
    /// Reads a word.
    ///
    /// # Errors
    /// [`WordError`] for what is no word.
    pub fn parse(bytes: &[u8]) -> Result<Word, WordError> {
        if bytes.len() > WORD_BYTES_MAX {
            return Err(WordError::Long);
        }
        let word: Word = serde_json::from_slice(bytes)?;
        if let Some(percent) = word.percent.filter(|percent| *percent > 100) {
            return Err(WordError::Percent(percent));
        }
        if let Some(long) = word.checkpoint.as_ref().map(String::len).filter(|len| *len > CHECKPOINT_BYTES_MAX) {
            return Err(WordError::Checkpoint(long));
        }
        if word == Word::default() { Err(WordError::Empty) } else { Ok(word) }
    }

    /// Tells the attempt's executor.
    pub fn tell(&self, context: &Context) {
        if self.heartbeat == Some(true) {
            context.heartbeat();
        }
        if self.percent.is_some() || self.stage.is_some() || self.message.is_some() {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            context.progress(self.percent, &text(&self.stage), &text(&self.message));
        }
        if let Some(checkpoint) = &self.checkpoint {
            context.keep(checkpoint.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let word = Word::parse(br#"{"percent":40,"stage":"resize","message":"3 of 8"}"#).expect("a word");
        assert_eq!((word.percent, word.stage.as_deref(), word.message.as_deref()), (Some(40), Some("resize"), Some("3 of 8")));
        assert_eq!(
            Word::parse(br#" {"checkpoint":"page 7","heartbeat":true} "#).expect("a word").checkpoint.as_deref(),
            Some("page 7")
        );
    }

    #[test]
    fn whatever_is_no_word_is_refused_with_the_reason() {
        let long = format!("{{\"checkpoint\":\"{}\"}}", "x".repeat(CHECKPOINT_BYTES_MAX + 1));
        let longer = "x".repeat(WORD_BYTES_MAX + 1);
        for (bytes, reason) in [
            ("", "EOF"),
            ("{}", "says nothing"),
            ("40%", "expected"),
            ("[1]", "a word is such as"),
            (r#"{"percent":101}"#, "101 percent"),
            (r#"{"percent":-1}"#, "invalid value"),
            (r#"{"progress":1}"#, "unknown field `progress`"),
            (r#"{"stage":1}"#, "invalid type"),
            (long.as_str(), "at most 65536 bytes"),
            (longer.as_str(), "more than"),
        ] {
            let error = Word::parse(bytes.as_bytes()).expect_err(reason).to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
