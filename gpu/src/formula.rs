//! Small integer formulas over named dimensions: `ceil(n / 256)`, `min(rows, 1024)`, `4 * k`.
//!
//! Numbers are whole and never negative; every step is checked, so a formula has a value or says which step has none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::GpuError;

/// Values by name.
pub type Names = BTreeMap<String, u64>;

/// A formula, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Formula {
    text: String,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    Number(u64),
    Name(String),
    Binary(Operator, Box<Node>, Box<Node>),
    /// A quotient rounded up: `ceil(a / b)`.
    Ceil(Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
}

/// How deep parentheses and calls may nest, so that no text exhausts the stack.
const DEPTH_MAX: u32 = 32;
/// How long a formula may be, in bytes.
const LENGTH_MAX: usize = 256;

impl Formula {
    /// The formula that is this number.
    pub fn number(value: u64) -> Self {
        Self { text: value.to_string(), root: Node::Number(value) }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The one name it consists of, if it is nothing else.
    pub fn as_name(&self) -> Option<&str> {
        if let Node::Name(name) = &self.root { Some(name) } else { None }
    }

    /// The number it consists of, if it is nothing else.
    pub fn as_number(&self) -> Option<u64> {
        if let Node::Number(number) = self.root { Some(number) } else { None }
    }

    /// The names in it.
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.root.collect(&mut names);
        names
    }

