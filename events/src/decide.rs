//! The rules: what a command leads to in a state, or why the answer is no. Every function here reads and none changes anything.

use crate::command::{Command, Rejection};
use crate::dependency;
use crate::event::{Cause, Digest, Event, PoolMode, RuleVersions, Timeout};
use crate::firing;
use crate::id::{Epoch, LimitId, Ordinal, PoolId, ReplicaId, TypeId};
use crate::leases;
use crate::limit::{LIMITS_MAX, LimitSettings, TYPE_LIMITS_MAX};
use crate::ran;
use crate::retry;
use crate::sizing;
use crate::slab::{Phase, Task};
use crate::state::control::{Control, ReplicaPhase};
use crate::state::keys::{IDEMPOTENCY_KEYS_MAX, KeyTable};
use crate::state::replicas::SLOTS_MAX;
use crate::state::{State, Work};
use crate::task::{
    ASKS_MAX, Ask, CHECKPOINT_BYTES_MAX, Failure, IdempotencyKey, MESSAGE_BYTES_MAX, Outcome, PAYLOAD_BYTES_MAX, PRIORITY_MAX,
    RetryPolicy, TEXT_BYTES_MAX, TypeSettings,
};
use crate::time::{Micros, Timestamp};

/// Most live tasks of a shard; at 150 bytes and a small payload each this is a few gigabytes.
pub const TASKS_MAX: usize = 16 << 20;
/// Most payload bytes of the live tasks of a shard: they are kept in memory, and a state that does not fit would not fit at the next start either.
pub const PAYLOADS_BYTES_MAX: u64 = 4 << 30;
/// Most definitions of task types in the life of a log.
pub const TYPES_MAX: usize = 4_096;
/// Most pools with a size.
pub const POOLS_MAX: usize = 1_024;
/// Most pools that a shard hears of: those with a size, and those that only types name. Beyond it a replica joins none that is new.
const NAMED_POOLS_MAX: usize = TYPES_MAX + POOLS_MAX;
/// Most replicas of one pool.
pub const REPLICAS_MAX: u32 = 10_000;
/// Most dead letters kept; the oldest goes first.
pub const DEAD_LETTERS_MAX: usize = 10_000;
/// Most payload bytes kept in dead letters; the oldest goes first.
pub const DEAD_LETTER_BYTES_MAX: usize = 256 << 20;
/// When a full table is worth another try.
const RETRY_AFTER: Micros = Micros::from_secs(1);

