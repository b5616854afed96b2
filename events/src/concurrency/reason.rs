//! Why a limit is what it is, with the numbers, as a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a limit is what it is. Latencies are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    /// The load did not reach it: the window says nothing.
    NotReached {
        /// How many were in flight, on average.
        in_flight: f64,
        /// Of how many.
        limit: u32,
    },
    /// Latency is as it was with fewer in flight: there is room.
    Growing {
        /// In this window.
        latency: f64,
    },
    /// Latency grows with what is in flight: fewer do as much.
    Shrinking {
        /// In this window.
        latency: f64,
    },
    /// Both are known: what the server does at most, and what a request takes without a queue.
    Found {
        /// Without a queue.
        latency: f64,
        /// Requests a second.
        throughput: f64,
    },
    /// One window shows what another limit would do.
    Probing {
        /// The limit before and after.
        level: u32,
    },
    /// The last window was not as expected; another one shows whether that was chance.
    Odd {
        /// In this window.
        latency: f64,
        /// As it was expected.
        expected: f64,
    },
    /// The server is not what it was: what was known of it is forgotten.
    Changed {
        /// In this window.
        latency: f64,
        /// As it was expected.
        expected: f64,
    },
    /// The server had too much to do, and said so.
    Overloaded {
        /// How many attempts were refused, turned away or not answered in time.
        overloaded: u32,
        /// Of how many that ended.
        ended: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotReached { in_flight, limit } => {
                write!(f, "the load did not reach the limit: {in_flight:.1} of {limit} were in flight on average")
            }
            Reason::Growing { latency } => {
                write!(f, "attempts take {} as they did with fewer in flight, so there is room for more", Span(*latency))
            }
            Reason::Shrinking { latency } => {
                write!(f, "attempts take {} and wait for each other, so fewer would do as much", Span(*latency))
            }
            Reason::Found { latency, throughput } => {
                let (span, knee) = (Span(*latency), latency * throughput);
                write!(
                    f,
                    "{throughput:.1} a second at most, times {span} that each takes without a queue, are {knee:.1} at a time"
                )
            }
            Reason::Probing { level } => write!(f, "one window to see what another limit than {level} does"),
            Reason::Odd { latency, expected } => {
                write!(f, "attempts took {} instead of {}; looking again", Span(*latency), Span(*expected))
            }
            Reason::Changed { latency, expected } => {
                write!(f, "attempts take {} instead of {}: measuring anew", Span(*latency), Span(*expected))
            }
            Reason::Overloaded { overloaded, ended } => {
                write!(f, "{overloaded} of {ended} attempts were refused, turned away or not answered in time")
            }
        }
    }
}

/// Seconds with three digits that mean something.
struct Span(f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 * 1e6;
        match micros {
            _ if micros < 9_995.0 => write!(f, "{:.2} ms", micros / 1e3),
            _ if micros < 999_500.0 => write!(f, "{:.0} ms", micros / 1e3),
            _ => write!(f, "{:.2} s", micros / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_its_numbers() {
        let found = Reason::Found { latency: 0.1953, throughput: 41.2 };
        assert_eq!(found.to_string(), "41.2 a second at most, times 195 ms that each takes without a queue, are 8.0 at a time");
        let changed = Reason::Changed { latency: 1.5, expected: 0.0052 };
        assert_eq!(changed.to_string(), "attempts take 1.50 s instead of 5.20 ms: measuring anew");
    }
}
