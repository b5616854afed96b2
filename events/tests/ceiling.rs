//! The ceiling of a pool: a bound of decisions with a name of its own, and a floor that does not fit is refused.

mod common;

use common::{Story, plain};
use ergate_events::command::{Command, PoolRef, Rejection};
use ergate_events::event::Event;
use ergate_events::id::{PoolId, ReplicaId};
use ergate_events::resources::{Asked, Ceiling, PoolResources, Resource};
use ergate_events::scaling::decision::{By, Decision, LimitKind};
use ergate_events::scaling::signal::{Reading, Value};
use ergate_events::state::State;
use ergate_events::time::Micros;

const POOL: PoolId = PoolId(0);
const GIB: u64 = 1 << 30;
/// Wants a slot for each task that waits.
const KPA: &str = r#"{"policy":"kpa","signal":"ready","target_utilization":1.0}"#;
/// Two cores and 4 GiB for each replica.
const ASKED: Asked = Asked { cpu_milli: Some(2_000), memory_bytes: Some(4 * GIB) };

static BY_CPU: PoolResources =
    PoolResources { asked: ASKED, ceiling: Ceiling { slots: Some(64), cpu_milli: Some(9_500), memory_bytes: Some(128 * GIB) } };
static BY_MEMORY: PoolResources =
    PoolResources { asked: ASKED, ceiling: Ceiling { slots: None, cpu_milli: None, memory_bytes: Some(12 * GIB) } };
static BY_SLOTS: PoolResources =
    PoolResources { asked: ASKED, ceiling: Ceiling { slots: Some(5), cpu_milli: None, memory_bytes: None } };
static NONE: PoolResources = PoolResources {
    asked: Asked { cpu_milli: None, memory_bytes: None },
    ceiling: Ceiling { slots: None, cpu_milli: None, memory_bytes: None },
};

/// A pool of two replicas with two slots each.
fn pool() -> Story {
    let mut story = Story::with(&plain());
    story.tell(&size(2, 2)).expect("it is in range");
    story.pass(1);
    story.news();
    story
}

const fn size(replicas: u32, slots: u32) -> Command<'static> {
    Command::DefinePool { pool: "models", replicas, slots, by: "me", reason: "" }
}

const fn set(policy: &'static str, least: u32, most: u32) -> Command<'static> {
    Command::SetPolicy { pool: PoolRef::Name("models"), policy, least, most, by: "me", reason: "" }
}

const fn say(resources: &'static PoolResources) -> Command<'static> {
    Command::SetResources { pool: PoolRef::Name("models"), resources, by: "me", reason: "" }
}

fn look(story: &mut Story, ready: i64) -> Decision {
    let mut decided = None;
    let mut hear = |envelope: &ergate_events::event::Envelope<'_>, _: &State| {
        if let Event::PoolScaled { ref decision, .. } = envelope.event {
            decided = serde_json::from_str::<Decision>(decision).ok();
        }
    };
    story.pass(2_000);
    let readings = [Reading::Value(Value::Integer(ready))];
    let observe = Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: 1, seen: &[] };
    let mut answers = Vec::new();
    story.shard.batch(story.now, &[observe], &mut answers, &mut hear);
    assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
    story.pass(1);
    decided.unwrap_or_else(|| story.shard.state().control.scaling[&POOL].live.last.clone().expect("it looked").decision)
}

#[test]
fn each_part_cuts_what_a_policy_wants_and_says_its_arithmetic() {
    for (resources, of, replicas, words) in [
        (&BY_CPU, Resource::Cpu, 4, "the pool's ceiling of 9.5 cores at 2 cores each makes 4 of 20"),
        (&BY_MEMORY, Resource::Memory, 3, "the pool's ceiling of 12 GiB at 4 GiB each makes 3 of 20"),
        (&BY_SLOTS, Resource::Slots, 2, "the pool's ceiling of 5 slots at 2 slots each makes 2 of 20"),
    ] {
        let mut story = pool();
        story.tell(&set(KPA, 0, 20)).expect("it is a policy");
        story.tell(&say(resources)).expect("nothing is too large");
        let decision = look(&mut story, 40);
        assert_eq!(decision.wanted, replicas, "{decision:?}");
        let limit = decision.limits.last().copied().expect("it was cut");
        assert!(matches!(limit.by, By::Ceiling(fit) if fit.of == of), "{limit:?}");
        assert_eq!((limit.kind, limit.from, limit.to), (LimitKind::Ceiling, 20, replicas));
        assert!(decision.sentence(|_| "ready".to_owned()).ends_with(words), "{}", decision.sentence(|_| "ready".to_owned()));
        assert_eq!(story.shard.state().control.replicas.len(), replicas as usize);
    }
}