/// Appends to `out` what `command` leads to: the input first, then what follows from it by rule. A repeated command appends nothing.
///
/// # Errors
/// A [`Rejection`] that says why the answer is no; then nothing was appended.
pub fn decide<'a>(state: &State, command: &Command<'a>, at: Timestamp, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    match *command {
        Command::Open { rules, writer } => open(state, rules, writer, out),
        Command::DefineType { name, settings, by } => define_type(&state.work, name, settings, by, out),
        Command::Request { task_type, payload, key, asks } => request(&state.work, task_type, payload, key, asks, at, out),
        Command::Succeed { task, attempt, outcome, result } => succeed(&state.work, task, attempt, outcome, result, out),
        Command::Fail { task, attempt, failure } => fail(state, task, attempt, failure, at, out),
        Command::ReleaseSlot { task, attempt, replica } => release_slot(&state.work, task, attempt, replica, out),
        Command::Checkpoint { task, attempt, details } => checkpoint(&state.work, task, attempt, details, out),
        Command::MissHeartbeat { task, attempt, last_seen } => miss_heartbeat(state, task, attempt, last_seen, at, out),
        Command::Cancel { task, by, reason } => cancel(&state.work, task, by, reason, out),
        Command::Kill { task, by, reason } => kill(&state.work, task, by, reason, out),
        Command::Redrive { task, by, reason } => redrive(&state.work, task, by, reason, out),
        Command::JoinReplica { replica, pool, slots } => join_replica(&state.work, replica, pool, slots, out),
        Command::DrainReplica { replica } => drain_replica(&state.work, replica, out),
        Command::LeaveReplica { replica, departure } => {
            known(state.work.replicas.get(replica).is_some(), replica)?;
            out.push(Event::ReplicaLeft { replica, departure });
            Ok(())
        }
        Command::DefinePool { pool, replicas, slots, by, reason } => define_pool(state, pool, (replicas, slots), by, reason, out),
        Command::ReadyReplica { replica } => ready_replica(&state.control, replica, out),
        Command::StopReplica { replica, departure } => {
            known(state.control.replicas.contains_key(&replica), replica)?;
            out.push(Event::ReplicaStopped { replica, departure });
            Ok(())
        }
        Command::StepClock { from, to } => {
            out.push(Event::ClockStepped { from, to });
            Ok(())
        }
        Command::AcceptLoss { missing, by, reason } => {
            texts(&[("the name of who did it", by), ("the reason", reason)])?;
            out.push(Event::LossAccepted { missing, by, reason });
            Ok(())
        }
        Command::MoveSource { from, next } => move_source(&state.work, from, next, out),
        Command::TakeRecord { offset, task_type, payload, key, asks } => {
            next_record(&state.work, Some(offset))?;
            take_record(request(&state.work, task_type, payload, key, asks, at, out), out)
        }
        Command::RefuseRecord { offset, reason } => {
            next_record(&state.work, offset)?;
            within("the reason", reason.len(), MESSAGE_BYTES_MAX)?;
            out.push(Event::RequestRefused { reason: reason.into() });
            Ok(())
        }
        Command::ObserveShards { shards } => {
            within("the list of shards", shards.len(), usize::from(u16::MAX))?;
            out.push(Event::ShardsObserved { shards: shards.to_vec() });
            Ok(())
        }
        Command::DefineLimit { name, allows, by } => define_limit(&state.work, name, allows, by, out),
        Command::LimitType { task_type, ref limits, by } => limit_type(&state.work, task_type, limits, by, out),
        Command::Progress { task, attempt, percent, stage, message } => {
            progress(&state.work, task, attempt, (percent, stage, message), out)
        }
        Command::Ran { task, attempt, ran } => ran::record(&state.work, task, attempt, ran, out),
        Command::DefineSchedule { name, plan, by } => firing::define(state, name, plan, by, out),
        Command::RemoveSchedule { schedule, by } => firing::remove(state, schedule, by, out),
        Command::PauseSchedule { schedule, by, reason } => firing::pause(state, schedule, by, reason, out),
        Command::ResumeSchedule { schedule, by, reason } => firing::resume(state, schedule, by, reason, out),
        Command::Fire { schedule, after, slot, firing } => firing::fire(state, schedule, (after, slot), firing, at, out),
        Command::Trigger { schedule, slot, firing, by, reason } => {
            firing::trigger(state, schedule, slot, firing, (by, reason), at, out)
        }
        Command::PassOver { schedule, after, passed } => firing::pass_over(state, schedule, after, passed, out),
        Command::SetPoolMode { pool, mode, by, reason } => set_pool_mode(&state.control, pool, mode, (by, reason), out),
        Command::ServeTypes { types } => leases::serve_types(&state.work, types, out),
        Command::JoinWorker { replica, pool, slots, worker } => leases::join(&state.work, replica, (pool, slots), worker, out),
        Command::AskWork { replica, slots } => leases::ask(&state.work, replica, slots, out),
        Command::MissWorker { replica, last_seen } => leases::miss(&state.work, replica, last_seen, at, out),
        Command::ReturnAttempt { task, attempt } => leases::give_back(state, task, attempt, out),
        Command::ExitProcess { replica, code, signal, note, wait } => {
            known(state.control.replicas.contains_key(&replica), replica)?;
            within("the note", note.len(), MESSAGE_BYTES_MAX)?;
            out.push(Event::ProcessExited { replica, code, signal, note, wait });
            Ok(())
        }
        Command::SetPolicy { pool, policy, least, most, by, reason } => {
            sizing::set_policy(&state.control, pool, policy, (least, most), (by, reason), out)
        }
        Command::ObservePool { pool, readings, work, asked, seen } => {
            sizing::observe(&state.control, pool, sizing::Seen { asked, readings, work, replicas: seen }, at, out)
        }
        Command::SetShadow { pool, shadow, policy, by, reason } => {
            sizing::set_shadow(&state.control, pool, (shadow, policy), (by, reason), out)
        }
        Command::HoldSize { pool, replicas, until, by, reason } => {
            sizing::hold(&state.control, pool, (replicas, until), (by, reason), at, out)
        }
        Command::SetResources { pool, resources, by, reason } => {
            sizing::set_resources(&state.control, pool, resources, (by, reason), out)
        }
        Command::ChangeConcurrency { replica, before, concurrency, reason } => {
            leases::change_concurrency(&state.work, replica, (before, concurrency), reason, out)
        }
    }
}

