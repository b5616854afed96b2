//! Every metric: its name, kind, labels, unit and meaning. The page `docs/operations.md` has the same table.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never falls but when the process starts anew.
    Counter,
    /// What is now.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// In what it is counted.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
}

impl Metric {
    /// Its row in a table of a page.
    pub fn row(&self) -> String {
        let kind = format!("{:?}", self.kind).to_lowercase();
        let labels = self.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `{}` | {kind} | {} | {labels} | {} |", self.name, self.unit, self.help)
    }
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $unit:literal $help:literal;)*) => {
        $(pub(super) static $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], unit: $unit, help: $help };)*
        /// All metrics, in the order in which they are told.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    REQUESTS = Counter "ergate_requests_total" ["pool", "type"] "requests" "Requests that became tasks.";
    DEDUPLICATED = Counter "ergate_requests_deduplicated_total" ["pool", "type"] "requests" "Requests that repeated the key of an earlier one and were answered with its task.";
    REFUSED = Counter "ergate_requests_refused_total" [] "records" "Records of the requests topic that were no requests and went to the dead-letter topic.";
    REDRIVES = Counter "ergate_redrives_total" ["pool", "type"] "tasks" "Dead letters that were tried again, each as a new task.";
    ATTEMPTS = Counter "ergate_attempts_total" ["pool", "type"] "attempts" "Attempts that were started.";
    FAILURES = Counter "ergate_attempt_failures_total" ["pool", "type"] "attempts" "Attempts that failed; timeouts and losses are counted apart.";
    LOST = Counter "ergate_attempts_lost_total" ["pool", "type"] "attempts" "Attempts that went with their replica, and were returned to the queue.";
    TIMEOUTS = Counter "ergate_timeouts_total" ["pool", "type", "timeout"] "timeouts" "Timeouts that were reached, by which of them: schedule_to_start, start_to_close, schedule_to_close, heartbeat, cancel_grace.";
    RETRIES = Counter "ergate_retries_total" ["pool", "type"] "attempts" "Further attempts that were scheduled after one that failed or timed out.";
    LIMITED = Counter "ergate_limited_total" ["pool", "type"] "times" "How often a limit kept a task from being ready.";
    COMPLETIONS = Counter "ergate_completions_total" ["pool", "type", "outcome"] "tasks" "Tasks that ended, by outcome: succeeded, partial, failed, cancelled, skipped.";
    DEAD_LETTERS = Counter "ergate_dead_letters_total" ["pool", "type"] "tasks" "Tasks that failed for good and were kept as dead letters.";
    WAITS = Histogram "ergate_schedule_to_start_seconds" ["pool", "type"] "seconds" "How long an attempt's task was ready before it got a slot.";
    RUNS = Histogram "ergate_run_duration_seconds" ["pool", "type"] "seconds" "How long attempts ran, whatever they ended with; lost ones are not counted.";
    DEPTH = Gauge "ergate_queue_depth" ["pool", "type"] "tasks" "Tasks that are ready and wait for a slot.";
    OLDEST = Gauge "ergate_queue_oldest_age_seconds" ["pool", "type"] "seconds" "How long the oldest of them has been ready; 0 when none waits. Up to 0.1 s or 0.2 % too high.";
    TASKS = Gauge "ergate_tasks" ["pool", "type", "state"] "tasks" "Tasks that have not ended, by state: held, delayed, limited, ready, running, cancelling, backoff.";
    DEAD_LETTERS_KEPT = Gauge "ergate_dead_letters_kept" ["pool", "type"] "tasks" "Dead letters that are kept and can be tried again.";
    REPLICAS = Gauge "ergate_replicas" ["pool", "state"] "replicas" "Replicas by state: requested, ready, draining.";
    REPLICAS_WANTED = Gauge "ergate_replicas_wanted" ["pool"] "replicas" "How many replicas the pool should have.";
    REPLICA_TIME = Counter "ergate_replica_seconds_total" ["pool"] "seconds" "How long replicas were there, each from its request to its end: what has to be paid for.";
    POOL_HELD = Gauge "ergate_pool_held" ["pool"] "pools" "1 while the pool starts no tasks: paused or drained.";
    SLOTS = Gauge "ergate_slots" ["pool"] "slots" "Slots of all replicas that are there: so many attempts may run at once.";
    WORKERS = Gauge "ergate_workers" ["pool", "state"] "workers" "Workers that this engine knows, by state: working, draining, silent for a minute or longer.";
    POOL_CPU = Gauge "ergate_pool_cpu_cores" ["pool"] "cores" "CPU that the workers of the pool use that have told this engine lately; for a pool of its threads, what the engine uses.";
    POOL_MEMORY = Gauge "ergate_pool_memory_bytes" ["pool"] "bytes" "Memory that they use.";
    POOL_TOLD = Gauge "ergate_pool_usage_told" ["pool"] "replicas" "How many of them have told; the engine counts as one.";
    FIRINGS = Counter "ergate_schedule_firings_total" ["schedule", "outcome"] "slots" "What became of slots of schedules since the log began: fired, missed, overlap, paused, refused.";
    LAST_SLOT = Gauge "ergate_schedule_last_slot_timestamp_seconds" ["schedule"] "seconds" "When a schedule was due for its newest firing, in seconds since 1970; 0 before the first.";
    APPEND = Histogram "ergate_log_append_seconds" [] "seconds" "Sealing and writing a block.";
    FSYNC = Histogram "ergate_log_fsync_seconds" [] "seconds" "Making what was written durable: an fdatasync, or on Kafka a transaction. One serves all blocks that wait.";
    BLOCKS = Counter "ergate_log_blocks_total" [] "blocks" "Blocks written.";
    BYTES = Counter "ergate_log_bytes_total" [] "bytes" "Bytes of blocks written, after compression.";
    FAILED = Gauge "ergate_log_failed" [] "0 or 1" "1 when the log refuses to go on; nothing is acknowledged any more, and a restart recovers what was.";
    FREE = Gauge "ergate_log_free_bytes" [] "bytes" "Free space where the log is, as it was last seen.";
    LOW_WATER = Gauge "ergate_log_low_water_bytes" [] "bytes" "Below this much free space new work is refused.";
    POSITION = Gauge "ergate_log_position" ["shard"] "events" "Events of a shard that are durable: the position of the next one.";
    VIEW_POSITION = Gauge "ergate_view_position" ["shard"] "events" "Up to which position these figures are true.";
    REPLAY = Histogram "ergate_replay_seconds" [] "seconds" "Opening a log and folding it: once at the start, on Kafka for each shard that is taken over.";
    MAILBOX = Gauge "ergate_mailbox_depth" ["mailbox"] "batches" "Batches that wait to be decided, by lane: submissions, reports.";
    HOLDS = Counter "ergate_backpressure_total" [] "times" "How often lanes were closed because too many blocks waited to become durable.";
    BUSY = Counter "ergate_busy_total" [] "answers" "How often a caller was asked to come again later, as with 429.";
    UNDECIDED = Gauge "ergate_undecided_bytes" [] "bytes" "Requests that wait to be decided; 64 MiB at most.";
    RESTARTS = Counter "ergate_actor_restarts_total" ["actor"] "restarts" "Actors that failed and were started again: executor, dispatcher, projector, scheduler, autoscaler; and processes of pools, as process.";
    GENERATED = Counter "ergate_generator_batches_total" ["generator", "outcome"] "batches" "How often a generator was asked, by what became of it: accepted, duplicate, empty, failed, panicked, refused, overdue.";
    SOURCE_LINES = Counter "ergate_source_lines_total" ["source", "outcome"] "lines" "Lines of followed files, by what became of them: taken, duplicate, refused.";
    SOURCE_UNREAD = Gauge "ergate_source_unread_bytes" ["source"] "bytes" "Bytes of followed files whose lines have no answer yet.";
    OBSERVED = Counter "ergate_observer_notices_total" ["observer", "outcome"] "notices" "What an observer was to be told, by what became of it: told, dropped, panicked.";
    LEADS = Gauge "ergate_shard_led" ["shard"] "0 or 1" "1 for each shard that is led here.";
    LAG = Gauge "ergate_kafka_lag" ["shard"] "records" "Records of a shard's requests that nobody has answered yet; only on Kafka, asked every 5 s.";
    UNSTABLE = Gauge "ergate_kafka_unstable_offsets" ["shard"] "offsets" "Offsets at the end of a shard's events that readers do not see yet, for a transaction is open; only on Kafka, asked every 5 s.";
    REBALANCES = Counter "ergate_kafka_rebalances_total" [] "times" "How often the group gave shards to this engine or took them; only on Kafka.";
    GPU_UTILIZATION = Gauge "ergate_gpu_utilization_ratio" ["gpu", "uuid", "name"] "0 to 1" "In how much of the last sample period, of a second at most, a kernel ran on the GPU; not told of one in parts (MIG).";
    GPU_MEMORY_USED = Gauge "ergate_gpu_memory_used_bytes" ["gpu", "uuid", "name"] "bytes" "Memory of the GPU that is allocated, by whomever; of one in parts, by part.";
    GPU_MEMORY_TOTAL = Gauge "ergate_gpu_memory_total_bytes" ["gpu", "uuid", "name"] "bytes" "All memory of the GPU, or of the part.";
    GPU_POWER = Gauge "ergate_gpu_power_watts" ["gpu", "uuid", "name"] "watts" "What the GPU draws.";
    GPU_TEMPERATURE = Gauge "ergate_gpu_temperature_celsius" ["gpu", "uuid", "name"] "°C" "How warm the GPU is.";
    BUILD = Gauge "ergate_build_info" ["version", "log"] "1" "Always 1; which build this is, and whether its log is local or on Kafka.";
    READY = Gauge "ergate_ready" [] "0 or 1" "What /readyz says: 1 when work is taken and gets on. Only from the HTTP service.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_as_prometheus_has_them() {
        for metric in ALL {
            assert!(metric.name.starts_with("ergate_") && metric.help.ends_with('.'), "{metric:?}");
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{metric:?}");
            // A counter of seconds ends with both.
            let is_seconds = metric.name.trim_end_matches("_total").ends_with("_seconds");
            assert_eq!(is_seconds, metric.unit == "seconds", "{metric:?}");
            assert!(!metric.name.ends_with("_count") && !metric.name.ends_with("_sum"), "{metric:?}");
        }
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name.trim_end_matches("_total")).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two are one in OpenMetrics");
    }

    /// Whoever adds a metric writes its row; the row is printed here.
    #[test]
    fn the_page_for_operators_has_every_metric_as_it_is() {
        let page = include_str!("../../../docs/operations.md");
        let missing: Vec<_> = ALL.iter().map(|metric| metric.row()).filter(|row| !page.contains(row.as_str())).collect();
        assert!(missing.is_empty(), "docs/operations.md lacks\n{}", missing.join("\n"));
        let rows = page.lines().filter(|line| line.starts_with("| `ergate_")).count();
        assert_eq!(rows, ALL.len(), "docs/operations.md has rows of metrics that are not there");
    }
}
