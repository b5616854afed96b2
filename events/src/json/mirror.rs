//! An event as its JSON object has it: every field that any event has, where it is there; and the event that these fields are.
//!
//! A new event is a line in [`events!`], with its new fields in [`fields!`]; a new ask is a line in [`asks!`]. Each list is matched against
//! the core's own enumeration, so that a forgotten variant or field does not compile.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::value::{Bytes, Hex, Text, text_or_object};
use crate::event::{Cause, Departure, Digest, Event, PoolMode, RuleVersions, ShardReading, Timeout};
use crate::id::{Epoch, LimitId, Ordinal, PoolId, Position, ReplicaId, ScheduleId, TaskId, TypeId};
use crate::limit::LimitSettings;
use crate::ran::Ran;
use crate::resources::PoolResources;
use crate::scaling::signal::Reading;
use crate::scaling::usage::ReplicaReading;
use crate::schedule::{PassedOver, ScheduleSettings};
use crate::task::{Ask, Dependency, Failure, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts, TypeSettings};
use crate::time::{Micros, Timestamp};
use crate::worker::WorkerFacts;

/// Declares the fields that are not the same for every event.
macro_rules! fields {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// The fields of an event. `null` is the same as a field that is not there.
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Fields<'a> {
            event: Kind,
            pub(super) position: Position,
            pub(super) recorded_at: Timestamp,
            #[serde(borrow)]
            pub(super) time: Option<Text<'a>>,
            $($name: Option<$type>,)*
        }

        impl Fields<'_> {
            /// The names of the fields that are there.
            fn names(&self) -> impl Iterator<Item = &'static str> {
                [$((stringify!($name), self.$name.is_some()),)*].into_iter().filter_map(|(name, is_there)| is_there.then_some(name))
            }
        }
    };
}

fields! {
    allows: Box<LimitSettings>,
    asked: u32,
    asks: Vec<AskMirror<'a>>,
    attempt: u32,
    because: PassedOver,
    before: u32,
    by: Text<'a>,
    cause: Cause,
    code: u8,
    concurrency: u32,
    count: u64,
    decision: Text<'a>,
    departure: Departure,
    dependency: TaskId,
    details: Bytes<'a>,
    digest: Hex<16>,
    due: Timestamp,
    epoch: Epoch,
    failure: FailureMirror<'a>,
    from: Timestamp,
    key: KeyMirror<'a>,
    last_seen: Timestamp,
    least: u32,
    left: u32,
    limit: LimitId,
    limits: Vec<LimitId>,
    message: Text<'a>,
    missing: u64,
    mode: PoolMode,
    most: u32,
    percent: u8,
    next: u64,
    note: Text<'a>,
    name: Text<'a>,
    of: TaskId,
    outcome: Outcome,
    payload: Bytes<'a>,
    plan: Box<ScheduleSettings>,
    policy: Text<'a>,
    pool: Text<'a>,
    ran: Box<Ran>,
    readings: Vec<Reading>,
    reason: Text<'a>,
    replica: ReplicaId,
    replicas: u32,
    resources: Box<PoolResources>,
    result: Bytes<'a>,
    rules: RuleVersions,
    schedule: ScheduleId,
    seen: Vec<ReplicaReading>,
    settings: Box<TypeSettings>,
    shadow: Text<'a>,
    shards: Vec<ShardReading>,
    signal: u8,
    slot: Timestamp,
    slots: u32,
    stage: Text<'a>,
    task: TaskId,
    task_type: TypeId,
    timeout: Timeout,
    to: Timestamp,
    types: Vec<String>,
    until: Timestamp,
    wait: Micros,
    work: Vec<u64>,
    worker: Box<WorkerFacts>,
    writer: Text<'a>,
}

/// The field of [`Fields`] that has an event's field: the one with its name, or another.
macro_rules! field {
    ($fields:ident, $name:ident) => {
        field!($fields, $name, $name)
    };
    ($fields:ident, $name:ident, $source:ident) => {
        give(&$fields.$source).map_err(|what| Misfit { name: stringify!($source), what })?
    };
}

/// The name in JSON of an event's field.
macro_rules! source {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident, $source:ident) => {
        stringify!($source)
    };
}

