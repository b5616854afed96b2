//! Formulas: what they give, what is refused, and how `keda` and `composite` use them.

use ergate_events::scaling::composite::{Composite, Member};
use ergate_events::scaling::decision::{Answer, Failure, Reason};
use ergate_events::scaling::formula::{FORMULA_BYTES_MAX, FORMULA_DEPTH_MAX, Formula};
use ergate_events::scaling::hpa::{Hpa, Target};
use ergate_events::scaling::keda::{Fallback, FallbackBehavior, Keda};
use ergate_events::scaling::policy::Single;
use ergate_events::scaling::signal::{Bounds, Value};
use ergate_events::scaling::threshold::{Rule, Threshold};
use ergate_events::scaling::{AnyPolicy, Policy};
use proptest::prelude::*;

use crate::support::{Pool, broken, external, real, secs, signal};

/// The value where `a` is 7, `b` is 2, `c` is 0.5 and everything else 0.
fn value(text: &str) -> Option<f64> {
    let formula = Formula::new(text);
    assert_eq!(formula.error(), None, "{text}");
    let number = |index: usize| match formula.names()[index].as_str() {
        "a" => 7.0,
        "b" => 2.0,
        "c" => 0.5,
        _ => 0.0,
    };
    formula.value(number).map(|value| value.get())
}

#[test]
fn formulas_have_the_values_that_expr_gives_them() {
    for (text, expected) in [
        ("a", 7.0),
        (" a\t+\nb * c ", 8.0),
        ("(a + b) * c", 4.5),
        ("a - b - c", 4.5),
        ("a / b / c", 7.0),
        ("7 / 2", 3.5),
        ("-a + 10", 3.0),
        ("- - a", 7.0),
        ("-b * -b", 4.0),
        ("1_000 + .5 + 1e3 + 2.5e-1", 2_000.75),
        ("a > b ? a + b : 1", 9.0),
        ("a < b ? a : b < c ? 1 : 2", 2.0),
        ("a >= 7 and b <= 2 ? 1 : 0", 1.0),
        ("a == 7 && b != 2 || c == 0.5 ? 1 : 0", 1.0),
        ("a == 7 and (b != 2 or c != 0.5) ? 1 : 0", 0.0),
        ("not (a > b) ? 1 : 0", 0.0),
        ("!(a > b) || a > b ? 3 : 4", 3.0),
        ("min(a, b, c)", 0.5),
        ("max([a, b], c)", 7.0),
        ("sum([a, b, c])", 9.5),
        ("mean(a, b)", 4.5),
        ("median(a, b, c)", 2.0),
        ("median(a, b)", 4.5),
        ("abs(b - a)", 5.0),
        ("ceil(a / b) + floor(a / b)", 7.0),
        ("round(2.5) + round(-2.5) + round(0.4)", 0.0),
        ("int(-3.9) + float(b)", -1.0),
        // The example of KEDA's documentation.
        ("count([a, b], {# > 1}) > 1 ? 5 : 0", 5.0),
        ("count([a, b, c], # > 1)", 2.0),
        ("any([a, c], {# < 1}) ? 1 : 0", 1.0),
        ("all([a, c], {# < 1}) ? 1 : 0", 0.0),
        ("none([a, b], {# * c > a}) ? 1 : 0", 1.0),
    ] {
        assert_eq!(value(text), Some(expected), "{text}");
    }
}

#[test]
fn every_operation_is_rounded_once_from_left_to_right() {
    assert_eq!(value("0.1 + 0.2 + 0.3"), Some(0.1 + 0.2 + 0.3));
    assert_ne!(value("0.1 + 0.2 + 0.3"), value("0.1 + (0.2 + 0.3)"));
    assert_eq!(value("sum(0.1, 0.2, 0.3)").map(f64::to_bits), Some((0.1_f64 + 0.2 + 0.3).to_bits()));
}

