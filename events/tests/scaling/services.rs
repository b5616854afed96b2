//! The services that people really run: five with GPUs behind queues, and the three pools of a pipeline, minute by minute.

use ergate_events::scaling::decision::Reason;
use ergate_events::scaling::hpa::{Behavior, Hpa, Metric, Pace, PaceKind, Rules, Source, Target};
use ergate_events::scaling::keda::{Keda, Trigger};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::target_tracking::TargetTracking;
use ergate_events::scaling::threshold::{Idle, Rule, Threshold};

use crate::support::{Pool, at, external, pods, real, secs, seen, signal};

/// A service of the first kind: per-pod queue, GPU and CPU targets, and how fast it may go.
struct Service {
    name: &'static str,
    bounds: (u32, u32),
    queue_each: i64,
    gpu_percent: i64,
    up: &'static [(PaceKind, u32)],
    up_period: u64,
    down: &'static [(PaceKind, u32)],
    down_period: u64,
}

const FAST: &[(PaceKind, u32)] = &[(PaceKind::Percent, 100), (PaceKind::Pods, 2)];
const SLOW: &[(PaceKind, u32)] = &[(PaceKind::Percent, 50), (PaceKind::Pods, 1)];
const HALF: &[(PaceKind, u32)] = &[(PaceKind::Percent, 50)];

const STT: Service = Service {
    name: "speech to text",
    bounds: (2, 8),
    queue_each: 5,
    gpu_percent: 80,
    up: FAST,
    up_period: 60,
    down: SLOW,
    down_period: 120,
};
const MT: Service = Service { name: "translation", bounds: (2, 6), queue_each: 10, gpu_percent: 75, down: HALF, ..STT };
const STYLE_TTS: Service = Service { name: "speech with style", ..STT };
const XTTS: Service = Service { name: "speech, slower", queue_each: 3, ..STT };
const LIP_SYNC: Service = Service {
    name: "lips",
    bounds: (1, 6),
    queue_each: 3,
    gpu_percent: 75,
    up: &[(PaceKind::Percent, 100), (PaceKind::Pods, 1)],
    up_period: 90,
    down: HALF,
    down_period: 180,
};

impl Service {
    fn policy(&self) -> Hpa {
        let paces = |list: &[(PaceKind, u32)], period| {
            Some(list.iter().map(|(kind, value)| Pace { kind: *kind, value: *value, period: secs(period) }).collect())
        };
        let cpu = Metric { source: Source::Resource, name: "cpu".to_owned(), signal: None, target: Target::Utilization(70) };
        let gpu = Target::AverageValueMilli(self.gpu_percent * 1_000);
        let gpu = Metric { source: Source::Pods, name: "gpu_duty_cycle".to_owned(), signal: None, target: gpu };
        Hpa {
            metrics: vec![gpu, cpu, external("queue", self.queue_each)],
            behavior: Some(Behavior {
                scale_up: Rules { policies: paces(self.up, self.up_period), ..Rules::default() },
                scale_down: Rules { policies: paces(self.down, self.down_period), ..Rules::default() },
            }),
            ..Hpa::default()
        }
    }

    /// Looks every 15 s and holds the count against the table: from each second on, so long the queue and so busy GPU and CPU, such a count.
    fn follows(&self, from: u32, table: &[(u64, f64, i64, i64, u32)]) {
        let policy = self.policy();
        let mut pool = Pool::new(&policy, self.bounds, from);
        let end = table.last().unwrap().0;
        for second in (0..=end).step_by(15) {
            let row = table.iter().rev().find(|row| row.0 <= second).unwrap();
            let (_, queue, gpu, cpu, expected) = *row;
            let mut observation = seen(second, pool.wanted, self.bounds, vec![signal("queue", queue)]);
            observation.pods = Some(pods(pool.wanted, &[("gpu_duty_cycle", gpu * 1_000), ("cpu", cpu * 10)], at(second)));
            let decision = pool.see(&observation);
            assert_eq!(decision.wanted, expected, "{} at {second} s: {}", self.name, pool.sentence(&decision));
        }
    }
}

#[test]
fn speech_to_text_doubles_each_minute_and_halves_every_two() {
    STT.follows(
        2,
        &[
            // 40 tasks at 5 each are 8; from 2, 100 % and 2 pods both allow 4, then 100 % allows 8.
            (0, 40.0, 10, 10, 4),
            (60, 40.0, 10, 10, 8),
            // Nothing to do: 8 was the last proposal at 60 s, and counts until it is 300 s old.
            (75, 0.0, 10, 10, 8),
            // Half of 8 (one pod less would be 7; what shrinks more counts), and no more within two minutes.
            (360, 0.0, 10, 10, 4),
            (480, 0.0, 10, 10, 2),
            (900, 0.0, 10, 10, 2),
        ],
    );
}

