//! What a task type promises, what a request may ask for, and how a task may end.

use bincode::{BorrowDecode, Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::id::{Ordinal, ScheduleId};
use crate::time::{Micros, Timestamp};

/// Largest payload or result kept in the log itself, in bytes; beyond it a payload belongs in a file or an object store.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest failure message kept, in bytes: enough for a stack trace's head, small against a block.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Longest checkpoint kept, in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 10;
/// Longest name, idempotency key, label, reason or trace context, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Most settings one request may carry, beside the tasks that it comes after.
pub const ASKS_MAX: usize = 16;
/// Most tasks that one request may come after.
pub const AFTER_MAX: usize = 64;
/// Highest priority; priorities run from 0 to 9 and a higher one is started sooner.
pub const PRIORITY_MAX: u8 = 9;
/// The priority of a task type that does not say otherwise.
pub const PRIORITY_DEFAULT: u8 = 4;

/// How often, and after which delays, a failed attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub attempts: u32,
    /// Delay before the second attempt.
    pub initial: Micros,
    /// Factor from one delay to the next, in thousandths (2000 doubles).
    pub coefficient_milli: u32,
    /// Longest delay.
    pub max: Micros,
    /// Largest random part taken off a delay, in thousandths of it (200 gives 80–100 % of the delay).
    pub jitter_milli: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 5,
            initial: Micros::from_millis(200),
            coefficient_milli: 2_000,
            max: Micros::from_secs(300),
            jitter_milli: 200,
        }
    }
}

impl RetryPolicy {
    /// One attempt, no repetition.
    pub const NEVER: RetryPolicy =
        RetryPolicy { attempts: 1, initial: Micros(0), coefficient_milli: 1_000, max: Micros(0), jitter_milli: 0 };
}

/// The four limits on how long a task may take, with Temporal's names and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// From becoming ready to being started.
    pub schedule_to_start: Option<Micros>,
    /// From the start of one attempt to its end.
    pub start_to_close: Micros,
    /// From the request to the end of the last attempt.
    pub schedule_to_close: Option<Micros>,
    /// Between two heartbeats of one attempt.
    pub heartbeat: Option<Micros>,
}

impl Default for Timeouts {
    fn default() -> Self {
        // An hour is what Pinot's minions give a task; an attempt without any limit would hold its slot for ever.
        Timeouts { schedule_to_start: None, start_to_close: Micros::from_secs(3_600), schedule_to_close: None, heartbeat: None }
    }
}

/// Everything the rules need to know about a task type.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeSettings {
    /// The pool whose slots run tasks of this type.
    pub pool: String,
    /// Priority of a request that names none.
    pub priority: u8,
    /// Retry policy of a request that names none.
    pub retry: RetryPolicy,
    /// Timeouts of a request that names none.
    pub timeouts: Timeouts,
    /// How long a cancelled attempt may clean up before it is ended the hard way.
    pub cancel_grace: Micros,
    /// How often a task may lose its executor before it is taken for the cause; counted apart from attempts.
    pub losses_max: u32,
    /// Whether a task that failed for good is kept for redrive.
    pub dead_letter: bool,
    /// How long an idempotency key answers with the task it created.
    pub key_window: Micros,
    /// Failure classes that are never retried.
    pub non_retryable: Vec<String>,
}

impl Default for TypeSettings {
    fn default() -> Self {
        TypeSettings {
            pool: "default".to_owned(),
            priority: PRIORITY_DEFAULT,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            cancel_grace: Micros::from_secs(10),
            losses_max: 5,
            dead_letter: true,
            key_window: Micros::from_secs(24 * 3_600),
            non_retryable: Vec::new(),
        }
    }
}

