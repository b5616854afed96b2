//! Read models: each a fold of the same envelopes, rebuilt from position zero at any time, and true up to a position that it names.

pub mod cost;
pub mod histogram;
pub mod observed;
pub mod progress;
pub mod spans;
pub mod tally;
mod waiting;

pub use cost::ReplicaTime;
pub use histogram::Histogram;
pub use observed::Observed;
pub use progress::Progress;
pub use spans::Spans;
pub use tally::Tally;
