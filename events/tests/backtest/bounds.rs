//! Bounds: what is computed cleverly against what is computed plainly, and that no policy goes below.

use ergate_events::backtest::{self, Arrival, Arrivals, Setup, bounds};
use ergate_events::scaling::kpa::Kpa;
use ergate_events::scaling::rate::Rate;
use ergate_events::scaling::signal::Bounds;
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::time::Micros;
use proptest::prelude::*;

use crate::support::{BEGAN, fixed, real};

fn tasks(spans: &[(u64, u64)]) -> Arrivals {
    let task = |(at, service): &(u64, u64)| Arrival::new(Micros::from_secs(*at), Micros::from_secs(*service));
    Arrivals::new(BEGAN, spans.iter().map(task).collect()).unwrap()
}

/// Second by second and level by level: what no task waiting costs.
fn plain_zero_wait(spans: &[(u64, u64)], slots: usize, start: u64) -> (u64, u64) {
    let end = spans.iter().map(|(at, service)| at + service).max().unwrap_or(0);
    let busy: Vec<usize> =
        (0..end).map(|now| spans.iter().filter(|(at, service)| *at <= now && now < at + service).count()).collect();
    let (mut optimum, mut break_even) = (0, 0);
    for level in 0..busy.iter().copied().max().unwrap_or(0).div_ceil(slots) {
        let mut gap = None;
        for count in &busy {
            if *count > level * slots {
                let cost = gap.map_or((start, start), |gap: u64| (gap.min(start), if gap <= start { gap } else { 2 * start }));
                optimum += cost.0 + 1;
                break_even += cost.1 + 1;
                gap = Some(0);
            } else {
                gap = gap.map(|gap| gap + 1);
            }
        }
    }
    (optimum, break_even)
}

/// Whether a schedule can be run, found out by looking at every pair of tasks of a slot; and what it costs, second by second.
fn plain_schedule(spans: &[(u64, u64)], slots: u32, start: u64, limit: u64, schedule: &bounds::Schedule) -> u64 {
    let placed: Vec<(u32, u64, u64)> = schedule
        .placed
        .iter()
        .zip(spans)
        .map(|((slot, at), (_, service))| (*slot, at.0 / 1_000_000, service))
        .map(|(slot, at, service)| (slot, at, at + service))
        .collect();
    for (index, (slot, begin, end)) in placed.iter().enumerate() {
        let (arrival, _) = spans[index];
        assert!(arrival <= *begin && *begin <= arrival + limit, "task {index} arrives at {arrival} and starts at {begin}");
        for (other, from, to) in &placed[..index] {
            assert!(
                other != slot || *from >= *end || *to <= *begin || from == to || begin == end,
                "slot {slot} does two at once"
            );
        }
    }
    let mut cost = 0;
    for replica in 0..schedule.replicas {
        let mine: Vec<_> = placed.iter().filter(|(slot, ..)| slot / slots == replica).collect();
        assert!(!mine.is_empty());
        cost += start;
        let last = mine.iter().map(|(_, _, end)| *end).max().unwrap();
        let first = mine.iter().map(|(_, begin, _)| *begin).min().unwrap();
        let mut gap = 0;
        for now in first..=last {
            if now < last && !mine.iter().any(|(_, begin, end)| *begin <= now && now < *end) {
                // A task that takes no time ends a gap all the same.
                if mine.iter().any(|(_, begin, end)| begin == end && *begin == now) {
                    cost += std::cmp::min(gap, start);
                    gap = 0;
                }
                gap += 1;
            } else {
                cost += std::cmp::min(gap, start) + u64::from(now < last);
                gap = 0;
            }
        }
    }
    cost
}

fn spans() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let spans = prop::collection::vec((0_u64..120, 0_u64..25), 1..40);
    spans.prop_map(|mut spans| {
        spans.sort_by_key(|(at, _)| *at);
        spans
    })
}