#[test]
fn what_is_no_finite_number_is_no_value() {
    for text in ["a / 0", "0 / zero", "a / (b - 2)", "max(a, 0 / 0)", "min(0 / 0, a)", "median(a, 0 / 0)", "1e308 * 10"] {
        assert_eq!(value(text), None, "{text}");
    }
    // The branch that is not taken is not calculated.
    assert_eq!(value("b == 2 ? 1 : a / 0"), Some(1.0));
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    for (text, at, part) in [
        ("", 1, "it ends where a number or a name should be"),
        ("a +", 4, "it ends"),
        ("a ** 2", 3, "`**` is not understood"),
        ("a ^ 2", 3, "`^` is not understood"),
        ("a % 2", 3, "`%` is not understood"),
        ("a ?? 2", 3, "`??` is not understood"),
        ("a | max(b)", 3, "`|` is not understood"),
        ("a; b", 2, "`;` is not understood"),
        ("let x = a; x", 1, "`let` is not understood"),
        ("if a > 1 {2} else {3}", 1, "`if` is not understood"),
        ("a = 2", 3, "compare with =="),
        ("a.b", 2, "`.` is not understood"),
        ("\"text\"", 1, "there are only numbers"),
        ("true ? 1 : 2", 1, "`true` is not understood"),
        ("a b", 3, "`b` stands where an operator or the end should be"),
        ("a ü", 3, "stands where"),
        ("(a", 3, "it ends where `)` should be"),
        ("a)", 2, "`)` stands where"),
        ("a ? 1 : 2", 1, "`?` needs yes or no, and this is a number"),
        ("a > 1", 1, "it gives yes or no"),
        ("a + (b > 1)", 5, "`+` needs a number, and this is yes or no"),
        ("(a > 1) == (b > 1) ? 1 : 0", 1, "`==` needs a number"),
        ("a > 1 ? 1 : b > 2", 13, "needs a number"),
        ("not a > 1 ? 1 : 0", 1, "`not` needs yes or no"),
        ("filter([a], {# > 1})", 1, "there is no function `filter`; there are min, max"),
        ("abs(a, b)", 1, "`abs` takes one number, and there are 2"),
        ("count(a, {# > 1})", 7, "stands where `[` should be"),
        ("count([a], {any([b], {# > 1})})", 17, "no other predicate"),
        ("# + 1", 1, "stands where"),
        ("[a]", 1, "a list stands only"),
        ("0x10", 1, "`0x10` is no number"),
        ("1e999", 1, "`1e999` is no number"),
        ("1.2.3", 1, "`1.2.3` is no number"),
    ] {
        let formula = Formula::new(text);
        let error = formula.error().unwrap_or_else(|| panic!("{text} is understood"));
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert_eq!(formula.value(|_| 1.0), None);
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(Formula::new(nested(FORMULA_DEPTH_MAX)).error(), None);
    for text in [nested(FORMULA_DEPTH_MAX + 1), "-".repeat(1_000) + "a", "a>1?".repeat(200), "min(".repeat(200)] {
        assert!(Formula::new(&text).error().unwrap().reason.contains("nested deeper than 32"), "{text}");
    }
    let long = |bytes: usize| format!("a{}", "+1".repeat(bytes / 2));
    assert_eq!(Formula::new(long(FORMULA_BYTES_MAX - 2)).value(|_| 0.0).map(|it| it.get()), Some(511.0));
    assert!(Formula::new(long(FORMULA_BYTES_MAX)).error().unwrap().reason.contains("at most 1024 bytes"));
    assert!(Formula::new("(".repeat(100_000_000)).error().is_some());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ab()+*/?:<>=!&|,{}#0-9. \\[\\]-]{0,60}|.{0,60}|(min|count|max|not|a|b|[(),?:+<\\[\\]{}#1]| ){0,40}", a in any::<f64>()) {
        let formula = Formula::new(text);
        let value = formula.value(|_| a);
        prop_assert!(formula.error().is_none() || value.is_none());
    }
}

fn policy(formula: &str) -> Keda {
    let text = r#"{"triggers": [
        {"name": "lag", "signal": "queue_lag", "target": {"average_value_milli": 1000}},
        {"signal": "age", "target": {"average_value_milli": 1000}}],
        "follows_events": true,
        "scaling_modifiers": {"formula": "FORMULA", "target": {"average_value_milli": 10000}, "activation": 5}}"#;
    serde_json::from_str(&text.replace("FORMULA", formula)).unwrap()
}

