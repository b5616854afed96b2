//! What is sent and answered, as the document describes it. The answers themselves are made where they are given; a test holds them against this.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Declares structs that only describe.
macro_rules! describe {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* })*) => {
        $(#[derive(Serialize, ToSchema)]
        #[allow(dead_code, reason = "it only describes")]
        $(#[$meta])*
        pub(super) struct $name { $($(#[$field_meta])* pub(super) $field: $kind,)* })*
    };
}

describe! {
    /// A task that is wanted.
    #[serde(deny_unknown_fields)]
    TaskRequest {
        /// The name of a task type.
        #[serde(rename = "type")]
        #[schema(example = "noop", max_length = 256)]
        task_type: String,
        /// Any JSON; null where it is not given.
        #[schema(required = false)]
        payload: Value,
        /// A payload that is not JSON, in base64; instead of `payload`.
        #[schema(required = false)]
        payload_base64: Option<String>,
        /// The media type of the payload, where it is not JSON.
        content_type: Option<String>,
        /// The idempotency key: the same key again is the same task.
        #[schema(max_length = 256)]
        key: Option<String>,
        /// How long the key stays valid, such as `1h`.
        key_window: Option<String>,
        /// From 0 to 9; a higher one starts sooner.
        #[schema(maximum = 9)]
        priority: Option<u8>,
        /// Not to be started before, such as `2030-01-31T12:00:00Z`.
        not_before: Option<String>,
        /// The same as a span from now, such as `10s`.
        delay: Option<String>,
        /// Parts of a retry policy; the rest is as the type has it.
        retry: Option<Retry>,
        /// Parts of the timeouts; the rest is as the type has it.
        timeouts: Option<Timeouts>,
        /// Names and values to find the task by.
        labels: Option<BTreeMap<String, String>>,
        /// W3C trace context.
        traceparent: Option<String>,
        /// Where the result is to be sent, on Kafka.
        #[schema(max_length = 256)]
        reply_to: Option<String>,
        /// The requester's own id.
        #[schema(max_length = 256)]
        correlation_id: Option<String>,
        /// Tasks that have to succeed first: their ids, or objects with `key` and, of another type than this one, `type`.
        #[schema(max_items = 64)]
        after: Option<Vec<Value>>,
        /// What becomes of the task when one of those ends without success: `cancel`, which is the default, or `run`.
        on_failure: Option<String>,
    }
    /// Parts of a retry policy.
    #[serde(deny_unknown_fields)]
    Retry {
        /// Attempts in all.
        #[schema(minimum = 1)]
        attempts: Option<u32>,
        /// Delay before the second attempt.
        initial: Option<String>,
        /// Factor from one delay to the next.
        #[schema(minimum = 1, maximum = 1000)]
        coefficient: Option<f64>,
        /// Longest delay.
        max: Option<String>,
    }
    /// Parts of the timeouts, as spans.
    #[serde(deny_unknown_fields)]
    Timeouts {
        /// From becoming ready to being started.
        schedule_to_start: Option<String>,
        /// From the start of one attempt to its end.
        start_to_close: Option<String>,
        /// From the request to the end of the last attempt.
        schedule_to_close: Option<String>,
        /// Between two heartbeats of one attempt.
        heartbeat: Option<String>,
    }
    /// The task that a request made, or that an earlier one with its key had made.
    Submitted {
        /// Its id.
        #[schema(example = "0-42")]
        id: String,
        /// Whether it was there before.
        duplicate: bool,
    }
    /// What became of a stream of requests.
    StreamTaken {
        /// Lines that made a task.
        accepted: u64,
        /// Lines whose task was there before.
        duplicates: u64,
        /// Lines that were refused.
        refused: u64,
        /// The first task.
        first: Option<String>,
        /// The last task.
        last: Option<String>,
        /// The last line that has an answer.
        lines: u64,
        /// The first hundred refusals.
        refusals: Vec<Value>,
    }
    /// A page of tasks, the newest first.
    TaskPage {
        /// The tasks.
        tasks: Vec<TaskRow>,
        /// Where the next page begins; null where this is the last one.
        cursor: Option<String>,
        /// Of a list by label, when the next task ended that is to be looked at, where the page ends before its limit because too much had to be read.
        looked_to: Option<String>,
        /// On Kafka, the shards without a leader at the moment, of which nothing is told.
        missing_shards: Option<Vec<String>>,
    }
    /// A task in a list.
    TaskRow {
        /// Its id.
        task: String,
        /// Its type.
        #[serde(rename = "type")]
        task_type: String,
        /// Its phase, or `ended`, or `dead`.
        state: String,
        /// How it ended.
        outcome: Option<String>,
        /// How often it was started, where that is known.
        starts: Option<u32>,
        /// When a live task was requested, and another ended.
        since: String,
        /// Where a page begins that goes on behind this task.
        cursor: String,
    }
    /// Everything that is known of a task. More members than these are there where they say something.
    Task {
        /// Its id.
        task: String,
        /// Its type.
        #[serde(rename = "type")]
        task_type: Option<String>,
        /// Its phase, or `ended`, or `dead`.
        state: String,
        /// How it ended.
        outcome: Option<String>,
        /// Its starts.
        attempts: Vec<Value>,
        /// How many events are about it.
        events: u64,
    }
    /// The events of a task.
    History {
        /// Its id.
        task: String,
        /// The events, in order.
        events: Vec<Value>,
        /// Where the next page begins; null where this is the last one.
        cursor: Option<String>,
    }
    /// What an attempt tells while it runs; each report is a sign of life.
    #[serde(deny_unknown_fields)]
    Report {
        /// True says only that it lives.
        heartbeat: Option<bool>,
        /// How much is done, from 0 to 100.
        #[schema(maximum = 100)]
        percent: Option<u8>,
        /// What it is at.
        stage: Option<String>,
        /// What a person may want to know.
        message: Option<String>,
        /// What the next attempt is to receive, at most 64 KiB.
        checkpoint: Option<String>,
    }
    /// Why something is asked for.
    #[serde(deny_unknown_fields)]
    Reason {
        /// A sentence for the log.
        #[schema(min_length = 1, max_length = 256)]
        reason: Option<String>,
    }
    /// What was recorded.
    Recorded {
        /// The task.
        task: Option<String>,
        /// Everything before this position is durable, what was asked for included.
        position: u64,
    }
    /// A page of dead letters, the newest first.
    DeadLetterPage {
        /// The dead letters.
        dead_letters: Vec<Value>,
        /// Where the next page begins; null where this is the last one.
        cursor: Option<String>,
        /// How many there are in all.
        total: u64,
        /// On Kafka, the shards without a leader at the moment, of which nothing is told.
        missing_shards: Option<Vec<String>>,
    }
    /// Which dead letters are to be tried again: `ids`, or a filter, or `all`.
    #[serde(deny_unknown_fields)]
    Redrive {
        /// These.
        ids: Option<Vec<String>>,
        /// Those of this type.
        #[serde(rename = "type")]
        task_type: Option<String>,
        /// Those that ended for this cause.
        cause: Option<String>,
        /// Those that ended at this time or later.
        since: Option<String>,
        /// Those that ended before this time.
        until: Option<String>,
        /// All of them.
        all: Option<bool>,
        /// At most so many.
        #[schema(minimum = 1, maximum = 10000)]
        limit: Option<u32>,
        /// Only say which.
        dry_run: Option<bool>,
        /// A sentence for the log.
        #[schema(min_length = 1, max_length = 256)]
        reason: Option<String>,
    }
    /// What was tried again.
    Redriven {
        /// How many dead letters match.
        matching: u64,
        /// The dead letters and the tasks that came of them.
        redriven: Vec<Value>,
        /// Whether nothing was done.
        dry_run: bool,
        /// On Kafka, the shards without a leader at the moment, of which nothing is told.
        missing_shards: Option<Vec<String>>,
    }
    /// All pools.
    Pools {
        /// Every pool.
        pools: Vec<Pool>,
        /// On Kafka, the shards without a leader at the moment, of which nothing is told.
        missing_shards: Option<Vec<String>>,
    }
    /// A pool.
    Pool {
        /// Its name.
        name: String,
        /// Whether it starts tasks: `running`, `paused` or `drained`.
        mode: String,
        /// How many replicas it should have.
        replicas: u32,
        /// Slots of each.
        slots: u32,
        /// Tasks that wait for a slot.
        ready: u64,
        /// Replicas that are up.
        replicas_up: u64,
        /// Slots that are there.
        slots_up: u64,
        /// Attempts that run.
        running: u64,
        /// What one replica asks for, what all of them may have, and how many fit; not there where nothing is said.
        #[schema(required = false)]
        resources: Option<Value>,
        /// What replicas use together that have told this engine lately, and how many those are.
        #[schema(required = false)]
        usage: Option<Value>,
        /// Where a request has held the size of the pool: at how many replicas, until when and why.
        #[schema(required = false)]
        hold: Value,
    }
    /// Why a pool has the size that it has.
    Why {
        /// The pool.
        pool: String,
        /// How many replicas it should have.
        replicas: Option<u32>,
        /// Whether it starts tasks.
        mode: Option<String>,
        /// What one replica asks for, what all of them may have, and how many fit; not there where nothing is said.
        #[schema(required = false)]
        resources: Option<Value>,
        /// The policy as it was set.
        policy: Value,
        /// The fewest replicas.
        min: Option<u32>,
        /// The most.
        max: Option<u32>,
        /// The position of the event that set it.
        set_at: Option<String>,
        /// The last decision: the sentence that explains it, and every number that led to it.
        decision: Option<Value>,
        /// Who holds the size of the pool, at how many replicas, until when and why.
        hold: Option<Value>,
        /// Each shadow with what it would have, and the sentence that says why.
        shadows: Option<Vec<Value>>,
        /// The shadow that is told of, where one was asked for.
        shadow: Option<String>,
        /// Why there are not as many replicas as were asked about.
        not: Option<Value>,
    }
    /// What pools have cost.
    Cost {
        /// From when on.
        since: String,
        /// Until when.
        until: String,
        /// Each pool with `replica_seconds`, `replica_hours` and, where it has a price, `price` of an hour and `cost`.
        pools: Vec<Value>,
    }
    /// Why a task waited.
    WhyTask {
        /// The task.
        task: String,
        /// When it was requested.
        requested: String,
        /// How often it was started.
        starts: u32,
        /// Whether it waits now.
        waiting: bool,
        /// How long it was without a slot in all.
        waited_us: u64,
        /// The same by what kept it: planned, dependency, limit, paused, cold_start, failing, bound, queue.
        by_cause_us: Value,
        /// Each part of it with the event that began it.
        parts: Vec<Value>,
        /// The one setting that would have avoided most of it, and what it costs; null where none would.
        remedy: Option<Value>,
    }
    /// A policy for a pool.
    #[serde(deny_unknown_fields)]
    PolicySetting {
        /// The policy; null takes it away.
        policy: Value,
        /// The fewest replicas; those of before without it.
        min: Option<u32>,
        /// The most; as before without it.
        max: Option<u32>,
        /// A sentence for the log.
        reason: Option<String>,
    }
    /// A policy that decides beside the one of a pool.
    #[serde(deny_unknown_fields)]
    ShadowSetting {
        /// The policy; null takes it away.
        policy: Value,
        /// A sentence for the log.
        reason: Option<String>,
    }
    /// How large a pool should be; what is not given stays.
    #[serde(deny_unknown_fields)]
    PoolSize {
        /// How many replicas.
        #[schema(maximum = 65536)]
        replicas: Option<u32>,
        /// Slots of each.
        #[schema(minimum = 1, maximum = 65536)]
        slots: Option<u32>,
        /// For how long the number of replicas is held, whatever the policy of the pool wants, such as 2h: from a second to 31 days.
        #[serde(rename = "for")]
        span: Option<String>,
        /// A sentence for the log.
        #[schema(min_length = 1, max_length = 256)]
        reason: Option<String>,
    }
    /// All schedules.
    Schedules {
        /// Every schedule.
        schedules: Vec<Schedule>,
        /// On Kafka, shards that nobody leads at the moment, whose schedules are left out.
        missing_shards: Option<Vec<String>>,
    }
    /// A schedule. It has one of `cron`, `every` and `at`.
    Schedule {
        /// Its name.
        name: String,
        /// The cron text of its times.
        cron: Option<String>,
        /// The span between its times.
        every: Option<String>,
        /// Its only time.
        at: Option<String>,
        /// The IANA time zone of the cron text.
        timezone: String,
        /// The type of its tasks.
        task: String,
        /// The payload of its tasks.
        payload: String,
        /// The labels of its tasks.
        labels: Value,
        /// Their priority, where it is not that of their type.
        priority: Option<u8>,
        /// `skip`, `run-once` or `run-all`.
        catch_up: String,
        /// `allow`, `skip` or `cancel-previous`.
        overlap: String,
        /// Since when it fires nothing, who wanted that, and why.
        paused: Option<Value>,
        /// When it is due next.
        next: Option<Firing>,
        /// The slot and the task of its newest firing, and whether that task is live.
        last: Option<Value>,
        /// Firings so far.
        fired: u64,
        /// Slots that were passed over, by reason.
        passed: Value,
    }
    /// A time at which a schedule is due.
    Firing {
        /// In UTC.
        slot: String,
        /// As clocks show it in the schedule's time zone.
        local: String,
    }
    /// The next times of a schedule.
    Firings {
        /// In their order.
        firings: Vec<Firing>,
    }
    /// A firing that somebody wanted.
    Triggered {
        /// The schedule.
        schedule: String,
        /// Its task.
        task: String,
        /// Up to where the log has it.
        position: u64,
    }
    /// A state in numbers. More members than these are there.
    State {
        /// Every event before this position is in it.
        position: u64,
        /// The time of the last of them.
        time: String,
        /// Tasks that have not ended.
        live: u64,
        /// The hash of the whole state.
        digest: String,
    }
    /// How the service is.
    Health {
        /// `alive` or `ready`.
        status: String,
    }
    /// Which build it is.
    Version {
        /// `ergate`.
        name: String,
        /// Its version.
        version: String,
        /// Whether a token is asked for.
        tokens: bool,
    }
    /// What a worker says of itself.
    #[serde(deny_unknown_fields)]
    Registration {
        /// The version of the protocol: 1.
        protocol: u32,
        /// Whose work it does; `default` without it.
        #[schema(max_length = 256)]
        pool: Option<String>,
        /// How many attempts it runs at a time; 1 without it.
        #[schema(minimum = 1, maximum = 65536)]
        slots: Option<u32>,
        /// The task types that it can run; all of its pool without it.
        #[schema(required = false, max_items = 1024)]
        types: Vec<String>,
        /// What people call it.
        #[schema(required = false, max_length = 256)]
        name: String,
        /// What tells it from others.
        labels: Option<BTreeMap<String, String>>,
        /// How long it may be silent while it has work, 500 ms to 15 min; 5 s without it.
        lease: Option<String>,
        /// The attempts that it runs, such as 0-42.1.
        #[schema(required = false)]
        running: Vec<String>,
    }
    /// What a worker is told when it registers.
    Registered {
        /// The version of the protocol.
        protocol: u32,
        /// How long it may be silent while it has work.
        lease: String,
        /// Longest wait for attempts.
        wait_max: String,
        /// What it runs and is not its own any more.
        stop: Vec<Value>,
        /// Whether it is given nothing more.
        drain: bool,
        /// How often it is to say what it uses.
        usage_every: String,
        /// Where the engines of the group are, this one first; not there where there is only one.
        engines: Option<Vec<String>>,
    }
    /// What a worker asks for.
    #[serde(deny_unknown_fields)]
    LeaseAsk {
        /// One more for each new question; the same again is the same question.
        seq: u64,
        /// Up to how many attempts.
        #[schema(maximum = 65536)]
        slots: u32,
        /// How long to wait when there is nothing, at most a minute.
        wait: Option<String>,
        /// Whether something was asked under this number before.
        again: Option<bool>,
    }
    /// What there is for a worker.
    Leased {
        /// The number of the question.
        seq: u64,
        /// Attempts with all that they need; docs/worker-protocol.md has the fields.
        attempts: Vec<Value>,
        /// What it is to stop.
        stop: Vec<Value>,
        /// Whether it is given nothing more.
        drain: bool,
        /// Where the engines of the group are, where that has changed.
        engines: Option<Vec<String>>,
    }
    /// What a worker reports.
    #[serde(deny_unknown_fields)]
    WorkReport {
        /// Attempts that are over, each with how it ended and, as `ran`, on which device it ran; docs/worker-protocol.md has the fields.
        #[schema(required = false)]
        outcomes: Vec<Value>,
        /// Attempts that go on.
        #[schema(required = false)]
        heartbeats: Vec<Value>,
        /// How many attempts at a time it does best with, where that has changed.
        #[schema(required = false)]
        concurrency: Option<WorkConcurrency>,
        /// What it uses, its descendants included.
        #[schema(required = false)]
        usage: Option<WorkUsage>,
    }
    /// What a worker uses.
    #[serde(deny_unknown_fields)]
    WorkUsage {
        /// CPU, in cores, on average over the span.
        #[schema(required = false, minimum = 0)]
        cpu_cores: Option<f64>,
        /// Memory, in bytes.
        #[schema(required = false)]
        memory_bytes: Option<u64>,
        /// Over how long the CPU was measured, such as `1.7s`.
        #[schema(required = false)]
        over: Option<String>,
    }
    /// How many attempts at a time a worker does best with.
    #[serde(deny_unknown_fields)]
    WorkConcurrency {
        /// How many, from now on; at most the slots of the worker.
        #[schema(minimum = 1, maximum = 65536)]
        limit: u32,
        /// How many it was when the worker said so last.
        #[schema(minimum = 1, maximum = 65536)]
        was: u32,
        /// Why.
        #[schema(required = false, max_length = 4096)]
        reason: String,
    }
    /// What became of a report.
    WorkReported {
        /// How many of its objects count.
        taken: u64,
        /// Those that do not count and never will, with reasons.
        refused: Vec<Value>,
        /// Those of which nothing is recorded, for no engine that leads their tasks was reached: they are to be reported again.
        elsewhere: Option<Vec<Value>>,
        /// What it is to stop.
        stop: Vec<Value>,
        /// Whether it is given nothing more.
        drain: bool,
    }
    /// What a worker is told beside.
    WorkerTold {
        /// What it is to stop.
        stop: Vec<Value>,
        /// Whether it is given nothing more.
        drain: bool,
    }
    /// Which workers; all that is given has to be so.
    #[serde(deny_unknown_fields)]
    WhichWorkers {
        /// Their ids.
        ids: Option<Vec<String>>,
        /// Whose work they do.
        pool: Option<String>,
        /// A label that they have, such as `version=1`.
        label: Option<String>,
    }
    /// Workers that are given nothing more.
    DrainedWorkers {
        /// Their ids.
        draining: Vec<String>,
    }
    /// The workers that this engine knows.
    Workers {
        /// All of them.
        workers: Vec<Worker>,
    }
    /// A worker.
    Worker {
        /// Which run of it.
        id: String,
        /// What people call it.
        name: String,
        /// Whose work it does.
        pool: String,
        /// How many attempts it runs at a time.
        slots: u32,
        /// The task types that it can run; none are all of its pool.
        types: Vec<String>,
        /// What tells it from others.
        labels: BTreeMap<String, String>,
        /// How long it may be silent while it has work.
        lease: String,
        /// Whether it is given nothing more.
        draining: bool,
        /// How long it has been silent.
        silent_ms: u64,
        /// How many attempts at a time it does best with, where it finds that out.
        #[schema(required = false)]
        concurrency: Option<u32>,
        /// What it said last that it uses, where that is not long ago.
        #[schema(required = false)]
        usage: Option<Value>,
    }
    /// Why a request was not done (RFC 9457). Some problems have more members.
    ProblemDocument {
        /// Names the kind of problem.
        #[serde(rename = "type")]
        kind: String,
        /// The kind in words.
        title: String,
        /// The status of the answer.
        status: u16,
        /// What happened, to what, and what to do.
        detail: String,
        /// The field that is wrong.
        #[schema(required = false)]
        field: Option<String>,
        /// When another try is worth it, in milliseconds.
        #[schema(required = false)]
        retry_after_ms: Option<u64>,
    }
}