/// Lists the events with their fields; `field: other` is one that JSON has under the other name.
macro_rules! events {
    ($($variant:ident { $($name:ident $(: $source:ident)?),* }),* $(,)?) => {
        /// Which event it is.
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(rename_all = "snake_case", remote = "Self")]
        enum Kind {
            $($variant),*
        }

        impl Fields<'_> {
            /// The event, without a look at the fields that it does not have.
            fn chosen(&self) -> Result<Event<'_>, Misfit> {
                match self.event {
                    $(Kind::$variant => Ok(Event::$variant { $($name: field!(self, $name $(, $source)?)),* }),)*
                }
            }

            /// The fields of this kind of event.
            const fn expected(&self) -> &'static [&'static str] {
                match self.event {
                    $(Kind::$variant => &[$(source!($name $(, $source)?)),*],)*
                }
            }
        }

        const _EVERY_EVENT_IS_LISTED_WITH_EVERY_FIELD: fn(&Event<'_>) = |event| match event {
            $(Event::$variant { $($name: _),* } => (),)*
        };
    };
}

events! {
    Opened { epoch, rules, writer },
    TypeDefined { task_type, name, settings, by },
    Requested { task_type, payload, key, asks },
    Deduplicated { task_type, key, digest, of },
    Succeeded { task, attempt, outcome, result },
    Failed { task, attempt, failure },
    SlotReleased { task, attempt, replica },
    Checkpointed { task, attempt, details },
    HeartbeatMissed { task, attempt, last_seen },
    CancelRequested { task, by, reason },
    KillRequested { task, by, reason },
    // The task of a redrive is the one that it creates.
    Redriven { task: of, by, reason },
    ReplicaJoined { replica, pool, slots },
    ReplicaDraining { replica },
    ReplicaLeft { replica, departure },
    PoolDefined { pool, name, replicas, slots, by, reason },
    ReplicaReady { replica },
    ReplicaStopped { replica, departure },
    ClockStepped { from, to },
    LossAccepted { missing, by, reason },
    Started { task, attempt, replica },
    Ready { task },
    TimedOut { task, attempt, timeout },
    RetryScheduled { task, due },
    Lost { task, attempt, departure },
    Ended { task, outcome, cause },
    DeadLettered { task, cause },
    DeadLetterDropped { task },
    ReplicaRequested { replica, pool },
    DrainRequested { replica },
    SourceMoved { next },
    RequestRefused { reason },
    ShardsObserved { shards },
    LimitDefined { limit, name, allows, by },
    TypeLimited { task_type, limits, by },
    Progressed { task, attempt, percent, stage, message },
    Limited { task, limit },
    Admitted { task },
    ScheduleDefined { schedule, name, plan, by },
    ScheduleRemoved { schedule, by },
    SchedulePaused { schedule, by, reason },
    ScheduleResumed { schedule, by, reason },
    Fired { schedule, slot, task },
    Triggered { schedule, slot, task, by, reason },
    SlotsPassed { schedule, from, to, count, because },
    PoolModeSet { pool, name, mode, by, reason },
    DependencyMet { task, dependency, left },
    TypesServed { types },
    WorkerJoined { replica, pool, slots, worker },
    WorkAsked { replica, slots },
    WorkerMissed { replica, last_seen },
    AttemptReturned { task, attempt },
    ProcessExited { replica, code, signal, note, wait },
    ConcurrencyChanged { replica, before, concurrency, reason },
    PolicySet { pool, policy, least, most, by, reason },
    PoolObserved { pool, readings, work, asked, seen },
    PoolScaled { pool, replicas, decision, shadow },
    ShadowSet { pool, shadow, policy, by, reason },
    SizeHeld { pool, replicas, until, by, reason },
    PoolResourcesSet { pool, resources, by, reason },
    AttemptRan { task, attempt, ran },
}

/// What the message of an unknown event begins with.
pub(super) const UNKNOWN: &str = "there is no event ";

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let name = Text::deserialize(from)?;
        let known: Result<Kind, de::value::Error> = Kind::deserialize(de::value::StrDeserializer::new(name.as_str()));
        known.map_err(|_| de::Error::custom(format_args!("{UNKNOWN}{:?}", name.as_str())))
    }
}