/// What follows when an attempt did not do its work: another attempt, or the end (task rule version 1).
pub(crate) fn after_failure<'a>(
    state: &State,
    ordinal: Ordinal,
    task: &Task,
    retryable: bool,
    asked_delay: Option<Micros>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) {
    if task.phase == Phase::Cancelling {
        out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
        return;
    }
    if !retryable {
        end_failed(&state.work, ordinal, task, Cause::NotRetryable, out);
        return;
    }
    match delay(state.rules, state.work.retry_policy(task), ordinal, task.failures.saturating_add(1)) {
        Some(delay) => out.push(Event::RetryScheduled { task: ordinal, due: at.after(asked_delay.unwrap_or(delay)) }),
        None => end_failed(&state.work, ordinal, task, Cause::AttemptsExhausted, out),
    }
}

/// The delay by the retry rule that the log names.
fn delay(rules: RuleVersions, policy: &RetryPolicy, task: Ordinal, failures: u32) -> Option<Micros> {
    // One version so far; a changed rule becomes a second arm and the first one stays as it is.
    if rules.retry == 1 { retry::delay_v1(policy, task, failures) } else { None }
}

/// Ends a task that failed for good, as a dead letter if its type keeps them; older dead letters make room.
pub(crate) fn end_failed<'a>(work: &Work, ordinal: Ordinal, task: &Task, cause: Cause, out: &mut Vec<Event<'a>>) {
    if !work.settings(task).dead_letter {
        out.push(Event::Ended { task: ordinal, outcome: Outcome::Failed, cause });
        return;
    }
    out.push(Event::DeadLettered { task: ordinal, cause });
    let mut count = work.dead.len() + 1;
    let mut bytes = work.dead_bytes + work.tasks.payload(ordinal).map_or(0, <[u8]>::len);
    for (oldest, letter) in &work.dead {
        if count <= DEAD_LETTERS_MAX && bytes <= DEAD_LETTER_BYTES_MAX {
            break;
        }
        out.push(Event::DeadLetterDropped { task: *oldest });
        count -= 1;
        bytes -= letter.payload.len();
    }
}

fn open<'a>(state: &State, rules: RuleVersions, writer: &'a str, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    texts(&[("the writer's version", writer)])?;
    if !rules.are_known() || !state.rules.are_known() {
        return Err(Rejection::UnknownRules);
    }
    out.push(Event::Opened { epoch: Epoch(state.epoch.0.saturating_add(1)), rules, writer });
    Ok(())
}

/// Records are answered once and in order.
fn next_record(work: &Work, offset: Option<u64>) -> Result<(), Rejection> {
    let next = work.source_next;
    offset.filter(|offset| *offset != next).map_or(Ok(()), |offset| Err(Rejection::NotNext { offset, next }))
}

fn move_source(work: &Work, from: Option<u64>, next: u64, out: &mut Vec<Event<'_>>) -> Result<(), Rejection> {
    next_record(work, from)?;
    if next < work.source_next {
        return Err(Rejection::NotNext { offset: next, next: work.source_next });
    }
    if next > work.source_next {
        out.push(Event::SourceMoved { next });
    }
    Ok(())
}

/// Whoever wrote a record gets no answer but the log: what will never be taken is refused there, what may be taken later has to wait.
fn take_record(answer: Result<(), Rejection>, out: &mut Vec<Event<'_>>) -> Result<(), Rejection> {
    match answer {
        Err(rejection) if !rejection.is_busy() && !rejection.wants_an_end() => {
            out.push(Event::RequestRefused { reason: rejection.to_string().into() });
            Ok(())
        }
        answer => answer,
    }
}

fn define_type<'a>(
    work: &Work,
    name: &'a str,
    settings: &TypeSettings,
    by: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the task type's name", name), ("the pool's name", &settings.pool), ("the name of who did it", by)])?;
    check_settings(name, settings)?;
    let newest = work.type_names.get(name).map(|id| &work.types[usize::from(id.0)]);
    if newest.is_some_and(|known| *known.settings == *settings) {
        return Ok(());
    }
    let task_type = TypeId(u16::try_from(work.types.len()).expect("TYPES_MAX is below 65,536"));
    if work.types.len() >= TYPES_MAX {
        return Err(Rejection::OutOfRange {
            what: "the number of task type definitions",
            rule: "at most 4096 in the life of a log",
        });
    }
    out.push(Event::TypeDefined { task_type, name, settings: Box::new(settings.clone()), by });
    Ok(())
}

