//! How many replicas a pool should have: policies that turn what was observed into a decision that explains itself.
//!
//! [`Policy::evaluate`] takes settings, a memory and an [`Observation`], and gives a [`Decision`]. It reads no clock and changes nothing but the
//! memory, so a decision in the log can be made again from what the log holds, and a past day can be run under another policy.
//!
//! ```
//! use ergate_events::scaling::signal::{Bounds, Observation, Reading, Replicas, Signal, Value};
//! use ergate_events::scaling::{AnyPolicy, Memory, Policy, rate::Rate};
//! use ergate_events::time::Timestamp;
//!
//! let signal = |name: &str, value| Signal { name: name.to_owned(), reading: Reading::Value(Value::Integer(value)) };
//! let observation = Observation {
//!     at: Timestamp(1_772_366_400_000_000),
//!     bounds: Bounds { min: 0, max: 20 },
//!     ceiling: None,
//!     replicas: Replicas { slots: 1, ..Replicas::default() },
//!     // 7 tasks arrive a second and take 2 s each: 14 busy slots, 20 where slots are to be busy for 70 % of the time.
//!     signals: vec![signal("ready", 0), signal("arrivals_per_s", 7), signal("service_s_mean", 2), signal("start_s_mean", 5)],
//!     pods: None,
//! };
//! let policy = AnyPolicy::Rate(Rate::default());
//! let decision = policy.evaluate(&mut Memory::default(), &observation);
//! assert_eq!(decision.wanted, 20);
//! ```

pub mod composite;
pub mod decision;
pub mod formula;
pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod looks;
pub mod measure;
pub mod needs;
pub mod points;
pub mod policy;
pub mod rate;
pub mod real;
mod sentence;
pub mod setting;
pub mod signal;
pub mod step;
pub mod target_tracking;
pub mod threshold;
pub mod usage;

pub use decision::Decision;
pub use policy::{AnyPolicy, Cadence, Memory, Policy};
pub use signal::Observation;
