//! Why a task waited: the time without a slot, split by what kept it, with the event behind each part and the one setting that would have avoided most.

use std::collections::BTreeMap;

use ergate_events::event::{Event, PoolMode};
use ergate_events::id::{Ordinal, PoolId, Position};
use ergate_events::scaling::decision::{By, LimitKind};
use ergate_events::slab::{Phase, Task};
use ergate_events::state::State;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::state::flow::Passage;
use ergate_events::state::scaling::Scaling;
use ergate_events::time::{Micros, Timestamp};
use serde_json::{Value, json};

use super::fold::Source;
use super::moment::Moment;
use super::record::{self, Record};
use super::{LookError, why};

/// Most parts that are told one by one; what comes after them is in the sums.
const PARTS_MAX: usize = 1_000;
const HOURS_OF_A_DAY: f64 = 24.0;

/// What keeps a task from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A moment that its request or its retry named.
    Planned,
    /// The end of other tasks.
    Dependency,
    /// A limit on the flow.
    Limit,
    /// Its pool starts nothing.
    Paused,
    /// Replicas that were asked for and are not up yet.
    ColdStart,
    /// Processes of its pool that end by themselves, one after the other.
    Failing,
    /// A bound of the policy, without which there would be more replicas.
    Bound,
    /// The tasks before it.
    Queue,
}

impl Kind {
    const ALL: [Kind; 8] =
        [Kind::Planned, Kind::Dependency, Kind::Limit, Kind::Paused, Kind::ColdStart, Kind::Failing, Kind::Bound, Kind::Queue];

    const fn name(self) -> &'static str {
        match self {
            Kind::Planned => "planned",
            Kind::Dependency => "dependency",
            Kind::Limit => "limit",
            Kind::Paused => "paused",
            Kind::ColdStart => "cold_start",
            Kind::Failing => "failing",
            Kind::Bound => "bound",
            Kind::Queue => "queue",
        }
    }
}

/// What keeps a task, and what would not.
#[derive(Clone, Debug, PartialEq)]
struct Cause {
    kind: Kind,
    /// In words, with the event that set it where it is a bound.
    text: String,
    /// The setting that would have avoided it, and what that costs.
    remedy: Option<(String, String)>,
}

/// A part of the time without a slot.
struct Part {
    from: Timestamp,
    cause: Cause,
    /// The event that began it.
    by: (Position, &'static str),
    attempt: u32,
    replicas: u32,
}

/// Processes of pools that ended by themselves since one stood the last time: how many, and what the last one said.
#[derive(Default)]
struct Failures(BTreeMap<PoolId, (u32, String)>);

impl Failures {
    /// Minds an event; `state` still has the replica that it is about.
    fn see(&mut self, state: &State, event: &Event<'_>) {
        let pool = |replica| state.control.replicas.get(&replica).map(|life| life.pool);
        if let Event::ProcessExited { replica, code, signal, note, .. } = *event
            && let Some(pool) = pool(replica)
        {
            let how = match (code, signal) {
                (Some(code), _) => format!("with exit code {code}"),
                (None, Some(signal)) => format!("by signal {signal}"),
                (None, None) => "before it ran".to_owned(),
            };
            let said = if note.is_empty() { String::new() } else { format!(": {note}") };
            let (count, last) = self.0.entry(pool).or_default();
            (*count, *last) = (count.saturating_add(1), format!("{how}{said}"));
        }
        if let Event::ReplicaReady { replica, .. } = *event
            && let Some(pool) = pool(replica)
        {
            self.0.remove(&pool);
        }
    }