    /// Its value.
    ///
    /// # Errors
    ///
    /// When a name has no value, or a step is negative, divides by zero or does not fit 64 bits.
    pub fn value(&self, names: &Names) -> Result<u64, GpuError> {
        self.root.value(names).map_err(|why| GpuError::refused(format!("formula `{}`: {why}", self.text)))
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Formula {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        let wrong = |why: String| {
            let known = "numbers, names, + - * / %, parentheses, ceil(a / b), min(a, b) and max(a, b)";
            GpuError::refused(format!("formula `{text}`: {why}; it may have {known}"))
        };
        if text.len() > LENGTH_MAX {
            return Err(GpuError::refused(format!("a formula of {} bytes: it may have {LENGTH_MAX}", text.len())));
        }
        let mut parser = Parser { rest: text, depth: 0 };
        let root = parser.sum().and_then(|root| if parser.peek().is_none() { Ok(root) } else { Err(parser.unexpected()) });
        Ok(Self { text: text.trim().to_owned(), root: root.map_err(wrong)? })
    }
}

impl Node {
    fn collect<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::Number(_) => {}
            Self::Name(name) => {
                names.insert(name);
            }
            Self::Binary(_, left, right) | Self::Ceil(left, right) => {
                left.collect(names);
                right.collect(names);
            }
        }
    }

    fn value(&self, names: &Names) -> Result<u64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(name) => names.get(name).copied().ok_or_else(|| format!("nothing binds `{name}`")),
            Self::Ceil(left, right) => match (left.value(names)?, right.value(names)?) {
                (a, 0) => Err(format!("{a} / 0")),
                (a, b) => Ok(a.div_ceil(b)),
            },
            Self::Binary(operator, left, right) => {
                let (a, b) = (left.value(names)?, right.value(names)?);
                let (sign, value) = match operator {
                    Operator::Add => ("+", a.checked_add(b)),
                    Operator::Subtract => ("-", a.checked_sub(b)),
                    Operator::Multiply => ("*", a.checked_mul(b)),
                    Operator::Divide => ("/", a.checked_div(b)),
                    Operator::Remainder => ("%", a.checked_rem(b)),
                    Operator::Min => ("min", Some(a.min(b))),
                    Operator::Max => ("max", Some(a.max(b))),
                };
                value.ok_or_else(|| format!("{a} {sign} {b} has no value in 64 bits without sign"))
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn unexpected(&mut self) -> String {
        self.peek().map_or_else(|| "it ends too early".to_owned(), |found| format!("unexpected `{found}`"))
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) { Ok(()) } else { Err(format!("{}, wanted `{wanted}`", self.unexpected())) }
    }

    fn sum(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => break,
            };
            self.rest = &self.rest[1..];
            left = Node::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, String> {
        let mut left = self.atom()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Multiply,
                Some('/') => Operator::Divide,
                Some('%') => Operator::Remainder,
                _ => return Ok(left),
            };
            self.rest = &self.rest[1..];
            left = Node::Binary(operator, Box::new(left), Box::new(self.atom()?));
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn atom(&mut self) -> Result<Node, String> {
        match self.peek() {
            Some('0'..='9') => {
                let digits = self.word(|c| c.is_ascii_digit());
                digits.parse().map(Node::Number).map_err(|_| format!("{digits} does not fit 64 bits"))
            }
            Some('a'..='z' | 'A'..='Z' | '_') => {
                let name = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
                if self.peek() == Some('(') { self.call(name) } else { Ok(Node::Name(name.to_owned())) }
            }
            Some('(') => {
                self.expect('(')?;
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn call(&mut self, name: &str) -> Result<Node, String> {
        self.expect('(')?;
        let first = self.sum()?;
        let node = match name {
            "ceil" => match first {
                Node::Binary(Operator::Divide, left, right) => Node::Ceil(left, right),
                Node::Number(_) | Node::Name(_) | Node::Ceil(..) | Node::Binary(..) => {
                    return Err("ceil takes one quotient, as in ceil(n / 256)".to_owned());
                }
            },
            "min" | "max" => {
                self.expect(',')?;
                let operator = if name == "min" { Operator::Min } else { Operator::Max };
                Node::Binary(operator, Box::new(first), Box::new(self.sum()?))
            }
            _ => return Err(format!("unknown function `{name}`")),
        };
        self.expect(')')?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<u64, GpuError> {
        let names = Names::from([("n".to_owned(), 1000), ("k".to_owned(), 7)]);
        text.parse::<Formula>()?.value(&names)
    }

    #[test]
    fn formulas_have_the_values_of_arithmetic() {
        for (text, wanted) in [
            ("256", 256),
            ("n", 1000),
            ("ceil(n / 256)", 4),
            ("n/256", 3),
            ("n % 256", 232),
            ("2 + 3 * 4", 14),
            ("(2 + 3) * 4", 20),
            ("10 - 3 - 2", 5),
            ("100 / 10 / 5", 2),
            ("min(n, k) + max(n, k)", 1007),
            ("ceil(ceil(n / k) / 2)", 72),
            ("  n\t*k ", 7000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(value(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_says_at_which_step() {
        for (text, wanted) in [
            ("m", "nothing binds `m`"),
            ("k - n", "7 - 1000"),
            ("n / 0", "1000 / 0"),
            ("ceil(n / (k - 7))", "1000 / 0"),
            ("n % 0", "1000 % 0"),
            ("18446744073709551615 + 1", "18446744073709551615 + 1"),
            ("n * 18446744073709551615", "1000 * 18446744073709551615"),
        ] {
            let error = value(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_formula_is_refused() {
        for text in [
            "",
            "n +",
            "n n",
            "ceil(n)",
            "ceil(n * 2)",
            "round(n / 2)",
            "min(n)",
            "(n",
            "n)",
            "-1",
            "1.5",
            "18446744073709551616",
            "n ^ 2",
            "é",
        ] {
            assert!(text.parse::<Formula>().is_err(), "{text}");
        }
        assert!("(".repeat(200).parse::<Formula>().unwrap_err().to_string().contains("nested"));
        assert!("1+".repeat(500).parse::<Formula>().unwrap_err().to_string().contains("1000 bytes"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ 0-9nk+*/%(),a-z-]{0,60}") {
            let _ = value(&text);
        }

        #[test]
        fn ceil_is_the_smallest_number_of_blocks(n in 0u64..1 << 40, block in 1u64..5000) {
            let blocks = format!("ceil({n} / {block})").parse::<Formula>().unwrap().value(&Names::new()).unwrap();
            prop_assert!(blocks * block >= n && (blocks == 0 || (blocks - 1) * block < n));
        }
    }
}