/// One thing that a request asks for beyond its type's settings.
///
/// A list of these instead of a struct of options keeps the usual request at one byte and lets later formats add variants at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask<'a> {
    /// A priority from 0 to [`PRIORITY_MAX`].
    Priority(u8),
    /// Not to be started before this moment.
    NotBefore(Timestamp),
    /// A retry policy of its own.
    Retry(RetryPolicy),
    /// Timeouts of its own.
    Timeouts(Timeouts),
    /// The media type of the payload.
    ContentType(&'a str),
    /// W3C trace context of the requester.
    TraceParent(&'a str),
    /// A name and a value to find the task by.
    Label(&'a str, &'a str),
    /// The topic that gets the end of the task.
    ReplyTo(&'a str),
    /// The requester's own name for the request; told with the end of the task.
    CorrelationId(&'a str),
    /// A task that has to end first.
    After(Dependency<'a>),
    /// What becomes of it when one of those ends without success; [`OnFailure::Cancel`] where nothing is asked for.
    OnFailure(OnFailure),
    /// The schedule whose firing this is. Such a request came by no record.
    FiredBy(ScheduleId),
}

impl Ask<'_> {
    /// As [`Event::format`](crate::event::Event::format).
    pub(crate) const fn format(&self) -> u16 {
        match self {
            Ask::After(_) | Ask::OnFailure(_) | Ask::FiredBy(_) => 4,
            Ask::ReplyTo(_) | Ask::CorrelationId(_) => 2,
            Ask::Priority(_)
            | Ask::NotBefore(_)
            | Ask::Retry(_)
            | Ask::Timeouts(_)
            | Ask::ContentType(_)
            | Ask::TraceParent(_)
            | Ask::Label(..) => 1,
        }
    }
}

/// A task that another comes after. Requests may name it by its key; in the log it is one of the other two, as it was when that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency<'a> {
    /// A task that has not ended.
    Task(Ordinal),
    /// A task that has ended, and how: the state forgets tasks that end, so whoever names one looks that up in the log.
    Ended(Ordinal, Outcome),
    /// The task that has an idempotency key: its type, where it is another one than that of the request itself, and the key.
    Key(Option<&'a str>, &'a str),
}

/// What becomes of a task when one that it comes after ends without success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is cancelled, and so are those that come after it.
    #[default]
    Cancel,
    /// It runs when all have ended, whatever they came to.
    Run,
}

impl OnFailure {
    /// What a request asks for.
    pub fn of(asks: &[Ask<'_>]) -> OnFailure {
        asks.iter().rev().find_map(|ask| if let Ask::OnFailure(policy) = ask { Some(*policy) } else { None }).unwrap_or_default()
    }

    /// The printed form, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            OnFailure::Cancel => "cancel",
            OnFailure::Run => "run",
        }
    }

    /// The policy with this printed form.
    pub fn from_name(name: &str) -> Option<OnFailure> {
        [OnFailure::Cancel, OnFailure::Run].into_iter().find(|policy| policy.name() == name)
    }
}

/// The requester's name for a piece of work: the same key again within the window is the same task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize)]
pub struct IdempotencyKey<'a> {
    /// The name.
    pub key: &'a str,
    /// How long it stays valid; `None` takes the type's window.
    pub window: Option<Micros>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// The work is done.
    Succeeded,
    /// Part of the work is done; the result says which.
    Partial,
    /// The work could not be done.
    Failed,
    /// Somebody no longer wanted it.
    Cancelled,
    /// There was nothing to do.
    Skipped,
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Outcome; 5] = [Outcome::Succeeded, Outcome::Partial, Outcome::Failed, Outcome::Cancelled, Outcome::Skipped];

    /// The printed form, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Succeeded => "SUCCEEDED",
            Outcome::Partial => "PARTIAL",
            Outcome::Failed => "FAILED",
            Outcome::Cancelled => "CANCELLED",
            Outcome::Skipped => "SKIPPED",
        }
    }

    /// Whether the task came to a result, so that those that come after it may start.
    pub const fn is_success(self) -> bool {
        matches!(self, Outcome::Succeeded | Outcome::Partial | Outcome::Skipped)
    }

    /// The outcome with this printed form, in any case.
    pub fn from_name(name: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.name().eq_ignore_ascii_case(name))
    }
}

/// Why an attempt did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode, Serialize)]
pub struct Failure<'a> {
    /// A short, stable name of the kind of failure, for policies to match.
    pub class: &'a str,
    /// What happened, to what, for a person.
    pub message: &'a str,
    /// Whether another attempt could end differently.
    pub retryable: bool,
    /// A delay that the failure itself asks for, in place of the policy's.
    pub delay: Option<Micros>,
}