    /// What keeps a task of a pool of which none is up.
    fn cause(&self, id: PoolId, pool: &str) -> Option<Cause> {
        let (count, last) = self.0.get(&id)?;
        let text = format!("{count} processes of the pool {pool:?} in a row ended by themselves, the last one {last}");
        Some(Cause { kind: Kind::Failing, text, remedy: None })
    }
}

/// What is found out about one task.
struct Waits {
    task: Ordinal,
    failures: Failures,
    /// Whether it was there already.
    is_known: bool,
    open: Option<Part>,
    parts: Vec<Value>,
    sums: [Micros; Kind::ALL.len()],
    /// The remedy of the longest part of each kind.
    remedies: [Option<(Micros, Value)>; Kind::ALL.len()],
    starts: u32,
    first_at: Option<Timestamp>,
}

/// Why a task waited, as programs see it; `None` where the log has no event of it. `blocks` are those with its events, in order.
///
/// # Errors
/// As [`Source::fold`].
pub fn waits(source: &Source<'_>, blocks: &[Position], task: Ordinal) -> Result<Option<Value>, LookError> {
    let Some(first) = blocks.first() else { return Ok(None) };
    // A block is named by its first event; the one of the task may be a later one of it.
    let at = Moment::Position(*first);
    let mut waits = Waits::of(task);
    let mut state = source.fold_seeing(at, &mut |state, event| waits.failures.see(state, event))?;
    let mut cursor = source.reader.cursor(state.position)?;
    while let Some(block) = cursor.next_block()? {
        for record in record::of(&block) {
            let record: Record<'_> = record?;
            if record.envelope.position < state.position {
                continue;
            }
            waits.failures.see(&state, &record.envelope.event);
            state.apply(&record.envelope);
            waits.see(&state, &record);
        }
        if waits.is_over(&state) {
            break;
        }
    }
    Ok(waits.told(&state))
}

impl Waits {
    fn of(task: Ordinal) -> Waits {
        Waits {
            task,
            failures: Failures::default(),
            is_known: false,
            open: None,
            parts: Vec::new(),
            sums: [Micros(0); Kind::ALL.len()],
            remedies: [const { None }; Kind::ALL.len()],
            starts: 0,
            first_at: None,
        }
    }

    /// Whether nothing more can come of it.
    fn is_over(&self, state: &State) -> bool {
        self.is_known && state.work.tasks.get(self.task).is_none()
    }