fn define_limit<'a>(
    work: &Work,
    name: &'a str,
    allows: &LimitSettings,
    by: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let key = allows.key.as_deref().unwrap_or("label");
    texts(&[("the limit's name", name), ("the limit's key", key), ("the name of who did it", by)])?;
    if name.is_empty() || key.is_empty() || !allows.is_possible() {
        let rule = "a name; a concurrency, rate or number of ready tasks of at least 1; a rate over at most a day";
        return Err(Rejection::OutOfRange { what: "the limit", rule });
    }
    let limit = match work.flow.named(name) {
        Some((_, known)) if known.allows == *allows => return Ok(()),
        Some((limit, _)) => limit,
        None if work.flow.limits.len() >= LIMITS_MAX => {
            return Err(Rejection::OutOfRange { what: "the number of limits", rule: "at most 1024 in the life of a log" });
        }
        None => LimitId(u16::try_from(work.flow.limits.len()).expect("LIMITS_MAX is below 65,536")),
    };
    out.push(Event::LimitDefined { limit, name, allows: Box::new(allows.clone()), by });
    Ok(())
}

fn limit_type<'a>(
    work: &Work,
    task_type: TypeId,
    limits: &[LimitId],
    by: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by)])?;
    if usize::from(task_type.0) >= work.types.len() {
        return Err(Rejection::UnknownType(task_type));
    }
    if let Some(unknown) = limits.iter().find(|limit| usize::from(limit.0) >= work.flow.limits.len()) {
        return Err(Rejection::UnknownLimit(*unknown));
    }
    let is_repeated = (1..limits.len()).any(|index| limits[..index].contains(&limits[index]));
    if limits.len() > TYPE_LIMITS_MAX || is_repeated {
        return Err(Rejection::OutOfRange { what: "the limits of a task type", rule: "at most 4, each once" });
    }
    let known = work.flow.types.get(&task_type).map_or(&[][..], |known| &**known);
    if known != limits {
        out.push(Event::TypeLimited { task_type, limits: limits.to_vec(), by });
    }
    Ok(())
}

fn progress<'a>(
    work: &Work,
    task: Ordinal,
    attempt: u32,
    (percent, stage, message): (Option<u8>, &'a str, &'a str),
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the stage", stage)])?;
    within("the message of the progress", message.len(), MESSAGE_BYTES_MAX)?;
    if percent.is_some_and(|percent| percent > 100) {
        return Err(Rejection::OutOfRange { what: "the progress", rule: "0 to 100 percent" });
    }
    current(work, task, attempt)?;
    out.push(Event::Progressed { task, attempt, percent, stage, message });
    Ok(())
}

fn check_settings(name: &str, settings: &TypeSettings) -> Result<(), Rejection> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Rejection::OutOfRange { what: "the task type's name", rule: "1 to 256 bytes without control characters" });
    }
    if settings.pool.is_empty() {
        return Err(Rejection::OutOfRange { what: "the pool's name", rule: "at least one byte" });
    }
    if settings.non_retryable.len() > ASKS_MAX || settings.non_retryable.iter().any(|class| class.len() > TEXT_BYTES_MAX) {
        return Err(Rejection::OutOfRange { what: "the list of failure classes", rule: "at most 16 of at most 256 bytes" });
    }
    priority(settings.priority)?;
    check_policy(&settings.retry)?;
    check_span("the start-to-close timeout", settings.timeouts.start_to_close)
}

fn priority(priority: u8) -> Result<(), Rejection> {
    if priority <= PRIORITY_MAX { Ok(()) } else { Err(Rejection::OutOfRange { what: "the priority", rule: "0 to 9" }) }
}

fn check_policy(policy: &RetryPolicy) -> Result<(), Rejection> {
    let in_range = policy.attempts >= 1 && policy.coefficient_milli >= 1_000 && policy.jitter_milli <= 1_000;
    let rule = "at least 1 attempt, a coefficient of at least 1, a jitter of at most 1";
    if in_range { Ok(()) } else { Err(Rejection::OutOfRange { what: "the retry policy", rule }) }
}

fn check_span(what: &'static str, span: Micros) -> Result<(), Rejection> {
    if span.0 > 0 { Ok(()) } else { Err(Rejection::OutOfRange { what, rule: "longer than zero" }) }
}