#[test]
fn translation_stops_at_its_six() {
    MT.follows(
        2,
        &[(0, 100.0, 10, 10, 4), (60, 100.0, 10, 10, 6), (75, 0.0, 10, 10, 6), (360, 0.0, 10, 10, 3), (480, 0.0, 10, 10, 2)],
    );
}

#[test]
fn speech_is_sized_by_whichever_is_busiest() {
    // GPUs at 96 % of 80 %: 1.2 × 4 = 4.8.
    STYLE_TTS.follows(4, &[(0, 5.0, 96, 10, 5), (15, 5.0, 80, 10, 5)]);
    // CPUs at 91 % of 70 %: 1.3 × 4 = 5.2.
    STYLE_TTS.follows(4, &[(0, 5.0, 10, 91, 6), (15, 5.0, 10, 70, 6)]);
    // 22 tasks at 5 each: 4.4 replicas, 1.1 of the target of 4 of them, which is within the tolerance.
    STYLE_TTS.follows(4, &[(0, 22.0, 10, 10, 4), (15, 23.0, 10, 10, 5)]);
}

#[test]
fn slower_speech_takes_fewer_tasks_each() {
    XTTS.follows(2, &[(0, 24.0, 10, 10, 4), (60, 24.0, 10, 10, 8), (120, 24.0, 10, 10, 8)]);
}

#[test]
fn lips_take_ninety_seconds_for_each_step() {
    LIP_SYNC.follows(
        1,
        &[
            (0, 18.0, 10, 10, 2),
            (90, 18.0, 10, 10, 4),
            (180, 18.0, 10, 10, 6),
            (195, 0.0, 5, 5, 6),
            (480, 0.0, 5, 5, 3),
            (660, 0.0, 5, 5, 1),
        ],
    );
}

fn rule(signal: &str, limit: f64, lasting: u64) -> Rule {
    Rule { signal: signal.to_owned(), limit: real(limit), lasting: secs(lasting), by: 1 }
}

/// Looks every `step` seconds under constant signals and gives the seconds at which the count changed, and to what.
fn changes<P: ergate_events::scaling::Policy>(
    pool: &mut Pool<'_, P>,
    seconds: std::ops::Range<u64>,
    step: usize,
    signals: &[(&str, f64)],
) -> Vec<(u64, u32)> {
    let mut changes = Vec::new();
    for second in seconds.step_by(step) {
        let before = pool.wanted;
        let decision = pool.look(second, signals.iter().map(|(name, number)| signal(name, *number)).collect());
        if decision.wanted != before {
            changes.push((second, decision.wanted));
        }
    }
    changes
}

#[test]
fn the_always_on_pool_follows_its_rules_as_written() {
    let up = vec![rule("cpu_percent", 70.0, 300), rule("lag", 1_000.0, 0), rule("latency_ms_p99", 500.0, 0)];
    let policy = Threshold { up, down: vec![rule("cpu_percent", 30.0, 300), rule("lag", 1.0, 300)], ..Threshold::default() };
    let mut pool = Pool::new(&policy, (2, 10), 2);
    let calm = [("cpu_percent", 50.0), ("lag", 0.0), ("latency_ms_p99", 100.0)];
    assert_eq!(changes(&mut pool, 0..600, 10, &calm), []);
    // 70 % is not above 70 %.
    assert_eq!(changes(&mut pool, 600..1_200, 10, &[("cpu_percent", 70.0), ("lag", 0.0), ("latency_ms_p99", 100.0)]), []);
    let busy = [("cpu_percent", 71.0), ("lag", 0.0), ("latency_ms_p99", 100.0)];
    // Five minutes, one more; another five, another one.
    assert_eq!(changes(&mut pool, 1_200..2_100, 10, &busy), [(1_500, 3), (1_810, 4)]);
    // Lag acts at once, and then each minute, for a new one to make a difference.
    let lagging = [("cpu_percent", 50.0), ("lag", 1_001.0), ("latency_ms_p99", 100.0)];
    assert_eq!(changes(&mut pool, 2_100..2_300, 10, &lagging), [(2_100, 5), (2_160, 6), (2_220, 7), (2_280, 8)]);
    // Both are low for five minutes: one fewer, down to the least.
    let cleared = [("cpu_percent", 20.0), ("lag", 0.0), ("latency_ms_p99", 100.0)];
    assert_eq!(changes(&mut pool, 2_300..3_000, 10, &cleared), [(2_600, 7), (2_910, 6)]);
    // Lag cleared and CPU not low: nothing.
    assert_eq!(changes(&mut pool, 3_000..4_000, 10, &calm), []);
}

