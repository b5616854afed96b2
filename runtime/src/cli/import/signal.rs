//! Which signal of Ergate stands for a metric of somebody else, as far as its name tells.

use ergate::events::scaling::hpa::Target;
use ergate::events::scaling::signal::names;

/// What a metric measures, by its name or its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What waits.
    Waiting,
    /// What waits or runs.
    Work,
    /// What arrives, a second.
    Arrivals,
    /// How busy replicas are, in per cent.
    Busy,
    /// Something that no signal stands for.
    Other(Other),
}

/// Why no signal stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// How long something takes or waits.
    Time,
    /// One number divided by another.
    Ratio,
    /// Memory.
    Memory,
    /// Nothing in its name says what it is.
    Unknown,
}

/// Words in names, and what they say; the first that is found counts.
const WORDS: [(&[&str], Meaning); 7] = [
    (
        &["latency", "duration", "response_time", "quantile", "_age", "age_", "oldest", "_seconds_bucket"],
        Meaning::Other(Other::Time),
    ),
    (&["memory", "mem_", "heap", "rss"], Meaning::Other(Other::Memory)),
    (&["utilization", "utilisation", "duty_cycle", "gpu_util", "cpu_percent", "busy_percent"], Meaning::Busy),
    (&["rate(", "per_second", "persecond", "_rps", "rps_", "_qps", "throughput", "messagerate"], Meaning::Arrivals),
    (&["in_flight", "inflight", "concurren", "in_progress", "outstanding", "active_requests"], Meaning::Work),
    (
        &["queue", "lag", "backlog", "pending", "waiting", "depth", "messages", "jobs", "unprocessed", "undelivered"],
        Meaning::Waiting,
    ),
    (&["rps", "qps", "requests_total"], Meaning::Arrivals),
];

/// What a name or a query says that a metric is. It is a guess, and whoever makes it says so.
pub(super) fn guess(text: &str) -> Meaning {
    let text: String = text.to_ascii_lowercase().replace(['-', ' '], "_");
    let is_ratio = without_quotes(&text).contains('/');
    if is_ratio {
        return Meaning::Other(Other::Ratio);
    }
    let found = WORDS.iter().find(|(words, _)| words.iter().any(|word| text.contains(word)));
    found.map_or(Meaning::Other(Other::Unknown), |(_, meaning)| *meaning)
}

/// What stands outside of quotation marks and braces: labels have slashes of their own.
fn without_quotes(text: &str) -> String {
    let (mut is_quoted, mut braces) = (false, 0_u32);
    let is_outside = |letter: &char| {
        match letter {
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => braces += 1,
            '}' if !is_quoted => braces = braces.saturating_sub(1),
            _ => {}
        }
        !is_quoted && braces == 0
    };
    text.chars().filter(is_outside).collect()
}

impl Meaning {
    /// Why its signal stands for it.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Meaning::Waiting => "its name says that it counts what waits, and Ergate counts its waiting tasks itself",
            Meaning::Work => "its name says that it counts what waits or is being done, and Ergate counts those tasks itself",
            Meaning::Arrivals => "its name says that it counts what comes, and Ergate counts the tasks that come itself",
            Meaning::Busy => "its name says how busy replicas are, and Ergate measures which share of their slots is",
            Meaning::Other(other) => other.why(),
        }
    }

    /// The signal, and the target in its unit.
    pub(super) fn signal(self, target: Target) -> Result<(&'static str, Target), Other> {
        match self {
            Meaning::Waiting => Ok((names::READY, target)),
            Meaning::Work => Ok((names::WORK, target)),
            Meaning::Arrivals => Ok((names::ARRIVALS, target)),
            Meaning::Busy => Ok((names::BUSY, busy(target))),
            Meaning::Other(other) => Err(other),
        }
    }
}

/// A target of utilization. The signal is a share already, so it is compared as a whole; up to 1 is a share, and what is above is per cent.
fn busy(target: Target) -> Target {
    match target {
        Target::Utilization(percent) => Target::ValueMilli(i64::from(percent) * 1_000),
        Target::AverageValueMilli(milli) | Target::ValueMilli(milli) if milli <= 1_000 => Target::ValueMilli(milli * 100),
        Target::AverageValueMilli(milli) | Target::ValueMilli(milli) => Target::ValueMilli(milli),
    }
}

impl Other {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Other::Time => "it is a time, and replicas do not follow from its ratio to a target",
            Other::Ratio => "it divides one number by another, and no signal is that",
            Other::Memory => "it is memory, which seldom says how many replicas are needed",
            Other::Unknown => "nothing in its name says which of Ergate's signals it could be",
        }
    }

    pub(super) const fn instead(self) -> &'static str {
        match self {
            Other::Time => {
                "a rule of the policy `threshold` over `wait_s_p95`, `run_s_p95` or `oldest_s`, beside this one in a `composite`"
            }
            Other::Ratio => {
                "a formula of `keda` over several signals, or the policy `rate`, which divides arrivals by what a replica does"
            }
            Other::Memory => {
                "a rule over `memory_percent`, of what a replica asks for, or `memory_max`, which bounds what each may have"
            }
            Other::Unknown => {
                "if it counts what waits, `ready`; what waits or runs, `work`; what arrives, `arrivals_per_s`; how busy replicas are, `busy_percent`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_queries_say_what_is_measured() {
        for (text, expected) in [
            ("redis_queue_depth", Meaning::Waiting),
            ("kafka_consumergroup_lag", Meaning::Waiting),
            ("ApproximateNumberOfMessagesVisible", Meaning::Waiting),
            ("sum(rate(grpc_server_started_total{service=\"embedder\"}[1m]))", Meaning::Arrivals),
            ("sum(rate(http_requests_total{path=\"/a/b\"}[2m]))", Meaning::Arrivals),
            ("requests-per-second", Meaning::Arrivals),
            ("nvidia_gpu_duty_cycle", Meaning::Busy),
            ("DCGM_FI_DEV_GPU_UTIL", Meaning::Busy),
            ("http_requests_in_flight", Meaning::Work),
            ("histogram_quantile(0.99, sum(rate(x_bucket[5m])) by (le))", Meaning::Other(Other::Time)),
            ("sum(rate(a_total[1m])) / sum(rate(b_total[1m]))", Meaning::Other(Other::Ratio)),
            ("container_memory_working_set_bytes", Meaning::Other(Other::Memory)),
            ("moon_phase", Meaning::Other(Other::Unknown)),
        ] {
            assert_eq!(guess(text), expected, "{text}");
        }
    }

    #[test]
    fn utilization_is_a_share_of_all_slots() {
        for (target, expected) in [
            (Target::Utilization(70), 70_000),
            (Target::AverageValueMilli(80_000), 80_000),
            (Target::AverageValueMilli(800), 80_000),
            (Target::ValueMilli(1_000), 100_000),
        ] {
            assert_eq!(busy(target), Target::ValueMilli(expected), "{target:?}");
        }
    }
}