fn check_ask(ask: &Ask<'_>) -> Result<(), Rejection> {
    match *ask {
        Ask::Priority(value) => priority(value),
        Ask::Retry(ref policy) => check_policy(policy),
        Ask::Timeouts(ref timeouts) => check_span("the start-to-close timeout", timeouts.start_to_close),
        Ask::ContentType(text) | Ask::TraceParent(text) | Ask::ReplyTo(text) | Ask::CorrelationId(text) => {
            texts(&[("a setting of the request", text)])
        }
        Ask::Label(name, value) => texts(&[("a label's name", name), ("a label's value", value)]),
        Ask::NotBefore(_) | Ask::After(_) | Ask::OnFailure(_) | Ask::FiredBy(_) => Ok(()),
    }
}

pub(crate) fn request<'a>(
    work: &Work,
    task_type: TypeId,
    payload: &'a [u8],
    key: Option<IdempotencyKey<'a>>,
    asks: &[Ask<'a>],
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let Some(definition) = work.types.get(usize::from(task_type.0)) else {
        return Err(Rejection::UnknownType(task_type));
    };
    within("the payload", payload.len(), PAYLOAD_BYTES_MAX)?;
    let named = asks.iter().filter(|ask| matches!(ask, Ask::After(_))).count();
    let fired = asks.iter().filter(|ask| matches!(ask, Ask::FiredBy(_))).count();
    within("the list of settings", asks.len() - named - fired, ASKS_MAX)?;
    asks.iter().try_for_each(check_ask)?;
    if let Some(IdempotencyKey { key, .. }) = key {
        texts(&[("the idempotency key", key)])?;
        let hash = KeyTable::hash(&definition.name, key);
        if let Some(entry) = work.keys.get(hash, at) {
            let digest = Digest::of(payload);
            if entry.digest != digest {
                return Err(Rejection::KeyConflict { of: entry.task });
            }
            out.push(Event::Deduplicated { task_type, key, digest, of: entry.task });
            return Ok(());
        }
        if !work.keys.has_room(at) {
            return Err(Rejection::KeysFull { max: IDEMPOTENCY_KEYS_MAX, retry_after: RETRY_AFTER });
        }
    }
    room_for(work, payload.len())?;
    let asks = if named == 0 { asks.to_vec() } else { dependency::resolve(work, &definition.name, asks, at)? };
    out.push(Event::Requested { task_type, payload, key, asks });
    if named > 0
        && let Some(Event::Requested { asks, .. }) = out.last()
    {
        let cancelled = dependency::after_request(work.tasks.next(), asks);
        out.extend(cancelled);
    }
    Ok(())
}

/// The task if `attempt` is its current one and has a slot.
pub(crate) fn current(work: &Work, ordinal: Ordinal, attempt: u32) -> Result<&Task, Rejection> {
    let stale = Rejection::StaleAttempt { task: ordinal, attempt };
    let task =
        live(work, ordinal).map_err(|rejection| if rejection == Rejection::TaskEnded(ordinal) { stale } else { rejection })?;
    let is_current = attempt == task.attempt || crate::planted::is(crate::planted::Bug::SkippedFence);
    if is_current && task.has_slot() { Ok(task) } else { Err(stale) }
}

fn live(work: &Work, ordinal: Ordinal) -> Result<&Task, Rejection> {
    match work.tasks.get(ordinal) {
        Some(task) => Ok(task),
        None if ordinal < work.tasks.next() => Err(Rejection::TaskEnded(ordinal)),
        None => Err(Rejection::UnknownTask(ordinal)),
    }
}

/// What a report leads to whose attempt no longer counts: it is refused, and the slot it held is free again.
pub(crate) fn stale<'a>(
    work: &Work,
    task: Ordinal,
    attempt: u32,
    rejection: Rejection,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    match work.holder(task, attempt) {
        Some(replica) => {
            out.push(Event::SlotReleased { task, attempt, replica });
            Ok(())
        }
        None => Err(rejection),
    }
}

