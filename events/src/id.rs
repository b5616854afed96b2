//! Identities: newtypes with one printed form each, parsed back by this file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// Declares a newtype over an integer that prints with a prefix and parses the same form back.
macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(digits)
                    .map($name)
                    .ok_or_else(|| ParseIdError::new(text, concat!("`", $prefix, "NUMBER`")))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from_printed(from)
            }
        }
    };
}

numeric_id! {
    /// One append-only log and the state folded from it; an embedded runtime has only shard 0.
    ShardId(u16), ""
}
numeric_id! {
    /// The place of a request among all requests of its shard, counted from 0 without gaps.
    Ordinal(u64), ""
}
numeric_id! {
    /// The sequence number of a record within its shard's log, counted from 0 without gaps.
    Position(u64), ""
}
numeric_id! {
    /// One definition of a task type; redefining a name gives a new id, so a task keeps the settings it was accepted under.
    TypeId(u16), "type-"
}
numeric_id! {
    /// One pool of the control half.
    PoolId(u16), "pool-"
}
numeric_id! {
    /// A holder of slots in a pool.
    ReplicaId(u32), "r"
}
numeric_id! {
    /// One limit of the flow; redefining a name keeps its id.
    LimitId(u16), "limit-"
}
numeric_id! {
    /// One schedule; redefining a name keeps its id.
    ScheduleId(u16), "schedule-"
}
numeric_id! {
    /// One opening of the log; each process that takes over a shard has a higher one.
    Epoch(u32), "e"
}

impl Position {
    /// The position after this one.
    pub const fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// A task anywhere in the system; prints as `SHARD-ORDINAL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The shard that owns the task.
    pub shard: ShardId,
    /// The task's place among the shard's requests.
    pub ordinal: Ordinal,
}

/// One start of a task; prints as `SHARD-ORDINAL.NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task that was started.
    pub task: TaskId,
    /// Which start it is, counted from 1.
    pub number: u32,
}

/// Orders the attempts of one task across restarts, so that a side effect of an old one can be refused; prints as `EPOCH.ATTEMPT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The opening of the log in which the attempt was started.
    pub epoch: Epoch,
    /// The number of the attempt.
    pub attempt: u32,
}

impl TaskId {
    /// The task with this ordinal on shard 0, the only one of an embedded runtime.
    pub const fn embedded(ordinal: Ordinal) -> TaskId {
        TaskId { shard: ShardId(0), ordinal }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.ordinal)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let (shard, ordinal) = text.split_once('-')?;
            Some(TaskId { shard: ShardId(digits(shard)?), ordinal: Ordinal(digits(ordinal)?) })
        };
        parse().ok_or_else(|| ParseIdError::new(text, "`SHARD-NUMBER`, for example `0-42`"))
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let (task, number) = text.rsplit_once('.')?;
            Some(AttemptId { task: task.parse().ok()?, number: digits(number)? })
        };
        parse().ok_or_else(|| ParseIdError::new(text, "`SHARD-NUMBER.ATTEMPT`, for example `0-42.1`"))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.attempt)
    }
}

impl serde::Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl serde::Serialize for AttemptId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for AttemptId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from_printed(from)
    }
}

impl<'de> serde::Deserialize<'de> for TaskId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from_printed(from)
    }
}

/// Reads a value from the text that is its printed form.
pub(crate) fn from_printed<'de, D: serde::Deserializer<'de>, T: FromStr<Err: fmt::Display>>(from: D) -> Result<T, D::Error> {
    struct Printed<T>(PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> serde::de::Visitor<'_> for Printed<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an id as a text")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    from.deserialize_str(Printed(PhantomData))
}

/// Plain decimal digits only: `parse` alone would also take `+1`.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A text that is not the printed form of the identity that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

impl ParseIdError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        ParseIdError { text: text.chars().take(64).collect(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_parsed_back_from_its_printed_form() {
        let task = TaskId { shard: ShardId(3), ordinal: Ordinal(42) };
        let attempt = AttemptId { task, number: 2 };
        assert_eq!(task.to_string(), "3-42");
        assert_eq!("3-42".parse(), Ok(task));
        assert_eq!(attempt.to_string(), "3-42.2");
        assert_eq!("3-42.2".parse(), Ok(attempt));
        assert_eq!("r7".parse(), Ok(ReplicaId(7)));
        assert_eq!(Fence { epoch: Epoch(4), attempt: 2 }.to_string(), "4.2");
    }

    #[test]
    fn anything_else_is_refused_with_the_expected_form() {
        for text in ["", "42", "-42", "3-", "3-+1", "3-4x", "99999999-1", "3-4-5", "３-4"] {
            let error = text.parse::<TaskId>().expect_err(text);
            assert!(error.to_string().contains("`0-42`"), "{error}");
        }
        assert!("7".parse::<ReplicaId>().is_err());
        assert!("0-1".parse::<AttemptId>().is_err());
    }
}