fn policy() -> impl Strategy<Value = AnyPolicy> {
    prop_oneof![
        (0_u32..30).prop_map(|tenths| AnyPolicy::Rate(Rate { reserve: real(f64::from(tenths) / 10.0), ..Rate::default() })),
        (1_u64..20).prop_map(|seconds| AnyPolicy::Kpa(Kpa { tick: Micros::from_secs(seconds), ..Kpa::default() })),
        (1_u32..12).prop_map(|replicas| fixed(replicas, 1).policy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_wait_costs_what_counting_second_by_second_says(spans in spans(), slots in 1_usize..4, start in 0_u64..40) {
        let arrivals = tasks(&spans);
        let found = bounds::zero_wait(&arrivals, slots as u32, Micros::from_secs(start));
        let (optimum, break_even) = plain_zero_wait(&spans, slots, start);
        prop_assert_eq!((found.optimum, found.break_even), (Micros::from_secs(optimum), Micros::from_secs(break_even)));
        prop_assert!(found.break_even.0 <= 2 * found.optimum.0);
        prop_assert!(bounds::work_floor(&arrivals, slots as u32) <= found.optimum);
    }

    #[test]
    fn the_schedule_of_who_knows_the_future_can_be_run(spans in spans(), slots in 1_u32..4, start in 0_u64..40, limit in 0_u64..60) {
        let arrivals = tasks(&spans);
        let schedule = bounds::clairvoyant(&arrivals, slots, Micros::from_secs(start), Micros::from_secs(limit));
        prop_assert_eq!(schedule.billed, Micros::from_secs(plain_schedule(&spans, slots, start, limit, &schedule)));
        prop_assert!(schedule.wait_max <= Micros::from_secs(limit));
        prop_assert!(schedule.billed >= bounds::work_floor(&arrivals, slots));
    }

    #[test]
    fn without_waits_that_schedule_is_the_optimum(spans in spans(), start in 0_u64..40) {
        // A task that takes no time needs a replica in the schedule and none in the bound.
        let spans: Vec<_> = spans.into_iter().map(|(at, service)| (at, service.max(1))).collect();
        let (arrivals, start) = (tasks(&spans), Micros::from_secs(start));
        prop_assert_eq!(bounds::clairvoyant(&arrivals, 1, start, Micros(0)).billed, bounds::zero_wait(&arrivals, 1, start).optimum);
    }

    #[test]
    fn nobody_pays_less_than_the_bounds(
        spans in spans(), policy in policy(), slots in 1_u32..4, start in 0_u64..40, max in 1_u32..60, initial in 0_u32..60,
    ) {
        let arrivals = tasks(&spans);
        // A fixed pool has its own bounds.
        let idle = if let AnyPolicy::Threshold(fixed) = &policy { fixed.idle.as_ref() } else { None };
        let bounds = idle.map(|idle| Bounds { min: idle.replicas, max: idle.replicas });
        let bounds = bounds.unwrap_or(Bounds { min: 0, max });
        prop_assert_eq!(policy.check(bounds), Ok(()));
        let setup = Setup { slots, start: Micros::from_secs(start), initial: Some(initial), ..Setup::new(policy, bounds) };
        let report = backtest::run(&arrivals, &setup).unwrap();
        prop_assert!(report.billed >= bounds::work_floor(&arrivals, slots));
        if report.waits.max == Micros(0) {
            prop_assert!(report.billed >= bounds::zero_wait(&arrivals, slots, setup.start).optimum);
        }
        prop_assert_eq!((report.tasks, report.waits.count, report.unserved, report.interrupted), (spans.len(), spans.len(), 0, 0));
        let shares = report.shares;
        let sum = shares.busy + shares.idle + shares.starting + shares.draining;
        prop_assert!((sum - 1.0).abs() < 1e-9 || report.billed == Micros(0));
        prop_assert!([shares.busy, shares.idle, shares.starting, shares.draining].iter().all(|share| *share >= -1e-12));
    }
}
