//! What another policy would have cost, and how long tasks would have waited: a day of arrivals run again in simulated time.
//!
//! [`run`] takes [`Arrivals`] and a [`Setup`] and gives a [`Report`]. It calls the same [`Policy::evaluate`](crate::scaling::Policy::evaluate) as
//! a live pool does, shows it nothing that had not happened by that moment, and goes from event to event instead of from second to second. It
//! reads no clock and no file and draws no lots, so a report can be made again bit for bit; its digest says that it is the same one.
//!
//! What is assumed: a task takes as long as it took, whoever does it and however many others there are; tasks start in the order of priority,
//! then arrival; a replica takes the same time to start each time, and is billed from the request to its exit.
//!
//! ```
//! use ergate_events::backtest::{self, Arrival, Arrivals, Setup, bounds};
//! use ergate_events::scaling::{AnyPolicy, rate::Rate, signal::Bounds};
//! use ergate_events::time::{Micros, Timestamp};
//!
//! // A task every second for ten minutes, each of which takes 5 s.
//! let tasks = (0..600).map(|second| Arrival::new(Micros::from_secs(second), Micros::from_secs(5))).collect();
//! let arrivals = Arrivals::new(Timestamp(1_772_366_400_000_000), tasks)?;
//! let setup = Setup { start: Micros::from_secs(30), ..Setup::new(AnyPolicy::Rate(Rate::default()), Bounds { min: 0, max: 20 }) };
//! let report = backtest::run(&arrivals, &setup)?;
//! let least = bounds::work_floor(&arrivals, setup.slots);
//! assert_eq!(report.tasks, 600);
//! assert!(report.billed >= least);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrivals;
mod bits;
pub mod bounds;
mod fleet;
pub mod history;
mod meter;
mod pareto;
mod queue;
mod report;
mod series;
mod setup;
mod signals;
mod simulation;
pub mod trace;

pub use arrivals::{Arrival, Arrivals, ArrivalsError, Retry};
pub use pareto::{Score, front};
pub use report::{Report, Shares, Waits};
pub use series::Point;
pub use setup::{Change, Setup, SetupError};
pub use signals::names;
pub use simulation::{BacktestError, run, run_with};