    fn see(&mut self, state: &State, record: &Record<'_>) {
        let is_own = record.concerns(self.task);
        if is_own && !self.is_known {
            (self.is_known, self.first_at) = (true, Some(record.envelope.recorded_at));
        }
        // What others do changes nothing for it but what tasks are before it, and that is not told at each moment.
        if !self.is_known || !(is_own || record.task().is_none()) {
            return;
        }
        let task = state.work.tasks.get(self.task);
        self.starts = task.map_or(self.starts, |task| task.attempt);
        let cause = task.and_then(|task| cause(state, &self.failures, self.task, task));
        let (at, by) = (record.envelope.recorded_at, (record.envelope.position, record.envelope.event.name()));
        match (&mut self.open, &cause) {
            (None, None) => return,
            // At the gate nobody has looked yet which limit it is.
            (Some(open), Some(now)) if open.cause.kind == now.kind => {
                if open.cause.remedy.is_none() && now.remedy.is_some() {
                    (open.cause, open.by) = (now.clone(), by);
                }
                return;
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
        self.close(at);
        self.open = cause.map(|cause| Part { from: at, cause, by, attempt: self.starts + 1, replicas: live(state, self.task) });
    }

    fn close(&mut self, at: Timestamp) {
        let Some(part) = self.open.take() else { return };
        let (index, lasted) = (part.cause.kind as usize, at.since(part.from));
        if lasted.0 == 0 {
            // What one batch did and undid kept nobody.
            return;
        }
        self.sums[index] = Micros(self.sums[index].0.saturating_add(lasted.0));
        if let Some((setting, cost)) = &part.cause.remedy
            && self.remedies[index].as_ref().is_none_or(|(longest, _)| lasted > *longest)
        {
            let remedy = json!({ "cause": part.cause.kind.name(), "setting": setting, "cost": cost });
            self.remedies[index] = Some((lasted, remedy));
        }
        if self.parts.len() < PARTS_MAX {
            self.parts.push(json!({
                "attempt": part.attempt, "cause": part.cause.kind.name(), "from": part.from.rfc3339(), "to": at.rfc3339(),
                "waited_us": lasted.0, "because": part.cause.text, "replicas": part.replicas,
                "event": part.by.1, "position": part.by.0.0.to_string(),
            }));
        }
    }

    fn told(mut self, state: &State) -> Option<Value> {
        let first_at = self.first_at?;
        let is_waiting = self.open.is_some();
        // One that still waits has waited until the last that the log knows.
        self.close(state.last_at);
        let sums = Kind::ALL.iter().filter(|kind| self.sums[**kind as usize].0 > 0);
        let sums: serde_json::Map<String, Value> =
            sums.map(|kind| (kind.name().to_owned(), self.sums[*kind as usize].0.into())).collect();
        let total: u64 = self.sums.iter().map(|sum| sum.0).sum();
        let longest = Kind::ALL.into_iter().filter(|kind| self.remedies[*kind as usize].is_some());
        let longest = longest.max_by_key(|kind| self.sums[*kind as usize]);
        // Where processes fail for longer than that, no setting of ours is what helps.
        let failing = self.sums[Kind::Failing as usize];
        let longest = longest.filter(|kind| self.sums[*kind as usize] >= failing);
        let remedy = longest.and_then(|kind| self.remedies[kind as usize].take()).map(|(_, remedy)| remedy);
        Some(json!({
            "requested": first_at.rfc3339(), "starts": self.starts, "waiting": is_waiting, "waited_us": total,
            "by_cause_us": sums, "parts": self.parts, "remedy": remedy,
        }))
    }
}

/// What keeps a task now; nothing where it has a slot.
fn cause(state: &State, failures: &Failures, ordinal: Ordinal, task: &Task) -> Option<Cause> {
    let plain = |kind, text: &str| Some(Cause { kind, text: text.to_owned(), remedy: None });
    match task.phase {
        Phase::Running | Phase::Cancelling => None,
        Phase::Delayed => plain(Kind::Planned, "it was not to start before its time"),
        Phase::Backoff => plain(Kind::Planned, "its retry policy waits before the next attempt"),
        Phase::Held => plain(Kind::Dependency, "tasks that it comes after had not ended"),
        Phase::Limited => Some(limited(state, ordinal)),
        Phase::Ready => Some(ready(state, failures, task)),
    }
}

fn limited(state: &State, ordinal: Ordinal) -> Cause {
    let flow = &state.work.flow;
    let bucket = match flow.passages.get(&ordinal) {
        Some(Passage::Waits(key)) => Some(*key),
        Some(Passage::Gate | Passage::Holds(_)) | None => None,
    };
    let limit = bucket.and_then(|key| flow.limits.get(usize::from(key.limit.0)));
    let Some(limit) = limit else {
        return Cause { kind: Kind::Limit, text: "its limits had not been looked at".to_owned(), remedy: None };
    };
    let value = limit.allows.key.as_deref().map(|key| format!(" for {key} = {:?}", flow.label(ordinal, key))).unwrap_or_default();
    let allows = [
        limit.allows.concurrency.map(|most| format!("concurrency {most}")),
        limit.allows.rate.map(|rate| format!("{} starts each {}", rate.permits, rate.per)),
        limit.allows.ready.map(|most| format!("{most} ready")),
    ];
    let allows: Vec<String> = allows.into_iter().flatten().collect();
    Cause {
        kind: Kind::Limit,
        text: format!("the limit {:?}{value} allows {}", limit.name, allows.join(", ")),
        remedy: Some((
            format!("limit.{}: allow more than {}", limit.name, allows.join(", ")),
            "no replica; what the limit protects gets more at a time".to_owned(),
        )),
    }
}

fn ready(state: &State, failures: &Failures, task: &Task) -> Cause {
    let pool = state.work.settings(task).pool.as_str();
    let Some((id, size)) = state.control.pool(pool) else { return queue(state, task, pool) };
    let mode = state.control.mode(id);
    if mode != PoolMode::Running {
        let text = format!("the pool {pool:?} was {}", mode.name());
        let remedy = (format!("ergate pool resume {pool}"), "nothing but what its tasks do".to_owned());
        return Cause { kind: Kind::Paused, text, remedy: Some(remedy) };
    }
    let lives = state.control.replicas.values().filter(|life| life.pool == id);
    let (mut starting, mut up) = (0_u32, 0_u32);
    for life in lives {
        match life.phase {
            ReplicaPhase::Requested => starting += 1,
            ReplicaPhase::Ready => up += 1,
            ReplicaPhase::Draining => {}
        }
    }
    if up == 0
        && let Some(cause) = failures.cause(id, pool)
    {
        return cause;
    }
    let scaling = state.control.scaling.get(&id);
    if starting > 0 {
        let least = scaling.map_or(size.replicas, |scaling| scaling.bounds.min);
        let more = (up + 1).saturating_sub(least).max(1);
        return Cause {
            kind: Kind::ColdStart,
            text: format!("{starting} replicas of the pool {pool:?} were starting, {up} were up and had no free slot"),
            remedy: Some((
                format!("pool.{pool}.replicas.min = {}", up + 1),
                format!("at most {} replica-hours a day while nothing else needs them", f64::from(more) * HOURS_OF_A_DAY),
            )),
        };
    }
    scaling.and_then(|scaling| bound(state, id, scaling, pool)).unwrap_or_else(|| queue(state, task, pool))
}

/// The bound that keeps a pool from growing.
fn bound(state: &State, id: PoolId, scaling: &Scaling, pool: &str) -> Option<Cause> {
    let decision = &scaling.live.last.as_ref()?.decision;
    let limit = decision.limits.iter().find(|limit| limit.to < limit.from)?;
    let more = limit.from - limit.to;
    let setting = match (limit.kind, limit.by) {
        (LimitKind::Max, _) => format!("pool.{pool}.replicas.max = {}", limit.from),
        (_, By::Ceiling(fit)) => format!("pool.{pool}.ceiling.{} = {}", fit.of.name(), fit.needed(limit.from)),
        (_, By::Hold(_)) => format!("ergate pool release {pool}"),
        (_, By::Pool | By::Policy | By::Rule { .. } | By::Decision(_)) => {
            format!("{} of the policy of the pool {pool:?}", why::named(limit.kind))
        }
    };
    Some(Cause {
        kind: Kind::Bound,
        text: format!(
            "the policy of the pool {pool:?} wanted {}, and {} made it {} ({})",
            limit.from,
            why::named(limit.kind),
            limit.to,
            why::origin(state, id, scaling, limit)
        ),
        remedy: Some((setting, load_of(more))),
    })
}

fn load_of(more: u32) -> String {
    format!("up to {more} replicas more for as long as there is such a load")
}

fn queue(state: &State, task: &Task, pool: &str) -> Cause {
    let known = state.work.pools.iter().find(|known| known.name == pool);
    let ready = known.map_or(0, |known| state.work.ready_count(known));
    let remedy = state.control.pool(pool).filter(|(_, size)| size.slots > 0).map(|(id, size)| {
        let more = u32::try_from(ready.max(1)).unwrap_or(u32::MAX).div_ceil(size.slots);
        let count = size.replicas.saturating_add(more);
        let a_day = format!("at most {} replica-hours a day while nothing else needs them", f64::from(more) * HOURS_OF_A_DAY);
        match state.control.scaling.get(&id) {
            _ if state.control.fit(id).is_some_and(|fit| count > fit.replicas()) => {
                let fit = state.control.fit(id).map(|fit| (fit.of.name(), fit.needed(count))).unwrap_or_default();
                (format!("pool.{pool}.ceiling.{} = {}", fit.0, fit.1), load_of(more))
            }
            None => (format!("pool.{pool}.replicas = {count}"), a_day),
            Some(scaling) if count <= scaling.bounds.max => (format!("pool.{pool}.replicas.min = {count}"), a_day),
            Some(_) => (format!("pool.{pool}.replicas.max = {count}"), load_of(more)),
        }
    });
    let text =
        format!("all slots of the pool {pool:?} were taken; {ready} tasks were ready, this one with priority {}", task.priority);
    Cause { kind: Kind::Queue, text, remedy }
}

/// How many replicas of the pool of a task are up.
fn live(state: &State, task: Ordinal) -> u32 {
    let pool = state.work.tasks.get(task).and_then(|task| state.control.pool(&state.work.settings(task).pool));
    let lives = pool.into_iter().flat_map(|(id, _)| state.control.replicas.values().filter(move |life| life.pool == id));
    u32::try_from(lives.filter(|life| life.phase == ReplicaPhase::Ready).count()).unwrap_or(u32::MAX)
}
