//! What the controller does with single windows.

use ergate_events::concurrency::{Controller, End, Meter, Reason, Settings, Wanted, Window};
use ergate_events::time::Micros;

fn window(in_flight: f64, latency: f64) -> Window {
    let latency_mean = Micros((latency * 1e6) as u64);
    Window {
        span: Micros::from_secs(1),
        completed: 32,
        overloaded: 0,
        latency_mean,
        in_flight_mean: in_flight,
        in_flight_max: in_flight as u32,
        starved: 0.0,
    }
}

/// Windows of a server with so many places and no chance in it.
fn teach(controller: &mut Controller, places: f64, windows: usize) {
    for _ in 0..windows {
        let limit = f64::from(controller.limit());
        controller.step(&window(limit, 0.2 * (limit / places).max(1.0)));
    }
}

#[test]
fn the_start_doubles_and_then_the_knee_is_named_with_its_numbers() {
    let mut controller = Controller::new(Settings::between(1, 100));
    let mut limits = Vec::new();
    loop {
        let limit = f64::from(controller.limit());
        let step = controller.step(&window(limit, 0.2 * (limit / 10.0).max(1.0)));
        limits.push(step.limit);
        if !matches!(step.reason, Reason::Growing { .. }) {
            let knee = "50.0 a second at most, times 200 ms that each takes without a queue, are 10.0 at a time";
            assert_eq!(step.reason.to_string(), knee);
            break;
        }
    }
    assert_eq!(limits, [2, 4, 8, 16, 11]);
}

#[test]
fn it_stays_within_its_bounds() {
    let mut controller = Controller::new(Settings { min: 3, max: 6, initial: 50, window: Micros(0) });
    assert_eq!(controller.limit(), 6);
    teach(&mut controller, 100.0, 30);
    assert_eq!(controller.limit(), 6, "there is room for more");
    teach(&mut controller, 1.0, 60);
    assert_eq!(controller.level(), 3, "one would be enough");
    let mut odd = Controller::new(Settings { min: 0, max: 0, initial: 0, window: Micros(0) });
    teach(&mut odd, 4.0, 30);
    assert_eq!(odd.limit(), 1);
}

#[test]
fn overload_lowers_the_limit_by_a_factor_and_is_remembered() {
    let mut controller = Controller::new(Settings::between(1, 100));
    teach(&mut controller, 20.0, 12);
    let level = controller.level();
    let step = controller.step(&Window { overloaded: 16, ..window(f64::from(level), 0.2) });
    assert_eq!((step.limit, level), (15, 22));
    assert_eq!(step.reason.to_string(), "16 of 48 attempts were refused, turned away or not answered in time");
    // Twenty places would have it at 22 again; for some windows it does not go there.
    for _ in 0..7 {
        teach(&mut controller, 20.0, 1);
        assert!(controller.limit() <= 20, "{}", controller.limit());
    }
    teach(&mut controller, 20.0, 10);
    assert_eq!(controller.level(), 22);
}

#[test]
fn a_few_overloaded_among_many_are_none() {
    let mut controller = Controller::new(Settings::between(1, 100));
    teach(&mut controller, 20.0, 12);
    let step = controller.step(&Window { overloaded: 2, ..window(22.0, 0.22) });
    assert!(!matches!(step.reason, Reason::Overloaded { .. }));
    let step = controller.step(&Window { overloaded: 3, completed: 97, ..window(22.0, 0.22) });
    assert!(!matches!(step.reason, Reason::Overloaded { .. }));
}

#[test]
fn a_server_that_was_gone_is_as_good_as_before_once_it_is_back() {
    let mut controller = Controller::new(Settings::between(1, 100));
    teach(&mut controller, 20.0, 20);
    for _ in 0..50 {
        controller.step(&Window { completed: 0, overloaded: 3, ..window(f64::from(controller.limit()), 0.0) });
    }
    assert_eq!(controller.limit(), 1);
    teach(&mut controller, 20.0, 1);
    assert_eq!(controller.level(), 22);
}

#[test]
fn what_is_said_again_at_the_same_level_is_remembered_for_longer() {
    let mut controller = Controller::new(Settings::between(1, 100));
    teach(&mut controller, 20.0, 12);
    let mut lasted = Vec::new();
    for _ in 0..8 {
        // Whoever has more than 16 in flight is turned away.
        let mut windows = 0;
        while controller.limit() <= 16 {
            teach(&mut controller, 20.0, 1);
            windows += 1;
        }
        lasted.push(windows);
        while controller.limit() > 16 {
            let limit = f64::from(controller.limit());
            controller.step(&Window { overloaded: 16, ..window(limit, 0.2) });
        }
    }
    // Each time it comes down to 16 first.
    lasted.retain(|windows| *windows > 1);
    assert!(lasted.len() >= 2 && lasted[0] == 8 && lasted[1] == 16, "{lasted:?}");
}