#[test]
fn a_maximum_below_the_ceiling_keeps_its_name() {
    let mut story = pool();
    story.tell(&set(KPA, 0, 4)).expect("it is a policy");
    story.tell(&say(&BY_CPU)).expect("nothing is too large");
    let limit = look(&mut story, 40).limits[0];
    assert_eq!((limit.kind, limit.by, limit.to), (LimitKind::Max, By::Pool, 4));
}

#[test]
fn a_floor_that_does_not_fit_is_refused_with_the_numbers_wherever_it_comes_from() {
    let fit = BY_CPU.fit(2).expect("there is a ceiling");
    let refused = |wanted| Rejection::Ceiling { wanted, fit };
    let words = "5 replicas do not fit under the pool's ceiling: 9.5 cores at 2 cores each are 4; lower the count, or raise `ceiling.cpu` to 10 cores";
    assert_eq!(refused(5).to_string(), words);
    // A policy whose floor is above, and a size by hand.
    let mut story = pool();
    story.tell(&say(&BY_CPU)).expect("two fit");
    story.refuses(&set(KPA, 5, 20), refused(5));
    story.refuses(&size(5, 2), refused(5));
    story.tell(&size(4, 2)).expect("four fit");
    story.tell(&set(KPA, 4, 20)).expect("four fit");
    story.refuses(&size(5, 2), refused(5));
    // With more slots each, fewer fit under a ceiling of slots; and a ceiling is refused under which the floor does not fit.
    let fit = BY_SLOTS.fit(2).expect("there is a ceiling");
    story.refuses(&say(&BY_SLOTS), Rejection::Ceiling { wanted: 4, fit });
    story.tell(&set(KPA, 2, 20)).expect("two fit");
    story.tell(&say(&BY_SLOTS)).expect("two fit");
    story.pass(1);
    story.news();
    let fit = BY_SLOTS.fit(3).expect("there is a ceiling");
    story.refuses(&size(2, 3), Rejection::Ceiling { wanted: 2, fit });
    // What makes no sense, and a pool that is not there.
    static SENSELESS: PoolResources = PoolResources {
        asked: Asked { cpu_milli: None, memory_bytes: None },
        ceiling: Ceiling { slots: None, cpu_milli: Some(1), memory_bytes: None },
    };
    assert!(matches!(story.tell(&say(&SENSELESS)), Err(Rejection::OutOfRange { what: "ceiling.cpu", .. })));
    let elsewhere = Command::SetResources { pool: PoolRef::Name("nowhere"), resources: &NONE, by: "", reason: "" };
    story.refuses(&elsewhere, Rejection::UnknownPool);
}

#[test]
fn a_ceiling_that_comes_down_shrinks_a_pool_with_a_policy_at_once_and_one_that_goes_lets_it_grow_again() {
    let mut story = pool();
    story.tell(&set(KPA, 0, 20)).expect("it is a policy");
    assert_eq!(look(&mut story, 40).wanted, 20);
    story.tell(&say(&BY_CPU)).expect("nothing has to be there");
    // Before anybody looks there are no more than fit.
    story.pass(1);
    let live = |story: &Story| story.shard.state().control.replicas.len();
    for replica in 0..20 {
        // Those that were asked for and go again at once are gone when they say so.
        let _ = story
            .tell(&Command::StopReplica { replica: ReplicaId(replica), departure: ergate_events::event::Departure::Drained });
    }
    story.pass(1);
    assert_eq!(live(&story), 4);
    assert_eq!(look(&mut story, 40).wanted, 4);
    story.tell(&say(&NONE)).expect("no ceiling is fine");
    assert!(story.shard.state().control.resources.is_empty());
    assert_eq!(look(&mut story, 40).wanted, 20);
    assert_eq!(live(&story), 20);
}