#[test]
fn the_formula_sizes_the_pool_and_its_value_is_in_the_decision() {
    let policy = policy("age > 60 ? lag * 2 : lag");
    let mut pool = Pool::new(&policy, (0, 20), 4);
    let decision = pool.look(0, vec![signal("queue_lag", 60.0), signal("age", 1.0)]);
    assert_eq!((decision.wanted, decision.winner, decision.verdicts.len()), (6, Some(2), 3));
    assert_eq!(decision.verdicts[2].raw, Some(Value::Milli(60_000)));
    assert_eq!(decision.verdicts[0].answer, Answer::Nothing, "a trigger proposes nothing by itself");
    let text = "from 4 to 6 replicas: the signals ask for it; the formula is 60 (1.5 of its target) and asks for 6";
    assert_eq!(pool.sentence(&decision), text);
    let decision = pool.look(15, vec![signal("queue_lag", 60.0), signal("age", 61.0)]);
    assert_eq!((decision.wanted, decision.verdicts[2].raw), (12, Some(Value::Milli(120_000))));
    // Thousandths are cut off, as KEDA stores them.
    let decision = pool.look(30, vec![signal("queue_lag", 120.0 + 1.0 / 3.0), signal("age", 1.0)]);
    assert_eq!(decision.verdicts[2].raw, Some(Value::Milli(120_333)));
}

#[test]
fn it_is_active_above_its_own_activation_and_asleep_after_the_cooldown() {
    let policy = policy("lag + age");
    let mut pool = Pool::new(&policy, (0, 20), 0);
    let load = |lag, age| vec![signal("queue_lag", lag), signal("age", age)];
    assert_eq!(pool.look(0, load(3.0, 2.0)).wanted, 0, "5 is not above 5, though each trigger is above 0");
    let decision = pool.look(1, load(3.0, 2.1));
    assert_eq!((decision.wanted, decision.reason, decision.winner), (1, Reason::Woken, Some(2)));
    pool.look(20, load(90.0, 0.0));
    assert_ne!(pool.look(300, load(1.0, 1.0)).wanted, 0);
    let decision = pool.look(321, load(1.0, 1.0));
    assert_eq!((decision.wanted, decision.reason), (0, Reason::Idle));
}

#[test]
fn a_formula_that_misses_a_number_changes_nothing_until_the_fallback() {
    let mut policy = policy("lag + age");
    let load = || vec![signal("queue_lag", 500.0), broken("age")];
    let mut pool = Pool::new(&policy, (0, 20), 4);
    let decision = pool.look(0, load());
    assert_eq!((decision.wanted, decision.reason), (4, Reason::Unknown));
    assert_eq!(decision.verdicts[2].answer, Answer::Failed(Failure::Source("the broker is away".into())));
    assert_eq!(pool.look(5_000, load()).wanted, 4, "and nobody goes to sleep");
    let mut asleep = Pool::new(&policy, (0, 20), 0);
    assert_eq!(asleep.look(0, load()).wanted, 0, "and nobody is woken");
    policy.fallback = Some(Fallback { failures: 1, replicas: 2, behavior: FallbackBehavior::Static });
    policy.controller.downscale_stabilization = secs(0);
    let mut pool = Pool::new(&policy, (0, 20), 4);
    assert_eq!(pool.look(0, load()).wanted, 4);
    let decision = pool.look(15, load());
    assert_eq!((decision.wanted, decision.reason, decision.winner), (2, Reason::Fallback, Some(2)));
}

#[test]
fn a_division_by_nothing_puts_no_pool_to_sleep() {
    let policy = policy("lag / age");
    let mut pool = Pool::new(&policy, (0, 20), 4);
    let decision = pool.look(1_000, vec![signal("queue_lag", 500.0), signal("age", 0.0)]);
    assert_eq!((decision.wanted, &decision.verdicts[2].answer), (4, &Answer::Failed(Failure::NoNumber)));
}