#[test]
fn a_probe_that_the_load_does_not_reach_ends() {
    let mut controller = Controller::new(Settings::between(1, 100));
    let mut probe = 0;
    for _ in 0..30 {
        teach(&mut controller, 8.0, 1);
        if controller.limit() > controller.level() {
            probe = controller.limit();
            break;
        }
    }
    assert_eq!((controller.level(), probe), (9, 14));
    let step = controller.step(&Window { starved: 0.9, ..window(2.0, 0.2) });
    assert_eq!((step.limit, step.reason), (9, Reason::NotReached { in_flight: 2.0, limit: 14 }));
}

#[test]
fn it_goes_on_where_it_was_after_it_was_written_and_read() {
    let mut controller = Controller::new(Settings::between(1, 100));
    for count in 0..40 {
        let text = serde_json::to_string(&controller).expect("it can be written");
        let mut read: Controller = serde_json::from_str(&text).expect("and read");
        teach(&mut controller, if count < 20 { 12.0 } else { 3.0 }, 1);
        teach(&mut read, if count < 20 { 12.0 } else { 3.0 }, 1);
        assert_eq!(read.limit(), controller.limit());
    }
}

#[test]
fn no_window_breaks_it() {
    let levels = [0.0, 1.0, 1e300, -1.0, f64::NAN, f64::INFINITY, 5.0, 64.0];
    let spans = [0, 1, 1_000_000, u64::MAX];
    let counts = [0, 1, 3, 32, u32::MAX];
    let mut controller = Controller::new(Settings::between(1, 64));
    for round in 0..4_000 {
        let pick = |by: usize, of: usize| round / by % of;
        let window = Window {
            span: Micros(spans[pick(3, 4)]),
            completed: counts[pick(5, 5)],
            overloaded: counts[pick(11, 5)],
            latency_mean: Micros(spans[pick(7, 4)]),
            in_flight_mean: levels[pick(1, 8)],
            in_flight_max: counts[pick(2, 5)],
            starved: levels[pick(13, 8)],
        };
        let step = controller.step(&window);
        assert!((1..=64).contains(&step.limit) && (1..=64).contains(&controller.level()), "{window:?} gave {step:?}");
        assert!(controller.wanted().ended >= 2, "{window:?}");
    }
    teach(&mut controller, 8.0, 400);
    assert!((8..=10).contains(&controller.level()), "it recovers: {}", controller.level());
}

const WANTED: Wanted = Wanted { ended: 4, span: Micros(0), overloaded: 3 };

/// Ends one attempt at this moment, in milliseconds, that began so long before, and begins another.
fn turn(meter: &mut Meter, at: u64, latency: u64, end: End) -> Option<Window> {
    let window = meter.end(Micros::from_millis(at), Micros::from_millis(latency), end, WANTED);
    meter.begin(Micros::from_millis(at), 1);
    window
}

#[test]
fn a_window_begins_and_ends_with_the_end_of_an_attempt() {
    let mut meter = Meter::new(Micros(0));
    meter.begin(Micros(0), 2);
    assert_eq!(turn(&mut meter, 100, 100, End::Served), None);
    for at in [200, 300, 400] {
        assert_eq!(turn(&mut meter, at, 200, End::Served), None);
    }
    let window = turn(&mut meter, 500, 200, End::Served).expect("four have ended");
    let latency_mean = Micros::from_millis(200);
    let expected = Window {
        span: Micros::from_millis(400),
        completed: 4,
        overloaded: 0,
        latency_mean,
        in_flight_mean: 2.0,
        in_flight_max: 2,
        starved: 0.0,
    };
    assert_eq!(window, expected);
}

#[test]
fn what_was_in_flight_when_the_limit_changed_does_not_count() {
    let mut meter = Meter::new(Micros(0));
    meter.begin(Micros(0), 1);
    turn(&mut meter, 100, 100, End::Served);
    meter.begin(Micros::from_millis(100), 2);
    meter.skip();
    // Three were in flight; one that began before the change and was turned away counts as little as those that were served.
    turn(&mut meter, 200, 150, End::Overloaded);
    turn(&mut meter, 300, 200, End::Served);
    turn(&mut meter, 400, 300, End::Served);
    for at in [500, 600, 700] {
        assert_eq!(turn(&mut meter, at, 300, End::Served), None);
    }
    let window = turn(&mut meter, 800, 300, End::Served).expect("four have ended");
    assert_eq!((window.completed, window.overloaded, window.span), (4, 0, Micros::from_millis(400)));
}

#[test]
fn overload_ends_a_window_at_once_and_attempts_that_somebody_else_ended_do_not_count() {
    let mut meter = Meter::new(Micros(0));
    meter.begin(Micros(0), 8);
    for at in 1..10 {
        assert_eq!(turn(&mut meter, at, at, End::Taken), None);
    }
    meter.skip();
    assert_eq!(turn(&mut meter, 20, 1, End::Overloaded), None);
    assert_eq!(turn(&mut meter, 21, 1, End::Overloaded), None);
    let window = turn(&mut meter, 22, 1, End::Overloaded).expect("that is enough");
    assert_eq!((window.completed, window.overloaded), (0, 3));
}
