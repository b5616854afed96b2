//! The topics of a namespace: how each must be, and why.

use std::fmt;

/// A topic of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What is asked for, written by anyone. Owning a partition of it is owning the shard.
    Requests,
    /// What happened: the record.
    Events,
    /// Folded states of shards, the newest of each.
    Snapshots,
    /// What the autoscaler saw and decided.
    Capacity,
    /// Records that are no requests, with the reason.
    Dlq,
    /// The ends of tasks, for those who wait there.
    Results,
}

/// How many partitions and replicas the topics of a namespace have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Shards, and so partitions of every topic but the capacity, which has one.
    pub partitions: u32,
    /// Replicas of every partition.
    pub replication: u32,
}

/// A setting that a topic must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in Kafka.
    pub name: &'static str,
    /// What the topic is created with.
    pub value: String,
    /// What else will do.
    pub rule: Rule,
    /// What goes wrong otherwise.
    pub why: &'static str,
}

/// What a setting may be beside the value that a topic is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing else.
    Exactly,
    /// At least so much; -1 is without limit.
    AtLeast(i64),
    /// A number from the first to the second.
    Between(i64, i64),
    /// Whatever its owner likes.
    Anything,
}

const MIB: i64 = 1 << 20;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// The longest record of events, capacity and snapshots: a block of 4 MiB may be twice as long as JSON.
pub const EVENT_BYTES_MAX: i64 = 8 * MIB;
/// The longest request: a payload of 1 MiB in base64 is 1.4 MiB, and the rest of the request goes with it.
pub const REQUEST_BYTES_MAX: i64 = 2 * MIB;
/// The longest record of the dead-letter queue: the bytes of a request in base64, and the reason.
pub const DLQ_BYTES_MAX: i64 = 4 * MIB;
/// An outage over a long week-end must not lose requests that nobody has read.
pub const RETENTION_MS_MIN: i64 = 7 * DAY_MS;

impl Topic {
    /// All of them, in the order in which they are created and shown.
    pub const ALL: [Topic; 6] = [Topic::Requests, Topic::Events, Topic::Snapshots, Topic::Capacity, Topic::Dlq, Topic::Results];