#[test]
fn a_formula_is_refused_when_the_policy_is_checked() {
    let bounds = Bounds { min: 0, max: 9 };
    let refusal = |policy: &Keda| policy.check(bounds).unwrap_err();
    let error = refusal(&policy("lag ** 2"));
    assert_eq!(error.key, "scaling_modifiers.formula");
    assert!(error.to_string().contains("at character 5, `**` is not understood"), "{error}");
    let error = refusal(&policy("queue_lag + 1"));
    assert_eq!(error.to_string(), "`scaling_modifiers.formula` is about `queue_lag`; allowed is a formula over `lag`, `age`");
    let mut twice = policy("lag");
    twice.triggers[1].name = Some("lag".into());
    assert!(refusal(&twice).to_string().contains("only one of them"));
    let mut nothing = policy("lag");
    nothing.scaling_modifiers.as_mut().unwrap().target = Target::AverageValueMilli(0);
    assert_eq!(refusal(&nothing).key, "scaling_modifiers.target");
}

fn composite(formula: &str) -> Composite {
    let rule = Rule { signal: "age".into(), limit: real(60.0), lasting: secs(0), by: 5 };
    let old = Threshold { up: vec![rule], ..Threshold::default() };
    let queue = Hpa { metrics: vec![external("queue", 10)], ..Hpa::default() };
    let member = |name: &str, rule| Member { name: name.to_owned(), rule };
    let members = vec![member("queue", Single::Hpa(queue)), member("old", Single::Threshold(old))];
    Composite { members, formula: Some(Formula::new(formula)) }
}

#[test]
fn a_composite_follows_its_formula_within_the_bounds() {
    let policy = composite("queue + (old > 6 ? 2.5 : 0)");
    let mut pool = Pool::new(&policy, (1, 12), 4);
    let decision = pool.look(0, vec![signal("queue", 60.0), signal("age", 10.0)]);
    assert_eq!((decision.wanted, decision.winner, decision.reason), (6, Some(2), Reason::Proposed));
    let decision = pool.look(60, vec![signal("queue", 60.0), signal("age", 61.0)]);
    assert_eq!((decision.wanted, decision.verdicts[2].raw), (9, Some(Value::Real(real(8.5)))));
    assert_eq!(pool.sentence(&decision), "from 6 to 9 replicas: the signals ask for it; the formula is 8.5 and asks for 9");
    let decision = pool.look(120, vec![signal("queue", 120.0), signal("age", 61.0)]);
    assert_eq!((decision.wanted, decision.limits.len()), (12, 1), "the pool has no more");
}

#[test]
fn a_composite_whose_formula_misses_a_number_changes_nothing() {
    let policy = composite("queue + old");
    let mut pool = Pool::new(&policy, (1, 20), 4);
    let decision = pool.look(0, vec![broken("queue"), signal("age", 61.0)]);
    assert_eq!((decision.wanted, decision.reason, decision.winner), (4, Reason::Unknown, None));
    let policy = composite("queue / (old - old)");
    let decision = Pool::new(&policy, (1, 20), 4).look(0, vec![signal("queue", 60.0), signal("age", 1.0)]);
    assert_eq!((decision.wanted, decision.reason), (4, Reason::Unknown));
    let error = composite("queue + others").check(Bounds { min: 1, max: 9 }).unwrap_err();
    assert_eq!(error.to_string(), "`formula` is about `others`; allowed is a formula over `queue`, `old`");
}

#[test]
fn a_policy_without_a_formula_is_written_as_before() {
    let keda: Keda = serde_json::from_str(r#"{"triggers": [{"signal": "lag", "target": {"average_value_milli": 1}}]}"#).unwrap();
    let text = serde_json::to_string(&AnyPolicy::Keda(keda)).unwrap();
    assert!(!text.contains("scaling_modifiers") && !text.contains("name"), "{text}");
    let text = serde_json::to_string(&AnyPolicy::Composite(Composite { formula: None, ..composite("1") })).unwrap();
    assert!(!text.contains("formula"), "{text}");
}
