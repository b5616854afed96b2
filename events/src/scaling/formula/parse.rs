//! From the text of a formula to what it says, or to what in it is not understood.

use super::term::{Function, Operator, Quantifier, Term};
use super::{FORMULA_BYTES_MAX, FORMULA_DEPTH_MAX, FormulaError};

/// What a term gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    YesNo,
}

type Typed = (Term, Kind);

/// Operators by how tightly they bind, the loosest first, as Expr has them.
const BINARY: [(&str, Operator, u8); 14] = [
    ("||", Operator::Or, 1),
    ("or", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("and", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::Different, 3),
    ("<=", Operator::AtMost, 3),
    (">=", Operator::AtLeast, 3),
    ("<", Operator::Less, 3),
    (">", Operator::More, 3),
    ("+", Operator::Add, 4),
    ("-", Operator::Subtract, 4),
    ("*", Operator::Multiply, 5),
    ("/", Operator::Divide, 5),
];
/// The level at which only single terms are left.
const TIGHTEST: u8 = 6;

/// What stands in Expr and is not understood, with what to write instead.
const REFUSED: [(&str, &str); 13] = [
    ("**", "write the product"),
    ("^", "write the product"),
    ("%", "divide"),
    ("??", "a trigger that cannot be read has no value, and neither has the formula"),
    ("?.", "there are only numbers"),
    ("..", "there are only numbers"),
    ("|", "call the function with its argument in brackets"),
    (";", "write the term where it is needed"),
    ("=", "compare with =="),
    ("\"", "there are only numbers"),
    ("'", "there are only numbers"),
    ("`", "there are only numbers"),
    (".", "there are only numbers"),
];
/// Words of Expr that are not understood.
const REFUSED_WORDS: [&str; 12] =
    ["let", "if", "else", "in", "matches", "contains", "startsWith", "endsWith", "nil", "true", "false", "$env"];

const FUNCTIONS: [(&str, Function); 11] = [
    ("min", Function::Min),
    ("max", Function::Max),
    ("sum", Function::Sum),
    ("mean", Function::Mean),
    ("median", Function::Median),
    ("abs", Function::Abs),
    ("ceil", Function::Ceil),
    ("floor", Function::Floor),
    ("round", Function::Round),
    ("int", Function::Int),
    ("float", Function::Float),
];

const QUANTIFIERS: [(&str, Quantifier); 4] =
    [("count", Quantifier::Count), ("any", Quantifier::Any), ("all", Quantifier::All), ("none", Quantifier::None)];

/// Reads a formula: the names in it, and what it says.
pub(super) fn parse(text: &str) -> Result<(Vec<String>, Term), FormulaError> {
    let mut parser = Parser { text, at: 0, depth: 0, names: Vec::new(), has_element: false };
    if text.len() > FORMULA_BYTES_MAX {
        return parser.refuse(format!("a formula has at most {FORMULA_BYTES_MAX} bytes, and this has {}", text.len()));
    }
    let (term, kind) = parser.choice()?;
    parser.skip();
    if !parser.rest().is_empty() {
        return parser.unexpected("an operator or the end");
    }
    if kind == Kind::YesNo {
        parser.at = 0;
        return parser.refuse("it gives yes or no, and should give a number: write `… ? 1 : 0`".to_owned());
    }
    Ok((parser.names, term))
}

struct Parser<'a> {
    text: &'a str,
    /// Which byte is next.
    at: usize,
    depth: usize,
    names: Vec<String>,
    /// Whether it is inside a predicate, where `#` means something.
    has_element: bool,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn refuse<T>(&self, reason: String) -> Result<T, FormulaError> {
        let at = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        Err(FormulaError { at, reason })
    }

    /// What stands here is nothing that may stand here.
    fn unexpected<T>(&self, expected: &str) -> Result<T, FormulaError> {
        let rest = self.rest();
        if let Some((found, instead)) = REFUSED.iter().find(|(found, _)| rest.starts_with(found)) {
            return self.refuse(format!("`{found}` is not understood: {instead}"));
        }
        let word = word(rest);
        if !word.is_empty() {
            return self.refuse(format!("`{word}` stands where {expected} should be"));
        }
        match rest.chars().next() {
            Some(found) => self.refuse(format!("`{}` stands where {expected} should be", found.escape_default())),
            None => self.refuse(format!("it ends where {expected} should be")),
        }
    }

    /// Takes these characters, if they come next.
    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        let is_next = self.rest().starts_with(sign);
        if is_next {
            self.at += sign.len();
        }
        is_next
    }

    fn expect(&mut self, sign: &str) -> Result<(), FormulaError> {
        if self.take(sign) { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }

    /// One level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, FormulaError>) -> Result<T, FormulaError> {
        if self.depth == FORMULA_DEPTH_MAX {
            return self.refuse(format!("it is nested deeper than {FORMULA_DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let answer = read(self);
        self.depth -= 1;
        answer
    }

    fn is(&self, at: usize, typed: Typed, wanted: Kind, by: &str) -> Result<Term, FormulaError> {
        let (term, kind) = typed;
        if kind == wanted {
            return Ok(term);
        }
        let (wanted, found) = if wanted == Kind::Number { ("a number", "yes or no") } else { ("yes or no", "a number") };
        let here = self.text.get(..at).unwrap_or_default().chars().count() + 1;
        Err(FormulaError { at: here, reason: format!("{by} needs {wanted}, and this is {found}") })
    }

    /// `condition ? one : other`, or less.
    fn choice(&mut self) -> Result<Typed, FormulaError> {
        self.skip();
        let start = self.at;
        let condition = self.binary(1)?;
        self.skip();
        if !self.rest().starts_with('?') || self.rest().starts_with("??") || self.rest().starts_with("?.") {
            return Ok(condition);
        }
        self.at += 1;
        let condition = self.is(start, condition, Kind::YesNo, "`?`")?;
        let (one, kind) = self.deeper(Self::choice)?;
        self.expect(":")?;
        self.skip();
        let start = self.at;
        let other = self.deeper(Self::choice)?;
        let by = "the other side of `:` gives what the first does: it";
        let other = self.is(start, other, kind, by)?;
        Ok((Term::Choice(Box::new((condition, one, other))), kind))
    }

    /// Operators that bind so tightly or more, from left to right.
    fn binary(&mut self, level: u8) -> Result<Typed, FormulaError> {
        if level == TIGHTEST {
            return self.single();
        }
        self.skip();
        let start = self.at;
        let mut left = self.binary(level + 1)?;
        // What stands to the left of an operator lies in it: a sum is as deep as it is long, which the longest formula bounds.
        while let Some((sign, operator)) = self.operator(level) {
            self.at += sign.len();
            let (wanted, given) = match operator {
                Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide => (Kind::Number, Kind::Number),
                Operator::And | Operator::Or => (Kind::YesNo, Kind::YesNo),
                Operator::Equal
                | Operator::Different
                | Operator::Less
                | Operator::AtMost
                | Operator::More
                | Operator::AtLeast => (Kind::Number, Kind::YesNo),
            };
            let by = format!("`{sign}`");
            let one = self.is(start, left, wanted, &by)?;
            self.skip();
            let start = self.at;
            let right = self.binary(level + 1)?;
            let other = self.is(start, right, wanted, &by)?;
            left = (Term::Two(operator, Box::new((one, other))), given);
        }
        Ok(left)
    }

    /// The operator of this level that comes next.
    fn operator(&mut self, level: u8) -> Option<(&'static str, Operator)> {
        self.skip();
        let rest = self.rest();
        if rest.starts_with("**") {
            return None;
        }
        let is_next = |sign: &str| match sign.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
            true => word(rest) == sign,
            false => rest.starts_with(sign),
        };
        let (sign, operator, found) = BINARY.into_iter().find(|(sign, ..)| is_next(sign))?;
        (found == level).then_some((sign, operator))
    }

    fn single(&mut self) -> Result<Typed, FormulaError> {
        self.skip();
        let (start, rest) = (self.at, self.rest());
        let Some(first) = rest.chars().next() else { return self.unexpected("a number or a name") };
        match first {
            '(' => {
                self.at += 1;
                let term = self.deeper(Self::choice)?;
                self.expect(")")?;
                Ok(term)
            }
            '-' | '+' => {
                self.at += 1;
                let term = self.deeper(Self::single)?;
                let term = self.is(start, term, Kind::Number, &format!("`{first}`"))?;
                Ok((if first == '-' { Term::Negative(Box::new(term)) } else { term }, Kind::Number))
            }
            '!' => {
                self.at += 1;
                self.not(start)
            }
            '0'..='9' | '.' => self.number(),
            '#' if self.has_element => {
                self.at += 1;
                Ok((Term::Element, Kind::Number))
            }
            '[' => self.refuse("a list stands only in the brackets of a function".to_owned()),
            _ if word(rest) == "not" => {
                self.at += "not".len();
                self.not(start)
            }
            _ => self.name(),
        }
    }

    fn not(&mut self, start: usize) -> Result<Typed, FormulaError> {
        let term = self.deeper(Self::single)?;
        Ok((Term::Not(Box::new(self.is(start, term, Kind::YesNo, "`not`")?)), Kind::YesNo))
    }

    fn number(&mut self) -> Result<Typed, FormulaError> {
        let rest = self.rest();
        let mut end = 0;
        let mut before = ' ';
        for letter in rest.chars() {
            let is_sign = matches!(letter, '+' | '-') && matches!(before, 'e' | 'E');
            if !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.') || is_sign) {
                break;
            }
            end += 1;
            before = letter;
        }
        let text = rest.get(..end).unwrap_or_default();
        let number: Option<f64> = text.replace('_', "").parse().ok();
        match number.filter(|number| number.is_finite()) {
            Some(number) => {
                self.at += end;
                Ok((Term::Number(number), Kind::Number))
            }
            None => self.refuse(format!("`{text}` is no number")),
        }
    }

    /// A name, or a call.
    fn name(&mut self) -> Result<Typed, FormulaError> {
        let name = word(self.rest());
        if name.is_empty() {
            return self.unexpected("a number or a name");
        }
        if REFUSED_WORDS.contains(&name) {
            return self.refuse(format!("`{name}` is not understood: there are numbers, names, operators and functions"));
        }
        let start = self.at;
        self.at += name.len();
        self.skip();
        if self.rest().starts_with('(') {
            self.at += 1;
            return self.call(start, name);
        }
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        Ok((Term::Name(index), Kind::Number))
    }

    fn call(&mut self, start: usize, name: &str) -> Result<Typed, FormulaError> {
        if let Some((_, quantifier)) = QUANTIFIERS.iter().find(|(known, _)| *known == name) {
            return self.over(*quantifier);
        }
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known = FUNCTIONS.iter().map(|(name, _)| *name).chain(QUANTIFIERS.iter().map(|(name, _)| *name));
            let known: Vec<_> = known.collect();
            self.at = start;
            return self.refuse(format!("there is no function `{name}`; there are {}", known.join(", ")));
        };
        let mut terms = self.numbers(name)?;
        while self.take(",") {
            terms.extend(self.numbers(name)?);
        }
        self.expect(")")?;
        let takes_many = matches!(function, Function::Min | Function::Max | Function::Sum | Function::Mean | Function::Median);
        if terms.len() != 1 && !takes_many {
            self.at = start;
            return self.refuse(format!("`{name}` takes one number, and there are {}", terms.len()));
        }
        Ok((Term::Call(*function, terms), Kind::Number))
    }

    /// A number, or a list of some.
    fn numbers(&mut self, by: &str) -> Result<Vec<Term>, FormulaError> {
        self.skip();
        if self.rest().starts_with('[') {
            return self.list(by);
        }
        let start = self.at;
        let term = self.deeper(Self::choice)?;
        Ok(vec![self.is(start, term, Kind::Number, &format!("`{by}`"))?])
    }

    fn list(&mut self, by: &str) -> Result<Vec<Term>, FormulaError> {
        self.expect("[")?;
        let mut terms = Vec::new();
        loop {
            self.skip();
            let start = self.at;
            let term = self.deeper(Self::choice)?;
            terms.push(self.is(start, term, Kind::Number, &format!("`{by}`"))?);
            if !self.take(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(terms)
    }

    /// A list and a predicate: `count([a, b], {# > 1})`.
    fn over(&mut self, quantifier: Quantifier) -> Result<Typed, FormulaError> {
        if self.has_element {
            return self.refuse("a predicate stands in no other predicate".to_owned());
        }
        let list = self.list("a list")?;
        self.expect(",")?;
        let has_braces = self.take("{");
        self.has_element = true;
        self.skip();
        let start = self.at;
        let predicate = self.deeper(Self::choice)?;
        self.has_element = false;
        let predicate = self.is(start, predicate, Kind::YesNo, "a predicate")?;
        if has_braces {
            self.expect("}")?;
        }
        self.expect(")")?;
        let kind = if quantifier == Quantifier::Count { Kind::Number } else { Kind::YesNo };
        Ok((Term::Over(quantifier, list, Box::new(predicate)), kind))
    }
}

/// The letters, digits and underscores that come first, if the first of them is no digit.
fn word(text: &str) -> &str {
    let end = text.find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '$'))).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    if word.starts_with(|letter: char| letter.is_ascii_digit()) { "" } else { word }
}