fn succeed<'a>(
    work: &Work,
    task: Ordinal,
    attempt: u32,
    outcome: Outcome,
    result: &'a [u8],
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    within("the result", result.len(), PAYLOAD_BYTES_MAX)?;
    if matches!(outcome, Outcome::Failed | Outcome::Cancelled) {
        return Err(Rejection::OutOfRange { what: "the outcome of a success", rule: "SUCCEEDED, PARTIAL or SKIPPED" });
    }
    match current(work, task, attempt) {
        Ok(_) => {
            out.push(Event::Succeeded { task, attempt, outcome, result });
            Ok(())
        }
        Err(rejection) => stale(work, task, attempt, rejection, out),
    }
}

fn fail<'a>(
    state: &State,
    ordinal: Ordinal,
    attempt: u32,
    failure: Failure<'a>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    within("the failure's message", failure.message.len(), MESSAGE_BYTES_MAX)?;
    texts(&[("the failure's class", failure.class)])?;
    let task = match current(&state.work, ordinal, attempt) {
        Ok(task) => task,
        Err(rejection) => return stale(&state.work, ordinal, attempt, rejection, out),
    };
    let settings = state.work.settings(task);
    let retryable = failure.retryable && !settings.non_retryable.iter().any(|class| class == failure.class);
    out.push(Event::Failed { task: ordinal, attempt, failure });
    after_failure(state, ordinal, task, retryable, failure.delay, at, out);
    Ok(())
}

fn release_slot<'a>(
    work: &Work,
    task: Ordinal,
    attempt: u32,
    replica: ReplicaId,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let holds = work.replicas.get(replica).is_some() && work.replicas.held_slot(replica, task, attempt).is_some();
    if !holds {
        return Err(Rejection::StaleAttempt { task, attempt });
    }
    out.push(Event::SlotReleased { task, attempt, replica });
    Ok(())
}

fn checkpoint<'a>(
    work: &Work,
    task: Ordinal,
    attempt: u32,
    details: &'a [u8],
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    within("the checkpoint", details.len(), CHECKPOINT_BYTES_MAX)?;
    // The same details again are the same checkpoint: heartbeats must not fill the log.
    if current(work, task, attempt)?.checkpoint() != Some(details) {
        out.push(Event::Checkpointed { task, attempt, details });
    }
    Ok(())
}

fn miss_heartbeat<'a>(
    state: &State,
    ordinal: Ordinal,
    attempt: u32,
    last_seen: Timestamp,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let task = current(&state.work, ordinal, attempt)?;
    out.push(Event::HeartbeatMissed { task: ordinal, attempt, last_seen });
    out.push(Event::TimedOut { task: ordinal, attempt, timeout: Timeout::Heartbeat });
    after_failure(state, ordinal, task, true, None, at, out);
    Ok(())
}

pub(crate) fn cancel<'a>(
    work: &Work,
    ordinal: Ordinal,
    by: &'a str,
    reason: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    match live(work, ordinal)?.phase {
        Phase::Cancelling => {}
        Phase::Running => out.push(Event::CancelRequested { task: ordinal, by, reason }),
        Phase::Delayed | Phase::Ready | Phase::Backoff | Phase::Limited | Phase::Held => {
            out.push(Event::CancelRequested { task: ordinal, by, reason });
            out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
        }
    }
    Ok(())
}

fn kill<'a>(work: &Work, ordinal: Ordinal, by: &'a str, reason: &'a str, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    live(work, ordinal)?;
    out.push(Event::KillRequested { task: ordinal, by, reason });
    out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Killed });
    Ok(())
}

fn redrive<'a>(work: &Work, task: Ordinal, by: &'a str, reason: &'a str, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    if !work.dead.contains_key(&task) {
        return Err(if task < work.tasks.next() { Rejection::NotDead(task) } else { Rejection::UnknownTask(task) });
    }
    room_for(work, work.dead.get(&task).map_or(0, |letter| letter.payload.len()))?;
    out.push(Event::Redriven { task, by, reason });
    Ok(())
}

fn join_replica<'a>(
    work: &Work,
    replica: ReplicaId,
    pool: &'a str,
    slots: u32,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    room_for_slots(work, pool, slots)?;
    known(!work.replicas.knows(replica), replica)?;
    out.push(Event::ReplicaJoined { replica, pool, slots });
    Ok(())
}