    /// What follows the namespace in its name.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Requests => "requests",
            Topic::Events => "events",
            Topic::Snapshots => "snapshots",
            Topic::Capacity => "capacity",
            Topic::Dlq => "dlq",
            Topic::Results => "results",
        }
    }

    /// How many partitions it has in a namespace of this shape.
    pub const fn partitions(self, shape: Shape) -> u32 {
        match self {
            // One order of all scaling decisions.
            Topic::Capacity => 1,
            Topic::Requests | Topic::Events | Topic::Snapshots | Topic::Dlq | Topic::Results => shape.partitions,
        }
    }

    /// The settings that it must have, in the order of their names.
    pub fn wanted(self, replication: u32) -> Vec<Wanted> {
        let mut wanted = common(replication);
        wanted.extend(match self {
            Topic::Requests => requests(),
            Topic::Events | Topic::Capacity => events(),
            Topic::Snapshots => snapshots(),
            Topic::Dlq => dlq(),
            Topic::Results => results(),
        });
        wanted.sort_by_key(|wanted| wanted.name);
        wanted
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Wanted {
    const fn new(name: &'static str, value: String, rule: Rule, why: &'static str) -> Wanted {
        Wanted { name, value, rule, why }
    }

    /// Whether a value will do.
    pub fn is_met_by(&self, found: &str) -> bool {
        let size = |text: &str| text.parse().map(|size: i64| if size < 0 { i64::MAX } else { size });
        match self.rule {
            Rule::Exactly => found == self.value,
            Rule::AtLeast(least) => size(found).is_ok_and(|found| found >= least),
            Rule::Between(least, most) => size(found).is_ok_and(|found| (least..=most).contains(&found)),
            Rule::Anything => true,
        }
    }

    /// What will do, in words.
    pub fn expected(&self) -> String {
        match self.rule {
            Rule::Exactly => self.value.clone(),
            Rule::AtLeast(least) if self.value == "-1" => format!("-1, or at least {least}"),
            Rule::AtLeast(least) => format!("at least {least}"),
            Rule::Between(least, most) if least == most => least.to_string(),
            Rule::Between(least, most) => format!("{least} to {most}"),
            Rule::Anything => "anything".to_owned(),
        }
    }
}

/// What every topic needs.
fn common(replication: u32) -> Vec<Wanted> {
    // With two copies a second one cannot be demanded: any broker away would stop all work.
    let in_sync = i64::from(replication >= 3) + 1;
    let most = (i64::from(replication) - 1).max(1);
    vec![
        Wanted::new(
            "compression.type",
            "producer".to_owned(),
            Rule::Exactly,
            "brokers must not spend their time on compressing anew what was compressed",
        ),
        Wanted::new(
            "min.insync.replicas",
            in_sync.to_string(),
            Rule::Between(in_sync, most),
            "less, and the loss of one broker loses what was acknowledged; as many as there are, and any broker away stops all work",
        ),
        Wanted::new(
            "unclean.leader.election.enable",
            "false".to_owned(),
            Rule::Exactly,
            "a replica that missed acknowledged records must not become the leader and drop them for good",
        ),
    ]
}

/// Nothing is dropped; a retention of at least this will do too, or none where there is none.
fn kept(least_ms: Option<i64>, why: &'static str) -> Vec<Wanted> {
    vec![
        Wanted::new("cleanup.policy", "delete".to_owned(), Rule::Exactly, "compaction keeps only the newest record of a key"),
        Wanted::new("retention.bytes", "-1".to_owned(), Rule::Exactly, "a limit by size drops records however young they are"),
        Wanted::new("retention.ms", "-1".to_owned(), least_ms.map_or(Rule::Exactly, Rule::AtLeast), why),
    ]
}

fn longest(bytes: i64, why: &'static str) -> Wanted {
    Wanted::new("max.message.bytes", bytes.to_string(), Rule::AtLeast(bytes), why)
}

fn time_of(kind: &str, why: &'static str) -> Wanted {
    Wanted::new("message.timestamp.type", kind.to_owned(), Rule::Exactly, why)
}

fn requests() -> Vec<Wanted> {
    let mut wanted = kept(Some(RETENTION_MS_MIN), "a request that nobody has read yet must outlive every outage of the engines");
    wanted.push(longest(REQUEST_BYTES_MAX, "a payload of 1 MiB in base64 must fit"));
    // Anyone writes here, with any clock: by its own time a record from 1970 would be expired at once and one from 2100 never.
    wanted.push(time_of("LogAppendTime", "the clocks of producers are anybody's"));
    wanted
}

fn events() -> Vec<Wanted> {
    let mut wanted = kept(None, "this is the record; without its beginning nobody can verify it");
    wanted.push(longest(EVENT_BYTES_MAX, "a block of 4 MiB may be twice as long as JSON"));
    wanted.push(time_of("CreateTime", "a record is found by the time of its events, which is its shard's"));
    wanted.push(Wanted::new(
        "message.timestamp.after.max.ms",
        i64::MAX.to_string(),
        Rule::Exactly,
        "the time of a shard never goes back, so after a clock was wrong it may be ahead of the broker's, and no event is refused for that",
    ));
    wanted
}

fn snapshots() -> Vec<Wanted> {
    vec![
        Wanted::new("cleanup.policy", "compact".to_owned(), Rule::Exactly, "only the newest snapshot of a shard is of use"),
        longest(EVENT_BYTES_MAX, "a snapshot is cut into pieces of this length"),
        time_of("LogAppendTime", "only the order of snapshots counts"),
        // What lies in the open segment is not compacted: at 1 GiB, the default, a takeover would read that much.
        Wanted::new("segment.bytes", (64 * MIB).to_string(), Rule::Anything, "a takeover reads what is not compacted yet"),
        Wanted::new("segment.ms", (60 * 60 * 1_000).to_string(), Rule::Anything, "quiet shards are compacted too"),
        Wanted::new("min.cleanable.dirty.ratio", "0.1".to_owned(), Rule::Anything, "a takeover reads what is not compacted yet"),
    ]
}

fn dlq() -> Vec<Wanted> {
    let mut wanted = kept(Some(RETENTION_MS_MIN), "somebody must have the time to look at what was refused");
    wanted.push(longest(DLQ_BYTES_MAX, "the refused bytes and the reason must fit, whatever they are"));
    wanted.push(time_of("LogAppendTime", "the clocks of producers are anybody's"));
    wanted
}

fn results() -> Vec<Wanted> {
    vec![
        Wanted::new("cleanup.policy", "delete".to_owned(), Rule::Exactly, "compaction keeps only the newest record of a key"),
        // The events keep every result; this is for those who wait now.
        Wanted::new("retention.ms", (7 * DAY_MS).to_string(), Rule::Anything, "the events keep every result"),
        longest(REQUEST_BYTES_MAX, "a result of 1 MiB in base64 must fit"),
        time_of("LogAppendTime", "it tells when the result could be read"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(topic: Topic, replication: u32, name: &str) -> Wanted {
        topic.wanted(replication).into_iter().find(|wanted| wanted.name == name).unwrap()
    }

    #[test]
    fn a_topic_is_content_with_what_it_is_created_with() {
        for topic in Topic::ALL {
            for wanted in topic.wanted(3) {
                assert!(wanted.is_met_by(&wanted.value), "{topic}: {wanted:?}");
            }
        }
    }

    #[test]
    fn more_is_enough_and_for_ever_is_more() {
        let longest = wanted(Topic::Events, 3, "max.message.bytes");
        assert!(longest.is_met_by("10485760") && !longest.is_met_by("1048588"));
        let kept = wanted(Topic::Requests, 3, "retention.ms");
        assert!(kept.is_met_by("-1") && kept.is_met_by("1209600000") && !kept.is_met_by("3600000"));
        assert!(!wanted(Topic::Events, 3, "retention.ms").is_met_by("1209600000"));
        assert_eq!(kept.expected(), "-1, or at least 604800000");
        assert!(wanted(Topic::Results, 3, "retention.ms").is_met_by("1"));
        assert!(!wanted(Topic::Events, 3, "cleanup.policy").is_met_by("delete,compact"));
    }

    #[test]
    fn two_copies_are_asked_for_where_there_are_three() {
        let least = |replication| wanted(Topic::Events, replication, "min.insync.replicas").value;
        assert_eq!([1, 2, 3, 5].map(least), ["1", "1", "2", "2"]);
        let met = |replication, found| wanted(Topic::Events, replication, "min.insync.replicas").is_met_by(found);
        assert!(met(1, "1") && met(3, "2") && met(5, "4") && !met(1, "2") && !met(2, "2") && !met(3, "1") && !met(3, "3"));
        assert_eq!(Topic::Capacity.partitions(Shape { partitions: 16, replication: 3 }), 1);
    }
}