/// Why fields are no event.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("field `{name}` {what}")]
pub(super) struct Misfit {
    name: &'static str,
    what: &'static str,
}

impl Fields<'_> {
    /// The event of these fields. A creating event may name the task that it creates beside its own fields.
    ///
    /// # Errors
    /// [`Misfit`] for a field that is missing, and for one that this kind of event does not have.
    pub(super) fn as_event(&self) -> Result<Event<'_>, Misfit> {
        let (event, expected) = (self.chosen()?, self.expected());
        let is_known = |name| expected.contains(&name) || (event.creates_task() && name == "task");
        match self.names().find(|name| !is_known(name)) {
            Some(name) => Err(Misfit { name, what: "is unknown to this kind of event" }),
            None => Ok(event),
        }
    }

    /// The tasks that are named, each with the name of its field.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&'static str, TaskId)> {
        [("task", self.task), ("of", self.of), ("dependency", self.dependency)]
            .into_iter()
            .filter_map(|(name, task)| Some((name, task?)))
    }
}

/// How the value of a field becomes that of an event.
trait Gives<'s, T> {
    /// `None` where it is none.
    fn give(&'s self) -> Option<T>;

    /// What a field that is not there stands for.
    fn absent() -> Option<T> {
        None
    }
}

fn give<'s, F: Gives<'s, T>, T>(field: &'s Option<F>) -> Result<T, &'static str> {
    match field {
        Some(field) => field.give().ok_or("is of another kind"),
        None => F::absent().ok_or("is missing"),
    }
}

/// Values that are the same in JSON and in an event.
macro_rules! same {
    ($($type:ty),*) => { $(impl Gives<'_, $type> for $type {
        fn give(&self) -> Option<$type> {
            Some(self.clone())
        }
    })* };
}

same!(
    u32,
    u64,
    Vec<u64>,
    Vec<ShardReading>,
    Vec<ReplicaReading>,
    Box<PoolResources>,
    Timestamp,
    Outcome,
    Timeout,
    Cause,
    Departure,
    RuleVersions,
    Box<TypeSettings>,
    Box<LimitSettings>,
    Box<ScheduleSettings>,
    PassedOver,
    PoolMode,
    ScheduleId,
    LimitId,
    Vec<LimitId>,
    Vec<String>,
    Box<WorkerFacts>,
    Box<Ran>,
    Epoch,
    Micros,
    Vec<Reading>,
    ReplicaId,
    TypeId
);

/// What may be unknown is left out.
impl Gives<'_, Option<u8>> for u8 {
    fn give(&self) -> Option<Option<u8>> {
        Some(Some(*self))
    }

    fn absent() -> Option<Option<u8>> {
        Some(None)
    }
}

impl Gives<'_, Option<u32>> for u32 {
    fn give(&self) -> Option<Option<u32>> {
        Some(Some(*self))
    }

    fn absent() -> Option<Option<u32>> {
        Some(None)
    }
}

impl<'s> Gives<'s, Option<Cow<'s, str>>> for Text<'_> {
    fn give(&'s self) -> Option<Option<Cow<'s, str>>> {
        Some(Some(Cow::Borrowed(self.as_str())))
    }

    fn absent() -> Option<Option<Cow<'s, str>>> {
        Some(None)
    }
}

impl Gives<'_, Ordinal> for TaskId {
    fn give(&self) -> Option<Ordinal> {
        Some(self.ordinal)
    }
}

impl Gives<'_, Digest> for Hex<16> {
    fn give(&self) -> Option<Digest> {
        Some(Digest(self.0))
    }
}