#[test]
fn the_same_again_is_no_news_and_a_copy_of_the_state_knows_it() {
    let mut story = pool();
    story.tell(&say(&BY_CPU)).expect("two fit");
    story.expect(&["resources pool-0 Some(2000)"]);
    story.tell(&say(&BY_CPU)).expect("it is the same");
    story.expect(&[]);
    let mut bytes = Vec::new();
    story.shard.state().encode(&mut bytes).expect("memory takes it");
    let copy = State::decode(&bytes).expect("it was just written");
    assert_eq!((copy.digest(), copy.control.fit(POOL)), (story.shard.state().digest(), BY_CPU.fit(2)));
}

/// Wants one more replica while half a core is used by each, and sees nothing else.
const HOT: &str = r#"{"policy":"threshold","spacing":0,"up":[{"signal":"cpu_percent","limit":25}]}"#;

fn hold(story: &Story, replicas: Option<u32>) -> Command<'static> {
    let until = story.now.after(Micros::from_secs(600));
    Command::HoldSize { pool: PoolRef::Name("models"), replicas, until, by: "me", reason: "the launch" }
}

#[test]
fn a_hold_is_cut_by_the_ceiling_and_grows_with_it() {
    let mut story = pool();
    story.tell(&set(KPA, 0, 20)).expect("it is a policy");
    story.tell(&say(&BY_CPU)).expect("nothing is too large");
    story.tell(&hold(&story, Some(9))).expect("a policy sizes it");
    let size = |story: &Story| story.shard.state().control.pools[0].replicas;
    assert_eq!(size(&story), 4, "it counts at once, as far as there is room");
    for (resources, held) in [(&BY_CPU, 4), (&BY_MEMORY, 3), (&NONE, 9), (&BY_SLOTS, 2)] {
        story.tell(&say(resources)).expect("the floor is nothing");
        let decision = look(&mut story, 1);
        assert_eq!((decision.wanted, size(&story)), (held, held), "{decision:?}");
        let limit = decision.limits.last().copied().expect("it wants one, or less");
        assert!(matches!((limit.kind, limit.by), (LimitKind::Hold, By::Hold(_))), "{limit:?}");
    }
    // What the policy itself wants is cut by the ceiling first: then that and the hold are the same size.
    let decision = look(&mut story, 40);
    assert_eq!((decision.wanted, decision.limits.last().map(|limit| limit.kind)), (2, Some(LimitKind::Ceiling)));
    story.tell(&hold(&story, None)).expect("it is held");
    assert_eq!(look(&mut story, 40).wanted, 2);
}

#[test]
fn a_shadow_that_reads_what_replicas_use_has_the_same_ceiling_and_hears_of_the_hold() {
    let mut story = pool();
    story.tell(&set(KPA, 0, 20)).expect("it is a policy");
    story.tell(&say(&BY_CPU)).expect("nothing is too large");
    let shadow = Command::SetShadow { pool: PoolRef::Name("models"), shadow: "hot", policy: HOT, by: "me", reason: "to see" };
    story.tell(&shadow).expect("it is a policy");
    let wants = |story: &mut Story| {
        story.pass(2_000);
        let readings = [1, 60].map(|number| Reading::Value(Value::Integer(number)));
        story
            .tell(&Command::ObservePool { pool: POOL, readings: &readings, work: &[], asked: 3, seen: &[] })
            .expect("both name one");
        story.pass(1);
        story.shard.state().control.scaling[&POOL].shadows["hot"].last.clone().expect("it was asked").decision
    };
    story.tell(&hold(&story, Some(3))).expect("a policy sizes it");
    let decision = wants(&mut story);
    assert_eq!((decision.from, decision.wanted, decision.limits.len()), (3, 4, 0), "one more than the pool has: {decision:?}");
    story.tell(&hold(&story, Some(9))).expect("a policy sizes it");
    let decision = wants(&mut story);
    assert_eq!((decision.from, decision.wanted), (4, 4), "{decision:?}");
    let limit = decision.limits[0];
    assert!(matches!((limit.kind, limit.from, limit.by), (LimitKind::Ceiling, 5, By::Ceiling(_))), "{limit:?}");
    let live = story.shard.state().control.scaling[&POOL].live.last.clone().expect("it was asked").decision;
    assert_eq!((live.wanted, live.limits.last().map(|limit| limit.kind)), (4, Some(LimitKind::Hold)), "{live:?}");
}
