//! What a formula says, and its value. Yes is 1 and no is 0; that nobody adds them up is seen when the formula is read.

/// A part of a formula.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Number(f64),
    /// A name, by its place among the names of the formula.
    Name(usize),
    /// `#`: the element that a predicate looks at.
    Element,
    Negative(Box<Term>),
    Not(Box<Term>),
    Two(Operator, Box<(Term, Term)>),
    /// `if ? then : otherwise`.
    Choice(Box<(Term, Term, Term)>),
    Call(Function, Vec<Term>),
    /// A predicate over a list.
    Over(Quantifier, Vec<Term>, Box<Term>),
}

/// What stands between two terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Equal,
    Different,
    Less,
    AtMost,
    More,
    AtLeast,
    And,
    Or,
}

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Min,
    Max,
    Sum,
    Mean,
    Median,
    Abs,
    Ceil,
    Floor,
    /// Halves go away from zero.
    Round,
    /// Cuts the fraction off.
    Int,
    Float,
}

/// What can be asked of all elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantifier {
    Count,
    Any,
    All,
    None,
}

impl Term {
    /// Its value. The depth is that of the text, which is bounded.
    pub(super) fn value(&self, read: &impl Fn(usize) -> f64, element: f64) -> f64 {
        let value = |term: &Term| term.value(read, element);
        match self {
            Term::Number(number) => *number,
            Term::Name(index) => read(*index),
            Term::Element => element,
            Term::Negative(term) => -value(term),
            Term::Not(term) => truth(value(term) == 0.0),
            Term::Two(operator, terms) => operator.value(value(&terms.0), value(&terms.1)),
            Term::Choice(terms) => {
                if value(&terms.0) == 0.0 {
                    value(&terms.2)
                } else {
                    value(&terms.1)
                }
            }
            Term::Call(function, terms) => function.value(terms.iter().map(value)),
            Term::Over(quantifier, list, predicate) => {
                let holds = |term: &Term| predicate.value(read, value(term)) != 0.0;
                let count = list.iter().filter(|term| holds(term)).count();
                match quantifier {
                    Quantifier::Count => count as f64,
                    Quantifier::Any => truth(count > 0),
                    Quantifier::All => truth(count == list.len()),
                    Quantifier::None => truth(count == 0),
                }
            }
        }
    }
}

impl Operator {
    fn value(self, one: f64, other: f64) -> f64 {
        match self {
            Operator::Add => one + other,
            Operator::Subtract => one - other,
            Operator::Multiply => one * other,
            Operator::Divide => one / other,
            Operator::Equal => truth(one == other),
            Operator::Different => truth(one != other),
            Operator::Less => truth(one < other),
            Operator::AtMost => truth(one <= other),
            Operator::More => truth(one > other),
            Operator::AtLeast => truth(one >= other),
            Operator::And => truth(one != 0.0 && other != 0.0),
            Operator::Or => truth(one != 0.0 || other != 0.0),
        }
    }
}

impl Function {
    fn value(self, mut numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = numbers.len();
        match self {
            Function::Min => fold(numbers, |least, number| number < least),
            Function::Max => fold(numbers, |most, number| number > most),
            Function::Sum => numbers.fold(0.0, |sum, number| sum + number),
            Function::Mean => numbers.fold(0.0, |sum, number| sum + number) / count as f64,
            Function::Median => median(numbers.collect()),
            Function::Abs => numbers.next().unwrap_or(f64::NAN).abs(),
            Function::Ceil => numbers.next().unwrap_or(f64::NAN).ceil(),
            Function::Floor => numbers.next().unwrap_or(f64::NAN).floor(),
            Function::Round => numbers.next().unwrap_or(f64::NAN).round(),
            Function::Int => numbers.next().unwrap_or(f64::NAN).trunc(),
            Function::Float => numbers.next().unwrap_or(f64::NAN),
        }
    }
}

/// The number that goes before all others; what is no number is not lost.
fn fold(numbers: impl Iterator<Item = f64>, goes_before: impl Fn(f64, f64) -> bool) -> f64 {
    // Nothing goes before what is no number, so it stays.
    let first = |kept: f64, number: f64| if number.is_nan() || goes_before(kept, number) { number } else { kept };
    numbers.reduce(first).unwrap_or(f64::NAN)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    if numbers.iter().any(|number| number.is_nan()) {
        return f64::NAN;
    }
    numbers.sort_by(f64::total_cmp);
    let at = |index: usize| numbers.get(index).copied().unwrap_or(f64::NAN);
    let middle = numbers.len() / 2;
    if numbers.len().is_multiple_of(2) { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 } else { at(middle) }
}

const fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}