impl<'s> Gives<'s, &'s str> for Text<'_> {
    fn give(&'s self) -> Option<&'s str> {
        Some(self.as_str())
    }
}

impl<'s> Gives<'s, Cow<'s, str>> for Text<'_> {
    fn give(&'s self) -> Option<Cow<'s, str>> {
        Some(Cow::Borrowed(self.as_str()))
    }
}

/// Some events name a pool, others have its id.
impl Gives<'_, PoolId> for Text<'_> {
    fn give(&self) -> Option<PoolId> {
        self.as_str().parse().ok()
    }
}

impl<'s> Gives<'s, &'s [u8]> for Bytes<'_> {
    fn give(&'s self) -> Option<&'s [u8]> {
        Some(self.as_slice())
    }
}

/// As [`Failure`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureMirror<'a> {
    #[serde(borrow)]
    class: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    retryable: bool,
    delay: Option<Micros>,
}

impl<'s> Gives<'s, Failure<'s>> for FailureMirror<'_> {
    fn give(&'s self) -> Option<Failure<'s>> {
        let FailureMirror { class, message, retryable, delay } = self;
        Some(Failure { class: class.as_str(), message: message.as_str(), retryable: *retryable, delay: *delay })
    }
}

/// An idempotency key, or the key alone: a repeated request has no window.
#[derive(Debug)]
enum KeyMirror<'a> {
    Alone(Text<'a>),
    WithWindow(KeyWithWindow<'a>),
}

/// As [`IdempotencyKey`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyWithWindow<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    window: Option<Micros>,
}

impl<'de: 'a, 'a> Deserialize<'de> for KeyMirror<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text_or_object(from, "a key or an object", KeyMirror::Alone, KeyMirror::WithWindow)
    }
}

impl<'s> Gives<'s, &'s str> for KeyMirror<'_> {
    fn give(&'s self) -> Option<&'s str> {
        if let KeyMirror::Alone(key) = self { Some(key.as_str()) } else { None }
    }
}

impl<'s> Gives<'s, Option<IdempotencyKey<'s>>> for KeyMirror<'_> {
    fn give(&'s self) -> Option<Option<IdempotencyKey<'s>>> {
        match self {
            KeyMirror::WithWindow(KeyWithWindow { key, window }) => {
                Some(Some(IdempotencyKey { key: key.as_str(), window: *window }))
            }
            KeyMirror::Alone(_) => None,
        }
    }

    fn absent() -> Option<Option<IdempotencyKey<'s>>> {
        Some(None)
    }
}

/// Lists what a request may ask for.
macro_rules! asks {
    ($($variant:ident($($value:ident: $type:ty),*)),* $(,)?) => {
        /// As [`Ask`].
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case", bound(deserialize = "'de: 'a"))]
        enum AskMirror<'a> {
            $($variant($($type),*),)*
        }

        impl AskMirror<'_> {
            fn as_ask(&self) -> Option<Ask<'_>> {
                match self {
                    $(AskMirror::$variant($($value),*) => Some(Ask::$variant($($value.give()?),*)),)*
                }
            }
        }

        const _EVERY_ASK_IS_LISTED: fn(&Ask<'_>) = |ask| match ask {
            $(Ask::$variant(..) => (),)*
        };
    };
}

asks! {
    Priority(priority: u8),
    NotBefore(at: Timestamp),
    Retry(policy: RetryPolicy),
    Timeouts(timeouts: Timeouts),
    ContentType(name: Text<'a>),
    TraceParent(context: Text<'a>),
    Label(name: Text<'a>, value: Text<'a>),
    ReplyTo(topic: Text<'a>),
    CorrelationId(id: Text<'a>),
    After(dependency: DependencyMirror<'a>),
    OnFailure(policy: OnFailure),
    FiredBy(schedule: ScheduleId),
}

same!(u8, RetryPolicy, Timeouts, OnFailure);

/// As [`Dependency`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, bound(deserialize = "'de: 'a"))]
enum DependencyMirror<'a> {
    Task(Ordinal),
    Ended(Ordinal, Outcome),
    Key(Option<Text<'a>>, Text<'a>),
}

impl<'s> Gives<'s, Dependency<'s>> for DependencyMirror<'_> {
    fn give(&'s self) -> Option<Dependency<'s>> {
        Some(match self {
            DependencyMirror::Task(task) => Dependency::Task(*task),
            DependencyMirror::Ended(task, outcome) => Dependency::Ended(*task, *outcome),
            DependencyMirror::Key(task_type, key) => Dependency::Key(task_type.as_ref().map(Text::as_str), key.as_str()),
        })
    }
}

impl<'s> Gives<'s, Vec<Ask<'s>>> for Vec<AskMirror<'_>> {
    fn give(&'s self) -> Option<Vec<Ask<'s>>> {
        self.iter().map(AskMirror::as_ask).collect()
    }
}
