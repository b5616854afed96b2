//! A grid of settings: one policy with each combination of values.

use ergate::events::backtest::Setup;
use ergate::events::scaling::AnyPolicy;
use serde_json::Value;

use super::super::embedded::parse_span;
use super::super::exit::Trouble;

/// Most combinations: a minute or two of computing for a day of a busy pool.
pub(super) const COMBINATIONS_MAX: usize = 256;

/// A key and the values that it gets one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    key: String,
    values: Vec<String>,
}

impl std::str::FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Axis, String> {
        let wrong = || "write KEY=a,b,c, such as reserve=0,1,2 or max=10,20".to_owned();
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Axis { key: key.trim().to_owned(), values })
    }
}

/// Every combination of values, with its name.
pub(super) fn grid(axes: &[Axis], base: &Setup) -> Result<Vec<(String, Setup)>, Trouble> {
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    let count = count.unwrap_or(usize::MAX);
    if count > COMBINATIONS_MAX {
        return Err(Trouble::Usage(format!("--sweep asks for {count} combinations; at most {COMBINATIONS_MAX} are computed")));
    }
    let mut all = vec![(String::new(), base.clone())];
    for axis in axes {
        let mut next = Vec::with_capacity(all.len() * axis.values.len());
        for (name, setup) in &all {
            for value in &axis.values {
                let name = if name.is_empty() { format!("{}={value}", axis.key) } else { format!("{name} {}={value}", axis.key) };
                next.push((name, with(setup, &axis.key, value)?));
            }
        }
        all = next;
    }
    Ok(all)
}

/// A setup with another value of one key.
fn with(setup: &Setup, key: &str, value: &str) -> Result<Setup, Trouble> {
    let refused = |reason: &str| Trouble::Usage(format!("--sweep {key}={value}: {reason}"));
    let mut setup = setup.clone();
    let number = || value.parse().map_err(|_| refused("it is no whole number"));
    match key {
        "min" => setup.bounds.min = number()?,
        "max" => setup.bounds.max = number()?,
        "slots" => setup.slots = number()?,
        _ => {
            // A policy is numbers and texts, which can always be written.
            let mut settings = serde_json::to_value(&setup.policy).unwrap_or_default();
            let known = keys(&settings);
            let pointer = format!("/{}", key.replace('.', "/"));
            let place = settings.pointer_mut(&pointer).filter(|_| key != "policy");
            let place = place.ok_or_else(|| refused(&format!("there is no such key; there are min, max, slots, {known}")))?;
            *place = parse(value, place);
            let policy: Result<AnyPolicy, _> = serde_json::from_value(settings);
            setup.policy = policy.map_err(|error| refused(&error.to_string()))?;
        }
    }
    Ok(setup)
}

/// A value as JSON; a span, such as 30s, as the microseconds in which policies count; anything else as a text.
fn parse(text: &str, before: &Value) -> Value {
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return value;
    }
    match parse_span(text) {
        Ok(span) if !before.is_string() => u64::try_from(span.as_micros()).unwrap_or(u64::MAX).into(),
        Ok(_) | Err(_) => text.into(),
    }
}

/// The first keys of a policy.
fn keys(settings: &Value) -> String {
    let names = settings.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).filter(|name| *name != "policy");
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate::events::scaling::rate::Rate;
    use ergate::events::scaling::signal::Bounds;
    use ergate::events::time::Micros;

    use super::*;

    fn base() -> Setup {
        Setup::new(AnyPolicy::Rate(Rate::default()), Bounds { min: 1, max: 5 })
    }

    #[test]
    fn every_combination_is_there_once_with_its_values() {
        let axes: Vec<Axis> = ["catch_up=5s,30000000", "max=5,10,20"].map(|text| text.parse().unwrap()).to_vec();
        let grid = grid(&axes, &base()).unwrap();
        let names: Vec<_> = grid.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["catch_up=5s max=5", "catch_up=5s max=10"]);
        assert_eq!((names.len(), names[5]), (6, "catch_up=30000000 max=20"));
        let AnyPolicy::Rate(rate) = &grid[0].1.policy else { panic!("another policy") };
        assert_eq!((rate.catch_up, grid[1].1.bounds.max), (Micros::from_secs(5), 10));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for text in ["", "reserve", "=1", "reserve=", "reserve=1,,2"] {
            assert!(text.parse::<Axis>().is_err(), "{text}");
        }
        let refused = |text: &str| grid(&[text.parse().unwrap()], &base()).unwrap_err().to_string();
        assert!(refused("magic=1").contains("there are min, max, slots, arrivals, "), "{}", refused("magic=1"));
        assert!(refused("reserve=much").contains("--sweep reserve=much: "));
        assert!(refused("slots=1.5").contains("no whole number"));
        assert!(refused("policy=hpa").contains("no such key"));
        let many = format!("reserve={}", vec!["1"; 257].join(","));
        assert!(refused(&many).contains("257 combinations; at most 256"));
    }
}