/// Whether a pool can have another replica with so many slots.
pub(crate) fn room_for_slots(work: &Work, pool: &str, slots: u32) -> Result<(), Rejection> {
    texts(&[("the pool's name", pool)])?;
    if pool.is_empty() {
        return Err(Rejection::OutOfRange { what: "the pool's name", rule: "at least one byte" });
    }
    if slots == 0 || slots > SLOTS_MAX {
        return Err(Rejection::OutOfRange { what: "the number of slots", rule: "1 to 65536" });
    }
    if !work.replicas.have_room(slots) {
        return Err(Rejection::OutOfRange {
            what: "the number of slots in all",
            rule: "at most 1048576 slots on 65536 replicas",
        });
    }
    if work.pools.len() >= NAMED_POOLS_MAX && work.pools.iter().all(|known| known.name != pool) {
        return Err(Rejection::OutOfRange { what: "the number of pools", rule: "at most 5120 that types and replicas name" });
    }
    Ok(())
}

fn drain_replica<'a>(work: &Work, replica: ReplicaId, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    match work.replicas.get(replica) {
        Some(known) if known.draining => Ok(()),
        Some(_) => {
            out.push(Event::ReplicaDraining { replica });
            Ok(())
        }
        None => Err(Rejection::WrongReplica(replica)),
    }
}

/// A replica that is up. One that is no longer wanted does not count again, or another would be sent away in its place.
fn ready_replica<'a>(control: &Control, replica: ReplicaId, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    match control.replicas.get(&replica).map(|life| life.phase) {
        Some(ReplicaPhase::Requested) => {
            out.push(Event::ReplicaReady { replica });
            Ok(())
        }
        Some(ReplicaPhase::Ready) => Ok(()),
        Some(ReplicaPhase::Draining) | None => Err(Rejection::WrongReplica(replica)),
    }
}

fn define_pool<'a>(
    state: &State,
    name: &'a str,
    (replicas, slots): (u32, u32),
    by: &'a str,
    reason: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the pool's name", name), ("the name of who did it", by), ("the reason", reason)])?;
    if name.is_empty() || slots == 0 || slots > SLOTS_MAX || replicas > REPLICAS_MAX {
        return Err(Rejection::OutOfRange { what: "the pool", rule: "a name, 1 to 65536 slots, at most 10000 replicas" });
    }
    let pool = match state.control.pool(name) {
        Some((_, size)) if (size.replicas, size.slots) == (replicas, slots) => return Ok(()),
        Some((pool, _)) => pool,
        None if state.control.pools.len() >= POOLS_MAX => {
            return Err(Rejection::OutOfRange { what: "the number of pools", rule: "at most 1024" });
        }
        None => PoolId(u16::try_from(state.control.pools.len()).expect("POOLS_MAX is below 65,536")),
    };
    // The policy's floor has to fit as well: more slots each are fewer replicas.
    let floor = state.control.scaling.get(&pool).map_or(0, |scaling| scaling.bounds.min);
    sizing::fits(state.control.resources.get(&pool).map(|known| &known.resources), slots, replicas.max(floor))?;
    out.push(Event::PoolDefined { pool, name, replicas, slots, by, reason });
    Ok(())
}

fn set_pool_mode<'a>(
    control: &Control,
    name: &'a str,
    mode: PoolMode,
    (by, reason): (&'a str, &'a str),
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    let (pool, _) = control.pool(name).ok_or(Rejection::UnknownPool)?;
    if control.mode(pool) != mode {
        out.push(Event::PoolModeSet { pool, name, mode, by, reason });
    }
    Ok(())
}

/// Whether another task with so many payload bytes can be taken.
fn room_for(work: &Work, payload: usize) -> Result<(), Rejection> {
    if work.tasks.len() >= TASKS_MAX {
        return Err(Rejection::TasksFull { max: TASKS_MAX, retry_after: RETRY_AFTER });
    }
    if work.tasks.bytes() + payload as u64 > PAYLOADS_BYTES_MAX {
        return Err(Rejection::PayloadsFull { max: PAYLOADS_BYTES_MAX, retry_after: RETRY_AFTER });
    }
    Ok(())
}

pub(crate) const fn known(condition: bool, replica: ReplicaId) -> Result<(), Rejection> {
    if condition { Ok(()) } else { Err(Rejection::WrongReplica(replica)) }
}

pub(crate) fn within(what: &'static str, bytes: usize, max: usize) -> Result<(), Rejection> {
    if bytes <= max { Ok(()) } else { Err(Rejection::TooLarge { what, bytes, max }) }
}

pub(crate) fn texts(texts: &[(&'static str, &str)]) -> Result<(), Rejection> {
    texts.iter().try_for_each(|(what, text)| within(what, text.len(), TEXT_BYTES_MAX))
}
