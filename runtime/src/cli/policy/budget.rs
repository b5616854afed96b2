//! What a policy may cost, and how long tasks may wait: the terms of `--budget`.

use std::fmt;
use std::str::FromStr;

use ergate::events::backtest::Report;

use crate::cli::embedded::parse_span;
use crate::cli::whatif::seconds;

/// Most terms.
const TERMS_MAX: usize = 16;
/// What may be compared, with how it is read.
const NAMES: [(&str, Unit); 10] = [
    ("mean", Unit::Span),
    ("p50", Unit::Span),
    ("p95", Unit::Span),
    ("p99", Unit::Span),
    ("max", Unit::Span),
    ("over", Unit::Share),
    ("cost", Unit::Number),
    ("hours", Unit::Number),
    ("changes", Unit::Number),
    ("flips", Unit::Number),
];

/// All terms of a budget; each has to hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Budget(Vec<Term>);

/// `NAME<BOUND`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    text: String,
    name: &'static str,
    unit: Unit,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// Less than this.
    Below(f64),
    /// Less than so many times what the other policy has.
    Times(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A wait, in seconds.
    Span,
    /// A share of all tasks.
    Share,
    Number,
}

/// A term with both numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) term: String,
    /// What the new policy has.
    pub(super) new: f64,
    /// What the other one has.
    pub(super) other: f64,
    /// What it has to be below.
    pub(super) below: f64,
    pub(super) holds: bool,
    unit: Unit,
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        let terms: Vec<Term> = text.split(',').map(|term| term.trim().parse()).collect::<Result<_, _>>()?;
        if terms.len() > TERMS_MAX {
            return Err(format!("{} terms are more than {TERMS_MAX}", terms.len()));
        }
        Ok(Budget(terms))
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Term, String> {
        let (name, bound) =
            text.split_once('<').ok_or_else(|| format!("{text:?} is no term: write NAME<BOUND, such as p99<60s"))?;
        let known = NAMES.iter().find(|(known, _)| *known == name.trim());
        let (name, unit) = *known.ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("{text:?}: there is no {:?} in a budget; there are {}", name.trim(), names.join(", "))
        })?;
        let bound = bound.trim();
        let percent = bound.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()).filter(|number| number.is_finite());
        let is_relative = bound.starts_with(['+', '-']);
        let number = || bound.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let bound = match (unit, percent) {
            (_, Some(percent)) if is_relative && percent > -100.0 => Some(Bound::Times(1.0 + percent / 100.0)),
            _ if is_relative => None,
            (Unit::Share, Some(percent)) => Some(Bound::Below(percent / 100.0)),
            (Unit::Span, _) => parse_span(bound).ok().map(|span| Bound::Below(span.as_secs_f64())),
            (Unit::Number, None) => number().map(Bound::Below),
            (Unit::Share, None) | (Unit::Number, Some(_)) => None,
        };
        let expected = match unit {
            Unit::Span => "a span such as 60s",
            Unit::Share => "a share of all tasks such as 0.1%",
            Unit::Number => "a number such as 12.5",
        };
        let bound =
            bound.ok_or_else(|| format!("{text:?}: write {expected}, or a difference from the other policy such as +5%"))?;
        Ok(Term { text: text.to_owned(), name, unit, bound })
    }
}

impl Budget {
    /// Each term with the numbers of the new policy and of the other one.
    pub(super) fn judge(&self, new: &Report, other: &Report) -> Vec<Verdict> {
        self.0.iter().map(|term| term.judge(new, other)).collect()
    }
}

impl Term {
    fn judge(&self, new: &Report, other: &Report) -> Verdict {
        let (new, other) = (value(self.name, new), value(self.name, other));
        let below = match self.bound {
            Bound::Below(below) => below,
            Bound::Times(times) => other * times,
        };
        // As much as nothing more of nothing is no more.
        let holds = new < below || (new == 0.0 && below == 0.0);
        Verdict { term: self.text.clone(), new, other, below, holds, unit: self.unit }
    }
}

fn value(name: &str, report: &Report) -> f64 {
    match name {
        "mean" => seconds(report.waits.mean),
        "p50" => seconds(report.waits.p50),
        "p95" => seconds(report.waits.p95),
        "p99" => seconds(report.waits.p99),
        "max" => seconds(report.waits.max),
        "over" => report.waits.share_over(),
        "cost" => report.cost,
        "hours" => report.hours(),
        "changes" => report.events as f64,
        _ => report.flips as f64,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |number: f64| match self.unit {
            Unit::Span => format!("{number:.3} s"),
            Unit::Share => format!("{:.3} %", number * 100.0),
            Unit::Number => format!("{number:.3}"),
        };
        let word = if self.holds { "within" } else { "OUTSIDE" };
        write!(
            f,
            "{word} {}: {}, of at most {}; the other policy has {}",
            self.term,
            told(self.new),
            told(self.below),
            told(self.other)
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_with_their_units() {
        let Budget(terms) = "p99<60s, cost<+5%,over<0.1%,changes<10,hours<-2.5%".parse().unwrap();
        let bounds: Vec<_> = terms.iter().map(|term| (term.name, term.bound)).collect();
        assert_eq!(bounds[0], ("p99", Bound::Below(60.0)));
        assert_eq!(bounds[1], ("cost", Bound::Times(1.05)));
        assert_eq!(bounds[2], ("over", Bound::Below(0.001)));
        assert_eq!(bounds[3], ("changes", Bound::Below(10.0)));
        assert_eq!(bounds[4], ("hours", Bound::Times(0.975)));
    }

    #[test]
    fn what_is_no_term_is_refused_by_name() {
        for (text, part) in [
            ("", "is no term"),
            ("p99", "is no term"),
            ("p98<1s", "there is no \"p98\" in a budget; there are mean, p50"),
            ("p99<60", "write a span"),
            ("p99<60%", "write a span"),
            ("over<1", "write a share"),
            ("cost<5%", "write a number"),
            ("cost<nan", "write a number"),
            ("cost<-100%", "write a number"),
            ("cost<+5", "write a number"),
            ("p99<1s,", "is no term"),
            ("p99>1s", "is no term"),
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["p99<1s"; 17].join(",");
        assert!(many.parse::<Budget>().unwrap_err().contains("more than 16"));
    }
}