#[test]
fn the_demand_driven_pool_grows_with_requests_and_stays_at_one() {
    let up = vec![rule("queue", 10.0, 0), rule("processing_s_p99", 2.0, 0)];
    let policy = Threshold { up, idle: Some(Idle { replicas: 1, ..Idle::default() }), ..Threshold::default() };
    let mut pool = Pool::new(&policy, (1, 20), 1);
    let busy = [("queue", 11.0), ("processing_s_p99", 0.5), ("work", 12.0)];
    assert_eq!(changes(&mut pool, 0..130, 10, &busy), [(0, 2), (60, 3), (120, 4)]);
    let slow = [("queue", 3.0), ("processing_s_p99", 2.5), ("work", 4.0)];
    assert_eq!(changes(&mut pool, 200..250, 10, &slow), [(200, 5)]);
    // No requests for five minutes: straight to the least.
    let idle = [("queue", 0.0), ("processing_s_p99", 0.1), ("work", 0.0)];
    assert_eq!(changes(&mut pool, 250..700, 10, &idle), [(550, 1)]);
}

#[test]
fn the_gpu_pool_sleeps_after_five_idle_minutes_and_wakes_at_once() {
    let policy = Threshold {
        up: vec![rule("queue", 10.0, 0), rule("processing_s_p99", 10.0, 0)],
        idle: Some(Idle::default()),
        ..Threshold::default()
    };
    let mut pool = Pool::new(&policy, (0, 5), 0);
    let some = [("queue", 1.0), ("processing_s_p99", 0.0), ("work", 1.0)];
    assert_eq!(changes(&mut pool, 0..60, 10, &some), [(0, 1)]);
    let many = [("queue", 11.0), ("processing_s_p99", 11.0), ("work", 12.0)];
    assert_eq!(changes(&mut pool, 60..400, 10, &many), [(60, 2), (120, 3), (180, 4), (240, 5)]);
    let idle = [("queue", 0.0), ("processing_s_p99", 0.0), ("work", 0.0)];
    assert_eq!(changes(&mut pool, 400..1_000, 10, &idle), [(700, 0)]);
}

#[test]
fn the_always_on_pool_as_aws_tracks_its_cpu() {
    let text = r#"{"signal": "cpu_percent", "target": 70.0, "scale_out_cooldown": 60000000, "scale_in_cooldown": 300000000}"#;
    let policy: TargetTracking = serde_json::from_str(text).unwrap();
    let mut pool = Pool::new(&policy, (2, 10), 2);
    // Three whole minutes above, seen when the third is over: 2 × 90 / 70 = 2.57.
    assert_eq!(changes(&mut pool, 0..190, 15, &[("cpu_percent", 90.0)]), [(180, 3)]);
    // In the cooldown 90 % would want no more than what was asked for; when it is over, 3 × 90 / 70 = 3.86.
    assert_eq!(changes(&mut pool, 195..250, 15, &[("cpu_percent", 90.0)]), [(240, 4)]);
    // Fifteen whole minutes below 63 %: 4 × 30 / 70 = 1.71, and the least is 2.
    assert_eq!(changes(&mut pool, 255..2_000, 15, &[("cpu_percent", 30.0)]), [(1_140, 2)]);
}

#[test]
fn the_gpu_pool_as_keda_sizes_it() {
    let text = r#"{"triggers": [{"signal": "requests_per_s", "target": {"average_value_milli": 1000}}], "cooldown": 300000000}"#;
    let policy: Keda = serde_json::from_str(text).unwrap();
    assert_eq!(
        policy.triggers,
        [Trigger {
            name: None,
            signal: "requests_per_s".into(),
            target: Target::AverageValueMilli(1_000),
            activation: Real::ZERO
        }]
    );
    let mut pool = Pool::new(&policy, (0, 5), 0);
    // To 1 by KEDA, and to 4 by its HPA at the next look: 3.2 requests a second at 1 each, and 4 from 1 are allowed at once.
    assert_eq!(changes(&mut pool, 0..60, 15, &[("requests_per_s", 3.2)]), [(0, 1), (15, 4)]);
    // Idle: the HPA's window holds the 4 for as long as the cooldown; the last activity was at 30 s (polls are every 30 s).
    let decision = pool.look(60, vec![signal("requests_per_s", 0.0)]);
    assert_eq!((decision.wanted, decision.reason), (4, Reason::CoolingDown));
    assert_eq!(changes(&mut pool, 75..600, 15, &[("requests_per_s", 0.0)]), [(360, 0)]);
}

#[test]
fn the_lag_as_keda_sizes_it() {
    let text = r#"{"triggers": [{"signal": "lag", "target": {"average_value_milli": 1000000}}]}"#;
    let policy: Keda = serde_json::from_str(text).unwrap();
    let mut pool = Pool::new(&policy, (2, 10), 2);
    assert_eq!(changes(&mut pool, 0..60, 15, &[("lag", 4_500.0)]), [(0, 4), (15, 5)]);
    assert_eq!(changes(&mut pool, 60..600, 15, &[("lag", 0.0)]), [(360, 2)]);
}
